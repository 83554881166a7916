"""Back-pressure both ways, and memory that follows what is there."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from aio_ends import FRAMING, OVER, Ends, Runner, contexts, ends, passes, run, until
from scripted import noise, over_tcp, reset_when_closed

from sockframe import UNLIMITED, FrameTooLongError, LengthPrefix, aio

__all__ = ["contexts", "ends", "run"]  # fixtures

MiB = 1 << 20
READ = 64 * 1024  # bytes that one read may bring


async def settled(value: Any) -> int:
    """Wait until a number grows no more in many passes of the loop."""
    last, same = -1, 0
    while same < 30:
        await asyncio.sleep(0.001)
        now = value()
        same = same + 1 if now == last else 0
        last = now
    return int(last)


@pytest.mark.parametrize("over", OVER)
def test_a_stream_that_nobody_receives_from_holds_little(run: Runner, ends: Ends, over: str) -> None:
    """G10, G11: reading pauses above the limit and goes on below it; sends wait; nothing is lost."""
    async def main() -> None:
        payload = noise(3000)
        async with ends.pair(over=over, read_limit=20_000, write_limit=10_000) as (client, server):
            count = 0

            async def send() -> None:
                nonlocal count
                while count < 5000:
                    await client.send(payload)
                    count += 1

            sending = asyncio.ensure_future(send())
            await settled(lambda: count)
            assert count < 5000
            # One read more than the limit; with TLS, what asyncio had to decrypt.
            assert 20_000 < server.pending() <= 20_000 + (READ if over != "tls" else 256 * 1024 + READ)
            assert client.unsent <= 10_000 + 2 * READ
            assert client._link.full
            for number in range(5000):
                assert await server.recv() == payload, number
                if number % 7 == 0:
                    await asyncio.sleep(0)
            await sending

    run(main)


def test_a_frame_larger_than_the_limit_arrives(run: Runner, ends: Ends) -> None:
    async def main() -> None:
        framing = LengthPrefix(max_length=UNLIMITED)
        async with ends.pair(framing, read_limit=1000, write_limit=1000) as (client, server):
            payloads = [noise(5 * MiB), b"", noise(300_000), noise(2000), b"x"]
            sending = asyncio.ensure_future(client.send_many(payloads))
            await until(lambda: server.pending() > 1000)
            assert await settled(server.pending) <= 1000 + READ
            assert [await server.recv() for _ in range(3)] == payloads[:3]
            assert [await server.recv() for _ in range(2)] == payloads[3:]
            await sending

    run(main)


def test_both_peers_send_much_before_they_receive(run: Runner, ends: Ends) -> None:
    """P5: with a task for each direction there is no deadlock."""
    async def main() -> None:
        payloads = [noise(70_000, number) for number in range(40)]
        async with ends.pair() as streams:
            sending = [asyncio.ensure_future(stream.send_many(iter(payloads))) for stream in streams]
            for stream in streams:
                assert [await stream.recv() for _ in payloads] == payloads
            for task in sending:
                await task

    run(main)


@pytest.mark.parametrize("size", [30, 3000, 300_000])
def test_memory_stays_flat_while_a_slow_reader_holds_the_sender_back(run: Runner, ends: Ends, size: int) -> None:
    """P8, Q7: of an iterator little more is pulled than the peer takes, and little is held."""
    total = 6 * MiB if size > 100 else MiB
    count = total // size
    payload = noise(size)
    pulled = 0

    def payloads() -> Iterator[bytes]:
        nonlocal pulled
        while pulled < count:
            pulled += 1
            yield payload

    async def main() -> None:
        async with ends.pair(over="unix") as (client, server):
            tracemalloc.start()
            try:
                begun = tracemalloc.get_traced_memory()[0]
                sending = asyncio.ensure_future(client.send_many(payloads()))
                for number in range(count):
                    assert await server.recv() == payload
                    assert (pulled - number) * size <= 4 * MiB, "the peer has not read so far"
                await sending
                peak = tracemalloc.get_traced_memory()[1] - begun
            finally:
                tracemalloc.stop()
            assert peak <= 3 * MiB, f"{peak} bytes"

    run(main)


def test_a_transport_is_given_few_and_large_pieces(run: Runner, ends: Ends) -> None:
    """Q7: many small frames go together, by no `writelines`, in order with large ones; at the end of the pass at the
    latest."""
    async def main() -> None:
        async with ends.raw(sockets=over_tcp) as (stream, peer):
            written: list[int] = []
            transport = stream.transport

            class Counting:
                def write(self, data: bytes) -> None:
                    assert type(data) is bytes
                    written.append(len(data))
                    transport.write(data)

                def __getattr__(self, name: str) -> Any:
                    assert name != "writelines"
                    return getattr(transport, name)

            stream._link.transport = Counting()
            payloads = [b"%04d" % number for number in range(1000)] + [noise(20_000), b"last", b"of all"]
            for payload in payloads:
                await stream.send(payload)
            assert stream.unsent > 0
            await passes(2)
            assert stream._link._size == 0
            assert len(written) <= 5
            receiving = await aio.attach(ends.wing.FramedSocket(peer.dup(), FRAMING))
            assert [await receiving.recv() for _ in payloads] == payloads
            receiving.close()
            await receiving.wait_closed()
            stream._link.transport = transport

    run(main)


def test_a_drained_stream_holds_no_receive_buffer(run: Runner, ends: Ends) -> None:
    """Law 8: a connection that is idle, after 256 KiB have passed each way, holds what it held before."""
    async def main() -> None:
        async with ends.pair(over="unix") as (client, server):
            async def exchange(size: int) -> None:
                for one, other in ((client, server), (server, client)):
                    sending = asyncio.ensure_future(one.send(noise(size)))
                    assert await other.recv() == noise(size)
                    await sending
                await passes(5)

            noise(256 * 1024)
            await exchange(10)
            gc.collect()
            tracemalloc.start()
            try:
                await exchange(10)
                gc.collect()
                begun = tracemalloc.get_traced_memory()[0]
                await exchange(256 * 1024)
                gc.collect()
                assert tracemalloc.get_traced_memory()[0] - begun < 4096
            finally:
                tracemalloc.stop()

    run(main)


def test_nothing_behind_a_fault_is_held(run: Runner, ends: Ends) -> None:
    """G7: reading stops; the peer may send for ever."""
    async def main() -> None:
        async with ends.raw(LengthPrefix(max_length=10), over_tcp) as (stream, peer):
            peer.sendall(b"\0\0\0\1x\0\0\0\x0b")
            assert await stream.recv() == b"x"
            with pytest.raises(FrameTooLongError):
                await stream.recv()
            peer.setblocking(False)
            sent = 0
            for _ in range(1000):
                with suppress(BlockingIOError):
                    sent += peer.send(noise(MiB))
                await asyncio.sleep(0)
            assert sent
            assert stream.pending() == 0
            assert not stream.transport.is_reading()
            with pytest.raises(BlockingIOError):
                peer.send(b"x")
            await stream.send(b"sorry")
            await passes(2)
            assert peer.recv(100) == b"\0\0\0\5sorry"
            reset_when_closed(peer)

    run(main)
