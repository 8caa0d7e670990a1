"""Python's collector of cycles, for a server of many requests."""

import gc

ALLOCATIONS = 20_000
"""More objects made than freed, after which it looks for cycles: a request makes some hundreds. Python's own is 700."""


def settle() -> None:
    """What was loaded until now stays, and need not be looked through again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(ALLOCATIONS)
