"""The proxy with a certificate of its own: plain requests, streams and WebSockets through TLS."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import ssl
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from websockets.asyncio.client import connect

from saia_engine.wire.messages import Head
from saia_engine.wire.stream import Stream
from saia_proxy.config import ProxyConfig
from tests.unit.proxy_gate import EVENTS, Gate, instance, read_all, service
from tests.unit.proxy_running import KEY, config, running, until, until_async
from tests.unit.test_proxy_websockets import APP, Room, app_gate

AUTHORIZED = {"Authorization": f"Bearer {KEY}"}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file with a certificate for 127.0.0.1 and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "proxy.example.org")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file = tmp_path_factory.mktemp("tls") / "proxy.pem"
    file.write_bytes(made.public_bytes(serialization.Encoding.PEM) + private)
    return file


@pytest.fixture
def trust(certificate: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=certificate)


def secured(directory: Path, certificate: Path) -> ProxyConfig:
    plain = config(directory, "a")
    return replace(plain, server=replace(plain.server, tls_certificate=certificate, tls_key=certificate))


async def test_requests_and_streams(tmp_path: Path, certificate: Path, trust: ssl.SSLContext):
    gate = Gate([service()], [instance("one")])
    cut = asyncio.Event()

    async def answer(stream: Stream) -> None:
        body = await read_all(stream)
        stream.respond(Head(200, EVENTS))
        for number in range(100):
            await stream.send(b"data: %d\n\n" % number + body)
        if b"for ever" in body:
            await cut.wait()
            stream.reset("instance_lost")
        else:
            stream.end()

    gate.answers["one"] = answer
    async with running(secured(tmp_path, certificate), gate, wait=False) as proxy:
        url = f"https://127.0.0.1:{proxy.port}"
        async with httpx.AsyncClient(base_url=url, verify=trust, headers=AUTHORIZED) as client:

            async def connected() -> bool:
                return (await client.get("/healthz")).json()["upstreams"]["connected"] == 1

            await until_async(connected)
            for _ in range(3):
                whole = await client.post("/v1/completions", json={"model": "llama", "prompt": "x" * 90_000})
                assert whole.status_code == 200
                assert whole.text.count("data: ") == 100
            with pytest.raises(httpx.TransportError):
                broken = {"model": "llama", "prompt": "for ever"}
                async with client.stream("POST", "/v1/completions", json=broken) as response:
                    async for _ in response.aiter_raw():
                        cut.set()


async def test_websockets_and_who_leaves(tmp_path: Path, certificate: Path, trust: ssl.SSLContext):
    async with Room() as room:
        gate = app_gate(room.answer)
        async with running(secured(tmp_path, certificate), gate, wait=False) as proxy:
            await until(lambda: gate.applied)
            url = f"wss://127.0.0.1:{proxy.port}/services/{APP.name}/ws"
            async with connect(url, ssl=trust, additional_headers=AUTHORIZED) as socket:
                for message in ("short", "long" * 50_000, b"\0\xff"):
                    await socket.send(message)
                    assert await socket.recv() == message
            await until(lambda: room.connections and room.connections[0].close_code is not None)
            async with connect(url, ssl=trust, additional_headers=AUTHORIZED) as socket:
                await socket.send("x")
                socket.transport.abort()
            await until(lambda: len(room.connections) == 2 and room.connections[1].close_code is not None, 10)


async def test_who_speaks_no_tls_gets_an_end(tmp_path: Path, certificate: Path):
    gate = Gate([service()], [instance("one")])
    async with running(secured(tmp_path, certificate), gate, wait=False) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"HTTP/1.1 200" not in await asyncio.wait_for(reader.read(), 10)
        writer.close()
