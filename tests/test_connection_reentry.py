"""Law 12: what an argument, a framing, the collector or a finaliser does to a connection that is at work (group I)."""

from __future__ import annotations

import errno
import gc
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from scripted import KINDS, LIMIT, Bracketed, Scripted, Timed, noise

from sockframe import Frame, Framing, LengthPrefix, Lines, Need

FRAMES = Bracketed()

needs_buffer = pytest.mark.skipif(sys.version_info < (3, 12), reason="__buffer__ is new in Python 3.12 (PEP 688)")


class Exporter:
    """A payload or a target that acts while its memory is asked for."""

    def __init__(self, data: Any, act: Callable[[], Any]) -> None:
        self.data, self.act = data, act

    def __buffer__(self, flags: int) -> memoryview:
        self.act()
        return memoryview(self.data)


def refused(calls: list[Callable[[], Any]], seen: list[str]) -> Callable[[], None]:
    """Return what makes each call, which must be refused as one from inside another."""
    def act() -> None:
        for call in calls:
            with pytest.raises(RuntimeError) as caught:
                call()
            seen.append(str(caught.value))

    return act


BUSY = "FramedSocket is already at work in this call"


def senders(conn: Any) -> list[Callable[[], Any]]:
    return [lambda: conn.send(b"no"), lambda: conn.send_many([b"no"]), conn.flush, conn.detach,
            lambda: conn.shutdown(socket.SHUT_WR)]


def receivers(conn: Any) -> list[Callable[[], Any]]:
    return [conn.recv, conn.recv_many, conn.recv_batch, lambda: conn.recv_into(bytearray(9)),
            lambda: next(conn), conn.detach]


@needs_buffer
@pytest.mark.parametrize("kind", ["pair", "own"])
def test_a_payload_or_target_that_calls_back_is_refused(wing: Any, kind: str) -> None:
    """I1: the call that it came from goes on."""
    left, right = (wing.FramedSocket(sock, LengthPrefix()) for sock in KINDS[kind]())
    seen: list[str] = []
    with left, right:
        act = refused(senders(left), seen)
        left.send(Exporter(b"one", act))
        left.send_many([b"two", Exporter(b"three", act)])
        left.send_many(iter([Exporter(b"four", act)]))
        assert [right.recv(timeout=LIMIT) for _ in range(4)] == [b"one", b"two", b"three", b"four"]
        assert len(seen) >= 15 and set(seen) == {BUSY}
        seen.clear()
        left.send(b"five")
        target = bytearray(9)
        assert right.recv_into(Exporter(target, refused(receivers(right), seen)), timeout=LIMIT) == 4
        assert (target[:4], seen) == (b"five", [BUSY] * 6)


@needs_buffer
@pytest.mark.parametrize("kind", ["pair", "own"])
@pytest.mark.parametrize("how", ["send", "list", "iterator", "recv_into"])
@pytest.mark.parametrize("raw", [False, True])
def test_a_payload_or_target_that_closes_ends_the_call(wing: Any, kind: str, how: str, raw: bool) -> None:
    """I2, law 11: with EBADF, and the number, another file's by then, is not touched."""
    left, right = KINDS[kind]()
    conn = wing.FramedSocket(left, LengthPrefix())
    others: list[socket.socket] = []

    def close() -> None:
        if left.fileno() >= 0:
            (left if raw else conn).close()
            others.extend(socket.socketpair())  # one of them has the number now

    exporter = Exporter(bytearray(b"payload"), close)
    with right:
        right.sendall(b"\0\0\0\1x")
        with pytest.raises(OSError, match="Bad file descriptor") as caught:
            if how == "send":
                conn.send(exporter)
            elif how == "recv_into":
                conn.recv_into(exporter)
            else:
                conn.send_many([exporter] if how == "list" else iter([exporter]))
        assert caught.value.errno == errno.EBADF
        conn.close()
        for other in others:
            other.setblocking(False)
            with pytest.raises(BlockingIOError):
                other.recv(1)
        for other in others:
            other.close()


def test_a_limit_is_a_number_before_anything_is_done(wing: Any) -> None:
    """I3: its `__index__` may use the connection, and what that took counts."""
    conn = wing.FramedSocket(Scripted(b"\0\0\0\1a\0\0\0\1b\0\0\0\1c"), LengthPrefix())

    class Limit:
        def __index__(self) -> int:
            assert conn.recv() == b"a"
            return 1

    assert conn.recv_many(Limit()) == [b"b"]
    assert conn.recv() == b"c"


@pytest.mark.parametrize("kind", ["pair", "own"])
def test_a_framing_that_calls_back_is_refused(wing: Any, kind: str) -> None:
    """I6: from its measure() and its wrap(); the other direction is free."""
    seen: list[str] = []
    acts: dict[str, Callable[[], Any]] = {}

    class Acting(Framing):
        def measure(self, view: memoryview) -> Frame:
            acts["measure"]()
            return Frame(2)

        def wrap(self, payload: bytes) -> bytes:
            acts["wrap"]()
            return payload

    left, right = (wing.FramedSocket(sock, Acting()) for sock in KINDS[kind]())
    with left, right:
        acts["wrap"] = refused(senders(left), seen)
        acts["measure"] = refused(receivers(right), seen)
        left.send(b"ab")
        left.send_many([b"cd"])
        assert [right.recv(timeout=LIMIT), right.recv_many(timeout=LIMIT)] == [b"ab", [b"cd"]]
        assert len(seen) >= 15 and set(seen) == {BUSY}


@pytest.mark.parametrize("kind", ["pair", "own"])
def test_a_finaliser_in_the_midst_of_every_call_harms_nothing(wing: Any, kind: str) -> None:
    """I10, I11: the collector runs wherever it may, and what it collects looks at both ends, flushes and receives:
    it is refused, or gets a whole frame."""
    left, right = (wing.FramedSocket(sock, LengthPrefix()) for sock in KINDS[kind]())
    frames: list[bytes] = []
    outcomes: set[str] = set()

    def take(conn: Any) -> None:
        try:
            frames.append(conn.recv(timeout=0))
            outcomes.add("a frame")
        except (RuntimeError, BlockingIOError) as error:
            outcomes.add(str(error).partition("]")[0])

    class Loop:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            for conn in (left, right):
                assert conn.unsent + conn.pending() >= 0
                take(conn)
            with suppress(RuntimeError):
                left.flush(timeout=0)

    class Littering(Framing):
        def measure(self, view: memoryview) -> Frame | Need:
            Loop()
            gc.collect()
            return FRAMES.measure(view)

        def wrap(self, payload: bytes) -> bytes:
            Loop()
            gc.collect()
            return FRAMES.wrap(payload)

    payloads = [noise(size) for size in (0, 1, 3000, 20_000, 40_000)]
    before = gc.get_threshold()
    with left, right:
        left.framing = right.framing = Littering()
        gc.set_threshold(1, 1, 1)
        try:
            for payload in payloads:
                left.send(payload, timeout=LIMIT)
                left.send_many([payload, b"x"], timeout=LIMIT)
                while sum(map(len, frames)) < 2 * len(payload) + 1:
                    take(right)
                assert sorted(frames) == sorted([payload, payload, b"x"])
                frames.clear()
        finally:
            gc.set_threshold(*before)
            gc.collect()
    assert BUSY in outcomes


def test_two_errors_at_once_are_both_told(wing: Any) -> None:
    """I13: the second one in front, the first one as its context."""
    first, second = ArithmeticError("of the socket"), ValueError("of settimeout")

    class Failing(Timed):
        def settimeout(self, timeout: float | None) -> None:
            super().settimeout(timeout)
            if timeout == 7.0:
                raise second

    for call in (lambda conn: conn.recv(timeout=5), lambda conn: conn.send(b"x", timeout=5)):
        conn = wing.FramedSocket(Failing(b"", events={0: [first]}, takes=[first], timeout=7.0), Lines())
        with pytest.raises(ValueError, match="of settimeout") as caught:
            call(conn)
        assert caught.value.__context__ is first


def test_two_connections_over_one_socket_share_its_stream(wing: Any) -> None:
    """K16: each has what it received, which is seldom of use, but harms nothing."""
    near, far = socket.socketpair()
    one, two = (wing.FramedSocket(near, LengthPrefix()) for _ in range(2))
    with far, one, two:
        far.sendall(b"\0\0\0\1a")
        assert one.recv(timeout=LIMIT) == b"a"
        far.sendall(b"\0\0\0\1b")
        assert two.recv(timeout=LIMIT) == b"b"
        one.send(b"1")
        two.send(b"2")
        assert far.recv(99) == b"\0\0\0\x011\0\0\0\x012"
        one.close()
        with pytest.raises(OSError, match="Bad file descriptor"):
            two.recv(timeout=LIMIT)
