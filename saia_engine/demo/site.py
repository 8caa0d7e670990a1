"""The demo's configuration files: an engine on four declared nodes, and a proxy that starts its gate itself."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

MODELS = ("demo-chat", "demo-embed")
PROXY = "demo"
EMBED_LATER_S = 8
"""So that not all hand-overs fall together."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast the demo lives, in seconds. A stream must be shorter than `admission_margin_s`."""

    time_limit_s: int = 60
    lead_floor_s: int = 6
    drain_deadline_s: int = 25
    admission_margin_s: int = 22
    stream_s: tuple[float, float] = (10.0, 20.0)
    defaults: tuple[str, ...] = ()
    """More lines for that table of the engine's configuration."""


NORMAL = Pace()


def engine_toml(pace: Pace) -> str:
    """As sample_configs/local-demo, which says what each key is for. Relative paths start at the file's place."""
    more = "".join(f"{line}\n" for line in pace.defaults)
    return f"""\
[cluster]
name = "laptop"
kind = "local"
shared_dir = "run/shared"
state_dir = "run/state"
runtime_dir = "run/sockets"
poll_interval = "1s"
port_range = [21000, 21199]
submits_per_hour = 5000

[local]
nodes = 4
gpus_per_node = 4
cpus_per_node = 16
memory_per_node = "64GiB"

[defaults]
listen = "socket"
gpus = 1
cpus = 1
replicas = 2
min_available = 1
time_limit = "{pace.time_limit_s}s"
lead_floor = "{pace.lead_floor_s}s"
min_ready = "1s"
drain_deadline = "{pace.drain_deadline_s}s"
admission_margin = "{pace.admission_margin_s}s"
safety_margin = "2s"
{more}
[services.chat]
models = ["demo-chat"]
command = {_server("demo-chat")}
gpus = 2

[services.embed]
models = ["demo-embed"]
command = {_server("demo-embed")}
time_limit = "{pace.time_limit_s + EMBED_LATER_S}s"

[proxies.{PROXY}]
services = ["*"]
"""


def _server(model: str) -> str:
    return _strings(["{saia_python}", "-m", "saia_engine.demo.llm", "--uds", "{socket}", "--model", model])


def proxy_toml(routes: Path, key_hash: str) -> str:
    """One key, any free port, and the real gate as a child instead of behind sshd."""
    gate = [sys.executable, "-I", "-m", "saia_engine.gate", "--routes", str(routes), "--proxy", PROXY]
    return f"""\
[server]
port = 0
state_dir = "run/proxy"

[[upstreams]]
name = "laptop"
transport = "subprocess"
command = {_strings(gate)}

[keys.demo]
hash = "{key_hash}"
"""


def _strings(words: Sequence[str]) -> str:
    # A list of strings in JSON is one in TOML as well.
    return json.dumps(words)
