"""A live connection goes to an event loop, and back, without losing a byte."""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import suppress
from typing import Any

import pytest
from aio_ends import Ends, Runner, contexts, ends, in_thread, passes, run, to_end, until
from scripted import KINDS, LIMIT, OwnMethods, noise, over_tcp, over_unix

from sockframe import Decoder, EndOfStream, FixedLength, FramingError, IncompleteFrameError, LengthPrefix, Lines, aio

__all__ = ["contexts", "ends", "run"]  # fixtures

SOCKETS = {"pair": socket.socketpair, "tcp": over_tcp, "unix": over_unix}


@pytest.mark.parametrize("kind", SOCKETS)
def test_there_and_back_at_every_byte(run: Runner, ends: Ends, kind: str) -> None:
    """The stream changes hands behind each byte that arrives; frames come in either."""
    wire = b"\0\0\0\3one\0\0\0\0\0\0\0\5three"

    async def main() -> None:
        sock, peer = SOCKETS[kind]()
        conn = ends.wing.FramedSocket(sock, LengthPrefix())
        found = []
        with peer:
            for at in range(len(wire)):
                peer.sendall(wire[at:at + 1])
                stream = await aio.attach(conn)
                assert conn.closed
                await until(lambda: stream._link.ended or stream.pending() + stream._decoder.position > 0)  # noqa: B023
                waiting = asyncio.ensure_future(stream.recv())
                await passes(3)
                waiting.cancel()
                await asyncio.wait([waiting])
                if not waiting.cancelled():
                    found.append(waiting.result())
                await stream.send(b"%d" % at)
                sock, leftover = await stream.detach()
                assert sock.gettimeout() is None
                with pytest.raises(OSError):
                    await stream.recv()
                stream.close()
                await stream.wait_closed()
                conn = ends.wing.FramedSocket(sock, LengthPrefix(), received=leftover)
                conn.settimeout(LIMIT)
                if at % 3 == 1:
                    conn.setblocking(False)
                    with suppress(BlockingIOError):
                        found.append(conn.recv())
            peer.shutdown(socket.SHUT_WR)
            stream = await aio.attach(conn)
            found += [frame async for frame in stream]
            assert found == [b"one", b"", b"three"]
            stream.close()
            await stream.wait_closed()
            sent = Decoder(LengthPrefix()).decode(await to_end(peer))
            assert sent == [b"%d" % at for at in range(len(wire))]

    run(main)


def test_what_is_unsent_goes_first(run: Runner, ends: Ends) -> None:
    """Both ways; being cancelled in that changes nothing."""
    async def main() -> None:
        sock, peer = socket.socketpair()
        conn = ends.wing.FramedSocket(sock, Lines(max_length=1 << 30))
        conn.settimeout(0.01)
        with peer:
            first, second = noise(1_000_000), noise(3_000_000)
            with pytest.raises(TimeoutError):
                conn.send(first)
            assert conn.unsent
            attaching = asyncio.ensure_future(aio.attach(conn, write_limit=100))
            await passes(5)
            attaching.cancel()
            await asyncio.wait([attaching])
            assert attaching.cancelled() and not conn.closed and conn.unsent and conn.gettimeout() == 0.01
            attaching = asyncio.ensure_future(aio.attach(conn, write_limit=100))
            await passes(5)
            received = asyncio.ensure_future(in_thread(receive_exactly, peer, len(first) + 1))
            stream = await attaching
            assert await received == first + b"\n"
            await stream.send(second)
            detaching = asyncio.ensure_future(stream.detach())
            await passes(5)
            for call in (stream.recv(), stream.send(b"x"), stream.send_many([b"x"]), stream.detach()):
                with pytest.raises(RuntimeError, match="already at work"):
                    await call
            detaching.cancel()
            await asyncio.wait([detaching])
            peer.sendall(b"still\n")
            assert await stream.recv() == b"still"
            detaching = asyncio.ensure_future(stream.detach())
            await passes(2)
            assert await in_thread(receive_exactly, peer, len(second) + 1) == second + b"\n"
            sock, leftover = await detaching
            assert leftover == b""
            with sock:
                sock.sendall(b"last\n")
                assert peer.recv(100) == b"last\n"
            assert await to_end(peer) == b""

    run(main)


def receive_exactly(sock: socket.socket, count: int) -> bytes:
    """Receive so many bytes."""
    sock.settimeout(LIMIT)
    data = b""
    while len(data) < count:
        data += sock.recv(count - len(data))
    return data


def test_a_peer_that_goes_while_the_stream_changes_hands(run: Runner, ends: Ends) -> None:
    async def main() -> None:
        async with ends.raw(Lines(max_length=1 << 30), over_tcp) as (stream, peer):
            await stream.send(noise(20_000_000))
            detaching = asyncio.ensure_future(stream.detach())
            await passes(3)
            assert not detaching.done()
            peer.close()
            with pytest.raises(ConnectionError):
                await detaching
        async with ends.raw(Lines(max_length=1 << 30), over_tcp) as (stream, _):
            await stream.send(noise(20_000_000))
            detaching = asyncio.ensure_future(stream.detach())
            await passes(3)
            stream.transport.abort()
            stream.close()
            with pytest.raises(OSError):
                await detaching

    run(main)


def test_a_frame_that_is_passed_over_is_no_place_to_change_hands(run: Runner, ends: Ends) -> None:
    """The rest of it would be taken for frames by who goes on."""
    async def main() -> None:
        sock, peer = socket.socketpair()
        framing = LengthPrefix(max_length=3, overlong="skip")
        conn = ends.wing.FramedSocket(sock, framing)
        with peer:
            peer.sendall(b"\0\0\0\x09fr")
            with pytest.raises(TimeoutError):
                conn.recv(timeout=0.05)
            with pytest.raises(FramingError, match="overlong frame at position 0 is being passed over"):
                await aio.attach(conn)
            assert conn.gettimeout() is None
            peer.sendall(b"om here\0\0\0\1a\0\0\0\x09fr")
            assert conn.recv(timeout=LIMIT) == b"a"
            with pytest.raises(TimeoutError):
                conn.recv(timeout=0.05)
            peer.sendall(b"om here")
            with pytest.raises(TimeoutError):
                conn.recv(timeout=0.05)
            stream = await aio.attach(conn)
            peer.sendall(b"\0\0\0\x09fr")
            receiving = asyncio.ensure_future(stream.recv())
            await until(stream._decoder._midway)
            receiving.cancel()
            await asyncio.wait([receiving])
            with pytest.raises(FramingError, match="overlong frame at position 0 is being passed over"):
                await stream.detach()
            peer.sendall(b"om here\0\0\0\1b")
            assert await stream.recv() == b"b"
            sock, leftover = await stream.detach()
            with sock:
                assert leftover == b""

    run(main)


def test_the_end_comes_again(run: Runner, ends: Ends) -> None:
    async def main() -> None:
        for rest, outcome in ((b"", EndOfStream), (b"\0", IncompleteFrameError)):
            sock, peer = over_tcp()
            peer.sendall(b"\0\0\0\1x" + rest)
            peer.close()
            conn = ends.wing.FramedSocket(sock, LengthPrefix())
            stream = await aio.attach(conn)
            assert await stream.recv() == b"x"
            with pytest.raises(outcome):
                await stream.recv()
            sock, leftover = await stream.detach()
            assert leftover == rest
            with ends.wing.FramedSocket(sock, LengthPrefix(), received=leftover) as conn, pytest.raises(outcome):
                conn.recv()

    run(main)


def test_framing_goes_along(run: Runner, ends: Ends) -> None:
    async def main() -> None:
        sock, peer = socket.socketpair()
        with peer:
            conn = ends.wing.FramedSocket(sock, Lines(), received=b"one\ntwo\n12")
            assert conn.recv() == b"one"
            conn.framing = FixedLength(3)
            async with await aio.attach(conn) as stream:
                assert stream.framing == FixedLength(3)
                peer.sendall(b"34\n")
                assert [await stream.recv() for _ in range(2)] == [b"two", b"\n12"]
                assert await stream.recv() == b"34\n"

    run(main)


def test_what_can_not_be_handed_over(run: Runner, ends: Ends) -> None:
    """And stays as it was."""
    async def main() -> None:
        sock, peer = KINDS["own"]()
        with peer, ends.wing.FramedSocket(sock, Lines()) as conn:
            with pytest.raises(TypeError, match=OwnMethods.__name__):
                await aio.attach(conn)
            assert not conn.closed
        with pytest.raises(OSError):
            await aio.attach(conn)
        sock, peer = over_tcp()
        context = ssl.create_default_context()
        wrapped = context.wrap_socket(sock, server_hostname="x", do_handshake_on_connect=False)
        with peer, ends.wing.FramedSocket(wrapped, Lines()) as conn:
            with pytest.raises(ValueError, match="under TLS can't change hands"):
                await aio.attach(conn)
            assert not conn.closed

    run(main)


def test_a_loop_that_can_take_no_more(run: Runner, ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the duplicate needs may not be there: the stream goes on."""
    async def main() -> None:
        async with ends.raw(Lines()) as (stream, peer):
            def fail(number: int) -> Any:
                raise OSError(24, "no more descriptors")

            with monkeypatch.context() as patch:
                patch.setattr("os.dup", fail)
                with pytest.raises(OSError, match="no more descriptors"):
                    await stream.detach()
            peer.sendall(b"more\n")
            assert await stream.recv() == b"more"

    run(main)
