"""The forced command: `python -I -m saia_engine.gate --routes PATH --proxy NAME`, started by sshd.

The verb is in SSH_ORIGINAL_COMMAND, or is the last argument where no sshd is. Until it is known to be one of two
words, nothing beyond the standard library is imported. Nothing is ever written to stderr: sshd would pass it on.
"""

import os
import sys

from saia_engine.gate.command import KEPT, REFUSED, parse, say, silence_stderr
from saia_engine.gate.journal import note, shown


def main():
    """The exit code."""
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    os.environ.clear()
    os.environ.update(kept)
    try:
        silence_stderr()
        routes, proxy, verb = parse(sys.argv[1:], kept.get("SSH_ORIGINAL_COMMAND"))
    except Exception as exc:
        note(
            f"refused {shown(kept.get('SSH_ORIGINAL_COMMAND'))} ({shown(str(exc))}) to {shown(sys.argv[1:])}"
        )
        say("saia-gate: refused")
        return REFUSED
    if verb == "ping":
        from saia_engine.gate.ping import ping

        code, line = ping(routes, proxy)
        say(line)
        return code
    from saia_engine.gate import own_code

    code = own_code.installed()  # as it is before the rest of it is loaded
    from saia_engine.gate.start import start

    return start(routes, proxy, code)


if __name__ == "__main__":
    # A thread may hang on a file system that does not answer: leave without it.
    os._exit(main())
