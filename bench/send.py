"""Sending over TCP: a contender makes and sends the frames, another process drains them.

What is checked is the stream that arrives, byte by byte. Each run is a connection of its own, and ends when the other
side has received its end.
"""

from __future__ import annotations

import asyncio
import importlib
import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from . import floor
from .processes import other_end, pin
from .receive import framed
from .streams import HEADER, PIECE, Contender, Run, UnfitError, Work, packed, pieces_of, works

WORKS = works()
QUICK = ("length 64 B",)

#: Sends payloads, so many times, on a socket.
Send = Callable[[socket.socket, list[bytes], int], object]


def drain() -> None:
    """Receive all and drop it, in this process, on the last core that it may use."""
    pin(slice(-1, None))
    buffer = bytearray(4 * PIECE)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        while True:
            sock = listener.accept()[0]
            with sock:
                while sock.recv_into(buffer):
                    pass


def over_tcp(work: Work, send: Send, wire: Callable[[Work], bytes] = Work.stream) -> Run:
    """Return the `Run` of what sends on a socket."""
    _, port = other_end("from bench import send; send.drain()")
    pin(slice(None, -1))
    payloads = work.payloads()

    def finish(sock: socket.socket) -> None:
        sock.setblocking(True)
        try:
            sock.shutdown(socket.SHUT_WR)
        except OSError:  # the contender has already closed it
            return
        sock.recv(1)

    def timed(times: int) -> None:
        with socket.create_connection(("127.0.0.1", int(port))) as sock:
            send(sock, payloads, times)
            finish(sock)

    def check() -> Iterator[list[bytes]]:
        arrived: list[bytes] = []
        with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as sock:
            sock.connect(listener.getsockname())
            peer = listener.accept()[0]

            def receive() -> None:
                with peer:
                    arrived.extend(pieces_of(peer.recv))

            thread = threading.Thread(target=receive)
            thread.start()
            send(sock, payloads, 1)
            finish(sock)
            thread.join()
        stream = b"".join(arrived)
        yield payloads if stream == wire(work) else [stream]

    return Run(check, timed)


# ---- sockframe, on the wing in use ----

def send_many(work: Work) -> Run:
    """Return `FramedSocket.send_many` of a list."""
    made = framed(work)

    def send(sock: socket.socket, payloads: list[bytes], times: int) -> None:
        conn = made(sock)
        for _ in range(times):
            conn.send_many(payloads)

    return over_tcp(work, send)


def send_each(work: Work) -> Run:
    """Return `FramedSocket.send` of each payload."""
    made = framed(work)

    def send(sock: socket.socket, payloads: list[bytes], times: int) -> None:
        one = made(sock).send
        for _ in range(times):
            for payload in payloads:
                one(payload)

    return over_tcp(work, send)


# ---- the peers ----

def framed_by_hand(work: Work, payloads: list[bytes]) -> list[bytes]:
    """Return headers and payloads, or payloads and line ends, in turn."""
    if work.crlf:
        return [part for payload in payloads for part in (payload, b"\r\n")]
    pack = HEADER.pack
    return [part for payload in payloads for part in (pack(len(payload)), payload)]


def in_c(work: Work) -> Run:
    """Return C's sender."""
    function = floor.library().floor_send
    joined = b"".join(work.payloads())

    def send(sock: socket.socket, payloads: list[bytes], times: int) -> None:
        if function(sock.fileno(), work.crlf, joined, work.size, work.count, times):
            raise OSError("C could not send")

    return over_tcp(work, send)


def by_hand(work: Work) -> Run:
    """Return frames joined to 64 KiB and sent by `sendall`."""
    each = PIECE // work.size or 1

    def send(sock: socket.socket, payloads: list[bytes], times: int) -> None:
        for _ in range(times):
            for start in range(0, len(payloads), each):
                sock.sendall(b"".join(framed_by_hand(work, payloads[start:start + each])))

    return over_tcp(work, send)


def howto(work: Work) -> Run:
    """Return the HOWTO's loop over `send`, a message at a time."""
    def send(sock: socket.socket, payloads: list[bytes], times: int) -> None:
        for _ in range(times):
            for payload in payloads:
                message = payload + b"\r\n" if work.crlf else HEADER.pack(len(payload)) + payload
                total = 0
                while total < len(message):
                    sent = sock.send(message[total:])
                    if sent == 0:
                        raise RuntimeError("socket connection broken")
                    total += sent

    return over_tcp(work, send)


def makefile(work: Work) -> Run:
    """Return the buffered file that `socket.makefile` gives."""
    def send(sock: socket.socket, payloads: list[bytes], times: int) -> None:
        with sock.makefile("wb") as file:
            write = file.write
            for _ in range(times):
                for payload in payloads:
                    write(payload + b"\r\n" if work.crlf else HEADER.pack(len(payload)) + payload)

    return over_tcp(work, send)


def streams(run: Callable[[Any], None], work: Work) -> Run:
    """Return asyncio's `StreamWriter`, a `drain` after each `write`, on the loop that `run` runs."""
    async def write(sock: socket.socket, payloads: list[bytes], times: int) -> None:
        sock.setblocking(False)
        _, writer = await asyncio.open_connection(sock=sock.dup())
        for _ in range(times):
            for payload in payloads:
                writer.write(payload + b"\r\n" if work.crlf else HEADER.pack(len(payload)) + payload)
                await writer.drain()
        writer.close()
        await writer.wait_closed()

    return over_tcp(work, lambda sock, payloads, times: run(write(sock, payloads, times)))


def uvloop(work: Work) -> Run:
    """Return asyncio's `StreamWriter` on uvloop."""
    import uvloop

    return streams(uvloop.run, work)


def twisted(work: Work) -> Run:
    """Return Twisted's `sendString` or `sendLine`, as a producer."""
    from .twisted_ends import Reactor, sender

    return over_tcp(work, lambda sock, payloads, times: Reactor.run(sock, sender(work, payloads, times)))


def multiprocessing(module: str, work: Work) -> Run:
    """Return the `Connection.send_bytes` of a module: multiprocessing's format has the same 4-byte length."""
    kind = importlib.import_module(module).Connection
    if work.crlf:
        raise UnfitError("multiprocessing has a format of its own, with lengths")

    def send(sock: socket.socket, payloads: list[bytes], times: int) -> None:
        with kind(sock.dup().detach(), readable=False) as conn:
            for _ in range(times):
                for payload in payloads:
                    conn.send_bytes(payload)

    return over_tcp(work, send)


def msgpack(work: Work) -> Run:
    """Return msgpack's `Packer`, 64 KiB of its own format to a `sendall`."""
    from msgpack import Packer

    if work.crlf:
        raise UnfitError("msgpack has a format of its own, with lengths")
    each = PIECE // work.size or 1

    def send(sock: socket.socket, payloads: list[bytes], times: int) -> None:
        pack = Packer().pack
        for _ in range(times):
            for start in range(0, len(payloads), each):
                sock.sendall(b"".join(map(pack, payloads[start:start + each])))

    return over_tcp(work, send, packed)


CONTENDERS: dict[str, Contender] = {
    "core": send_many, "core, send": send_each, "pure": send_many, "pure, send": send_each, "C": in_c,
    "by hand": by_hand, "msgpack (its own format)": msgpack, "makefile": makefile,
    "multiprocessing": partial(multiprocessing, "multiprocessing.connection"),
    "core, multiprocessing drop-in": partial(multiprocessing, "sockframe.drop_in.multiprocessing"),
    "pure, multiprocessing drop-in": partial(multiprocessing, "sockframe.drop_in.multiprocessing"),
    "StreamWriter": partial(streams, asyncio.run),
    "uvloop, StreamWriter": uvloop, "Twisted": twisted, "HOWTO": howto}
