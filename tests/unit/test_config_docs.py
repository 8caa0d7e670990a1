"""docs/configuration.md names every key, with the default that the program has."""

import re
import tomllib
from pathlib import Path

import pytest

from saia_engine.config import tables
from saia_engine.edge import words
from saia_proxy import config as proxy_config

TEXT = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text(encoding="utf-8")
SECTIONS = {
    "[cluster]": tables.ClusterTable,
    "[local]": tables.LocalTable,
    "[record]": tables.RecordTable,
    "[services.NAME] and [defaults]": tables.ServiceTable,
    "[services.NAME.readiness]": tables.ReadinessTable,
    "[services.NAME.liveness]": tables.LivenessTable,
    "[proxies.NAME]": tables.ProxyTable,
    "[server]": proxy_config._Server,
    "[[upstreams]]": proxy_config._Upstream,
    "[timeouts]": proxy_config._Timeouts,
    "[queue] and [queue.services.NAME]": proxy_config._QueueRule,
    "[keys.NAME]": proxy_config._Key,
}


def rows(section: str) -> dict[str, str]:
    """Key -> default, as the section's tables write them."""
    body = TEXT.split(f"## {section}\n", 1)[1].split("\n## ", 1)[0].split("\n# ", 1)[0]
    found = {}
    for line in body.splitlines():
        if line.startswith("| `"):
            keys, default = (cell.strip() for cell in line.split("|")[1:3])
            found |= dict.fromkeys(re.findall(r"`([a-z_]+)`", keys), default.strip("`"))
    return found


@pytest.mark.parametrize("section", SECTIONS)
def test_every_key_is_documented_and_no_other(section: str) -> None:
    assert set(rows(section)) == set(SECTIONS[section].model_fields)


@pytest.mark.parametrize("section", SECTIONS)
def test_documented_defaults_are_the_programs(section: str) -> None:
    model = SECTIONS[section]
    for key, cell in rows(section).items():
        default = getattr(model(), key)
        try:
            value = tomllib.loads(f"x = {cell}")["x"]
        except tomllib.TOMLDecodeError:
            assert not default, f"{key}: the page says '{cell}', the program {default!r}"
        else:
            assert getattr(model.model_validate({key: value}), key) == default, key


def test_every_allowed_option_is_listed() -> None:
    listed = TEXT.split("These are allowed:", 1)[1].split("Those with a key", 1)[0]
    assert set(re.findall(r"`(--[a-z-]+)`", listed)) == set(words.SBATCH_OPTIONS)
