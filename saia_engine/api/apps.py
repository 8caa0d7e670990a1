"""What can be asked at each socket. Everything that comes in is hostile."""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from saia_engine import reports
from saia_engine.api import bodies
from saia_engine.api.access import Operators
from saia_engine.api.log_calls import log_answer, log_question
from saia_engine.api.peers import caller
from saia_engine.api.port import Answer, Engine, Order, Refused
from saia_engine.edge.logs import get_logger
from saia_engine.edge.text import clean
from saia_engine.model import Severity
from saia_engine.record.frames import RecordFault
from saia_engine.record.index import told
from saia_engine.view import API_VERSION, EngineView

LARGEST_BODY = 4096
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_INSTANCE = re.compile(r"[a-z0-9][a-z0-9.-]{0,199}")
_ALARM = re.compile(r"[a-z_-]{1,63}:[!-~]{1,200}")
_NODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_HISTORY = re.compile(r"traffic|keys")
_SEGMENT = re.compile(r"[0-9TZ]{16}-[0-9]{6,12}\.rec")
LONGEST_ROW = 300
SEVERITIES = tuple(str(each) for each in (Severity.INFO, Severity.WARNING, Severity.CRITICAL))

log = get_logger("api")

_Endpoint = Callable[[Request], Awaitable[Response]]
_Intent = TypeVar("_Intent", bound=bodies.Intent)


_NO_LIMITS: dict[str, int | None] = {"concurrency": None, "per_minute": None}


def operator_app(engine: Engine, operators: Operators) -> Starlette:
    """`operator.sock`."""
    acts = engine.acts

    async def allowed(request: Request, verb: str, subject: str = "") -> int:
        uid = caller(request)
        await asyncio.to_thread(operators.authorize, uid, verb, subject)
        return uid

    async def state(request: Request) -> Response:
        await allowed(request, "read the state")
        return _json(engine.hub.state())

    async def stream(request: Request) -> Response:
        await allowed(request, "read the state")
        return StreamingResponse(engine.hub.follow(), media_type="application/x-ndjson")

    async def plan(request: Request) -> Response:
        await allowed(request, "read the plan")
        return await _answer(engine.plan())

    async def health(request: Request) -> Response:
        await allowed(request, "read the state")
        row = engine.hub.row("engine", "engine")
        known = isinstance(row, EngineView)
        return _json(
            {
                "api": API_VERSION,
                "version": row.version if known else "",
                "acting": known and row.acting,
                "slurm_fault": row.slurm_fault if known else "no poll of Slurm has ended yet",
            }
        )

    async def order_of(
        request: Request, verb: str, subject: str, kind: type[_Intent]
    ) -> tuple[Order, _Intent]:
        uid = await allowed(request, verb, subject)
        asked = await _body(request, kind)
        return asked.order(uid), asked

    async def scale(request: Request) -> Response:
        service = _param(request, "service", _NAME)
        order, asked = await order_of(request, "scale", service, bodies.Scale)
        return await _answer(acts.scale(order, service, asked.replicas))

    async def rollback(request: Request) -> Response:
        service = _param(request, "service", _NAME)
        order, asked = await order_of(request, "roll back", service, bodies.Rollback)
        return await _answer(acts.rollback(order, service, asked.revision))

    def on_service(verb: str, act: Callable[[Order, str], Answer]) -> _Endpoint:
        return plain_act(verb, "service", _NAME, bodies.OnService, act)

    def on_alarm(verb: str, act: Callable[[Order, str], Answer]) -> _Endpoint:
        return plain_act(verb, "alarm", _ALARM, bodies.Intent, act)

    def on_instance(verb: str, act: Callable[[Order, str], Answer]) -> _Endpoint:
        return plain_act(verb, "instance", _INSTANCE, bodies.OnInstance, act)

    def plain_act(
        verb: str,
        kind: str,
        shape: re.Pattern[str],
        body: type[bodies.Intent],
        act: Callable[[Order, str], Answer],
    ) -> _Endpoint:
        """One that needs nothing but its target."""

        async def endpoint(request: Request) -> Response:
            subject = _param(request, kind, shape)
            order, _ = await order_of(request, verb, subject, body)
            return await _answer(act(order, subject))

        return endpoint

    async def exclude(request: Request) -> Response:
        node = _param(request, "node", _NODE)
        order, asked = await order_of(request, "exclude", node, bodies.Exclude)
        return await _answer(acts.exclude(order, node, asked.for_s))

    async def unfreeze(request: Request) -> Response:
        order, _ = await order_of(request, "unfreeze", "the engine", bodies.Intent)
        return await _answer(acts.unfreeze(order))

    async def apply_config(request: Request) -> Response:
        order, _ = await order_of(request, "apply", "the configuration", bodies.OnConfig)
        return await _answer(acts.apply_config(order))

    async def config_diff(request: Request) -> Response:
        await allowed(request, "read the configuration")
        return await _answer(engine.config_diff())

    async def known_instances(request: Request) -> Response:
        await allowed(request, "read the journal")
        return await _answer(engine.known_instances())

    async def instance_story(request: Request) -> Response:
        await allowed(request, "read the journal")
        return await _answer(engine.instance_story(_param(request, "instance", _INSTANCE)))

    async def instance_log(request: Request) -> Response:
        instance = _param(request, "instance", _INSTANCE)
        await allowed(request, "read the log of", instance)
        return log_answer(await engine.instance_log(instance, log_question(request.query_params)))

    async def service_story(request: Request) -> Response:
        await allowed(request, "read the journal")
        return await _answer(engine.service_story(_param(request, "service", _NAME)))

    async def revisions(request: Request) -> Response:
        await allowed(request, "read the journal")
        return await _answer(engine.revisions(_param(request, "service", _NAME)))

    async def events(request: Request) -> Response:
        await allowed(request, "read the journal")
        asked = _query(request, bodies.Events)
        severities = SEVERITIES[SEVERITIES.index(asked.severity) :] if asked.severity else ()
        return await _answer(engine.events(asked.before, asked.most, asked.uid == "any", severities))

    async def history(request: Request) -> Response:
        await allowed(request, "read the state")
        table = _param(request, "table", _HISTORY)
        return await _answer(engine.history(table, request.query_params.get("row", "")[:LONGEST_ROW]))

    async def record(request: Request) -> Response:
        await allowed(request, "read the record")
        return _json(told(await engine.record.index()))

    async def record_at(request: Request) -> Response:
        await allowed(request, "read the record")
        return _json(await engine.record.state(_query(request, bodies.At).t))

    async def record_segment(request: Request) -> Response:
        await allowed(request, "read the record")
        size, pieces = await engine.record.segment(_param(request, "segment", _SEGMENT))
        headers = {"saia-record-size": str(size), "cache-control": "no-store"}
        return StreamingResponse(pieces, media_type="application/octet-stream", headers=headers)

    async def maintenance(request: Request) -> Response:
        proxy = _param(request, "proxy", _NAME)
        order, asked = await order_of(request, "set the maintenance of", proxy, bodies.Maintenance)
        return await _answer(acts.maintenance(order, proxy, asked.on))

    async def keys(request: Request) -> Response:
        await allowed(request, "read the state")
        return await _answer(engine.keys(_param(request, "proxy", _NAME)))

    async def revocation(request: Request) -> Response:
        proxy, key = _param(request, "proxy", _NAME), _param(request, "key", _NAME)
        revoked = request.method == "POST"
        verb = f"{'revoke' if revoked else 'restore'} a key of"
        order, _ = await order_of(request, verb, proxy, bodies.Intent)
        return await _answer(acts.order_key(order, proxy, key, {"revoked": revoked}))

    async def key_limits(request: Request) -> Response:
        proxy, key = _param(request, "proxy", _NAME), _param(request, "key", _NAME)
        order, asked = await order_of(request, "set the limits of a key of", proxy, bodies.KeyLimits)
        changes = asked.changes() if request.method == "POST" else _NO_LIMITS
        if not changes:
            raise Refused("bad_request", "concurrency, per_minute or both must be given", 400)
        return await _answer(acts.order_key(order, proxy, key, changes))

    return _app(
        Route("/v1/state", state),
        Route("/v1/stream", stream),
        Route("/v1/plan", plan),
        Route("/v1/health", health),
        Route("/v1/config/diff", config_diff),
        Route("/v1/config/apply", apply_config, methods=["POST"]),
        Route("/v1/services/{service}/scale", scale, methods=["POST"]),
        Route(
            "/v1/services/{service}/override",
            on_service("clear the override of", acts.clear_override),
            methods=["DELETE"],
        ),
        Route("/v1/services/{service}/pause", on_service("pause", acts.pause), methods=["POST"]),
        Route("/v1/services/{service}/pause", on_service("resume", acts.resume), methods=["DELETE"]),
        Route("/v1/services/{service}/rollback", rollback, methods=["POST"]),
        Route(
            "/v1/services/{service}/pin", on_service("end the rollback of", acts.unpin), methods=["DELETE"]
        ),
        Route("/v1/services/{service}/revisions", revisions),
        Route("/v1/services/{service}/story", service_story),
        Route("/v1/events", events),
        Route("/v1/history/{table}", history),
        Route("/v1/record", record),
        Route("/v1/record/at", record_at),
        Route("/v1/record/segments/{segment}", record_segment),
        Route("/v1/instances", known_instances),
        Route("/v1/instances/{instance}/story", instance_story),
        Route("/v1/instances/{instance}/log", instance_log),
        Route("/v1/instances/{instance}/drain", on_instance("drain", acts.drain), methods=["POST"]),
        Route("/v1/instances/{instance}/cancel", on_instance("cancel", acts.cancel), methods=["POST"]),
        Route("/v1/instances/{instance}/replace", on_instance("replace", acts.replace), methods=["POST"]),
        Route("/v1/nodes/{node}/exclusion", exclude, methods=["POST"]),
        Route(
            "/v1/nodes/{node}/exclusion",
            plain_act("include", "node", _NODE, bodies.OnNode, acts.include),
            methods=["DELETE"],
        ),
        Route("/v1/unfreeze", unfreeze, methods=["POST"]),
        Route("/v1/alarms/{alarm}/ack", on_alarm("acknowledge", acts.acknowledge), methods=["POST"]),
        Route("/v1/alarms/{alarm}/ack", on_alarm("unacknowledge", acts.unacknowledge), methods=["DELETE"]),
        Route("/v1/proxies/{proxy}/maintenance", maintenance, methods=["POST"]),
        Route("/v1/proxies/{proxy}/keys", keys),
        Route("/v1/proxies/{proxy}/keys/{key}/revocation", revocation, methods=["POST", "DELETE"]),
        Route("/v1/proxies/{proxy}/keys/{key}/limits", key_limits, methods=["POST", "DELETE"]),
    )


def gate_app(engine: Engine) -> Starlette:
    """`gate.sock`: reports in, desired state of that proxy out, and nothing else."""

    async def report(request: Request) -> Response:
        caller(request)
        body = await _bounded(request, reports.LARGEST_BYTES)
        try:
            heard = reports.decode(body)
        except ValueError as exc:
            raise Refused("bad_request", f"not a report: {exc}", 400) from exc
        return await _answer(engine.report(heard))

    return _app(Route("/v1/report", report, methods=["POST"]))


def _app(*routes: Route) -> Starlette:
    return Starlette(
        routes=routes,
        exception_handlers={
            Refused: _refused,
            RecordFault: _no_record,
            HTTPException: _not_a_call,
            Exception: _failed,
        },
    )


# ---------------------------------------------------------------- in

_Body = TypeVar("_Body", bound=msgspec.Struct)


async def _body(request: Request, kind: type[_Body]) -> _Body:
    raw = await _bounded(request, LARGEST_BODY)
    try:
        return msgspec.json.decode(raw or b"{}", type=kind)
    except msgspec.DecodeError as exc:
        raise Refused("bad_request", f"the body can't be used: {exc}", 400) from exc


def _query(request: Request, kind: type[_Body]) -> _Body:
    try:
        return msgspec.convert(dict(request.query_params), kind, strict=False)
    except msgspec.ValidationError as exc:
        raise Refused("bad_request", f"the question can't be used: {exc}", 400) from exc


async def _bounded(request: Request, most: int) -> bytes:
    """The whole body. Raises Refused as soon as it is known to be larger."""
    length = request.headers.get("content-length", "0")
    body = bytearray()
    if not length.isdigit() or int(length) <= most:
        async for chunk in request.stream():
            body += chunk
            if len(body) > most:
                break
        else:
            return bytes(body)
    raise Refused("too_large", f"the body is larger than {most} bytes", 413)


def _param(request: Request, kind: str, shape: re.Pattern[str]) -> str:
    value: str = request.path_params[kind]
    if not shape.fullmatch(value):
        raise Refused("not_found", f"there is no {kind} named {clean(value, 100)}", 404)
    return value


# ---------------------------------------------------------------- out


async def _answer(answer: Answer) -> Response:
    return _json(await answer if inspect.isawaitable(answer) else answer)


def _json(content: Any, status: int = 200) -> Response:
    body = content if isinstance(content, bytes) else msgspec.json.encode(content)
    return Response(body, status, media_type="application/json")


def _error(code: str, message: str, status: int) -> Response:
    response = _json({"error": {"code": code, "message": message}}, status)
    if status == 413:
        # The rest of the body is not worth reading.
        response.headers["connection"] = "close"
    return response


def _refused(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, Refused)
    return _error(exc.code, exc.message, exc.status)


def _no_record(request: Request, exc: Exception) -> Response:
    return _error("no_record", str(exc), 404)


def _not_a_call(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)
    call = clean(f"{request.method} {request.url.path}", 200)
    return _error("no_such_call", f"{call}: {exc.detail}; docs/api.md lists all calls", exc.status_code)


def _failed(request: Request, exc: Exception) -> Response:
    log.error("request failed", call=f"{request.method} {request.url.path}", exc_info=exc)
    return _error("internal", "the engine failed at this request: its log says why", 500)
