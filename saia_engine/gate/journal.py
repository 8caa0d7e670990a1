"""The gate's own log: syslog where there is one, else nowhere. Standard library alone."""

import os
import sys
import syslog
import traceback
from pathlib import Path

SOCKET = Path("/dev/log")


def note(text, priority=syslog.LOG_NOTICE):
    """One line with who is connected; never fails."""
    try:
        if SOCKET.exists():
            peer = shown(os.environ.get("SSH_CONNECTION", "local"))
            syslog.openlog("saia-gate", syslog.LOG_PID, syslog.LOG_AUTH)
            syslog.syslog(priority, f"{text} [{peer}]")
    except Exception:
        pass


def shown(value, limit=200):
    """What came from outside, as printable ASCII."""
    text = ascii(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def note_crash(*exc_info):
    """For `sys.excepthook`."""
    lines = traceback.format_exception(*exc_info)
    note("crashed: " + shown("".join(lines)[-1500:], 1800), syslog.LOG_ERR)


def take_over():
    """Send uncaught exceptions there too."""
    sys.excepthook = note_crash
