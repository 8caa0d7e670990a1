"""The gate's event loop: whether what is ready in this turn is ready alone."""

from __future__ import annotations

import os

from saia_engine.gate.turn import Loop


def test_one_ready_descriptor_is_alone_and_two_are_not():
    loop = Loop()
    pipes = [os.pipe() for _ in range(2)]
    found: list[bool] = []
    wanted = 0

    def read(descriptor: int) -> None:
        os.read(descriptor, 10)
        found.append(loop.alone())
        if len(found) == wanted:
            loop.stop()

    def look(written: int) -> list[bool]:
        nonlocal wanted
        found.clear()
        wanted = written
        for _, writer in pipes[:written]:
            os.write(writer, b"x")
        loop.run_forever()
        return list(found)

    try:
        for reader, _ in pipes:
            loop.add_reader(reader, read, reader)
        assert look(1) == [True]
        assert look(2) == [False, False]
    finally:
        loop.close()
        for descriptor in (end for pipe in pipes for end in pipe):
            os.close(descriptor)
