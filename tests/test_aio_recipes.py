"""The documentation's recipe for anyio and trio, on real sockets: every cut, and each way to end."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Any

import anyio
import pytest
import trio

from sockframe import IncompleteFrameError, LengthPrefix, Lines, MalformedFrameError

PAGE = (Path(__file__).parent.parent / "docs" / "io.md").read_text()
STREAMS = [(Lines(), b"one\n\ntwo\n", [b"one", b"", b"two"], None),
           (Lines("crlf"), b"one\r\nbare\nthree\r\n", [b"one"], MalformedFrameError),
           (LengthPrefix(1), b"\3one\3tw", [b"one"], IncompleteFrameError)]


def recipe() -> Any:
    """Return the function that the documentation shows, on the wing in use."""
    (source,) = re.findall(r"^(async def frames\(.*?\n)\n", PAGE, re.MULTILINE | re.DOTALL)
    import sockframe

    names: dict[str, Any] = vars(sockframe).copy()
    exec(source, names)
    return names["frames"]


@pytest.fixture
def frames(wing: Any) -> Any:
    """The recipe on each wing in turn."""
    function = recipe()
    function.__globals__.update(Decoder=wing.Decoder, Encoder=wing.Encoder)
    return function


def cuts(wire: bytes) -> list[list[bytes]]:
    """Return the ways in which a stream is cut."""
    return [[wire], [wire[at:at + 1] for at in range(len(wire))],
            *([wire[:at], wire[at:]] for at in range(1, len(wire)))]


async def collect(frames: Any, stream: Any, framing: Any) -> tuple[list[bytes], Any]:
    """Return what comes, and what it ends with."""
    found: list[bytes] = []
    try:
        async for frame in frames(stream, framing):
            found.append(frame)  # noqa: PERF401 (what came before an exception counts)
    except Exception as error:
        return found, type(error)
    return found, None


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_anyio(frames: Any, backend: str) -> None:
    async def main() -> None:
        for framing, wire, payloads, end in STREAMS:
            for pieces in cuts(wire):
                async def answer(client: Any, pieces: Any = pieces) -> None:
                    async with client:
                        for piece in pieces:
                            await client.send(piece)

                async with await anyio.create_tcp_listener(
                        local_host="127.0.0.1") as listener, anyio.create_task_group() as group:
                    group.start_soon(listener.serve, answer)
                    port = listener.extra(anyio.abc.SocketAttribute.local_port)
                    async with await anyio.connect_tcp("127.0.0.1", port) as stream:
                        assert await collect(frames, stream, framing) == (payloads, end), pieces
                    group.cancel_scope.cancel()

    anyio.run(main, backend=backend)


def test_trio(frames: Any) -> None:
    async def main() -> None:
        for framing, wire, payloads, end in STREAMS:
            for pieces in cuts(wire):
                left, right = socket.socketpair()
                stream, sock = trio.SocketStream(trio.socket.from_stdlib_socket(left)), right

                async def send(pieces: Any = pieces, plain: Any = sock) -> None:
                    with trio.socket.from_stdlib_socket(plain) as sock:
                        for piece in pieces:
                            await sock.send(piece)

                async with stream, trio.open_nursery() as nursery:
                    nursery.start_soon(send)
                    assert await collect(frames, stream, framing) == (payloads, end), pieces

    trio.run(main)
