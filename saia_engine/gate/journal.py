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


def note_failure(request, instance, why):
    """Of a request that a proxy can't tell more of than a code; its id is in the proxy's log, too."""
    note(f"request {shown(request, 130)} to {shown(instance)} failed: {shown(why)}", syslog.LOG_WARNING)


def shown(value, limit=200):
    """What came from outside, as printable ASCII."""
    text = ascii(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def note_crash(*exc_info):
    """For `sys.excepthook`."""
    note("crashed: " + _traceback(exc_info), syslog.LOG_ERR)


def note_fault(request, *exc_info):
    """A fault of ours that ended one request."""
    note(f"request {shown(request, 130)} met a fault: {_traceback(exc_info)}", syslog.LOG_ERR)


def _traceback(exc_info):
    return shown("".join(traceback.format_exception(*exc_info))[-1500:], 1800)


def take_over():
    """Send uncaught exceptions there too."""
    sys.excepthook = note_crash
