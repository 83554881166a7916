"""Sending: a frame cut short is finished first, a list is taken as a whole or not at all, a bad payload not sent."""

from __future__ import annotations

import errno
import itertools
import os
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from scripted import LIMIT, Bracketed, Scripted, Task, Timed, noise, over_tcp

from sockframe import (
    Cobs,
    Delimiter,
    EndOfStream,
    FixedLength,
    FrameTooLongError,
    LengthField,
    LengthPrefix,
    Lines,
    UntilClose,
)


class Interrupted(Exception):
    """What a signal handler raises."""


def frames_of(wing: Any, framing: Any, payloads: list[bytes]) -> bytes:
    data: bytes = wing.Encoder(framing).encode_many(payloads)
    return data


#: Seconds in which a socket that nobody reads is full, also under Wine.
FULL = 0.02 if os.name == "posix" else 0.5

ERRORS = [BlockingIOError(), TimeoutError(), Interrupted(), ConnectionResetError(), MemoryError()]


@pytest.mark.parametrize("framing", [LengthPrefix(), Lines(), Cobs(), Bracketed(),
                                     LengthField(4, end=b"\xce", strip=4)], ids=repr)
@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_a_frame_cut_short_anywhere_is_finished_first(wing: Any, framing: Any, error: Exception) -> None:
    """O6, S3."""
    payload, wire = b"payload", frames_of(wing, framing, [b"payload"])
    after = frames_of(wing, framing, [b"next"])
    for at, how in itertools.product(range(len(wire)), ("send", "list", "flush", "iterator")):
        sock = Timed(takes=[at, error, error] if at else [error])
        conn = wing.FramedSocket(sock, framing)
        if at and isinstance(error, BlockingIOError):
            conn.send(payload)  # taken as a whole
        else:
            with pytest.raises(type(error)):
                conn.send(payload)
        assert conn.unsent == (len(wire) - at if at else 0)
        if at:
            with pytest.raises(type(error)):
                conn.flush()
            assert conn.unsent == len(wire) - at
        if how == "send":
            conn.send(b"next")
        elif how == "flush":
            conn.flush()
            assert conn.unsent == 0
            conn.send(b"next")
        else:
            conn.send_many([b"next"] if how == "list" else iter([b"next"]))
        assert conn.unsent == 0
        assert sock.sent == (wire if at else b"") + after


def test_a_tail_of_one_byte_a_call_is_sent_in_linear_work(wing: Any) -> None:
    """S6, H4."""
    payload = noise(2000)
    sock = Timed(takes=[1] + [BlockingIOError(), 1] * 2003)
    conn = wing.FramedSocket(sock, LengthPrefix())
    conn.send(payload)
    for left in range(2003, 1, -1):
        assert conn.unsent == left
        with pytest.raises(BlockingIOError):
            conn.flush()
    conn.flush()
    assert sock.sent == b"\0\0\x07\xd0" + payload


@pytest.mark.parametrize("size", [1, 2044, 2045, 16380, 16381, 100_000])
def test_every_write_takes_one_byte(wing: Any, size: int) -> None:
    """S6."""
    for how in ("send", "list", "iterator"):
        payloads = [noise(size, 1), noise(3, 2)]
        wire = frames_of(wing, LengthPrefix(), payloads)
        sock = Scripted(takes=[1] * 3000 + [7777] * 20)
        conn = wing.FramedSocket(sock, LengthPrefix())
        if how == "send":
            conn.send(payloads[0])
            conn.send(payloads[1])
        else:
            conn.send_many(payloads if how == "list" else iter(payloads))
        assert sock.sent == wire


def fill(conn: Any, payload: bytes) -> int:
    """Send until the socket is full; the last frame may be taken in part."""
    number, before = 0, -1
    while number > before:
        time.sleep(0.05)  # acknowledgements that are delayed make room
        before = number
        with suppress(BlockingIOError):
            conn.flush(timeout=0)
            while True:
                conn.send(payload, timeout=0)
                number += 1
    return number


@pytest.mark.parametrize(("size", "tcp"),
                         [(10, False), (3000, False), (40_000, False), (300_000, False), (300_000, True)])
def test_a_full_socket_takes_whole_frames_or_nothing(wing: Any, size: int, tcp: bool) -> None:
    """G11."""
    sockets = over_tcp() if tcp else socket.socketpair()
    for sock in sockets:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    payload = noise(size)
    with sockets[1], wing.FramedSocket(sockets[0], LengthPrefix()) as conn:
        taken = fill(conn, payload)
        unsent = conn.unsent
        for _ in range(2):
            with pytest.raises(BlockingIOError, match="the socket can take no more"):
                conn.send(b"refused", timeout=0)
            with pytest.raises(TimeoutError, match="timed out"):
                conn.send_many([b"refused"], timeout=0.001)
            assert conn.unsent <= unsent
        task = Task(read_frames, wing, sockets[1].dup(), taken + 2)
        conn.flush(timeout=LIMIT)
        assert conn.unsent == 0
        conn.send(b"next", timeout=LIMIT)
        conn.send(b"", timeout=LIMIT)
        assert task.result() == [payload] * taken + [b"next", b""]


def read_frames(wing: Any, sock: Any, count: int) -> list[bytes]:
    with wing.FramedSocket(sock, LengthPrefix()) as conn:
        return [conn.recv(timeout=LIMIT) for _ in range(count)]


@pytest.mark.parametrize("how", ["send", "list", "iterator"])
def test_a_deadline_in_a_send_keeps_the_rest(wing: Any, how: str) -> None:
    """M5."""
    left, right = wing.pair(LengthPrefix(), SO_SNDBUF=1)
    payloads = [noise(300_000, number) for number in range(3)]
    with left, right:
        with pytest.raises(TimeoutError):
            if how == "send":
                left.send(payloads[0], timeout=0.01)
            else:
                left.send_many(payloads if how == "list" else iter(payloads), timeout=0.01)
        expected = payloads if how == "list" else payloads[:1]
        unsent = left.unsent
        assert 0 < unsent <= len(expected) * 300_004
        with pytest.raises(TimeoutError):
            left.flush(timeout=0.001)
        assert left.unsent <= unsent
        task = Task(lambda: [right.recv(timeout=LIMIT) for _ in range(len(expected) + 1)])
        left.send(b"last", timeout=LIMIT)
        assert task.result() == [*expected, b"last"]


@pytest.mark.parametrize("takes", [0, 1, 100_000])
def test_a_list_on_a_full_socket_is_taken_as_a_whole_or_not_at_all(wing: Any, takes: int) -> None:
    payloads = [noise(size, size) for size in (10, 70_000, 0, 20_000, 3)] * 3
    wire = frames_of(wing, LengthPrefix(), payloads)
    for kind in (list, tuple):
        sock = Timed(takes=[takes, BlockingIOError()] if takes else [BlockingIOError()], timeout=0.0)
        conn = wing.FramedSocket(sock, LengthPrefix())
        if takes:
            conn.send_many(kind(payloads))
            assert 0 < conn.unsent < len(wire)
            conn.flush()
            assert sock.sent == wire
        else:
            with pytest.raises(BlockingIOError):
                conn.send_many(kind(payloads))
            assert conn.unsent == 0
            assert sock.sent == b""


@pytest.mark.parametrize("kind", [list, tuple])
def test_one_bad_payload_of_a_list_and_nothing_is_sent(wing: Any, kind: Any) -> None:
    """A11, R2."""
    for framing, bad, error, text in (
            (Lines(), b"a\nb", ValueError, r"^payload 3000: payload holds a delimiter \(at byte 1\)$"),
            (Delimiter(b"|"), b"|", ValueError, "^payload 3000: payload holds a delimiter"),
            (LengthPrefix(1), bytes(256), FrameTooLongError, "^payload 3000: length does not fit its field"),
            (LengthPrefix(max_length=9), bytes(10), FrameTooLongError, "^payload 3000: payload is too long"),
            (FixedLength(1), b"", ValueError, "^payload 3000: payload has the wrong length"),
            (LengthPrefix(), "text", TypeError, "bytes-like object, not str"),
            (LengthPrefix(), memoryview(b"abc")[::2], BufferError, "C-contiguous")):
        sock = Scripted()
        conn = wing.FramedSocket(sock, framing)
        with pytest.raises(error, match=text):
            conn.send_many(kind([b"x"] * 3000 + [bad, b"x"]))
        assert (sock.sent, conn.unsent) == (b"", 0)
        conn.send(b"x")
        assert sock.sent == frames_of(wing, framing, [b"x"])


def test_an_iterator_is_pulled_a_bounded_batch_at_a_time(wing: Any) -> None:
    """F5."""
    for size, most in ((0, 1024), (100, 1024), (20_000, 4), (300_000, 1)):
        left, right = wing.pair(LengthPrefix(), SO_SNDBUF=1)
        pulled = 0

        def endless(size: int = size) -> Iterator[bytes]:
            nonlocal pulled
            for number in itertools.count():
                pulled = number + 1
                yield noise(size, number)

        with left, right:
            with pytest.raises(TimeoutError):
                left.send_many(endless(), timeout=FULL)
            assert left.unsent <= most * (4 + size), "pulled more than one batch that could not be sent"
            right.settimeout(LIMIT)
            task = Task(left.flush, timeout=LIMIT)
            received = [right.recv() for _ in range(pulled)]
            task.result()
            assert received == [noise(size, number) for number in range(pulled)]
            with pytest.raises(BlockingIOError):
                right.recv(timeout=0)
            with pytest.raises((TimeoutError, BlockingIOError)):
                left.send_many(endless(), timeout=0)
            assert left.unsent <= most * (4 + size), "pulled more than one batch that could not be sent"


def test_what_was_pulled_from_a_broken_iterator_is_sent(wing: Any) -> None:
    def broken(count: int, error: BaseException) -> Iterator[bytes]:
        for number in range(count):
            yield b"%d" % number
        raise error

    for count in (0, 1, 2000):
        for error in (ZeroDivisionError("broken"), KeyboardInterrupt(), GeneratorExit()):
            sock = Scripted()
            conn = wing.FramedSocket(sock, Lines())
            with pytest.raises(type(error)):
                conn.send_many(broken(count, error))
            conn.send(b"next")
            assert sock.sent.splitlines() == [b"%d" % number for number in range(count)] + [b"next"]


def test_a_bad_payload_from_an_iterator_stops_its_batch(wing: Any) -> None:
    sock = Scripted()
    conn = wing.FramedSocket(sock, Lines())
    with pytest.raises(ValueError, match=r"^payload 1030: payload holds a delimiter"):
        conn.send_many(iter([b"x"] * 1030 + [b"\n"]))
    assert sock.sent == b"x\n" * 1024
    for bad in (5, None, object()):
        with pytest.raises(TypeError, match="not iterable"):
            conn.send_many(bad)
    with pytest.raises(TypeError, match="not int"):
        conn.send_many(b"abc")  # each of its items is a number


def test_a_call_from_inside_a_send_is_refused(wing: Any) -> None:
    sock = Scripted(b"\0\0\0\1x")
    conn = wing.FramedSocket(sock, LengthPrefix())
    seen = []

    def calls() -> Iterator[bytes]:
        yield b"one"
        for call in (lambda: conn.send(b"no"), lambda: conn.send_many([b"no"]), conn.flush, conn.detach,
                     lambda: conn.shutdown(socket.SHUT_WR)):
            with pytest.raises(RuntimeError, match="already at work"):
                call()
        seen.append(conn.recv())  # the other direction is free
        yield b"two"

    conn.send_many(calls())
    assert seen == [b"x"]
    assert sock.sent == b"\0\0\0\3one\0\0\0\3two"
    conn.send_many([])
    conn.send_many(iter(()))
    assert sock.sent == b"\0\0\0\3one\0\0\0\3two"

    def closes() -> Iterator[bytes]:
        conn.close()
        yield b"never"

    with pytest.raises(OSError, match="Bad file descriptor"):
        conn.send_many(closes())
    assert sock.closed
    assert b"never" not in sock.sent


@pytest.mark.parametrize("interrupt", [None, BlockingIOError(), TimeoutError()])
def test_nothing_follows_a_payload_that_lasts_until_the_end(wing: Any, interrupt: Exception | None) -> None:
    for how in ("send", "list", "iterator"):
        sock = Timed(takes=[1, interrupt] if interrupt else [])
        conn = wing.FramedSocket(sock, UntilClose())
        try:
            if how == "send":
                conn.send(b"all")
            else:
                conn.send_many([b"all"] if how == "list" else iter([b"all"]))
        except TimeoutError:
            assert interrupt is not None
        conn.flush()
        for call, more in ((conn.send, b"more"), (conn.send_many, [b"more"]), (conn.send_many, iter([b""]))):
            with pytest.raises(ValueError, match="payload follows one that lasts until the stream ends"):
                call(more)
        assert sock.sent == b"all"
        with pytest.raises(ValueError, match=r"^payload 1: payload follows"):
            wing.FramedSocket(Scripted(), UntilClose()).send_many([b"a", b"b"])


def test_very_many_tiny_frames_and_very_many_large_ones(wing: Any) -> None:
    """S8, F4."""
    for count, size in ((200_000, 1), (3000, 20_000)) if os.name == "posix" else ((20_000, 1), (300, 20_000)):
        left, right = wing.pair(LengthPrefix(2))
        payloads = [b"%d" % (number % 10) * size for number in range(count)]
        with left, right:
            right.settimeout(LIMIT)
            for source in (payloads, iter(payloads)):
                task = Task(left.send_many, source, timeout=LIMIT)
                received: list[bytes] = []
                while len(received) < count:
                    received += right.recv_many()
                task.result()
                assert received == payloads


def test_a_peer_that_is_gone_is_an_error_and_its_frames_are_still_here(wing: Any) -> None:
    """S5, R4."""
    for tcp in (False, True):
        left, right = over_tcp() if tcp else socket.socketpair()
        with wing.FramedSocket(left, LengthPrefix()) as conn:
            right.send(b"\0\0\0\3one\0\0\0\3two")
            right.close()
            with pytest.raises(ConnectionError) as caught:
                for _ in range(1000):
                    conn.send(bytes(100_000), timeout=LIMIT)
            assert caught.value.errno in (errno.EPIPE, errno.ECONNRESET)
            assert [conn.recv(timeout=LIMIT), conn.recv(timeout=LIMIT)] == [b"one", b"two"]
            with pytest.raises((EndOfStream, ConnectionError)):
                conn.recv(timeout=LIMIT)


def test_no_more_receiving_leaves_sending_as_it_is(wing: Any) -> None:
    left, right = wing.pair(LengthPrefix(), SO_SNDBUF=1)
    payload = noise(300_000)
    with left, right:
        left.setblocking(False)
        left.send(payload)
        unsent = left.unsent
        left.shutdown(socket.SHUT_RD)
        assert left.unsent == unsent > 0
        with pytest.raises(EndOfStream):
            left.recv()
        task = Task(right.recv, timeout=LIMIT)
        left.flush(timeout=LIMIT)
        assert task.result() == payload


def test_shutdown_and_detach_send_what_is_left_first(wing: Any) -> None:
    sock = Timed(takes=[3, *[BlockingIOError()] * 4], timeout=0.0)
    conn = wing.FramedSocket(sock, LengthPrefix())
    conn.send(b"payload")
    for call in (lambda: conn.shutdown(socket.SHUT_WR), lambda: conn.shutdown(socket.SHUT_RDWR), conn.detach):
        with pytest.raises(BlockingIOError):
            call()
        assert conn.unsent == 8
    assert conn.detach() == (sock, b"")
    assert sock.sent == b"\0\0\0\x07payload"
    assert conn.closed
    assert sock.closed == 0
