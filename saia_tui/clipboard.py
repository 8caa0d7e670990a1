"""Text for the clipboard of the operator's own machine, through terminal, SSH and multiplexer: OSC 52."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping
from typing import Final

TMUX_ANSWERS_S: Final = 2.0
SCREENS_ROOM: Final = 240
"""GNU screen takes no longer string at once."""


def sequence(words: str, environ: Mapping[str, str]) -> str:
    """What makes the terminal take the text; inside a multiplexer also as what it hands on unread."""
    plain = f"\x1b]52;c;{base64.b64encode(words.encode()).decode()}\x07"
    if environ.get("TMUX"):
        # The first is for `set-clipboard on`, the second for `allow-passthrough on`.
        return plain + "\x1bPtmux;" + plain.replace("\x1b", "\x1b\x1b") + "\x1b\\"
    if environ.get("STY"):
        parts = (plain[at : at + SCREENS_ROOM] for at in range(0, len(plain), SCREENS_ROOM))
        return "".join(f"\x1bP{part}\x1b\\" for part in parts)
    return plain


async def tell_tmux(words: str) -> bool:
    """Into tmux's own buffer, which it also offers to the terminal; as it comes, tmux heeds no program's OSC 52."""
    try:
        process = await asyncio.create_subprocess_exec(
            "tmux",
            "load-buffer",
            "-w",
            "-",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
    except OSError:
        return False
    try:
        await asyncio.wait_for(process.communicate(words.encode()), TMUX_ANSWERS_S)
    except (TimeoutError, OSError):
        if process.returncode is None:
            process.kill()
            await process.wait()
        return False
    return process.returncode == 0
