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
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import trustme
from conftest import WINGS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peers.programs import lacking
from stream_ends import MIB, close, loop, ours, pair, until

__all__ = ["loop", "ours"]  # fixtures

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
