"""One ssh exec for each request, over one multiplexed OpenSSH connection: a dash script that calls curl."""

from __future__ import annotations

from bench import exchange
from bench.job import Target
from bench.paths import Path
from bench.site import Site, program

SCRIPT = """\
#!{dash}
exec {curl} --silent --no-buffer --fail-with-body -H 'Content-Type: application/json' --data-binary @- {url}
"""


def open_path(site: Site) -> Path:
    """Raises Unavailable."""
    dash, curl = program("dash", "dash"), program("curl", "curl")
    account, key = site.sshd.account(shell=dash), site.sshd.key()
    script = site.sshd.directory / "exec"
    url = f"http://127.0.0.1:{site.service_port}{exchange.CHAT}"
    script.write_text(SCRIPT.format(dash=dash, curl=curl, url=url))
    script.chmod(0o755)
    site.sshd.authorize(account, f'restrict,command="{script}" {key.public.strip()}')
    control = site.directory / "mux"
    shared = ("-o", f"ControlPath={control}")
    site.start(
        "ssh-master", site.sshd.command(account, key, options=("-N", "-o", "ControlMaster=yes", *shared))
    )
    site.wait("the multiplexed connection", control.exists)

    def parts() -> dict[str, list[int]]:
        return {
            "ssh": site.pids("ssh", "ControlMaster=yes"),
            "sshd, dash, curl": site.sessions(account),
            "service": site.service_pids(),
        }

    # ControlMaster=no: nobody may open a connection of his own when the shared one is full.
    command = site.sshd.command(account, key, options=("-o", "ControlMaster=no", "-T", *shared))
    return Path("exec", Target(command=tuple(command)), parts)
