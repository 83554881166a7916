"""What type checkers make of all that is built on the engine: asyncio, servers, drop-ins. Checked, never run."""

import asyncio
import socket
import ssl
from collections.abc import Iterator
from multiprocessing import connection

from twisted.protocols import basic
from typing_extensions import assert_type

from sockframe import FixedLength, FrameBatch, FramedSocket, Framing, FramingError, LengthPrefix, Lines, aio, server
from sockframe.drop_in import asyncio_streams, multiprocessing, twisted


async def streams(context: ssl.SSLContext, conn: FramedSocket) -> None:
    async with await aio.connect(("::1", 7000), LengthPrefix(), tls=context, read_limit=1000) as stream:
        assert_type(stream, aio.FramedStream)
        assert_type(await stream.recv(), bytes)
        assert_type(await stream.recv(FixedLength(3)), bytes)
        assert_type(await asyncio.wait_for(stream.recv(), 5), bytes)
        assert_type(await stream.recv_many(), list[bytes])
        assert_type(await stream.recv_batch(), FrameBatch)
        async for frame in stream:
            assert_type(frame, bytes)
        assert_type([frame async for frame in stream], list[bytes])
        await stream.send(bytearray(3))
        await stream.send_many([b"one", memoryview(b"two")])
        await stream.drain()
        stream.write_eof()
        assert_type((stream.pending(), stream.unsent), tuple[int, int])
        assert_type(stream.framing, Framing)
        assert_type(await stream.start_tls(context, server_hostname="a"), int)
        assert_type(await stream.detach(), tuple[socket.socket, bytes])
    assert_type(await aio.attach(conn), aio.FramedStream)


async def answer(stream: aio.FramedStream) -> None:
    async for frame in stream:
        await stream.send(frame)


async def serving() -> None:
    async with await aio.serve(answer, "/run/it", Lines(), backlog=10) as listening:
        assert_type(listening, aio.Server)
        assert_type(listening.connections, int)
        assert_type(listening.is_serving(), bool)
        await listening.serve_forever()


class Echo(aio.FrameProtocol):
    def frames_received(self, frames: list[bytes]) -> None:
        self.send_many(frames)

    def end_received(self) -> None:
        self.close()

    def fault_received(self, error: FramingError) -> None:
        raise error


async def protocols(loop: asyncio.AbstractEventLoop) -> None:
    _, protocol = await loop.create_connection(lambda: Echo(Lines()), "::1", 7000)
    assert_type(protocol, Echo)


# ---- servers ----

def one(payload: bytes) -> bytes:
    return payload.upper()


def many(payload: bytes) -> Iterator[bytes]:
    yield payload
    yield payload


def none(payload: bytes) -> None:
    print(payload)


def views(payload: bytes) -> list[memoryview]:
    return [memoryview(payload)]


def servers(context: ssl.SSLContext, given: server.Handler) -> None:
    for handler in one, none, given:
        server.serve(handler, ("::1", 7000), Lines(), mode="select", tls=context, idle_timeout=60)
    server.serve(many, ("::1", 7000), Lines())
    with server.Server(views, "/run/it", Lines(), mode="processes", max_connections=10, grace=1) as running:
        assert_type(running.connections, int)
        assert_type(running.refused, int)
        running.stop(grace=0.5)


# ---- drop-ins ----

async def connected(reader: asyncio_streams.StreamReader, writer: asyncio_streams.StreamWriter) -> None:
    assert_type(await reader.readline(), bytes)
    await reader.readinto_exactly(memoryview(bytearray(3)))
    writer.write(b"")
    await writer.drain()


async def streams_of_asyncio() -> asyncio.StreamReader:
    reader, writer = await asyncio_streams.open_connection("::1", 7000, limit=1000)
    assert_type(reader, asyncio_streams.StreamReader)
    assert_type(writer, asyncio.StreamWriter)
    assert_type(await asyncio_streams.start_server(connected, "::1", 7000), asyncio.Server)
    await asyncio_streams.open_unix_connection("/run/it")
    await asyncio_streams.start_unix_server(connected, "/run/it")
    asyncio_streams.StreamReaderProtocol(reader, connected)
    return reader


def connections_of_multiprocessing() -> "connection.Connection":
    near, far = multiprocessing.Pipe()
    near.send_bytes(memoryview(b"one"), 1)
    assert_type(far.recv_bytes(), bytes)
    assert_type(far.recv_bytes_into(bytearray(10)), int)
    with multiprocessing.Listener("/run/it", authkey=b"key") as listener:
        assert_type(listener.accept(), multiprocessing.Connection)
    multiprocessing.wait([far], timeout=1)
    return multiprocessing.Client("/run/it")


class Shout(twisted.LineReceiver, twisted.StatefulStringProtocol):
    def lineReceived(self, line: bytes) -> None:
        print(line.upper())


class Strings(twisted.Int32StringReceiver):
    def stringReceived(self, string: bytes) -> None:
        print(string.upper())


def receivers_of_twisted() -> "basic.LineReceiver":
    for kind in (twisted.Int8StringReceiver, twisted.Int16StringReceiver, twisted.IntNStringReceiver, Strings):
        kind().dataReceived(b"")
    twisted.NetstringReceiver().dataReceived(b"")
    twisted.LineOnlyReceiver().dataReceived(b"")
    twisted.FileSender()
    for error in twisted.IncompleteNetstring, twisted.NetstringParseError, twisted.StringTooLongError:
        print(error())
    return Shout()
