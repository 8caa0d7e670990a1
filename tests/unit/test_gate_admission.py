"""What a gate lets through, and what exactly it sends: pure."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saia_engine.gate import headers
from saia_engine.gate.admission import Refusal, admit, check_target, websocket_accept
from saia_engine.gate.limits import Bucket
from saia_engine.routes import Route
from saia_engine.wire import messages
from saia_engine.wire.messages import Open

NOW = 1_700_000_000.0
ROUTE = Route(
    "k.h.chat.a",
    "chat",
    0,
    "gpu01",
    20017,
    "a" * 64,
    1,
    ("GET", "POST"),
    ("/v1/", "/health"),
    NOW + 10,
    NOW + 60,
)
ALLOWED = ("/v1/", "/health")


def asked(**fields) -> Open:
    return Open(**{"instance": ROUTE.instance, "method": "GET", "path": "/v1/models", **fields})


def head_of(**fields) -> list[str]:
    return admit(asked(**fields), ROUTE, NOW).head.decode("latin-1").split("\r\n")


@pytest.mark.parametrize(
    "path",
    [
        "/v1/",
        "/v1/models",
        "/health",
        "/v1/a%20b",
        "/v1/caf%C3%A9",
        "/v1/a.b..c",
        "/v1/x?y=%2f//..%2e\\<>&z",
        "/v1/x?",
    ],
)
def test_paths_that_pass(path):
    check_target(path, ALLOWED)
    assert head_of(path=path)[0] == f"GET {path} HTTP/1.1"


@pytest.mark.parametrize(
    "path",
    [
        "",
        "v1/",
        "*",
        "/",
        "/v1",
        "/v2/x",
        "/healthz",
        "/health/",
        "/V1/x",
        "http://gpu01/v1/",
        "//v1/x",
        "/v1//x",
        "/v1/./x",
        "/v1/../x",
        "/v1/..",
        "/v1/.",
        "/v1/..;a/x",
        "/v1/%2e%2e/x",
        "/v1/%2E/x",
        "/v1/a%2fb",
        "/v1/a%2Fb",
        "/v1/a%5cb",
        "/v1/a%5Cb",
        "/v1/a\\b",
        "/v1/a b",
        "/v1/a\tb",
        "/v1/a\r\nX: y",
        "/v1/a\x00",
        "/v1/%00",
        "/v1/%0d%0a",
        "/v1/%7f",
        "/v1/é",
        "/v1/%",
        "/v1/%zz",
        "/v1/%2",
        "/v1/a#b",
        "/v1/x?a b",
        "/v1/x?a\r\n",
        "/v1/x?é",
        "/v1/x?a#b",
        "/v1/" + "x" * 9000,
        "/v1/x HTTP/1.1\r\nHost: a\r\n\r\nGET /",
        '/v1/"<>',
        "/health?x\n",
    ],
)
def test_paths_that_do_not(path):
    with pytest.raises(Refusal) as caught:
        admit(asked(path=path), ROUTE, NOW)
    assert caught.value.code == messages.FORBIDDEN


@given(st.text(max_size=60))
def test_no_path_makes_a_second_line_or_leaves_its_prefix(tail):
    try:
        head = head_of(path="/v1/" + tail)
    except Refusal:
        return
    assert head[0] == f"GET /v1/{tail} HTTP/1.1" and head[1:] == ["Host: localhost", "", ""]
    assert ".." not in tail.partition("?")[0].split("/")


@pytest.mark.parametrize(
    "method", ["", "get", "DELETE", "CONNECT", "TRACE", "GET ", "GET\r\n", "POST /x HTTP/1.1\r\n"]
)
def test_methods_outside_the_list_are_refused(method):
    with pytest.raises(Refusal) as caught:
        admit(asked(method=method), ROUTE, NOW)
    assert caught.value.code == messages.FORBIDDEN


def test_connect_is_never_passed_on_even_if_listed():
    with pytest.raises(Refusal):
        admit(asked(method="CONNECT"), msgspec.structs.replace(ROUTE, methods=("CONNECT",)), NOW)


def test_admission_ends_at_its_time():
    admit(asked(), ROUTE, ROUTE.admit_until - 0.001)
    with pytest.raises(Refusal) as caught:
        admit(asked(), ROUTE, ROUTE.admit_until)
    assert caught.value.code == messages.TOO_LATE


@pytest.mark.parametrize(
    "name",
    [
        "Host",
        "CONTENT-LENGTH",
        "Transfer-Encoding",
        "Connection",
        "Keep-Alive",
        "Proxy-Authorization",
        "TE",
        "Trailer",
        "Upgrade",
        "Expect",
        "Authorization",
        "X-Request-ID",
        "Proxy-Connection",
        "X-Saia-Instance",
        "Content_Length",
        "Transfer_Encoding",
        "Proxy-Authenticate",
    ],
)
def test_headers_that_are_dropped(name):
    assert head_of(headers=[(name, "1"), ("Accept", "a")]) == [
        "GET /v1/models HTTP/1.1",
        "Host: localhost",
        "Accept: a",
        "",
        "",
    ]


def test_headers_that_connection_names_are_dropped_and_the_rest_passes():
    kept = [
        ("User-Agent", "openai"),
        ("Content-Type", "application/json"),
        ("X-Latin", "caf\xe9"),
        ("Cookie", "a=b"),
    ]
    head = head_of(headers=[("Connection", "close, X-Secret"), ("x-secret", "1"), *kept])
    assert head[2:-2] == [f"{name}: {value}" for name, value in kept]


@pytest.mark.parametrize(
    "bad",
    [
        ("X Y", "1"),
        ("", "1"),
        ("X:", "1"),
        ("X\r\nY", "1"),
        ("X", "a\r\nY: b"),
        ("X", "a\nb"),
        ("X", "a\x00"),
        ("X", "a\x7f"),
        ("X", "€"),
        ("X", "a" * 8193),
        ("é", "1"),
        ("X" * 300, "1"),
        ("X", "a\nY\0b"),
        ("X\0a\nY", "b"),
    ],
)
def test_malformed_headers_refuse_the_request(bad):
    with pytest.raises(Refusal) as caught:
        admit(asked(headers=[bad]), ROUTE, NOW)
    assert caught.value.code == messages.FORBIDDEN


def test_too_many_or_too_large_headers_refuse_the_request():
    for many in ([("X", "1")] * 101, [("X", "y" * 8000)] * 5):
        with pytest.raises(Refusal):
            admit(asked(headers=many), ROUTE, NOW)


@given(st.lists(st.tuples(st.text(max_size=20), st.text(max_size=20)), max_size=5))
def test_no_header_makes_two(given_headers):
    try:
        head = head_of(headers=given_headers)
    except Refusal:
        return
    assert len(head) <= 4 + len(given_headers)
    assert not [line for line in head[1:-2] if ":" not in line or "\n" in line]


def test_the_bodys_length_is_ours():
    assert "Content-Length: 12" in head_of(method="POST", content_length=12)
    assert "Content-Length: 0" in head_of(method="POST", content_length=0)
    assert "Transfer-Encoding: chunked" in head_of(method="POST", chunked=True)
    assert len(head_of(content_length=0)) == 4
    for bad in ({"content_length": -1}, {"content_length": 3, "chunked": True}):
        with pytest.raises(Refusal):
            admit(asked(**bad), ROUTE, NOW)


def test_only_a_good_request_id_is_passed_on():
    assert "X-Request-Id: req_1" in head_of(request_id="req_1")
    assert len(head_of(request_id="a\r\nb: c")) == 4


UPGRADE = [
    ("Upgrade", "WebSocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
]


def test_a_websocket_upgrade_is_checked():
    assert websocket_accept(asked(headers=UPGRADE)) == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # RFC 6455, 1.3
    head = head_of(headers=UPGRADE)
    assert head[-4:-2] == ["Connection: Upgrade", "Upgrade: websocket"]
    for broken in range(4):
        assert websocket_accept(asked(headers=UPGRADE[:broken] + UPGRADE[broken + 1 :])) == ""
    assert websocket_accept(asked(headers=[*UPGRADE, UPGRADE[3]])) == ""
    assert websocket_accept(asked(headers=UPGRADE, method="POST")) == ""
    assert websocket_accept(asked(headers=UPGRADE, content_length=5)) == ""
    assert websocket_accept(asked(headers=[*UPGRADE[:3], ("Sec-WebSocket-Key", "short")])) == ""


def test_hop_by_hop_headers_do_not_come_back():
    answered = [
        ("Content-Type", "a"),
        ("Connection", "X-Hop"),
        ("X-Hop", "1"),
        ("Keep-Alive", "5"),
        ("Upgrade", "h2c"),
    ]
    assert headers.for_proxy(answered) == [("Content-Type", "a")]


def test_a_bucket_lets_one_seconds_worth_through_at_once():
    now = [0.0]
    bucket = Bucket(10, lambda: now[0])
    assert [bucket.take() for _ in range(11)] == [True] * 10 + [False]
    now[0] += 0.25
    assert [bucket.take() for _ in range(3)] == [True, True, False]
    now[0] += 100
    assert sum(bucket.take() for _ in range(20)) == 10
