"""A whole site in virtual time: Slurm, shared files, agents, network, gates and clients around the real engine.

`truth` is what really happens there, and all that the oracle sees.
"""
