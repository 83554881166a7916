"""Pairs of connections over TLS, in each of its kinds, for the tests of it."""

from __future__ import annotations

import selectors
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from scripted import LIMIT, OwnMethods, Task, over_tcp, tls_contexts

from sockframe import LengthPrefix

Pair = tuple[Any, Any]
Maker = Callable[..., Pair]
READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
KINDS = ["ssl", "start_tls"]
VERSIONS = {"": ssl.TLSVersion.MAXIMUM_SUPPORTED, "TLS 1.2": ssl.TLSVersion.TLSv1_2}
FRAMING = LengthPrefix()


@pytest.fixture(scope="session")
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return the TLS contexts of a client and of a server that it trusts."""
    return tls_contexts()


@pytest.fixture
def tls(contexts: Any, wing: Any, request: pytest.FixtureRequest) -> Any:
    """Return what makes a connected pair, client and server, of the kind that the test is run for; both are closed."""
    kind, _, version = getattr(request, "param", "start_tls").partition(", ")
    contexts[0].maximum_version = VERSIONS[version]
    made: list[Any] = []

    def connected(framing: Any = FRAMING, sockets: Any = None, **how: Any) -> Pair:
        left, right = sockets or over_tcp()
        for sock in (left, right):
            sock.settimeout(LIMIT)
        if kind == "ssl":
            task = Task(contexts[1].wrap_socket, right, server_side=True, **how)
            left = contexts[0].wrap_socket(left, server_hostname="localhost", **how)
            pair = wing.FramedSocket(left, framing), wing.FramedSocket(task.result(), framing)
        else:
            pair = wing.FramedSocket(left, framing), wing.FramedSocket(right, framing)
            upgrade(*pair, contexts)
        made.extend(pair)
        if version:
            assert (left if kind == "ssl" else pair[0].sock.ssl_object).version() == "TLSv1.2"
        return pair

    yield connected
    contexts[0].maximum_version = VERSIONS[""]
    for conn in made:
        conn.close()


both_kinds = pytest.mark.parametrize("tls", KINDS, indirect=True)
each_version = pytest.mark.parametrize("tls", [*KINDS, *(f"{kind}, TLS 1.2" for kind in KINDS)], indirect=True)


def upgrade(client: Any, server: Any, contexts: Any, **how: Any) -> None:
    """Begin TLS on both sides."""
    task = Task(server.start_tls, contexts[1], server_side=True, timeout=LIMIT)
    client.start_tls(contexts[0], server_hostname="localhost", timeout=LIMIT, **how)
    task.result()


def plain_pair(wing: Any, framing: Any = FRAMING, kind: str = "plain") -> Pair:
    """Return two connections in the clear."""
    pair = over_tcp()
    if kind == "own":
        pair = tuple(OwnMethods(fileno=sock.detach()) for sock in pair)  # type: ignore[assignment]
    for sock in pair:
        sock.settimeout(LIMIT)
    left, right = (wing.FramedSocket(sock, framing) for sock in pair)
    return left, right


class ByHand:
    """A TLS client whose bytes the test sends and receives by itself."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        self.sock = sock
        self.input, self.output = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.input, self.output, server_hostname="localhost")

    def do(self, call: Any, *arguments: Any) -> Any:
        """Do a call of TLS to its end."""
        while True:
            with suppress(ssl.SSLWantReadError):
                answer = call(*arguments)
                self.sock.sendall(self.output.read())
                return answer
            self.sock.sendall(self.output.read())
            self.input.write(self.sock.recv(65536))


def client_is_reading(conn: Any) -> bool:
    """Say whether another thread has the turn to read."""
    try:
        conn.recv(timeout=0)
    except BlockingIOError as error:
        return "another thread" in str(error)
    raise AssertionError
