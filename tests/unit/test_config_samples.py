"""Every sample loads, says what it must, and stays valid as the program changes."""

import shutil
from pathlib import Path

import pytest

from saia_engine import config
from saia_engine.planner import timeline
from saia_proxy import config as proxy_config

SAMPLES = Path(__file__).parents[2] / "sample_configs"


@pytest.mark.parametrize("file", sorted(SAMPLES.glob("*/engine.toml")), ids=lambda file: file.parent.name)
def test_engine_samples_load(file: Path) -> None:
    loaded = config.load(file)
    assert loaded.services
    assert loaded.proxies
    assert config.check_lines(loaded)


def test_there_is_a_sample_for_each_kind_of_site() -> None:
    assert {file.parent.name for file in SAMPLES.glob("*/*.toml")} == {
        "local-demo",
        "slurm-minimal",
        "vllm",
        "multi-node",
        "proxy",
        "tui",
    }


def test_the_local_demo_hands_over_within_the_minute() -> None:
    loaded = config.load(SAMPLES / "local-demo" / "engine.toml")
    assert loaded.kind == "local"
    assert len(loaded.services) == 2
    used = 0
    for service in loaded.services.values():
        assert service.replicas == 2
        assert 60 <= service.launch.time_limit_s <= 70
        assert timeline.shortest_time_limit(service.timing, loaded.poll_interval_s) == 36
        used += 2 * service.replicas * int(service.launch.gres.rpartition(":")[2])
    assert used <= loaded.local.nodes * loaded.local.gpus_per_node, "no room for the replacements"


def test_the_proxy_sample_loads_once_its_key_is_there(tmp_path: Path) -> None:
    file = tmp_path / "proxy.toml"
    shutil.copy(SAMPLES / "proxy" / "proxy.toml", file)
    with pytest.raises(config.ConfigFaults) as caught:
        proxy_config.load(file)
    assert {fault.key for fault in caught.value.faults} == {
        f"upstreams[{index}].{key}" for index in (0, 1) for key in ("key", "known_hosts")
    }
    (tmp_path / "id_ed25519").touch(mode=0o600)
    for name in ("id_ed25519", "known_hosts"):
        (tmp_path / name).write_text("x\n", encoding="utf-8")
    loaded = proxy_config.load(file)
    assert [upstream.name for upstream in loaded.upstreams] == ["login1", "login2"]
