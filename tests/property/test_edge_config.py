"""Whatever the file holds: a configuration, or faults as safe lines. Never a traceback."""

import tempfile
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from saia_engine import config
from saia_engine.config import ConfigFaults
from saia_engine.config.tables import ClusterTable, LocalTable, ProxyTable, ServiceTable
from saia_proxy import config as proxy_config

SAMPLES = Path(__file__).parents[2] / "sample_configs"
DIRECTORY = Path(tempfile.gettempdir())

WORDS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    st.sampled_from(
        [
            "",
            "1h",
            "5m",
            "0s",
            "64G",
            "*",
            "-x",
            "a",
            "{socket}",
            "gpu:2",
            "/v1/",
            "~x",
            "socket",
            "local",
            "ssh",
        ]
    ),
)
SCALARS = st.one_of(
    WORDS, st.booleans(), st.integers(), st.integers(-5, 70000), st.floats(), st.just(10**400)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(WORDS, inner, max_size=3)),
    max_leaves=6,
)


def keys_of(*tables: type) -> st.SearchStrategy[str]:
    return st.one_of(st.sampled_from([key for table in tables for key in table.model_fields]), WORDS)


def table(*tables: type) -> st.SearchStrategy[Any]:
    return st.one_of(st.dictionaries(keys_of(*tables), VALUES, max_size=8), VALUES)


ENGINE = st.fixed_dictionaries(
    {},
    optional={
        "cluster": table(ClusterTable),
        "defaults": table(ServiceTable),
        "local": table(LocalTable),
        "services": st.one_of(st.dictionaries(WORDS, table(ServiceTable), max_size=3), VALUES),
        "proxies": st.one_of(st.dictionaries(WORDS, table(ProxyTable), max_size=3), VALUES),
        "other": VALUES,
    },
)
PROXY = st.fixed_dictionaries(
    {},
    optional={
        "server": table(proxy_config._Server),
        "upstreams": st.one_of(st.lists(table(proxy_config._Upstream), max_size=3), VALUES),
        "timeouts": table(proxy_config._Timeouts),
        "keys": st.one_of(st.dictionaries(WORDS, table(proxy_config._Key), max_size=3), VALUES),
    },
)


def toml(value: Any) -> str:
    """As an inline TOML value."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + "".join(f"\\U{ord(char):08x}" for char in value) + '"'
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(key)} = {toml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return hex(value) if isinstance(value, int) and value >= 0 else repr(value)


def document(tables: dict[str, Any]) -> str:
    return "".join(f"{toml(key)} = {toml(value)}\n" for key, value in tables.items())


def loads_or_says_why(load: Callable[[Path], Any], lines: Callable[[Any], list[str]], data: bytes) -> None:
    with tempfile.NamedTemporaryFile(dir=DIRECTORY, suffix=".toml") as file:
        file.write(data)
        file.flush()
        try:
            printed = lines(load(Path(file.name)))
        except ConfigFaults as faults:
            printed = str(faults).splitlines()
            assert len(printed) == len(faults.faults) > 0
    assert not [char for line in printed for char in line if unicodedata.category(char) in ("Cc", "Cf", "Cs")]


def engine(data: bytes) -> None:
    loads_or_says_why(config.load, config.check_lines, data)


def proxy(data: bytes) -> None:
    loads_or_says_why(proxy_config.load, proxy_config.check_lines, data)


@settings(deadline=None)
@given(ENGINE)
def test_any_toml_for_the_engine(tables: dict[str, Any]) -> None:
    engine(document(tables).encode())


@settings(deadline=None)
@given(PROXY)
def test_any_toml_for_the_proxy(tables: dict[str, Any]) -> None:
    proxy(document(tables).encode())


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    engine(data)
    proxy(data)


@st.composite
def mutated(draw: st.DrawFn, samples: list[Path]) -> bytes:
    """A sample with some of its words or lines replaced, doubled or gone."""
    lines = draw(st.sampled_from(samples)).read_text(encoding="utf-8").splitlines()
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(lines) - 1))
        kind = draw(st.sampled_from(["drop", "double", "value", "cut", "key"]))
        if kind == "drop":
            lines[at] = ""
        elif kind == "double":
            lines.insert(at, lines[at])
        elif kind == "cut":
            lines[at] = lines[at][: draw(st.integers(0, 30))]
        elif "=" in lines[at]:
            key, _, value = lines[at].partition("=")
            if kind == "value":
                lines[at] = f"{key}= {toml(draw(VALUES))}"
            else:
                lines[at] = f"{key.strip()}{draw(st.sampled_from('sx_1'))} = {value}"
    return "\n".join(lines).encode()


@settings(deadline=None)
@given(mutated(sorted(SAMPLES.glob("*/engine.toml"))))
def test_mutated_samples_of_the_engine(data: bytes) -> None:
    engine(data)


@settings(deadline=None)
@given(mutated([SAMPLES / "proxy" / "proxy.toml"]))
def test_mutated_samples_of_the_proxy(data: bytes) -> None:
    proxy(data)
