"""nginx before `ssh -L`: the least that a site could put between, without keys, balancing or hand-over.

One worker, connections to the service kept alive, nothing buffered, an access log as ours has one.
"""

from __future__ import annotations

import subprocess

from bench.job import Target
from bench.paths import Path
from bench.site import Site, free_port, listens, program

CONFIG = """\
worker_processes 1;
worker_rlimit_nofile 16384;
pid {dir}/nginx.pid;
error_log {dir}/nginx-error.log;
events {{ worker_connections 8192; }}
http {{
    access_log {dir}/nginx-access.log;
    client_body_temp_path {dir}/nginx-body;
    proxy_temp_path {dir}/nginx-proxy;
    fastcgi_temp_path {dir}/nginx-fastcgi;
    uwsgi_temp_path {dir}/nginx-uwsgi;
    scgi_temp_path {dir}/nginx-scgi;
    client_max_body_size 100m;
    keepalive_requests 10000000;
    upstream tunnel {{
        server 127.0.0.1:{tunnel};
        keepalive 512;
        keepalive_requests 10000000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=2048;
        location / {{
            proxy_pass http://tunnel;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
            proxy_request_buffering off;
        }}
    }}
}}
"""


def open_path(site: Site) -> Path:
    """Raises Unavailable."""
    nginx = program("nginx", "nginx-light")
    account, key = site.sshd.account(), site.sshd.key()
    site.sshd.authorize(account, key.public.strip())
    tunnel, port = free_port(), free_port()
    forward = (
        "-N",
        "-o",
        "ExitOnForwardFailure=yes",
        "-L",
        f"127.0.0.1:{tunnel}:127.0.0.1:{site.service_port}",
    )
    site.start("ssh-L", site.sshd.command(account, key, options=forward))
    site.wait("ssh -L", lambda: listens(tunnel))
    config = site.directory / "nginx.conf"
    config.write_text(CONFIG.format(dir=site.directory, tunnel=tunnel, port=port))
    site.start("nginx", [nginx, "-c", str(config), "-g", "daemon off;"])
    site.wait("nginx", lambda: listens(port))

    def parts() -> dict[str, list[int]]:
        return {
            "nginx": site.pids("nginx"),
            "ssh": site.pids("ssh", "-L", str(tunnel)),
            "sshd": site.sessions(account),
            "service": site.service_pids(),
        }

    said = subprocess.run([nginx, "-v"], capture_output=True, text=True).stderr
    return Path("nginx", Target("127.0.0.1", port), parts, said.strip().rpartition("/")[2])
