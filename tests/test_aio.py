"""sockframe.aio: streams of frames on event loops, over every kind of connection."""

from __future__ import annotations

import asyncio
import copy
import errno
import pickle
import socket
from typing import Any

import pytest
from aio_ends import FRAMING, OVER, Ends, Runner, contexts, ends, in_thread, passes, run, to_end, until
from scripted import Bracketed, noise, over_tcp, reset

from sockframe import (
    Delimiter,
    EndOfStream,
    FixedLength,
    FrameTooLongError,
    IncompleteFrameError,
    LengthPrefix,
    Lines,
    MalformedFrameError,
    Tagged,
    UntilClose,
    Varint,
    aio,
)

__all__ = ["contexts", "ends", "run"]  # fixtures

SIZES = (0, 1, 100, 16_383, 70_000, 1_000_000)


async def echo(stream: Any) -> None:
    """Send back what comes."""
    async for payload in stream:
        await stream.send(payload)


@pytest.mark.parametrize("over", OVER)
def test_frames_of_all_sizes_pass_both_ways(run: Runner, ends: Ends, over: str) -> None:
    payloads = [noise(size) for size in SIZES]

    async def main() -> None:
        async with ends.serving(echo, over=over) as server, await ends.connected(server, over=over) as stream:
            for payload in payloads:
                await stream.send(payload)
                assert await stream.recv() == payload
            sending = asyncio.ensure_future(stream.send_many(iter(payloads)))
            assert [await stream.recv() for _ in payloads] == payloads
            await sending
            await stream.send_many([b"%d" % number for number in range(3000)])
            found: list[bytes] = []
            while len(found) < 3000:
                found += await stream.recv_many(700)
            assert found == [b"%d" % number for number in range(3000)]
            await stream.send_many((b"a", b"bc"))
            batch = await stream.recv_batch()
            assert batch.tolist()[0] == b"a"
            assert server.connections == 1

    run(main)


@pytest.mark.parametrize("framing", [LengthPrefix(2), Lines(), Varint(), Bracketed(), Delimiter(b"\0"),
                                     FixedLength(3)], ids=repr)
def test_every_kind_of_framing(run: Runner, ends: Ends, framing: Any) -> None:
    payloads = [b"one", b"two", b"333"] * 50

    async def main() -> None:
        async with ends.serving(echo, framing) as server, await ends.connected(server, framing) as stream:
            await stream.send_many(payloads)
            stream.write_eof()
            assert [payload async for payload in stream] == payloads
            with pytest.raises(EndOfStream):
                await stream.recv()

    run(main)


def test_every_cut_through_a_real_socket(run: Runner, ends: Ends) -> None:
    """A1, A2: cut in two anywhere, and byte by byte; faults keep their place."""
    for framing, wire, expected, end in (
            (LengthPrefix(1), b"\3one\0\5three", [b"one", b"", b"three"], EndOfStream),
            (Lines("crlf"), b"one\r\n\r\ntwo\r\nbad\n", [b"one", b"", b"two"], MalformedFrameError),
            (LengthPrefix(1, max_length=4), b"\3one\5three", [b"one"], FrameTooLongError),
            (LengthPrefix(1), b"\3one\5thre", [b"one"], IncompleteFrameError)):

        async def received(pieces: list[bytes], framing: Any = framing) -> tuple[list[bytes], BaseException]:
            found: list[bytes] = []
            async with ends.raw(framing) as (stream, peer):
                async def collect() -> BaseException:
                    try:
                        while True:
                            found.append(await stream.recv())
                    except Exception as error:
                        return error

                collecting = asyncio.ensure_future(collect())
                for piece in pieces:
                    peer.sendall(piece)
                    await passes(3)
                peer.shutdown(socket.SHUT_WR)
                error = await collecting
                for _ in range(2):
                    with pytest.raises(type(error)) as again:
                        await stream.recv()
                    assert str(again.value) == str(error)
                return found, error

        cuts = [[wire[:at], wire[at:]] for at in range(1, len(wire))]
        for pieces in [[wire], *cuts, [wire[at:at + 1] for at in range(len(wire))]]:
            found, error = run(received, pieces)
            assert (found, type(error)) == (expected, end), pieces


def test_one_frame_by_another_framing(run: Runner, ends: Ends) -> None:
    async def main() -> None:
        async with ends.raw(Lines()) as (stream, peer):
            peer.sendall(b"4\nabcd5\nefghi\n")
            assert await stream.recv() == b"4"
            assert await stream.recv(FixedLength(4)) == b"abcd"
            assert await stream.recv() == b"5"
            waiting = asyncio.ensure_future(stream.recv(FixedLength(7)))
            await passes(3)
            waiting.cancel()
            await asyncio.wait([waiting])
            assert await stream.recv() == b"efghi"
            peer.sendall(b"xyz\n")
            assert await stream.recv(FixedLength(2)) == b"xy"
            assert await stream.recv_many() == [b"z"]

    run(main)


def test_the_framing_changes_in_the_midst_of_a_stream(run: Runner, ends: Ends) -> None:
    """O7: the next framing reads what is here, also for who waits."""
    async def main() -> None:
        async with ends.raw(Lines()) as (stream, peer):
            peer.sendall(b"upgrade\n\0\0\0\3one\0\0\0\3tw")
            assert await stream.recv() == b"upgrade"
            stream.framing = LengthPrefix()
            assert stream.framing == LengthPrefix()
            assert await stream.recv() == b"one"
            waiting = asyncio.ensure_future(stream.recv())
            await passes(2)
            stream.framing = FixedLength(6)
            assert await waiting == b"\0\0\0\3tw"
            await stream.send(b"sixsix")
            assert await in_thread(peer.recv, 100) == b"sixsix"
            with pytest.raises(TypeError):
                stream.framing = 3

    run(main)


def test_lists_are_sent_as_a_whole_or_not_at_all(run: Runner, ends: Ends) -> None:
    async def main() -> None:
        async with ends.raw(Lines()) as (stream, peer):
            for bad in ([b"good", b"b\nad"], (b"good", "text"), (payload for payload in [b"good", b"b\nad"])):
                with pytest.raises((ValueError, TypeError)):
                    await stream.send_many(bad)
            with pytest.raises(ValueError):
                await stream.send(b"b\nad")
            with pytest.raises(TypeError):
                await stream.send("text")
            with pytest.raises(BufferError):
                await stream.send(memoryview(b"abcd")[::2])
            await stream.send_many([])
            await stream.send_many(iter(()))
            await stream.send_many(bytearray(b"%d" % number) for number in range(3000))
            await stream.drain()
            data = b""
            while data.count(b"\n") < 3000:
                data += await in_thread(peer.recv, 100_000)
            assert data == b"".join(b"%d\n" % number for number in range(3000))
            assert stream.unsent == 0

    run(main)


def test_a_payload_that_changes_behind_send_was_sent_as_it_was(run: Runner, ends: Ends) -> None:
    async def main() -> None:
        async with ends.raw() as (stream, peer):
            payload = bytearray(b"first")
            for _ in range(3):
                await stream.send(payload)
                payload[:] = b"later"
            await stream.drain()
            assert await in_thread(peer.recv, 100) == b"\0\0\0\5first" + 2 * b"\0\0\0\5later"

    run(main)


def test_a_payload_that_lasts_until_the_end_is_the_last_one(run: Runner, ends: Ends) -> None:
    async def main() -> None:
        for framing in (UntilClose(), Tagged({b"U": UntilClose()}, default=Lines())):
            async with ends.raw(framing) as (stream, peer):
                if isinstance(framing, Tagged):
                    await stream.send(b"a line")
                with pytest.raises(ValueError):
                    await stream.send_many([b"U1", b"U2"])
                await stream.send(b"U all")
                for again in (stream.send(b"U more"), stream.send_many([b"x"])):
                    with pytest.raises(ValueError, match="payload follows one that lasts"):
                        await again
                stream.write_eof()
                assert await to_end(peer) == (b"a line\n" if isinstance(framing, Tagged) else b"") + b"U all"
                peer.sendall(b"U back")
                peer.shutdown(socket.SHUT_WR)
                assert await stream.recv() == b"U back"
                with pytest.raises(EndOfStream):
                    await stream.recv()

    run(main)


@pytest.mark.parametrize("take", ["recv", "recv_many", "recv_batch"])
def test_a_frame_that_the_end_makes(run: Runner, ends: Ends, take: str) -> None:
    """E5: the unended last line, where it is wanted."""
    async def main() -> None:
        async with ends.raw(Delimiter(b"\n", tail="deliver")) as (stream, peer):
            peer.sendall(b"one\ntail")
            peer.close()
            found: list[bytes] = []
            with pytest.raises(EndOfStream):
                while True:
                    frames = await getattr(stream, take)()
                    found += {"recv": lambda: [frames], "recv_many": lambda: frames,  # noqa: B023
                              "recv_batch": lambda: frames.tolist()}[take]()  # noqa: B023
            assert found == [b"one", b"tail"]
            assert [frame async for frame in stream] == []

    run(main)


def test_a_peer_that_resets_comes_after_its_frames(run: Runner, ends: Ends) -> None:
    """P7, Q8: whole frames that arrived are delivered, then `ConnectionError`; a send raises it at once."""
    async def main() -> None:
        async with ends.raw(sockets=over_tcp) as (stream, peer):
            peer.sendall(b"\0\0\0\3one\0\0\0\3two\0\0\0\5thr")
            await until(lambda: stream.pending() == 21)
            reset(peer)
            await until(stream.is_closing)
            await passes(2)
            assert await stream.recv() == b"one"
            assert await stream.recv_many() == [b"two"]
            for call in (stream.recv, stream.recv, stream.recv_many, stream.recv_batch, stream.__anext__):
                with pytest.raises(ConnectionError):
                    await call()
            for send in (stream.send(b"x"), stream.send_many([b"x"]), stream.send_many(iter([b"x"])), stream.drain()):
                with pytest.raises(ConnectionError):
                    await send
            assert "lost" in repr(stream)

    run(main)


def test_what_arrived_is_received_where_a_send_fails(run: Runner, ends: Ends) -> None:
    """S5: an event loop's transport gives up, unread, what is at a socket that failed to send."""
    async def main() -> None:
        async with ends.raw(sockets=over_tcp) as (stream, peer):
            stream.transport.pause_reading()  # as it is while much is held
            peer.sendall(b"\0\0\0\4last\0\0\0\4word")
            peer.close()
            with pytest.raises(ConnectionError):
                while True:
                    await stream.send(noise(10_000))
                    await stream.drain()
                    await asyncio.sleep(0)
            assert [await stream.recv(), await stream.recv()] == [b"last", b"word"]
            with pytest.raises(ConnectionError):
                await stream.recv()

    run(main)


def test_each_half_ends_by_itself(run: Runner, ends: Ends) -> None:
    """E9: the peer's end does not close our half, nor ours the peer's."""
    async def main() -> None:
        async with ends.raw(sockets=over_tcp) as (stream, peer):
            peer.shutdown(socket.SHUT_WR)
            with pytest.raises(EndOfStream):
                await stream.recv()
            await stream.send(b"still")
            assert await in_thread(peer.recv, 100) == b"\0\0\0\5still"
        async with ends.raw(sockets=over_tcp) as (stream, peer):
            await stream.send(b"one")
            await stream.send(b"two")
            stream.write_eof()
            for call in (stream.send, stream.send_many):
                with pytest.raises(BrokenPipeError):
                    await call([b"x"])
            with pytest.raises(BrokenPipeError):
                stream.write_eof()
            await stream.drain()
            assert await to_end(peer) == b"\0\0\0\3one\0\0\0\3two"
            peer.sendall(b"\0\0\0\5still")
            assert await stream.recv() == b"still"

    run(main)


@pytest.mark.parametrize("over", OVER)
def test_close_sends_what_was_sent_and_wakes_who_waits(run: Runner, ends: Ends, over: str) -> None:
    """K1, K2: after it every call raises EBADF."""
    async def main() -> None:
        async with ends.pair(over=over) as (client, server):
            waiting = asyncio.ensure_future(client.recv())
            await passes(2)
            for number in range(100):
                await client.send(b"%d" % number)
            client.close()
            client.close()
            with pytest.raises(OSError) as caught:
                await waiting
            assert caught.value.errno == errno.EBADF
            assert [frame async for frame in server] == [b"%d" % number for number in range(100)]
            server.close()
            await client.wait_closed()
            await client.wait_closed()
            for call in (client.recv(), client.recv_many(), client.recv_batch(), client.send(b"x"),
                         client.send_many([b"x"]), client.send_many(iter([b"x"])), client.drain(), client.detach(),
                         client.start_tls(ends.contexts[0])):
                with pytest.raises(OSError) as caught:
                    await call
                assert caught.value.errno == errno.EBADF
            with pytest.raises(OSError):
                client.write_eof()
            with pytest.raises(OSError):
                client.framing = FRAMING
            with pytest.raises(OSError):
                async for _ in client:
                    pass
            assert client.is_closing()
            assert "closed" in repr(client)

    run(main)


def test_what_it_tells_of_itself(run: Runner, ends: Ends) -> None:
    async def main() -> None:
        async with ends.pair() as (client, server):
            assert client.get_extra_info("peername") == server.get_extra_info("sockname")
            assert client.get_extra_info("nothing", 3) == 3
            assert not client.is_closing()
            assert "FramedStream" in repr(client)
            assert client.transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            for copied in (copy.copy, copy.deepcopy, pickle.dumps):
                with pytest.raises(TypeError, match="FramedStream can't be pickled or copied"):
                    copied(client)
            for limit in (0, -1):
                with pytest.raises(ValueError, match="limit must be 1 or more"):
                    await client.recv_many(limit)

    run(main)


def test_wrong_arguments_are_refused(run: Runner, ends: Ends) -> None:
    async def main() -> None:
        for option in ("read_limit", "write_limit"):
            for value, kind in ((0, ValueError), (-1, ValueError), (True, TypeError), (1.5, TypeError)):
                with pytest.raises(kind, match=option):
                    await aio.connect(("127.0.0.1", 1), FRAMING, **{option: value})
                with pytest.raises(kind, match=option):
                    await aio.serve(echo, ("127.0.0.1", 0), FRAMING, **{option: value})
        for call in (aio.connect(("127.0.0.1", 1), 3), aio.serve(echo, ("127.0.0.1", 0), 3),
                     aio.serve(3, ("127.0.0.1", 0), FRAMING), aio.attach(3),
                     aio.serve(echo, ("127.0.0.1", 0), FRAMING, tls=3)):
            with pytest.raises(TypeError):
                await call
        with pytest.raises(ValueError, match="a path names no host"):
            await aio.connect("/nowhere", FRAMING, tls=ends.contexts[0])
        with pytest.raises(ValueError, match="server_hostname is for TLS"):
            await aio.connect(("127.0.0.1", 1), FRAMING, server_hostname="x")
        with pytest.raises(FileNotFoundError):
            await aio.connect("/nowhere", FRAMING)

    run(main)
