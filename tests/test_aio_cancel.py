"""Cancelling anywhere loses nothing, and leaves no half-sent frame (group Q of the cases)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from aio_ends import FRAMING, OVER, Ends, Runner, contexts, ends, in_thread, passes, run, to_end, until
from scripted import noise, over_tcp

from sockframe import UNLIMITED, Decoder, Encoder, FixedLength, LengthPrefix

__all__ = ["contexts", "ends", "run"]  # fixtures

RECEIVES: dict[str, Callable[[Any], Coroutine[Any, Any, list[bytes]]]] = {}


def receive(function: Callable[[Any], Coroutine[Any, Any, list[bytes]]]) -> Any:
    """Enter one way to receive into the table."""
    RECEIVES[function.__name__] = function
    return function


@receive
async def recv(stream: Any) -> list[bytes]:
    return [await stream.recv()]


@receive
async def recv_many(stream: Any) -> list[bytes]:
    frames: list[bytes] = await stream.recv_many(2)
    return frames


@receive
async def recv_batch(stream: Any) -> list[bytes]:
    frames: list[bytes] = (await stream.recv_batch()).tolist()
    return frames


@receive
async def iteration(stream: Any) -> list[bytes]:
    async for frame in stream:
        return [frame]
    raise AssertionError("the stream has ended")


async def cancelled(task: asyncio.Task[Any]) -> list[bytes]:
    """Cancel a task; return what it had received before that reached it."""
    task.cancel()
    await asyncio.wait([task])
    return [] if task.cancelled() else task.result()


@pytest.mark.parametrize("way", RECEIVES)
def test_cancelled_before_data_and_in_the_midst_of_a_frame(run: Runner, ends: Ends, way: str) -> None:
    """Q1, Q3: at every byte of two frames; the next receive gives the whole frame."""
    wire = b"\0\0\0\3one\0\0\0\0\0\0\0\5three"

    async def main() -> None:
        async with ends.raw() as (stream, peer):
            found: list[bytes] = []
            for at in range(len(wire)):
                task = asyncio.ensure_future(RECEIVES[way](stream))
                await passes(2)
                found += await cancelled(task)
                peer.sendall(wire[at:at + 1])
                task = asyncio.ensure_future(RECEIVES[way](stream))
                await passes(3)
                found += await cancelled(task)
            while len(found) < 3:
                found += await RECEIVES[way](stream)
            assert found == [b"one", b"", b"three"]

    run(main)


@pytest.mark.parametrize("way", RECEIVES)
def test_cancelled_in_the_pass_in_which_data_arrives(run: Runner, ends: Ends, way: str) -> None:
    """Q2: the task is woken, and cancelled before it goes on; 200 of 200 are still there."""
    async def main() -> None:
        async with ends.raw(FixedLength(8)) as (stream, peer):
            found: list[bytes] = []
            woken = 0
            for number in range(200):
                task = asyncio.ensure_future(RECEIVES[way](stream))
                await passes(2)
                arrived = stream._arrived

                def arriving(count: int, task: Any = task, arrived: Any = arrived) -> None:
                    nonlocal woken
                    arrived(count)
                    woken += task.cancel()

                ends.on_arrival(stream, arriving)
                peer.sendall(b"%08d" % number)
                await asyncio.wait([task])
                ends.on_arrival(stream, None)
                assert task.cancelled()
                found += await RECEIVES[way](stream)
            assert woken == 200
            assert found == [b"%08d" % number for number in range(200)]

    run(main)


@pytest.mark.parametrize("over", OVER)
def test_cancelled_at_every_step_of_an_exchange(run: Runner, ends: Ends, over: str) -> None:
    """Q1 to Q4: an exchange is cancelled behind each number of passes of the loop, and goes on where it was."""
    payloads = [noise(size) for size in (1, 100_000, 0, 300_000, 40_000)]

    async def main() -> None:
        async with ends.pair(over=over, read_limit=50_000, write_limit=20_000) as (client, server):
            sent: list[bytes] = []
            found: list[bytes] = []

            async def send() -> None:
                while True:
                    payload = payloads[len(sent) % len(payloads)]
                    await client.send(payload)
                    sent.append(payload)

            async def collect() -> None:
                async for payload in server:
                    found.append(payload)  # noqa: PERF401 (what a cancelled comprehension has is gone)

            for steps in range(60):
                tasks = [asyncio.ensure_future(call()) for call in (send, collect)]
                await passes(steps)
                for task in tasks:
                    await cancelled(task)
            client.close()
            await collect()
            # A send that was cancelled has sent nothing: what was sent is what the sender knows of.
            assert found == sent
            assert len(sent) >= 20

    run(main)


def test_a_cancelled_send_has_sent_nothing_or_all(run: Runner, ends: Ends) -> None:
    """Q4: a peer that does not read; the frames of all senders are whole, those of the cancelled ones are not there."""
    async def main() -> None:
        async with ends.raw(LengthPrefix(max_length=UNLIMITED), over_tcp, write_limit=1000) as (stream, peer):
            sent = []
            while not stream._link.full:
                await stream.send(payload := noise(100_000, len(sent)))
                sent.append(payload)
            tasks = [asyncio.ensure_future(stream.send(b"%d" % number * 100)) for number in range(10)]
            many = asyncio.ensure_future(stream.send_many([b"many", b"in one"]))
            lazy = asyncio.ensure_future(stream.send_many(iter([b"lazy"])))
            draining = asyncio.ensure_future(stream.drain())
            await passes(3)
            assert not any(task.done() for task in (*tasks, many, lazy, draining))
            for task in (*tasks[::2], lazy, draining):
                task.cancel()
            reading = asyncio.ensure_future(to_end(peer))
            await asyncio.wait(tasks)
            await many
            sent += [b"%d" % number * 100 for number in range(1, 10, 2)]
            stream.close()
            found = Decoder(LengthPrefix(max_length=UNLIMITED)).decode(await reading)
            assert found[:-7] == sent[:-5]
            assert sorted(found[-7:]) == sorted([*sent[-5:], b"many", b"in one"])
            assert found.index(b"in one") == found.index(b"many") + 1

    run(main)


def test_a_second_receive_is_refused_and_the_first_unharmed(run: Runner, ends: Ends) -> None:
    """Q6: also in the pass in which the frame arrives."""
    async def main() -> None:
        async with ends.raw() as (stream, peer):
            first = asyncio.ensure_future(stream.recv())
            await passes(2)
            for way in RECEIVES.values():
                with pytest.raises(RuntimeError, match="another task waits for a frame"):
                    await way(stream)
            with pytest.raises(RuntimeError, match="another task waits for a frame"):
                await stream.detach()
            with pytest.raises(RuntimeError, match="another task waits for a frame"):
                await stream.start_tls(ends.contexts[0], server_hostname="localhost")
            refused = []

            def arriving(count: int, arrived: Any = stream._arrived) -> None:
                arrived(count)
                for way in RECEIVES.values():
                    call = way(stream)
                    with pytest.raises(RuntimeError, match="another task waits for a frame"):
                        call.send(None)
                    refused.append(way)

            ends.on_arrival(stream, arriving)
            peer.sendall(b"\0\0\0\3one\0\0\0\3two")
            assert await first == b"one"
            assert len(refused) == len(RECEIVES)
            assert await stream.recv() == b"two"

    run(main)


@pytest.mark.parametrize("seed", range(4))
def test_random_deadlines_against_a_model(run: Runner, ends: Ends, seed: int) -> None:
    """Q5: 2,500 calls each, with deadlines of 0 to a few passes; what is received is what was sent, once each."""
    async def main() -> None:
        random_ = random.Random(seed)
        encoder = Encoder(FRAMING)
        loop = asyncio.get_running_loop()
        async with ends.raw() as (stream, peer):
            sent: list[bytes] = []
            found: list[bytes] = []
            wire = bytearray()

            def feed() -> None:
                """Let some bytes of the stream arrive, cut anywhere."""
                while len(wire) < 200:
                    payload = b"%d" % len(sent) * random_.choice((0, 1, 1, 5, 40))
                    sent.append(payload)
                    wire.extend(encoder.encode(payload))
                count = random_.choice((1, 2, 3, 10, 60, 200))
                peer.sendall(wire[:count])
                del wire[:count]

            ends_early = 0
            for _ in range(2500):
                way = random_.choice(list(RECEIVES.values()))
                handle = None
                if random_.random() < 0.6:
                    feed()
                elif random_.random() < 0.5:
                    handle = loop.call_soon(feed)
                try:
                    if random_.randrange(3):
                        found += await asyncio.wait_for(way(stream), random_.choice((0, 0, 1e-6, 1e-5, 1e-4)))
                    else:
                        task = asyncio.ensure_future(way(stream))
                        await passes(random_.randrange(5))
                        found += await cancelled(task)
                except (TimeoutError, asyncio.TimeoutError):
                    ends_early += 1
                if handle is not None and random_.random() < 0.5:
                    handle.cancel()
            assert ends_early > 100
            await passes(2)  # in which a feed() that is scheduled still sends, before the rest
            peer.sendall(wire)
            while len(found) < len(sent):
                found += await recv(stream)
            assert found == sent
            assert stream.pending() == 0

    run(main)


def test_sends_with_random_deadlines_against_a_model(run: Runner, ends: Ends) -> None:
    """Q5: a send that reached its deadline has sent nothing; all others have arrived, once each, in order."""
    async def main() -> None:
        random_ = random.Random(5)
        async with ends.pair(over="unix", write_limit=2000, read_limit=2000) as (client, server):
            sent: list[bytes] = []
            found: list[bytes] = []

            async def collect() -> None:
                async for payload in server:
                    found.append(payload)
                    if not random_.randrange(20):
                        before = late
                        await until(lambda before=before: late > before or over)

            late = 0
            over = False
            collecting = asyncio.ensure_future(collect())
            for number in range(1500):
                payload = b"%d " % number * random_.choice((0, 1, 10, 2000, 20_000))
                try:
                    await asyncio.wait_for(client.send(payload), random_.choice((1e-6, 1e-5, 1e-4, 0.01)))
                    sent.append(payload)
                except (TimeoutError, asyncio.TimeoutError):
                    late += 1
            over = True
            client.close()
            await collecting
            assert found == sent
            assert late > 20

    run(main)


def test_cancelled_handshake_closes(run: Runner, ends: Ends) -> None:
    async def main() -> None:
        async with ends.raw(sockets=over_tcp) as (stream, peer):
            task = asyncio.ensure_future(stream.start_tls(ends.contexts[0], server_hostname="localhost"))
            assert (await in_thread(peer.recv, 1)) == b"\x16"
            for call in (stream.recv(), stream.send(b"x")):
                with pytest.raises(RuntimeError, match="already at work"):
                    await call
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            with pytest.raises(OSError):
                await stream.recv()
            await stream.wait_closed()
            await until(stream.is_closing)

    run(main)
