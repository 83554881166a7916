"""asyncio's streams by sockframe: cancelled reads, limits and back-pressure, what goes beyond the original, memory."""

import asyncio
import gc
import inspect
import random
import socket
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from unittest import mock

import pytest
from scripted import put_into
from stream_ends import MIB, close, loop, ours, pair

__all__ = ["loop", "ours"]  # fixtures

# ---- cancelled reads ----

def test_a_read_cancelled_in_the_turn_in_which_bytes_come(ours: Any, loop: Any) -> None:
    """Q2."""
    async def main() -> None:
        reader, writer, other = await pair(ours)
        arrived = reader._arrived
        for number in range(200):
            sent = b"%04d" % number + bytes(4)
            for read in (reader.readexactly(8), reader.readinto_exactly(bytearray(8)), reader.readuntil(bytes(4)),
                         reader.read(8), reader.readinto_exactly(bytearray(6)), reader.read()):
                task = asyncio.ensure_future(read)
                await asyncio.sleep(0)
                reader._arrived = lambda task=task: (arrived(), task.cancel())
                other.sendall(sent)
                with pytest.raises(asyncio.CancelledError):
                    await task
                del reader._arrived
                assert await reader.readexactly(8) == sent
        await close(writer, other)

    loop.run_until_complete(asyncio.wait_for(main(), 120))


@pytest.mark.parametrize("way", ["readexactly", "readinto_exactly"])
def test_a_read_cancelled_between_pieces(ours: Any, loop: Any, way: str) -> None:
    """Q1, Q3."""
    async def main() -> None:
        for size in (40, 300_000):
            data = random.Random(size).randbytes(size)
            for feed in (True, False):
                reader = ours.StreamReader(limit=MIB)
                protocol = ours.StreamReaderProtocol(reader)
                into = bytearray(size)
                for start in (0, size // 3, size // 2):
                    task = asyncio.ensure_future(reader.readexactly(size) if way == "readexactly" else
                                                 reader.readinto_exactly(into))
                    await asyncio.sleep(0)
                    give(protocol, data[start:{0: size // 3, size // 3: size // 2}.get(start, size)], feed)
                    task.cancel()
                    with pytest.raises(asyncio.CancelledError):
                        await task
                    into[:] = bytes(size)
                    assert reader._buffer == data[:{0: size // 3, size // 3: size // 2}.get(start, size)]
                assert await reader.readexactly(size) == data

    loop.run_until_complete(main())


def give(protocol: Any, data: bytes, feed: bool) -> None:
    """Give bytes to a protocol: as they are, or into its memory."""
    if feed:
        protocol.data_received(data)
    else:
        put_into(protocol, data)


def test_ten_thousand_reads_with_deadlines(ours: Any, loop: Any) -> None:
    """Q5."""
    async def main() -> None:
        source = random.Random(5)
        sent = source.randbytes(1_000_000)
        reader, writer, other = await pair(ours, limit=2000)
        other.setblocking(False)
        got = bytearray()

        async def send() -> None:
            at = 0
            while at < len(sent):
                part = sent[at:at + source.choice((1, 60, 700, 5000))]
                await asyncio.get_running_loop().sock_sendall(other, part)
                at += len(part)
                await asyncio.sleep(source.choice((0, 0, 0, 0.0001)))
            other.shutdown(socket.SHUT_WR)

        sending = asyncio.ensure_future(send())
        for _ in range(10_000):
            size = source.choice((0, 1, 8, 90, 400))
            into = bytearray(size)
            read = source.choice((reader.readexactly, reader.read, lambda size: reader.readinto_exactly(into)))  # noqa: B023
            try:
                part = await asyncio.wait_for(read(size), source.choice((0, 0.0001, 5)))
            except asyncio.IncompleteReadError as error:
                part = error.partial
            except (asyncio.TimeoutError, TimeoutError):  # before Python 3.11 they are two
                continue
            got += into if isinstance(part, int) else part
        got += await reader.read()
        await sending
        assert got == sent
        await close(writer, other)

    loop.run_until_complete(asyncio.wait_for(main(), 120))


# ---- limits and back-pressure ----

def test_what_nobody_reads_is_not_received_for_ever(ours: Any, loop: Any) -> None:
    """G10."""
    async def main() -> None:
        reader, writer, other = await pair(ours, limit=1000)
        other.setblocking(False)
        sent, lots = 0, b"some line\n" * 10_001
        for _ in range(200):
            with suppress(BlockingIOError):
                sent += other.send(lots[sent % 10:])
            await asyncio.sleep(0.001)
        assert reader._paused and "paused" in repr(reader)
        assert 2000 < len(reader._buffer) <= 2000 + 262144 < sent
        other.setblocking(True)
        other.shutdown(socket.SHUT_WR)
        lines = 0
        while line := await reader.readline():
            assert line == b"some line\n" or (reader.at_eof() and line == b"some line\n"[:sent % 10])
            lines += 1
        assert lines == -(-sent // 10)
        await close(writer, other)

    loop.run_until_complete(asyncio.wait_for(main(), 60))


def transport() -> Any:
    """Return a transport of which it is noted when it is told to pause."""
    return mock.Mock(spec=["pause_reading", "resume_reading", "is_closing"])


def test_the_transport_is_paused_and_resumed_where_the_originals_is(ours: Any, loop: Any) -> None:
    async def main(module: Any) -> "list[Any]":
        reader = module.StreamReader(limit=10)
        made = transport()
        reader.set_transport(made)
        seen = []
        for name, *arguments in (("feed_data", bytes(20)), ("feed_data", b"1"), ("feed_data", b"2"), ("readexactly", 5),
                                 ("readexactly", 6), ("readexactly", 1), ("feed_data", b"line\n" * 5), ("readline",),
                                 ("readuntil", b"\n"), ("readline",), ("read", 1), ("read", 30),
                                 ("feed_data", bytes(30)), ("readuntil", b"\n"), ("read", 3), ("readline",),
                                 ("feed_data", b"x" * 50 + b"\n"), ("readline",)):
            try:
                result = getattr(reader, name)(*arguments)
                seen.append(await result if inspect.iscoroutine(result) else result)
            except (asyncio.LimitOverrunError, ValueError) as error:
                seen.append(str(error))
            seen += [repr(reader).partition("transport=")[0], [call[0] for call in made.method_calls]]
        return seen

    assert loop.run_until_complete(main(ours)) == loop.run_until_complete(main(asyncio))


def test_a_transport_that_cannot_pause(ours: Any, loop: Any) -> None:
    async def main() -> None:
        reader = ours.StreamReader(limit=1)
        made = transport()
        made.pause_reading.side_effect = NotImplementedError
        reader.set_transport(made)
        for _ in range(3):
            reader.feed_data(b"some")
        assert made.pause_reading.call_count == 1
        assert await reader.readexactly(12) == b"some" * 3

    loop.run_until_complete(main())


def test_a_large_read_wakes_its_reader_once_and_pauses_nothing(ours: Any, loop: Any) -> None:
    async def main() -> None:
        reader = ours.StreamReader(limit=10)
        made = transport()
        reader.set_transport(made)
        for read in (reader.readexactly(1000), reader.readinto_exactly(bytearray(1000))):
            task = asyncio.ensure_future(read)
            await asyncio.sleep(0)
            waiter = reader._waiter
            for _ in range(9):
                reader.feed_data(bytes(100))
                await asyncio.sleep(0)
                assert reader._waiter is waiter
            reader.feed_data(bytes(100))
            assert await task in (bytes(1000), 1000)
        assert made.method_calls == []

    loop.run_until_complete(main())


def test_the_limit_may_be_set_or_infinite(ours: Any, loop: Any) -> None:
    async def main() -> None:
        reader = ours.StreamReader(limit=3)
        reader.feed_data(b"12345\n12345\n")
        with pytest.raises(ValueError, match="chunk is longer than limit"):
            await reader.readline()
        reader._limit = 5
        assert await reader.readline() == b"12345\n"
        reader = ours.StreamReader(limit=float("inf"))
        reader.set_transport(transport())
        reader.feed_data(bytes(MIB) + b"\n")
        assert await reader.readline() == bytes(MIB) + b"\n"
        with pytest.raises(ValueError, match="Limit cannot be <= 0"):
            ours.StreamReader(limit=0)

    loop.run_until_complete(main())


def test_programs_that_clear_the_buffer_do_so(ours: Any, loop: Any) -> None:
    async def main() -> None:
        reader = ours.StreamReader()
        reader.feed_data(b"some")
        assert reader._buffer and reader._buffer == b"some"
        reader._buffer.clear()
        assert not reader._buffer
        reader._buffer = b"other"
        assert await reader.read(9) == b"other"

    loop.run_until_complete(main())


# ---- beyond the original ----

@pytest.mark.parametrize("size", [1, 1000, 200_000])
def test_into_a_buffer(ours: Any, loop: Any, size: int) -> None:
    """J9, J11."""
    async def main() -> None:
        reader, writer, other = await pair(ours)
        data = random.Random(size).randbytes(4 * size)
        sending = asyncio.get_running_loop().run_in_executor(None, other.sendall, data + b"behind")
        whole = bytearray(4 * size)
        assert await reader.readinto_exactly(memoryview(whole)[:size]) == size
        assert await reader.readinto_exactly(memoryview(whole)[size:]) == 3 * size
        assert whole == data
        whole.append(1)  # nobody holds it
        assert await reader.readinto_exactly(bytearray()) == 0
        assert await reader.readinto_exactly(numbers := memoryview(bytearray(6)).cast("B", (2, 3))) == 6
        assert numbers.tobytes() == b"behind"
        await sending
        await close(writer, other)

    loop.run_until_complete(asyncio.wait_for(main(), 60))


def test_a_buffer_that_cannot_be_filled_costs_no_byte(ours: Any, loop: Any) -> None:
    """J6, J7, J12."""
    async def main() -> None:
        reader = ours.StreamReader()
        reader.feed_data(b"some")
        for wrong, error in ((b"some", TypeError), (memoryview(bytearray(8))[::2], BufferError), ("some", TypeError),
                             (4, TypeError), (None, TypeError)):
            with pytest.raises(error):
                await reader.readinto_exactly(wrong)
        assert await reader.readexactly(4) == b"some"

    loop.run_until_complete(main())


def test_the_end_in_a_buffer(ours: Any, loop: Any) -> None:
    async def main() -> None:
        for feed in (True, False):
            reader = ours.StreamReader()
            protocol = ours.StreamReaderProtocol(reader)
            into = bytearray(10)
            task = asyncio.ensure_future(reader.readinto_exactly(into))
            await asyncio.sleep(0)
            give(protocol, b"some", feed)
            protocol.eof_received()
            with pytest.raises(asyncio.IncompleteReadError) as caught:
                await task
            assert (caught.value.partial, caught.value.expected) == (b"some", 10)
            into.append(1)
            assert reader.at_eof()

    loop.run_until_complete(main())


def test_a_read_to_the_end_that_is_cancelled_keeps_its_bytes(ours: Any, loop: Any) -> None:
    async def main() -> None:
        reader = ours.StreamReader(limit=4)
        task = asyncio.ensure_future(reader.read())
        for part in (b"some", b"more"):
            await asyncio.sleep(0)
            reader.feed_data(part)
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        reader.feed_eof()
        assert await reader.read() == b"somemore"

    loop.run_until_complete(main())


def test_separators_in_a_tuple_on_every_python(ours: Any, loop: Any) -> None:
    async def main() -> None:
        reader = ours.StreamReader()
        reader.feed_data(b"one\rtwo\nABCDEFG")
        assert [await reader.readuntil((b"\r", b"\n")) for _ in range(2)] == [b"one\r", b"two\n"]
        assert await reader.readuntil((b"DEF", b"BCDE")) == b"ABCDE"
        for wrong, error in (((), ValueError), ((b"",), ValueError), (b"", ValueError), ("\n", TypeError),
                             ((b"a", "b"), TypeError), (5, TypeError), (None, TypeError)):
            with pytest.raises(error):
                await reader.readuntil(wrong)

    loop.run_until_complete(main())


# ---- memory ----

def peak(work: "Callable[[], Any]") -> int:
    """Return the most memory that some work holds at a time, beyond what was held before."""
    tracemalloc.start()
    try:
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        work()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("feed", [False, True], ids=["received", "fed"])
def test_a_mebibyte_is_held_once(ours: Any, wing: Any, feed: bool) -> None:
    """The core hands out the memory that was received into; the pure wing has one copy more, of what it received."""
    piece = bytes(65536)

    async def main() -> None:
        reader = ours.StreamReader()
        protocol = ours.StreamReaderProtocol(reader)
        task = asyncio.ensure_future(reader.readexactly(MIB))
        await asyncio.sleep(0)
        for _ in range(16):
            if feed:
                protocol.data_received(piece)
                continue
            left = len(piece)
            while left:
                part = min(left, len(lent := protocol.get_buffer(-1)))
                lent.release()
                protocol.buffer_updated(part)
                left -= part
        assert len(await task) == MIB
        assert reader._store.held == 0

    run = asyncio.new_event_loop()
    try:
        run.run_until_complete(main())
        most = peak(lambda: run.run_until_complete(main()))
    finally:
        run.close()
    assert most < (1.2 if wing.name == "core" else 2.3) * MIB, most


def test_memory_follows_what_came_not_what_was_asked_for(ours: Any, loop: Any) -> None:
    """G1."""
    async def main() -> None:
        reader = ours.StreamReader()
        protocol = ours.StreamReaderProtocol(reader)
        for feed in (True, False):
            task = asyncio.ensure_future(reader.readexactly(1 << 40))
            await asyncio.sleep(0)
            for _ in range(10):
                give(protocol, b"some", feed)
                protocol.get_buffer(-1)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    assert peak(lambda: loop.run_until_complete(main())) < 400_000


def test_a_drained_reader_holds_no_memory(ours: Any, loop: Any) -> None:
    async def main() -> None:
        reader = ours.StreamReader()
        protocol = ours.StreamReaderProtocol(reader)

        async def fill() -> None:
            for size in (10, 5000, 60_000):
                give(protocol, bytes(size), False)
                assert len(await reader.readexactly(size)) == size
            give(protocol, bytes(120_000), False)
            while reader._store.held > 10:
                await reader.readexactly(10)

        await fill()
        tracemalloc.start()
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        await reader.readexactly(10) if reader._store.held else None
        await fill()
        held = tracemalloc.get_traced_memory()[0] - before
        await reader.readexactly(reader._store.held)
        drained = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        assert held < 70_000
        assert drained < 2000

    run = asyncio.new_event_loop()
    try:
        run.run_until_complete(main())
    finally:
        run.close()
