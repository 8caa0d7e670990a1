"""The table of routes as a file."""

from __future__ import annotations

import json
import os
from pathlib import Path

import msgspec
import pytest

from saia_engine import routes
from saia_engine.model import ProxyLimits
from saia_engine.routes import Route, RoutesFault, RouteTable, ServiceEntry

ROUTE = Route(
    "k7f3.hpc.chat.ab", "chat", 1, "gpu01", 20017, "ab" * 32, 1, ("GET",), ("/v1/",), 1e9, 1e9 + 600
)
TABLE = RouteTable(
    version=1,
    generation=17,
    written_at=1.7e9,
    installation="k7f3",
    cluster="hpc",
    gate_socket="/run/saia/gate/gate.sock",
    proxies={"cloud": ProxyLimits(services=("chat",), relays=2)},
    services={"chat": ServiceEntry(models=("llama-3",), replicas=2, ready=1)},
    routes=(ROUTE,),
)


def test_what_is_written_is_read(tmp_path: Path):
    path = tmp_path / "routes.json"
    routes.write(path, TABLE, gid=os.getgid())
    assert routes.load(path) == TABLE
    assert path.stat().st_mode & 0o777 == 0o640
    assert [entry.name for entry in tmp_path.iterdir()] == ["routes.json"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file to another group")
def test_the_group_is_the_gates(tmp_path: Path):
    routes.write(tmp_path / "routes.json", TABLE, gid=12345)
    assert (tmp_path / "routes.json").stat().st_gid == 12345


def test_a_table_that_could_not_be_read_is_not_written(tmp_path: Path):
    path = tmp_path / "routes.json"
    routes.write(path, TABLE)
    with pytest.raises(RoutesFault):
        routes.write(path, msgspec.structs.replace(TABLE, routes=(ROUTE, ROUTE)))
    assert routes.load(path) == TABLE


def changed(**changes) -> bytes:
    return json.dumps(json.loads(msgspec.json.encode(TABLE)) | changes).encode()


def with_route(**changes) -> bytes:
    return changed(routes=[json.loads(msgspec.json.encode(ROUTE)) | changes])


def test_a_table_of_an_older_engine_tells_nothing_of_a_queue():
    services = {"chat": {"models": ["llama-3"], "replicas": 2, "starting": 1}}
    entry = routes.parse(changed(services=services)).services["chat"]
    assert (entry.starting, entry.queued, entry.eta) == (1, 0, None)


def test_fields_of_a_newer_engine_are_ignored():
    assert routes.parse(changed(colour="red")) == TABLE
    assert routes.parse(with_route(colour="red")) == TABLE


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b"null",
        changed(version=2),
        changed(version="1"),
        changed(generation=-1),
        changed(gate_socket="relative"),
        changed(installation="../x"),
        changed(proxies={"../x": {}}),
        changed(proxies={"cloud": {"relays": 0}}),
        changed(proxies={"cloud": {"services": "*"}}),
        with_route(port=0),
        with_route(port=65536),
        with_route(port="20017"),
        with_route(secret="short"),
        with_route(secret="Z" * 64),
        with_route(host="gpu01\n"),
        with_route(host=""),
        with_route(host="-oProxy"),
        with_route(instance="a|b"),
        with_route(instance=""),
        with_route(methods=["get"]),
        with_route(paths=["v1"]),
        with_route(admit_until=-1),
        with_route(generation=1.5),
        with_route(draining="yes"),
        changed(services={"chat": {"queued": -1}}),
        changed(services={"chat": {"eta": "soon"}}),
        changed(services={"chat": {"eta": 1e300}}),
    ],
)
def test_anything_odd_is_refused_with_one_sentence(data):
    with pytest.raises(RoutesFault) as caught:
        routes.parse(data, "routes.json")
    assert "routes.json" in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_that_is_not_there_or_too_large_is_refused(tmp_path: Path, monkeypatch):
    with pytest.raises(RoutesFault, match="cannot be read: No such file"):
        routes.load(tmp_path / "none.json")
    routes.write(tmp_path / "routes.json", TABLE)
    monkeypatch.setattr(routes, "LARGEST_BYTES", 100)
    with pytest.raises(RoutesFault, match="larger than 100 bytes"):
        routes.load(tmp_path / "routes.json")
