"""asyncio's streams by sockframe: CPython's own tests pass, and nothing differs but what is promised to be better."""

import asyncio
import gc
import importlib
import importlib.util
import inspect
import os
import random
import socket
import ssl
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from unittest import mock

import pytest
import trustme
from conftest import WINGS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peers.programs import lacking
from scripted import put_into

#: CPython's own tests, as they are installed, all of them; the names are replaced before they are imported.
OWN_TESTS = """
import asyncio, sys, unittest
import sockframe
from sockframe.drop_in import asyncio_streams
assert sockframe.wing == sys.argv[1]
assert set(asyncio_streams.__all__) == set(asyncio.streams.__all__)
for name in asyncio_streams.__all__:
    setattr(asyncio, name, getattr(asyncio_streams, name))
from test.test_asyncio import test_streams
result = unittest.TextTestRunner().run(unittest.defaultTestLoader.loadTestsFromModule(test_streams))
assert result.wasSuccessful() and not result.skipped and result.testsRun > 60, result
"""

MIB = 1 << 20


@pytest.fixture
def ours(wing: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The drop-in, over one wing."""
    module = importlib.import_module("sockframe.drop_in.asyncio_streams")
    monkeypatch.setattr(module, "StreamBuffer", wing.StreamBuffer)
    return module


EAGER = ["asyncio, eager"] if sys.version_info >= (3, 12) else []


@pytest.fixture(params=["asyncio", "asyncio, debug", *EAGER, "uvloop"])
def loop(request: pytest.FixtureRequest) -> Iterator[asyncio.AbstractEventLoop]:
    """Each event loop in turn."""
    if request.param == "uvloop":
        try:
            made = importlib.import_module("uvloop").new_event_loop()
        except ImportError:
            lacking("uvloop", "pip install uvloop")
    else:
        made = asyncio.new_event_loop()
        made.set_debug("debug" in request.param)
        if "eager" in request.param:
            made.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined, unused-ignore]
    problems: list[Any] = []
    made.set_exception_handler(lambda _, context: problems.append(context))
    yield made
    made.run_until_complete(made.shutdown_asyncgens())
    made.close()
    assert problems == []


async def pair(module: Any, **options: Any) -> "tuple[Any, Any, socket.socket]":
    """Return (reader, writer) of a connection, and its other end."""
    one, other = socket.socketpair()
    one.setblocking(False)
    other.settimeout(20)
    reader, writer = await module.open_connection(sock=one, **options)
    return reader, writer, other


async def until(true: "Callable[[], object]") -> None:
    """Let the loop run until something is so."""
    for _ in range(2000):
        if true():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came to be so")


async def close(writer: Any, other: socket.socket) -> None:
    """Close a connection and its other end."""
    other.close()
    writer.close()
    await writer.wait_closed()


# ---- the original by another import ----

@pytest.mark.parametrize("name", WINGS)
def test_cpythons_own_tests_pass(name: str) -> None:
    if importlib.util.find_spec("test") is None or importlib.util.find_spec("test.test_asyncio") is None:
        lacking("CPython's own tests", "apt-get install libpython3.X-testsuite, of this Python's version")
    environment = {**os.environ, "SOCKFRAME_CORE": "1" if name == "core" else "0"}
    done = subprocess.run([sys.executable, "-c", OWN_TESTS, name], env=environment, capture_output=True, text=True,
                          timeout=120)
    assert done.returncode == 0, done.stderr


def test_names_classes_and_signatures_are_the_originals(ours: Any) -> None:
    assert set(ours.__all__) == set(asyncio.streams.__all__)
    for name in ("StreamReader", "StreamReaderProtocol"):
        original, replaced = getattr(asyncio, name), getattr(ours, name)
        assert issubclass(replaced, original)
        for method, function in vars(original).items():
            if callable(function) and not method.startswith("__"):
                given, wanted = (inspect.signature(getattr(kind, method)) for kind in (replaced, original))
                for key, parameter in wanted.parameters.items():
                    assert given.parameters[key].default == parameter.default, (method, key)
                assert inspect.iscoroutinefunction(getattr(replaced, method)) == inspect.iscoroutinefunction(function)
    for name in set(ours.__all__) - {"StreamReader", "StreamReaderProtocol", "StreamWriter"}:
        given, wanted = (inspect.signature(getattr(kind, name)) for kind in (ours, asyncio))
        assert [(item.name, item.kind, item.default) for item in given.parameters.values()] == [
            (item.name, item.kind, item.default) for item in wanted.parameters.values()]
        assert inspect.iscoroutinefunction(getattr(ours, name))
    assert ours.StreamWriter is asyncio.StreamWriter


# ---- the same as the original, however the stream is cut ----

def alternatives() -> "st.SearchStrategy[Any]":
    """Return what may be given as a separator: of bytes that the streams have many of."""
    one = st.sampled_from([b"a", b"\n", b"ab", b"aab", b"\r\n", bytearray(b"ba"), b"", b"abcabc"])
    return one | st.lists(one, max_size=3).map(tuple) if sys.version_info >= (3, 13) else one


READS = st.one_of(
    st.tuples(st.just("read"), st.integers(0, 20) | st.just(-1)),
    st.tuples(st.just("readexactly"), st.integers(-1, 30)),
    st.tuples(st.just("readuntil"), alternatives()),
    st.just(("readline",)), st.just(("__anext__",)))
COMES = st.lists(st.sampled_from([b"a", b"b", b"ab", b"\n", b"\r", b"abc" * 5, b"aab\n"]), max_size=5).map(b"".join)
STEPS = st.lists(READS | st.tuples(st.just("feed_data"), COMES) | st.just(("cancel",)) | st.just(("at_eof",)) |
                 st.just(("wait",)), max_size=30)


def outcome(task: "asyncio.Task[Any]") -> Any:
    """Return what a read gave, or how it failed."""
    if task.cancelled():
        return "cancelled"
    error = task.exception()
    if error is None:
        return task.result()
    context = error.__context__
    return (type(error), str(error), getattr(error, "partial", None), getattr(error, "consumed", None),
            getattr(error, "expected", None), type(context))


async def play(reader: Any, steps: "list[Any]", ends: Any) -> "list[Any]":
    """Return what comes of each step, and of the end that follows."""
    seen: list[Any] = []
    task: asyncio.Task[Any] | None = None
    to_the_end = False

    async def settle() -> None:
        nonlocal task
        for _ in range(4):
            await asyncio.sleep(0)
        if task is not None and task.done():
            seen.append(outcome(task))
            task = None
        if task is None or not to_the_end:  # in which the original has taken already what came
            seen.append(bytes(reader._buffer))

    for name, *arguments in steps:
        if name == "cancel" and task is not None:
            task.cancel()
        elif name in ("feed_data", "at_eof"):
            seen.append(getattr(reader, name)(*arguments))
            continue  # several pieces may come in one turn of the loop
        elif name not in ("cancel", "wait") and task is None:
            task = asyncio.ensure_future(getattr(reader, name)(*arguments))
            to_the_end = arguments == [-1]
        await settle()
    await settle()  # the original does not wake who waits of what fails in the turn in which bytes came
    reader.feed_eof() if ends is None else reader.set_exception(ends)
    await settle()
    for read in (reader.read(3), reader.readexactly(2), reader.readline(), reader.read()):
        task = asyncio.ensure_future(read)
        await settle()
    seen += [repr(reader), reader.at_eof(), reader.exception()]
    return seen


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=400)
@given(steps=STEPS, limit=st.integers(1, 12) | st.just(65536), ends=st.sampled_from([None, ValueError("lost")]))
def test_every_read_gives_what_the_originals_gives(ours: Any, steps: "list[Any]", limit: int, ends: Any) -> None:
    # A read to the end that is cancelled, or fails, keeps its bytes here, and there loses them.
    if ends is not None or ("cancel",) in steps:
        steps = [step for step in steps if step != ("read", -1)]
    one, other = (asyncio.run(played(module.StreamReader, steps, limit, ends)) for module in (ours, asyncio))
    assert one == other


async def played(kind: Any, steps: "list[Any]", limit: int, ends: Any) -> "list[Any]":
    """Play the steps to a new reader of a class."""
    return await play(kind(limit=limit), steps, ends)


# ---- on a transport ----

@contextmanager
def tls() -> "Iterator[tuple[ssl.SSLContext, ssl.SSLContext]]":
    """Make the contexts of a server and of a client that trusts it."""
    authority = trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.issue_cert("localhost").configure_cert(server)
    authority.configure_trust(client)
    yield server, client


async def echo(reader: Any, writer: Any) -> None:
    """Send lines back in capitals, and what is behind a line of a number: so many bytes."""
    async for line in reader:
        if line.strip().isdigit():
            writer.write(await reader.readexactly(int(line)))
        else:
            writer.write(line.upper())
        await writer.drain()
    writer.close()


async def converse(reader: Any, writer: Any) -> None:
    """Ask `echo` for lines and large replies."""
    for number in range(50):
        writer.write(b"line %d\n" % number)
        assert await reader.readline() == b"LINE %d\n" % number
    data = random.Random(1).randbytes(MIB)
    writer.write(b"%d\n" % MIB + data + b"last\n")
    assert await reader.readexactly(MIB) == data
    assert await reader.readuntil(b"ST\n") == b"LAST\n"
    into = bytearray(MIB + 4)
    writer.write(b"%d\n" % MIB + data + b"%d\n" % MIB + data)
    assert await reader.readinto_exactly(memoryview(into)[2:-2]) == MIB
    assert into == b"\0\0" + data + b"\0\0"
    assert await reader.readexactly(MIB) == data


@pytest.mark.parametrize("way", ["tcp", "unix", "tls"])
def test_clients_and_servers(ours: Any, loop: Any, way: str, tmp_path: Any) -> None:
    async def main() -> None:
        with tls() as (server_side, client_side):
            if way == "unix":
                server = await ours.start_unix_server(echo, tmp_path / "s")
                reader, writer = await ours.open_unix_connection(tmp_path / "s")
            else:
                server = await ours.start_server(echo, "127.0.0.1", 0, ssl=server_side if way == "tls" else None)
                options = {"ssl": client_side, "server_hostname": "localhost"} if way == "tls" else {}
                reader, writer = await ours.open_connection(*server.sockets[0].getsockname(), **options)
        async with server:
            assert isinstance(reader, asyncio.StreamReader) and isinstance(writer, asyncio.StreamWriter)
            await converse(reader, writer)
            if writer.can_write_eof():
                writer.write_eof()
                assert await reader.read() == b""
                assert reader.at_eof()
            writer.close()
            await writer.wait_closed()

    loop.run_until_complete(asyncio.wait_for(main(), 60))


@pytest.mark.skipif(sys.version_info < (3, 11), reason="StreamWriter.start_tls came with Python 3.11")
def test_tls_in_the_midst_of_a_stream(ours: Any, loop: Any) -> None:
    async def main() -> None:
        with tls() as (server_side, client_side):
            async def serve(reader: Any, writer: Any) -> None:
                assert await reader.readline() == b"STARTTLS\n"
                writer.write(b"go on\n")
                await writer.start_tls(server_side)
                await echo(reader, writer)

            async with await ours.start_server(serve, "127.0.0.1", 0) as server:
                reader, writer = await ours.open_connection(*server.sockets[0].getsockname())
                writer.write(b"STARTTLS\n")
                assert await reader.readline() == b"go on\n"
                await writer.start_tls(client_side, server_hostname="localhost")
                await converse(reader, writer)
                writer.close()
                await writer.wait_closed()

    loop.run_until_complete(asyncio.wait_for(main(), 60))


def test_a_handler_may_be_a_plain_function(ours: Any, loop: Any) -> None:
    async def main() -> None:
        served: asyncio.Queue[Any] = asyncio.Queue()
        async with await ours.start_server(lambda *ends: served.put_nowait(ends), "127.0.0.1", 0) as server:
            reader, writer = await ours.open_connection(*server.sockets[0].getsockname())
            theirs, answers = await served.get()
            writer.write(b"some\n")
            assert await theirs.readline() == b"some\n"
            for one in (writer, answers):
                one.close()
                await one.wait_closed()
            assert await reader.read() == b""

    loop.run_until_complete(main())


def test_a_subclass_gets_the_bytes_that_it_overrides_for(ours: Any, loop: Any) -> None:
    """I12."""
    class Protocol(ours.StreamReaderProtocol):  # type: ignore[misc]
        def data_received(self, data: bytes) -> None:
            seen.append(data)
            super().data_received(data)

    class Reader(ours.StreamReader):  # type: ignore[misc]
        def feed_data(self, data: bytes) -> None:
            seen.append(data)
            super().feed_data(data)

    async def main(protocol_class: Any, reader_class: Any) -> None:
        reader = reader_class()
        one, other = socket.socketpair()
        transport, protocol = await asyncio.get_running_loop().create_connection(
            lambda: protocol_class(reader), sock=one)
        other.sendall(b"some\n")
        assert await reader.readline() == b"some\n"
        await close(asyncio.StreamWriter(transport, protocol, reader, asyncio.get_running_loop()), other)

    cases = [(Protocol, ours.StreamReader), (ours.StreamReaderProtocol, Reader),
             (ours.StreamReaderProtocol, asyncio.StreamReader), (ours.StreamReaderProtocol, ours.StreamReader)]
    for case in cases:
        seen: list[bytes] = []
        loop.run_until_complete(main(*case))
        assert seen == ([b"some\n"] if Protocol in case or Reader in case else [])


def test_a_protocol_by_hand(ours: Any, loop: Any) -> None:
    async def main() -> None:
        reader = ours.StreamReader()
        protocol = ours.StreamReaderProtocol(reader)
        protocol.data_received(b"one\ntw")
        protocol.get_buffer(-1)[:4] = b"o\n3\n"
        protocol.buffer_updated(4)
        assert [line async for line in ended(reader, protocol)] == [b"one\n", b"two\n", b"3\n"]
        with pytest.raises(AssertionError, match="feed_data after feed_eof"):
            protocol.data_received(b"more")
        protocol.get_buffer(-1)
        with pytest.raises(AssertionError, match="feed_data after feed_eof"):
            protocol.buffer_updated(4)

    def ended(reader: Any, protocol: Any) -> Any:
        protocol.eof_received()
        return reader

    loop.run_until_complete(main())


def test_what_comes_for_a_reader_that_is_gone_is_dropped(ours: Any, loop: Any) -> None:
    async def main() -> None:
        protocol = ours.StreamReaderProtocol(ours.StreamReader())
        gc.collect()
        assert protocol._stream_reader is None
        assert len(protocol.get_buffer(-1)) > 0
        protocol.buffer_updated(4)
        protocol.data_received(b"more")
        assert protocol.eof_received() is True

    loop.run_until_complete(main())


def test_a_lost_connection(ours: Any, loop: Any) -> None:
    async def main() -> None:
        reader, writer, other = await pair(ours)
        waiting = asyncio.ensure_future(reader.readexactly(10))
        other.sendall(b"some")
        await until(lambda: reader._buffer == b"some")
        writer._protocol.connection_lost(ConnectionResetError("lost"))
        for read in (waiting, reader.readline(), reader.read(), reader.readexactly(1), reader.readuntil(b"e"),
                     reader.readinto_exactly(bytearray(1))):
            with pytest.raises(ConnectionResetError, match="lost"):
                await read
        assert isinstance(reader.exception(), ConnectionResetError)
        other.close()
        writer.transport.abort()
        await asyncio.sleep(0)

    loop.run_until_complete(main())


def test_one_reads_at_a_time(ours: Any, loop: Any) -> None:
    """Q6."""
    async def main() -> None:
        reader = ours.StreamReader()
        waiting = asyncio.create_task(reader.readexactly(4))
        await asyncio.sleep(0)
        reader.feed_data(b"so")
        for name, *arguments in (("readline",), ("readexactly", 4), ("readuntil", b"x"), ("read",),
                                 ("readinto_exactly", bytearray(3))):
            with pytest.raises(RuntimeError) as caught:
                await getattr(reader, name)(*arguments)
            shown = "readuntil" if name == "readline" else name
            assert str(caught.value) == (
                f"{shown}() called while another coroutine is already waiting for incoming data")
        reader.feed_data(b"me")
        assert await asyncio.wait_for(waiting, 10) == b"some"

    loop.run_until_complete(main())


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
