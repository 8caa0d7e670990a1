"""Bugs planted on purpose, to show that the oracle finds what it is there for.

Each is a change of a few lines of the production code, made while a module is imported and nowhere else: `bugs` lists
them, `soil` plants one, `plugin` runs the unit tests with it, `hunt` lets the simulator find it.
"""
