"""Ways to break a law that no other test would notice."""

from __future__ import annotations

import errno
import os
import socket
import sys
import tracemalloc
from typing import Any

import pytest
from scripted import LIMIT, Task, with_own_methods

from sockframe import errors
from sockframe.framings import UNLIMITED, Delimiter, Frame, Framing, LengthPrefix, Lines, Need, Slip


@pytest.mark.parametrize(("framing", "end"), [
    (Lines(max_length=UNLIMITED), b"\n"), (Lines("lf"), b"\n"), (Lines("crlf"), b"\r\n"), (Delimiter(b"--x"), b"--x"),
    (Delimiter(b"ab", b"cb"), b"ab"), (Delimiter(b"ab", b"cd", b"e"), b"cd"), (Slip(), b"\xc0")], ids=repr)
def test_what_was_searched_is_not_searched_again(wing: Any, framing: Framing, end: bytes) -> None:
    """A5, A14: law 9: an end that is put among bytes that were searched is not seen."""
    decoder = wing.Decoder(framing)
    view = decoder.get_buffer(1000)
    view[:] = b"." * 1000
    decoder.buffer_updated(1000)
    assert decoder.next_frame() is None
    for refused in ("text", None):
        with pytest.raises(TypeError):
            decoder.decode(refused)
    with pytest.raises(ValueError):
        decoder.buffer_updated(1)
    held = view if wing.name == "core" else decoder._store  # the core lends a part of its store
    held[300:300 + len(end)] = end
    decoder.feed(b"!")
    assert decoder.next_frame() is None
    decoder.feed(end)
    assert decoder.next_frame() == b"." * 300 + end + b"." * (700 - len(end)) + b"!"


class Interrupted(Exception):
    """What a signal handler raises."""


class Interrupt:
    """Raises, once, at the place of that number in the package where a signal may be handled: with `profile`, the start
    of a function and the return from a built-in one; with `trace`, each line of those that hold what was received."""

    def __init__(self, way: str, number: int) -> None:
        self.get, self.set = getattr(sys, f"get{way}"), getattr(sys, f"set{way}")
        self.events = ("line",) if way == "trace" else ("call", "c_return")
        self.left = number
        self.place = ""

    def __enter__(self) -> Interrupt:
        self.before = self.get()
        self.set(self.look)
        return self

    def __exit__(self, *_: object) -> None:
        self.set(self.before)

    def look(self, frame: Any, event: str, _: Any) -> Any:
        name = frame.f_code.co_name
        if not frame.f_globals["__name__"].startswith("sockframe."):
            return None
        if event in self.events and not self.place and ("line" not in self.events or name in ("_absorb", "_append")):
            if not self.left:
                self.place = f"{event} {frame.f_lineno} in {name}"
                raise Interrupted
            self.left -= 1
        return self.look


@pytest.mark.parametrize("way", ["profile", "trace"])
@pytest.mark.parametrize("how", ["recv", "recv_into", "recv_many", "recv_batch"])
def test_an_exception_at_any_place_in_a_receive_loses_nothing(wing: Any, how: str, way: str) -> None:
    """Law 4, S2: also between the system call and the store."""
    stream = b"\0\0\0\3one\0\0\0\3two\0\0\0\5three"
    number = 0
    while True:
        left, right = socket.socketpair()
        with left, wing.FramedSocket(right, LengthPrefix()) as conn:
            call = getattr(conn, how)
            arguments = (bytearray(5),) if how == "recv_into" else ()
            left.sendall(stream[:5])
            with pytest.raises(BlockingIOError):
                conn.recv(timeout=0)
            left.sendall(stream[5:6])
            with pytest.raises((Interrupted, BlockingIOError)), Interrupt(way, number) as interrupt:
                call(*arguments, timeout=0)
            left.sendall(stream[6:])
            left.shutdown(socket.SHUT_WR)
            assert [conn.recv(timeout=LIMIT) for _ in range(3)] == [b"one", b"two", b"three"], interrupt.place
            with pytest.raises(EOFError):
                conn.recv(timeout=LIMIT)
        if not interrupt.place:
            return
        number += 1


class Plain(socket.socket):
    """A socket whose methods are the system calls, but for those that an instance is given."""


@pytest.mark.parametrize("timeout", [None, LIMIT, 0])
def test_the_kernels_timeout_of_a_plain_socket_is_a_dead_peer(wing: Any, timeout: Any,
                                                             monkeypatch: pytest.MonkeyPatch) -> None:
    """Law 13, M4: whatever system call tells of it. The pure wing gets its error from a method; in the core's system
    calls another error stands for it, that of a peer which has gone with unread bytes."""
    left, right = socket.socketpair()
    sock = Plain(fileno=left.detach())
    sock.settimeout(timeout)
    dead = errors.os_error

    def time_out(*_: Any) -> Any:
        raise TimeoutError(errno.ETIMEDOUT, "Connection timed out")

    with wing.FramedSocket(sock, LengthPrefix()) as conn:
        conn.send(b"unread")
        right.close()
        if wing.name == "core":
            monkeypatch.setattr(errors, "os_error", lambda number: dead(errno.ETIMEDOUT))
        else:
            sock.recv = sock.sendmsg = time_out  # type: ignore[method-assign,assignment]
        for call in (conn.recv, lambda: conn.send(b"x")):
            with pytest.raises(ConnectionError) as caught:
                call()
            assert caught.value.errno == errno.ETIMEDOUT
            assert not isinstance(caught.value, TimeoutError)


class Halting(Framing):
    """A length of one byte, a payload; asks no more of the first "!" that it sees, as a signal handler may."""

    seen = 0

    def measure(self, view: memoryview) -> Frame | Need:
        if len(view) > 1 and view[1] == ord("!") and not Halting.seen:
            Halting.seen = 1
            raise KeyboardInterrupt
        return Frame(1 + view[0], 1)

    def wrap(self, payload: bytes) -> bytes:
        return bytes([len(payload)]) + payload


@pytest.mark.parametrize("plain", [True, False])
def test_what_other_connections_brought_survives_an_exception_in_a_select(wing: Any, plain: bool) -> None:
    """Law 4: it was received with that of the one whose framing raises; or was not yet, where that one is served by
    its socket's own methods."""
    Halting.seen = 0
    pairs = [wing.pair(Halting() if plain else LengthPrefix(1)) for _ in range(3)]
    pairs.append(wing.pair(Halting()) if plain else tuple(
        wing.FramedSocket(sock, Halting()) for sock in with_own_methods()))
    with wing.FrameSelector() as selector:
        try:
            for number, (peer, ours) in enumerate(pairs):
                selector.register(ours, number)
                peer.send(b"!%d" % number)
            with pytest.raises(KeyboardInterrupt):
                selector.select(LIMIT)
            got: list[Any] = []
            for number, (peer, _) in enumerate(pairs):
                peer.send(b"last %d" % number)
            while len(got) < 8:
                more = selector.select(LIMIT)
                assert more
                got += [(key.data, frame) for key, frames in more for frame in frames]
            assert sorted(got) == [(at, frame) for at in range(4) for frame in (b"!%d" % at, b"last %d" % at)]
        finally:
            for conns in pairs:
                for conn in conns:
                    conn.close()


def test_a_selector_rests_once_a_tail_is_flushed(wing: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits for bytes again then, not for room in the socket, of which there is always some."""
    peer, ours = wing.pair(LengthPrefix(), SO_SNDBUF=4096)
    looks = []
    with peer, ours, wing.FrameSelector() as selector:
        ours.setblocking(False)
        selector.register(ours)
        ours.send(bytes(1 << 20))
        assert ours.unsent
        while ours.unsent:
            peer.sock.recv(1 << 20)
            selector.select(0)
        selector.select(0)
        look = selector._look
        monkeypatch.setattr(selector, "_look", lambda deadline: (looks.append(1), look(deadline)))
        assert selector.select(0.05) == []
        assert len(looks) <= 3, "it polled again and again"


class Asking(Framing):
    """A length of one byte, a payload; calls `action` the first time that it is asked."""

    action: Any = None

    def measure(self, view: memoryview) -> Frame | Need:
        action, Asking.action = Asking.action, None
        if action is not None:
            action()
        return Frame(1 + view[0], 1)

    def wrap(self, payload: bytes) -> bytes:
        return bytes([len(payload)]) + payload


@pytest.mark.parametrize("other_thread", [False, True])
def test_a_selector_takes_nothing_while_a_receive_is_at_work(wing: Any, other_thread: bool) -> None:
    """Law 12, and the turns of threads: what has come meanwhile is left to the one that reads."""
    peer, ours = wing.pair(Asking())
    results: list[Any] = []

    def select() -> None:
        peer.sock.sendall(b"c\1d")
        if other_thread:
            results.append(Task(selector.select, 0).result())
        else:
            results.append(selector.select(0))

    with peer, ours, wing.FrameSelector() as selector:
        selector.register(ours)
        Asking.action = select
        peer.sock.sendall(b"\3ab")
        assert ours.recv(timeout=LIMIT) == b"abc"
        assert results == [[]]
        assert ours.recv(timeout=LIMIT) == b"d"


@pytest.mark.parametrize("size", [10_000, 60_000])
def test_the_last_frame_taken_leaves_no_store(wing: Any, size: int) -> None:
    """Law 8: without another call."""
    frame = b"\0\0%c%c" % divmod(size, 256) + bytes(size)
    decoder = wing.Decoder(LengthPrefix())
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        decoder.feed(frame)
        assert len(decoder.next_frame()) == size
        assert tracemalloc.get_traced_memory()[0] - before < 4096
    finally:
        tracemalloc.stop()


def test_a_number_is_asked_of_the_socket_each_time(wing: Any) -> None:
    """Law 11, I2: the socket is closed behind the connection's back, and its number, that was used, is another's now:
    it is not waited for either, nor read or written."""
    left, right = wing.pair(LengthPrefix())
    other, its_peer = socket.socketpair()
    with right, other, its_peer:
        right.send(b"one")
        assert left.recv(timeout=LIMIT) == b"one"
        left.send(b"two")
        number = left.sock.fileno()
        left.sock.close()
        os.dup2(other.fileno(), number)
        try:
            for timeout in (0.01, 0):
                with pytest.raises(OSError) as caught:
                    left.recv(timeout=timeout)
                assert caught.value.errno == errno.EBADF
            its_peer.sendall(b"\0\0\0\1x")
            for timeout in (None, LIMIT, 0):
                with pytest.raises(OSError) as caught:
                    left.recv(timeout=timeout)
                assert caught.value.errno == errno.EBADF
                with pytest.raises(OSError) as caught:
                    left.send(b"y", timeout=timeout)
                assert caught.value.errno == errno.EBADF
            left.close()
            assert other.recv(9) == b"\0\0\0\1x"
            with pytest.raises(BlockingIOError):
                its_peer.recv(1, socket.MSG_DONTWAIT)
        finally:
            os.close(number)
