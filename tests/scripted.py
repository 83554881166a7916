"""Socket objects that do as they are told, connected sockets of every kind, and calls that must end in time."""

from __future__ import annotations

import bisect
import ctypes
import os
import socket
import ssl
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from sockframe import Frame, Framing, MalformedFrameError, Need

#: Wine, in whose Windows closing a socket never resets the connection.
WINE = os.name == "nt" and hasattr(ctypes.windll.ntdll, "wine_get_version")

LIMIT = 20.0  # seconds after which a call that should have returned hangs


def tls_contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return the TLS contexts of a client and of a server that it trusts."""
    import trustme  # not every program that uses this file has it

    authority = trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(server)
    authority.configure_trust(client)
    for context in (client, server):
        # Before 3.10.11 and 3.11.3 Python has OpenSSL take every end of a stream for one that TLS has told.
        context.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
    return client, server


def put_into(receiver: Any, data: bytes) -> None:
    """Give bytes to what lends memory for them, as `asyncio.BufferedProtocol` does."""
    while data:
        lent = receiver.get_buffer(-1)
        part = min(len(lent), len(data))
        lent[:part] = data[:part]
        receiver.buffer_updated(part)
        data = data[part:]


class Scripted:
    """A socket object with `recv` and `send` alone.

    It receives `stream`, each call at most to the next of the `cuts` or `events`; these map a place in the
    stream to what calls do there instead, one each: an exception is raised, a function called, all
    else returned. `takes` says what each send() does: how many bytes it takes at most, or such an
    event. Where the lists end, calls do all they can.
    """

    def __init__(self, stream: bytes = b"", *, cuts: Iterable[int] = (), events: Mapping[int, Iterable[Any]] = {},
                 takes: Iterable[Any] = ()) -> None:
        self.stream = stream
        self.at = 0
        self.cuts = sorted({*cuts, *events, len(stream)})
        self.events = {place: list(what) for place, what in events.items()}
        self.takes = list(takes)
        self.calls = 0
        self.sent = bytearray()
        self.closed = 0

    def recv(self, size: int) -> Any:
        self.calls += 1
        assert size > 0, "a receive of nothing"
        if self.events.get(self.at):
            return happen(self.events[self.at].pop(0))
        there = bisect.bisect_right(self.cuts, self.at)
        end = min(self.cuts[there] if there < len(self.cuts) else self.at, self.at + size)
        data, self.at = self.stream[self.at:end], end
        return data

    def send(self, data: Any) -> Any:
        take = self.takes.pop(0) if self.takes else len(data)
        if isinstance(take, bool) or not isinstance(take, int):
            return happen(take)
        self.sent += data[:take]
        return min(take, len(data))

    def close(self) -> None:
        self.closed += 1


class Timed(Scripted):
    """A scripted socket with a timeout to set and to tell; `timeouts` are all that it had."""

    def __init__(self, *args: Any, timeout: float | None = None, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self.timeouts = [timeout]

    def settimeout(self, timeout: float | None) -> None:
        self.timeouts.append(timeout)

    def gettimeout(self) -> float | None:
        return self.timeouts[-1]


def happen(event: Any) -> Any:
    """Raise an exception, call a function, return all else."""
    if isinstance(event, BaseException):
        raise event
    return event() if callable(event) else event


@dataclass(frozen=True, repr=False)
class Bracketed(Framing):
    """A framing of the user's own: a bracket, five digits of length in base 36, the payload, the other bracket."""

    first: bytes = b"<"

    def measure(self, view: memoryview) -> Frame | Need:
        if view[:1] != self.first:
            raise MalformedFrameError("no bracket")
        if len(view) < 6:
            return Need(6 - len(view))
        size = int(bytes(view[1:6]), 36)
        if len(view) > 6 + size and view[6 + size] != ord(">"):
            raise MalformedFrameError("no other bracket")
        return Frame(7 + size, 6, 6 + size)

    def wrap(self, payload: bytes) -> bytes:
        digits, left = bytearray(), len(payload)
        for _ in range(5):
            left, digit = divmod(left, 36)
            digits.insert(0, b"0123456789abcdefghijklmnopqrstuvwxyz"[digit])
        return self.first + digits + payload + b">"


class OwnMethods(socket.socket):
    """A real socket that counts the calls of its recv() and send(): never a plain one."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self.receives = self.sends = 0

    def recv(self, *args: Any) -> bytes:
        self.receives += 1
        return super().recv(*args)

    def send(self, *args: Any) -> int:
        self.sends += 1
        return super().send(*args)


class MethodsInC(socket.socket):
    """A real socket that is never a plain one, and whose recv() and send() are the system calls all the same."""

    def sendmsg(self, *args: Any) -> int:
        raise AssertionError("never called")


def over_tcp(family: int = socket.AF_INET, host: str = "127.0.0.1") -> tuple[socket.socket, socket.socket]:
    """Return two sockets connected over loopback TCP."""
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.bind((host, 0))
        listener.listen()
        one = socket.socket(family, socket.SOCK_STREAM)
        one.connect(listener.getsockname())
        other = listener.accept()[0]
    return one, other


def reset_when_closed(sock: socket.socket) -> None:
    """Have the peer's connection be reset once this socket is closed."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("hh" if os.name == "nt" else "ii", 1, 0))


def reset(sock: socket.socket) -> None:
    """Close a socket in such a way that the peer's connection is reset."""
    reset_when_closed(sock)
    sock.close()


def over_unix() -> tuple[socket.socket, socket.socket]:
    """Return two sockets connected over a Unix socket with a name."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(Path(folder, "s")))
        listener.listen()
        one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        one.connect(listener.getsockname())
        other = listener.accept()[0]
    return one, other


def with_own_methods() -> tuple[socket.socket, socket.socket]:
    """Return two connected sockets that must be served through their methods."""
    one, other = (OwnMethods(fileno=sock.detach()) for sock in socket.socketpair())
    return one, other


def has_ipv6() -> bool:
    """Say whether there is a loopback address of IPv6."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


#: Connected sockets of every kind that there is here.
KINDS: dict[str, Callable[[], tuple[socket.socket, socket.socket]]] = {
    "pair": socket.socketpair, "tcp": over_tcp, "own": with_own_methods}
if hasattr(socket, "AF_UNIX"):
    KINDS["unix"] = over_unix
if has_ipv6():
    KINDS["tcp6"] = lambda: over_tcp(socket.AF_INET6, "::1")


class Task:
    """A call in a thread of its own; `result` waits for it, and fails where it hangs."""

    def __init__(self, function: Callable[..., Any], *args: Any, **keywords: Any) -> None:
        self.value: Any = None
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self.run, args=(function, args, keywords), daemon=True)
        self.thread.start()

    def run(self, function: Callable[..., Any], args: Any, keywords: Any) -> None:
        try:
            self.value = function(*args, **keywords)
        except BaseException as error:
            self.error = error

    def result(self, limit: float = LIMIT) -> Any:
        self.thread.join(limit)
        assert not self.thread.is_alive(), f"still at work after {limit} s"
        if self.error is not None:
            raise self.error
        return self.value


def wait_for_turn_taken(call: Any) -> None:
    """Wait until another thread is at work in the direction of `call`."""
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        try:
            call(timeout=0)
        except BlockingIOError as error:
            if "another thread" in str(error):
                return
        time.sleep(0.01)
    raise AssertionError("no other thread came to work")


@contextmanager
def watched(*sockets: Any) -> Iterator[None]:
    """Break the connections when the block hangs, which ends the calls in it with an error."""
    def give_up() -> None:
        for sock in sockets:
            sock.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(LIMIT, give_up)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


@lru_cache(32)
def noise(size: int, seed: int = 1) -> bytes:
    """Return `size` bytes in which no piece is like another."""
    words = (b"%x-" % (seed * 1_000_003 + number * 7919) for number in range(size // 6 + 1))
    return b"".join(words)[:size].ljust(size, b".")
