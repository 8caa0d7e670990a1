"""What sshd was asked to run, read by hand, and the one line that answers a no. Standard library alone."""

import os
import re

KEPT = ("SSH_ORIGINAL_COMMAND", "SSH_CONNECTION", "SAIA_LIFELINE_FD")
VERBS = ("ping", "relay")
OK, FAILED, REFUSED = 0, 1, 6
NAME = re.compile("[a-z0-9][a-z0-9_-]{0,63}")


class Refused(Exception):
    """Not one of the two things that a gate does."""


def parse(argv, original):
    """(routes path, proxy name, verb) of a command line and SSH_ORIGINAL_COMMAND. Raises Refused."""
    if len(argv) not in (4, 5) or argv[0] != "--routes" or argv[2] != "--proxy":
        raise Refused("usage")
    given = argv[4:] if original is None else [original, *argv[4:]]
    if len(given) != 1 or given[0] not in VERBS:
        raise Refused("verb")
    if not argv[1].startswith("/") or "\0" in argv[1]:
        raise Refused("routes")
    if not NAME.fullmatch(argv[3]):
        raise Refused("proxy")
    return argv[1], argv[3], given[0]


def say(line):
    """One line to the peer, who may be gone."""
    try:
        os.write(1, line.encode("ascii", "replace") + b"\n")
    except OSError:
        pass


def silence_stderr():
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    os.close(null)
