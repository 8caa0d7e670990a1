"""The demo's configuration files are sound, and the sample that explains them says the same."""

from __future__ import annotations

import tempfile
from pathlib import Path

from saia_engine import config
from saia_engine.demo.site import MODELS, NORMAL, PROXY, engine_toml, proxy_toml
from saia_proxy import config as proxy_config

SAMPLE = Path(__file__).parents[2] / "sample_configs/local-demo/engine.toml"


def test_the_demo_is_the_sample() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:  # a socket's path must be short
        file = Path(directory) / "engine.toml"
        file.write_text(engine_toml(NORMAL))
        made, sample = config.load(file), config.load(SAMPLE)
    for field in ("name", "kind", "services", "local", "proxies", "poll_interval_s", "port_range"):
        assert getattr(made, field) == getattr(sample, field), field
    assert {model for service in made.services.values() for model in service.models} == set(MODELS)
    assert PROXY in made.proxies


def test_a_stream_that_is_taken_last_ends_whole() -> None:
    assert NORMAL.stream_s[1] < NORMAL.admission_margin_s <= NORMAL.drain_deadline_s


def test_the_proxy_starts_the_gate_for_its_name(tmp_path: Path) -> None:
    file = tmp_path / "proxy.toml"
    file.write_text(proxy_toml(Path("/tmp/with space/routes.json"), proxy_config.new_key()[1]))
    (upstream,) = proxy_config.load(file).upstreams
    assert isinstance(upstream, proxy_config.SubprocessUpstream)
    assert upstream.command[-4:] == ("--routes", "/tmp/with space/routes.json", "--proxy", PROXY)
