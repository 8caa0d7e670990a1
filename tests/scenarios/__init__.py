"""Scenario scripts that end alike on a real Slurm and on a simulated one; see `port`."""
