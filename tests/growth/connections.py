"""Works of connections: opened, used and ended in every way, over every kind of socket and in every server."""

from __future__ import annotations

import asyncio
import multiprocessing.connection
import os
import socket
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from scripted import LIMIT, Task, over_tcp, reset_when_closed, tls_contexts

import sockframe.server
from sockframe import EndOfStream, FramedSocket, FrameSelector, FramingError, aio
from sockframe.drop_in.multiprocessing import Connection

from .frames import FRAMING, MANY, Do, on_loop


def leave(conn: FramedSocket, number: int) -> None:
    """End a connection: half-closed first, closed, in the midst of a frame, or reset."""
    way = number % 4
    if way == 0:
        conn.shutdown(socket.SHUT_WR)
    elif way == 1:
        conn.sock.sendall(b"\0\0\1\0half")
    elif way == 2 and conn.sock.family == socket.AF_INET:
        reset_when_closed(conn.sock)
    conn.close()


def pairs(sockets: Callable[[], tuple[socket.socket, socket.socket]]) -> Any:
    """Connect two sockets, exchange frames, and end it."""
    @contextmanager
    def work() -> Iterator[Do]:
        def do(count: int) -> None:
            for number in range(count):
                left, right = (FramedSocket(sock, FRAMING) for sock in sockets())
                left.send_many(MANY[:6])
                assert right.recv() == MANY[0]
                right.recv_many()
                leave(left, number)
                with right, suppress(FramingError, ConnectionError):
                    while True:
                        right.recv_many()

        yield do

    return work


@contextmanager
def select() -> Iterator[Do]:
    """Have a selector find out that connections end."""
    with FrameSelector() as selector:
        def do(count: int) -> None:
            for number in range(count):
                left, right = (FramedSocket(sock, FRAMING) for sock in socket.socketpair())
                right.setblocking(False)
                selector.register(right)
                left.send_many(MANY[:6])
                leave(left, number)
                if number % 3:
                    while len(selector):
                        selector.select(LIMIT)
                right.close()
                selector.select(0)

        yield do


@contextmanager
def messages() -> Iterator[Do]:
    """Open and close multiprocessing's connections."""
    def do(count: int) -> None:
        for number in range(count):
            left, right = (Connection(sock.detach()) for sock in socket.socketpair())
            left.send_bytes(MANY[number % 20])
            if number % 2:
                right.recv_bytes()
                os.write(left.fileno(), b"\0\0\1\0half")
            left.close()
            multiprocessing.connection.wait([right], 0)
            with right, suppress(EOFError, OSError):
                while True:
                    right.recv_bytes()

    yield do


class Clients:
    """A process of clients, so that nothing of theirs is in the server's, nor in the processes that it forks."""

    def __init__(self, run: Callable[[Any, int], None]) -> None:
        self.ours, theirs = socket.socketpair()
        self.pid = os.fork()
        if self.pid:
            theirs.close()
            return
        status = 1
        try:
            self.ours.close()
            with theirs, theirs.makefile("rb") as orders:
                for order in orders:
                    port, count = map(int, order.split())
                    for number in range(count):
                        run(("127.0.0.1", port), number)
                    theirs.sendall(b"!")
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)

    def do(self, port: int, count: int) -> None:
        """Have so many connect, one after the other."""
        self.ours.sendall(b"%d %d\n" % (port, count))
        assert self.ours.recv(1) == b"!"

    def end(self) -> None:
        """End the process."""
        self.ours.close()
        os.waitpid(self.pid, 0)


def gone(server: Any) -> None:
    """Wait until a server has no connections."""
    end = time.monotonic() + LIMIT
    while server.connections:
        assert time.monotonic() < end, "connections are left"
        time.sleep(0.01)


def served(mode: str, tls: bool = False) -> Any:
    """Have a server answer one client after the other."""
    @contextmanager
    def work() -> Iterator[Do]:
        client, context = tls_contexts() if tls else (None, None)

        def run(address: Any, number: int) -> None:
            with sockframe.connect(address, FRAMING, timeout=LIMIT, tls=client,
                                   server_hostname="localhost" if tls else None) as conn:
                conn.send_many(MANY[:3])
                assert conn.recv() == MANY[0]
                if not tls:
                    leave(conn, number)

        clients = Clients(run)
        with sockframe.server.Server(bytes, ("127.0.0.1", 0), FRAMING, mode=mode, tls=context) as server:
            task = Task(server.serve_forever)

            def do(count: int) -> None:
                clients.do(server.address[1], count)
                gone(server)

            yield do
            clients.end()
            server.stop()
            task.result()

    return work


class Served:
    """A server on an event loop, and its clients there."""

    async def __aenter__(self) -> Any:
        self.server = await aio.serve(self.answer, ("127.0.0.1", 0), FRAMING)
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        return self.do

    async def __aexit__(self, *_: object) -> None:
        self.server.close()
        await self.server.wait_closed()

    @staticmethod
    async def answer(stream: Any) -> None:
        async for payload in stream:
            await stream.send(payload)

    async def do(self, count: int) -> None:
        for number in range(count):
            stream = await aio.connect(self.server.address, FRAMING)
            await stream.send_many(MANY[:3])
            assert await stream.recv() == MANY[0]
            if number % 4 == 0:
                stream.write_eof()
                with suppress(EndOfStream):
                    while True:
                        await stream.recv_many()
            elif number % 4 == 1:
                stream.transport.write(b"\0\0\1\0half")
            elif number % 4 == 2:
                stream.transport.abort()
            stream.close()
            await stream.wait_closed()
        while self.server.connections:
            await asyncio.sleep(0.001)


WORKS = {
    "pairs": pairs(socket.socketpair), "pairs: TCP": pairs(over_tcp), "select": select, "messages": messages,
    **{f"server: {mode}": served(mode) for mode in sockframe.server.MODES},
    **{f"server: {mode}, TLS": served(mode, True) for mode in ("threads", "select")},
    "event loop": on_loop(Served),
}
