"""What the two sockets answer to good, wrong and hostile requests."""

import asyncio
import json
import os

import httpx
import pytest
import structlog

from saia_engine.api.port import Order
from saia_engine.instance_logs import LONGEST_WAIT_S, MOST_BYTES, LogQuestion
from saia_engine.view import AlarmView
from tests.unit.fake_engine import Served, served

REPORT = {
    "proxy": "cloud",
    "relay": "0123456789abcdef",
    "pid": 4711,
    "peer": "192.0.2.1 50000",
    "connected_since": 1_700_000_000.0,
    "routes_generation": 17,
    "admin_revision": 3,
    "in_flight": {"i1.hpc.chat.aaaa0001": 2},
    "requests": {"chat": 120},
    "errors": {"chat": 0},
    "version": "0.1.0",
    "queued": {"chat": 0},
}


@pytest.fixture
async def api():
    async with served() as running:
        yield running


def http(path) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        transport=httpx.AsyncHTTPTransport(uds=str(path)), base_url="http://saia", trust_env=False
    )


async def ask(
    api: Served, method: str, path: str, body: object = None, *, raw: bytes | None = None, gate: bool = False
):
    async with http(api.gate if gate else api.operator) as client:
        content = raw if raw is not None else None if body is None else json.dumps(body).encode()
        response = await client.request(method, path, content=content)
        return response.status_code, response.json()


async def test_state_is_all_tables(api: Served):
    status, state = await ask(api, "GET", "/v1/state")
    assert status == 200
    assert set(state) == {
        "engine",
        "services",
        "instances",
        "jobs",
        "nodes",
        "proxies",
        "traffic",
        "keys",
        "alarms",
        "events",
    }
    assert state["services"]["chat"]["replicas"] == 2


async def test_intents_reach_the_engine_with_the_callers_uid(api: Served):
    uid = os.geteuid()
    assert await ask(api, "POST", "/v1/services/chat/scale", {"replicas": 5}) == (
        200,
        {"service": "chat", "replicas": 5},
    )
    assert api.engine.overrides == {"chat": (5, uid)}
    assert (await ask(api, "DELETE", "/v1/services/chat/override"))[0] == 200
    assert api.engine.overrides == {}
    assert (await ask(api, "POST", "/v1/instances/i1.hpc.chat.aaaa0001/drain", {"confirm": True}))[0] == 200
    assert (await ask(api, "POST", "/v1/instances/i1.hpc.chat.bbbb0002/drain"))[0] == 200
    assert api.engine.drained == [(uid, "i1.hpc.chat.aaaa0001"), (uid, "i1.hpc.chat.bbbb0002")]
    assert (await ask(api, "POST", "/v1/proxies/cloud/maintenance", {"on": True}))[0] == 200
    assert api.engine.in_maintenance == {"cloud": True}
    assert (await ask(api, "GET", "/v1/plan"))[1]["actions"][0]["act"] == "launch"


async def test_orders_reach_the_engine_with_the_callers_uid(api: Served):
    uid, engine = os.geteuid(), api.engine
    assert (await ask(api, "POST", "/v1/instances/i1.hpc.chat.aaaa0001/replace"))[0] == 200
    assert engine.replaced == [(uid, "i1.hpc.chat.aaaa0001")]
    assert (await ask(api, "POST", "/v1/services/chat/rollback"))[1]["revision"] == "aaaa00000001"
    assert engine.pins == {"chat": ("aaaa00000001", uid)}
    assert (await ask(api, "DELETE", "/v1/services/chat/pin"))[0] == 200
    assert (await ask(api, "DELETE", "/v1/services/chat/pin"))[0] == 404
    asked = {"for_s": 7200, "because": "two ECC errors"}
    assert (await ask(api, "POST", "/v1/nodes/Gpu_02.x/exclusion", asked))[0] == 200
    assert engine.excluded == {"Gpu_02.x": (7200, "two ECC errors", uid)}
    assert (await ask(api, "DELETE", "/v1/nodes/Gpu_02.x/exclusion"))[0] == 200
    assert engine.excluded == {}


async def test_a_service_is_paused_and_resumed_with_a_reason(api: Served):
    uid, engine = os.geteuid(), api.engine
    status, answer = await ask(api, "POST", "/v1/services/chat/pause", {"reason": "GPUs for the course"})
    assert (status, answer["error"]["code"], engine.paused) == (409, "needs_confirmation", {})
    asked = {"reason": "  GPUs for the course\n\x1b[2J ", "confirm": True}
    status, answer = await ask(api, "POST", "/v1/services/chat/pause", asked)
    assert (status, answer) == (200, {"service": "chat", "before": 2, "replicas": 0})
    assert engine.paused == {"chat": (uid, r"GPUs for the course\n\x1b[2J")}
    assert (await ask(api, "DELETE", "/v1/services/chat/pause", {"reason": "over"}))[1]["replicas"] == 2
    assert (await ask(api, "DELETE", "/v1/services/chat/pause"))[0] == 404
    assert engine.reasons == [r"GPUs for the course\n\x1b[2J", "over"]


async def test_an_instance_is_cancelled_by_a_confirmed_word_only(api: Served):
    path = "/v1/instances/i1.hpc.chat.aaaa0001/cancel"
    assert (await ask(api, "POST", path))[1]["error"]["code"] == "needs_confirmation"
    assert api.engine.cancelled == []
    assert (await ask(api, "POST", path, {"confirm": True, "reason": "hangs"}))[0] == 200
    assert api.engine.cancelled == [(os.geteuid(), "i1.hpc.chat.aaaa0001")]


async def test_an_act_on_what_has_changed_is_refused_and_says_what_it_is_now(api: Served):
    body = {"replicas": 5, "expect": {"replicas": 3}}
    status, answer = await ask(api, "POST", "/v1/services/chat/scale", body)
    assert (status, answer["error"]) == (409, {"code": "changed", "message": "replicas was 3, and is 2 now"})
    assert api.engine.overrides == {}
    assert (await ask(api, "POST", "/v1/services/chat/scale", {**body, "expect": {"replicas": 2}}))[0] == 200
    drain = "/v1/instances/i1.hpc.chat.aaaa0001/drain"
    status, answer = await ask(api, "POST", drain, {"expect": {"state": "ready", "generation": 1}})
    assert (status, answer["error"]["code"], api.engine.drained) == (409, "changed", [])
    assert (await ask(api, "POST", drain, {"expect": {"state": "ready", "generation": 0}}))[0] == 200


async def test_the_changed_configuration_is_shown_and_applied_as_it_was_shown(api: Served):
    status, answer = await ask(api, "GET", "/v1/config/diff")
    assert (status, answer["services"][0]["change"]) == (200, "changed")
    status, refused = await ask(api, "POST", "/v1/config/apply", {"expect": {"digest": "another"}})
    assert (status, refused["error"]["code"]) == (409, "changed")
    assert api.engine._events == []
    assert (await ask(api, "POST", "/v1/config/apply", {"expect": {"digest": answer["digest"]}}))[0] == 200
    assert api.engine._events == [(os.geteuid(), "config-reloaded", "config")]


async def test_keys_are_ordered_one_by_one(api: Served):
    engine, alice = api.engine, "/v1/proxies/cloud/keys/alice"

    async def order(method: str, what: str, body: object = None) -> tuple[bool, int | None, int | None]:
        status, answer = await ask(api, method, f"{alice}/{what}", body)
        assert (status, answer["proxy"], answer["key"], answer["known"]) == (200, "cloud", "alice", True)
        return answer["revoked"], answer["concurrency"], answer["per_minute"]

    assert await order("POST", "revocation") == (True, None, None)
    assert await order("POST", "limits", {"concurrency": 4, "per_minute": 0}) == (True, 4, 0)
    assert await order("POST", "limits", {"concurrency": None}) == (True, None, 0), "the other one stays"
    assert await order("DELETE", "revocation") == (False, None, 0)
    assert await order("DELETE", "limits") == (False, None, None)
    status, answer = await ask(api, "POST", f"{alice}/limits", {})
    assert (status, answer["error"]["code"]) == (400, "bad_request")
    assert engine._events[-1] == (os.geteuid(), "key-ordered", "cloud")
    assert (await ask(api, "GET", "/v1/proxies/cloud/keys"))[1]["keys"][1]["name"] == "carol"
    assert (await ask(api, "GET", "/v1/proxies/nosuch/keys"))[0] == 404


async def test_the_past_is_told_of_all_rows_or_of_one(api: Served):
    status, answer = await ask(api, "GET", "/v1/history/traffic")
    assert (status, answer["rows"]) == (200, {"traffic": [0.5]})
    assert (await ask(api, "GET", "/v1/history/keys?row=cloud%2Fal%20ice"))[1]["row"] == "cloud/al ice"
    assert (await ask(api, "GET", "/v1/history/traffic?row=" + "x" * 5000))[0] == 404
    for table in ("jobs", "traffic%2Fx", "..", "TRAFFIC"):
        assert (await ask(api, "GET", f"/v1/history/{table}"))[0] == 404


async def test_a_freeze_ends_by_a_confirmed_word_only(api: Served):
    assert (await ask(api, "POST", "/v1/unfreeze", {"confirm": True}))[1]["error"]["code"] == "not_frozen"
    api.engine.frozen = True
    status, answer = await ask(api, "POST", "/v1/unfreeze")
    assert (status, answer["error"]["code"], api.engine.frozen) == (409, "needs_confirmation", True)
    assert (await ask(api, "POST", "/v1/unfreeze", {"confirm": True}))[0] == 200
    assert not api.engine.frozen


async def test_an_alarm_is_taken_up_and_opened_again(api: Served):
    path = "/v1/alarms/proxy-away:cloud.1/ack"
    assert (await ask(api, "POST", path))[0] == 404
    row = AlarmView("proxy-away", "warning", "cloud.1", "no relay reports", 5.0)
    api.engine.hub.publish("alarms", {"proxy-away:cloud.1": row})
    assert (await ask(api, "POST", path, {"reason": "it is upgraded"}))[0] == 200
    assert api.engine.acked == {"proxy-away:cloud.1": (os.geteuid(), "it is upgraded")}
    assert (await ask(api, "DELETE", path))[0] == 200
    assert (await ask(api, "DELETE", path))[0] == 404
    assert api.engine.acked == {}
    for odd in ("proxyaway", "Proxy:x", "proxy-away:%0a", "proxy-away:"):
        status, answer = await ask(api, "POST", f"/v1/alarms/{odd}/ack")
        assert (status, answer["error"]["code"]) == (404, "not_found"), odd


async def test_the_journal_can_be_read(api: Served):
    known = (await ask(api, "GET", "/v1/instances"))[1]["instances"]
    assert "i1.hpc.chat.dddd0004" in known
    status, story = await ask(api, "GET", "/v1/instances/i1.hpc.chat.dddd0004/story")
    assert (status, story["instance"]["job_id"], story["events"][0]["detail"]["rule"]) == (
        200,
        4711,
        "too-few",
    )
    assert (await ask(api, "GET", "/v1/instances/i1.hpc.chat.none/story"))[0] == 404
    assert (await ask(api, "GET", "/v1/services/chat/revisions"))[1]["asked_for"] == "cccc00000003"
    assert (await ask(api, "GET", "/v1/services/gone/story"))[1]["service"] == "gone"


LOG = "/v1/instances/i1.hpc.chat.aaaa0001/log"


async def test_a_log_is_read_in_pieces_as_bytes(api: Served):
    async with http(api.operator) as client:
        answer = await client.get(f"{LOG}?stream=output&from=-8&most=6&file=fd00-1&wait_s=0.5")
    assert (answer.status_code, answer.content) == (200, b"ready ")
    assert answer.headers["content-type"] == "application/octet-stream"
    told = {name: answer.headers[f"saia-log-{name}"] for name in ("from", "size", "file", "written-at")}
    assert told == {"from": "13", "size": "21", "file": "fd00-1", "written-at": "1700000000.250"}
    assert api.engine.log_questions == [LogQuestion("output", -8, 6, "fd00-1", 0.5)]


async def test_what_is_asked_of_a_log_is_bounded(api: Served):
    async with http(api.operator) as client:
        await client.get(f"{LOG}?most=999999999&wait_s=600")
    assert api.engine.log_questions == [LogQuestion("output", 0, MOST_BYTES, "", LONGEST_WAIT_S)]


@pytest.mark.parametrize(
    "query",
    ["stream=../../etc/passwd", "stream=stderr", "from=x", "from=1e9", "from=" + "9" * 40, "most=-", "wait_s=-1",
     "wait_s=nan", "file=../x", "file=" + "a" * 200, "from=%0a1", "from=١"],
)  # fmt: skip
async def test_what_a_log_call_does_not_understand_is_refused(api: Served, query: str):
    status, answer = await ask(api, "GET", f"{LOG}?{query}")
    assert (status, answer["error"]["code"]) == (400, "bad_request")
    assert api.engine.log_questions == []


@pytest.mark.parametrize("name", ["i1.hpc.chat.none", "..", "%2e%2e", "..%2f..", "A", "%00", "i1%2fx"])
async def test_there_is_no_log_of_what_is_no_instance(api: Served, name: str):
    status, _ = await ask(api, "GET", f"/v1/instances/{name}/log")
    assert status == 404


async def test_an_undercut_of_min_available_needs_a_confirmation(api: Served):
    status, answer = await ask(api, "POST", "/v1/services/chat/scale", {"replicas": 0})
    assert (status, answer["error"]["code"]) == (409, "needs_confirmation")
    assert api.engine.overrides == {}
    assert (await ask(api, "POST", "/v1/services/chat/scale", {"replicas": 0, "confirm": True}))[0] == 200


WRONG_BODIES = [
    ("/v1/services/chat/scale", b""),
    ("/v1/services/chat/scale", b"{"),
    ("/v1/services/chat/scale", b"\xff\xfe"),
    ("/v1/services/chat/scale", b"null"),
    ("/v1/services/chat/scale", b"[" * 4000),
    ("/v1/services/chat/scale", b'{"replicas":-1}'),
    ("/v1/services/chat/scale", b'{"replicas":1001}'),
    ("/v1/services/chat/scale", b'{"replicas":"3"}'),
    ("/v1/services/chat/scale", b'{"replicas":1e400}'),
    ("/v1/services/chat/scale", b'{"replicas":3,"confrim":true}'),
    ("/v1/instances/i1.hpc.chat.aaaa0001/drain", b'{"confirm":1}'),
    ("/v1/services/chat/rollback", b'{"revision":"../../x"}'),
    ("/v1/services/chat/rollback", b'{"revision":"aaaa000000011"}'),
    ("/v1/services/chat/rollback", b'{"revison":"aaaa"}'),
    ("/v1/nodes/gpu01/exclusion", b"{}"),
    ("/v1/nodes/gpu01/exclusion", b'{"for_s":0}'),
    ("/v1/nodes/gpu01/exclusion", b'{"for_s":1e300}'),
    ("/v1/nodes/gpu01/exclusion", b'{"for_s":"2h"}'),
    ("/v1/nodes/gpu01/exclusion", b'{"for_s":3600,"because":"' + b"x" * 201 + b'"}'),
    ("/v1/services/chat/scale", b'{"replicas":3,"reason":"' + b"x" * 201 + b'"}'),
    ("/v1/services/chat/scale", b'{"replicas":3,"expect":{"state":"ready"}}'),
    ("/v1/services/chat/scale", b'{"replicas":3,"expect":{"replicas":"2"}}'),
    ("/v1/services/chat/pause", b'{"confirm":true,"reason":7}'),
    ("/v1/instances/i1.hpc.chat.aaaa0001/cancel", b'{"confirm":true,"expect":{"state":1}}'),
    ("/v1/instances/i1.hpc.chat.aaaa0001/cancel", b'{"confirm":true,"expect":[]}'),
    ("/v1/config/apply", b'{"digest":"x"}'),
    ("/v1/unfreeze", b'{"confirm":"yes"}'),
    ("/v1/proxies/cloud/maintenance", b"{}"),
    ("/v1/proxies/cloud/maintenance", b'{"on":"yes"}'),
    ("/v1/proxies/cloud/keys/alice/limits", b'{"concurrency":-1}'),
    ("/v1/proxies/cloud/keys/alice/limits", b'{"concurrency":1000001}'),
    ("/v1/proxies/cloud/keys/alice/limits", b'{"per_minute":"5"}'),
    ("/v1/proxies/cloud/keys/alice/limits", b'{"per_minute":1.5}'),
    ("/v1/proxies/cloud/keys/alice/limits", b'{"revoked":true}'),
]


async def test_a_wrong_body_is_refused_with_a_reason(api: Served):
    for path, raw in WRONG_BODIES:
        status, answer = await ask(api, "POST", path, raw=raw)
        assert (status, answer["error"]["code"]) == (400, "bad_request"), answer
        assert answer["error"]["message"].startswith("the body can't be used: ")
        assert (api.engine.overrides, api.engine.drained, api.engine.pins) == ({}, [], {})
        assert api.engine.excluded == api.engine.key_orders == api.engine.paused == {}
        assert (api.engine.cancelled, api.engine._events) == ([], [])


WRONG_PATHS = [
    "/v1/services/Chat/scale",
    "/v1/services/%1b%5b2J/scale",
    "/v1/services/..%2f..%2fetc/scale",
    "/v1/services/" + "a" * 65 + "/scale",
    "/v1/services/nosuch/scale",
    "/v1/instances/nosuch/drain",
    "/v1/instances/%0a/drain",
    "/v1/instances/nosuch/replace",
    "/v1/instances/nosuch/cancel",
    "/v1/services/nosuch/pause",
    "/v1/services/%1b/pause",
    "/v1/services/nosuch/rollback",
    "/v1/nodes/nosuch/exclusion",
    "/v1/nodes/-x/exclusion",
    "/v1/nodes/" + "n" * 101 + "/exclusion",
    "/v1/proxies/nosuch/maintenance",
    "/v1/proxies/nosuch/keys/alice/revocation",
    "/v1/proxies/cloud/keys/Alice/revocation",
    "/v1/proxies/cloud/keys/" + "a" * 65 + "/revocation",
    "/v1/proxies/cloud/keys/a%0ab/revocation",
    "/v1/proxies/cloud/keys/alice",
    "/v1/nosuch",
    "/",
]


async def test_a_wrong_name_or_path_is_not_found(api: Served):
    for path in WRONG_PATHS:
        bodies = {"scale": {"replicas": 1}, "maintenance": {"on": True}, "exclusion": {"for_s": 60}}
        body = bodies.get(path.rpartition("/")[2], {})
        status, answer = await ask(api, "POST", path, body)
        assert status == 404
        assert answer["error"]["code"] in ("not_found", "no_such_call")
        assert answer["error"]["message"].isprintable()


async def test_a_wrong_method_is_refused(api: Served):
    status, answer = await ask(api, "GET", "/v1/services/chat/scale")
    assert (status, answer["error"]["code"]) == (405, "no_such_call")


async def test_a_large_body_is_not_read_whole(api: Served):
    for gate, path, size in ((False, "/v1/services/chat/scale", 5000), (True, "/v1/report", 1_100_000)):
        status, answer = await ask(api, "POST", path, raw=b" " * size, gate=gate)
        assert (status, answer["error"]["code"]) == (413, "too_large")


async def test_an_endless_chunked_body_ends_the_connection(api: Served):
    _, writer = await asyncio.open_unix_connection(str(api.gate))
    writer.write(b"POST /v1/report HTTP/1.1\r\nhost: saia\r\ntransfer-encoding: chunked\r\n\r\n")
    chunk = b"2000\r\n" + b"x" * 8192 + b"\r\n"
    async with asyncio.timeout(5):
        with pytest.raises(ConnectionError):
            for _ in range(10_000):
                writer.write(chunk)
                await writer.drain()
    writer.transport.abort()
    assert (await ask(api, "POST", "/v1/report", REPORT, gate=True))[0] == 200


async def test_a_failure_of_the_engine_is_an_answer_without_its_inside(api: Served, monkeypatch):
    def broken() -> dict:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(api.engine, "plan", broken)
    with structlog.testing.capture_logs() as logged:
        status, answer = await ask(api, "GET", "/v1/plan")
    assert (status, answer["error"]["code"]) == (500, "internal")
    assert "secret" not in json.dumps(answer)
    assert [(entry["event"], str(entry["exc_info"])) for entry in logged] == [
        ("request failed", "secret detail")
    ]


async def test_a_report_is_answered_with_the_proxys_desired_state(api: Served):
    api.engine.maintenance(Order(0), "cloud", True)
    assert await ask(api, "POST", "/v1/report", REPORT, gate=True) == (
        200,
        {"revision": 1, "maintenance": True},
    )
    (heard,) = api.engine.reports
    assert heard.in_flight == {"i1.hpc.chat.aaaa0001": 2}
    assert heard.connected_since == 1_700_000_000.0
    newer = {**REPORT, "something_new": [1, 2]}
    assert (await ask(api, "POST", "/v1/report", newer, gate=True))[0] == 200


HOSTILE_REPORTS = [
    {"proxy": ""},
    {"proxy": "../etc"},
    {"proxy": "cloud\n"},
    {"proxy": 7},
    {"relay": "0123456789ABCDEF"},
    {"relay": "0123456789abcdef0"},
    {"pid": 0},
    {"pid": 2**40},
    {"pid": True},
    {"peer": "x" * 101},
    {"connected_since": -1},
    {"connected_since": 1e300},
    {"connected_since": "NaN"},
    {"routes_generation": -1},
    {"in_flight": {"i1": -1}},
    {"keys": [{"name": "a\x1b"}]},
    {"keys": [{"name": "a", "requests": -1}]},
    {"keys": [{"name": "a", "models": "m" * 1001}]},
    {"keys": [{"name": "a"}] * 501},
    {"wait_s": -1},
    {"wait_s": 6},
    {"wait_s": "NaN"},
    {"in_flight": {"i1": 2**60}},
    {"in_flight": {"\x1b[2J": 1}},
    {"in_flight": {str(n): 1 for n in range(1001)}},
    {"requests": {"Chat": 1}},
    {"requests": [1]},
    {"errors": {"chat": 1.5}},
    {"queued": {"chat": None}},
    {"version": "v" * 65},
]


async def test_a_hostile_report_is_refused(api: Served):
    for change in HOSTILE_REPORTS:
        status, answer = await ask(api, "POST", "/v1/report", {**REPORT, **change}, gate=True)
        assert (status, answer["error"]["code"]) == (400, "bad_request"), answer
        assert next(iter(change)) in answer["error"]["message"], "says where"
        assert api.engine.reports == []


NOT_HTTP = [
    b"garbage\r\n\r\n",
    b"\x00" * 100,
    b"GET /v1/state HTTP/1.1\r\nhost: saia\r\nx: " + b"y" * 20_000 + b"\r\n\r\n",
    b"POST /v1/report HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    b"GET /v1/stream HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
]


async def test_what_is_not_http_hurts_nobody(api: Served):
    for raw in NOT_HTTP:
        for path in (api.operator, api.gate):
            _, writer = await asyncio.open_unix_connection(str(path))
            writer.write(raw)
            await asyncio.sleep(0.01)
            writer.transport.abort()
        assert (await ask(api, "GET", "/v1/health"))[0] == 200
        assert (await ask(api, "POST", "/v1/report", REPORT, gate=True))[0] == 200
