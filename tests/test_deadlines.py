"""Deadlines: for the whole call, never early, tried again without loss; what a timeout may be."""

from __future__ import annotations

import socket
import time
from fractions import Fraction
from typing import Any

import pytest
from scripted import KINDS, LIMIT, Task, noise

from sockframe import LengthPrefix, transport


def trickle(sock: socket.socket, data: bytes, pause: float) -> None:
    """Send a byte at a time."""
    for at in range(len(data)):
        sock.send(data[at:at + 1])
        time.sleep(pause)


@pytest.mark.parametrize("kind", ["pair", "own"])
@pytest.mark.parametrize("own", [False, True])
def test_a_deadline_is_for_the_whole_call(wing: Any, kind: str, own: bool) -> None:
    """M1, P3."""
    left, right = KINDS[kind]()
    with right, wing.FramedSocket(left, LengthPrefix()) as conn:
        conn.settimeout(0.1 if own else LIMIT)
        how = {} if own else {"timeout": 0.1}
        task = Task(trickle, right, b"\0\0\0\x14" + noise(20), 0.01)
        begun = time.monotonic()
        with pytest.raises(TimeoutError, match=r"^timed out$"):
            conn.recv(**how)
        assert 0.1 <= time.monotonic() - begun < 5, "not at its deadline, though bytes came all the time"
        assert conn.recv(timeout=LIMIT) == noise(20)
        task.result()


@pytest.mark.parametrize("kind", ["pair", "own"])
def test_a_deadline_is_never_early(wing: Any, kind: str) -> None:
    """M6."""
    left, right = KINDS[kind]()
    with right, wing.FramedSocket(left, LengthPrefix()) as conn:
        for timeout in (0.001, 0.0301, 0.0109, 1e-9):
            for call in (conn.recv, conn.recv_many, conn.recv_batch,
                         lambda conn=conn, **how: conn.recv_into(bytearray(3), **how)):
                begun = time.monotonic_ns()
                with pytest.raises(TimeoutError):
                    call(timeout=timeout)
                assert time.monotonic_ns() - begun >= timeout * 1e9
        while True:
            begun = time.monotonic_ns()
            try:
                conn.send(bytes(1 << 20), timeout=0.02)
            except TimeoutError:
                break
        assert time.monotonic_ns() - begun >= 0.02e9


def test_what_a_timeout_may_be(wing: Any) -> None:
    """M2."""
    left, right = wing.pair(LengthPrefix())
    with left, right:
        calls = [left.recv, left.recv_many, left.recv_batch, lambda **how: left.recv_into(bytearray(3), **how),
                 left.flush, lambda **how: left.send(b"x", **how), lambda **how: left.send_many([b"x"], **how)]
        for bad in (-1, -0.001, float("nan"), float("inf"), float("-inf")):
            for call in calls:
                with pytest.raises(ValueError, match=r"^timeout must be None, or seconds from 0 on, not "):
                    call(timeout=bad)
        for bad in ("1", b"1", [], {}, object()):
            for call in calls:
                with pytest.raises(TypeError):
                    call(timeout=bad)
        with pytest.raises(BlockingIOError):
            right.recv(timeout=0)
        for good in (None, 0, 0.0, False, 1e300, 10**18, 5, Fraction(1, 3), 3e9, 2**31 / 1000):
            left.send(b"x", timeout=good)
            assert right.recv(timeout=good) == b"x"


@pytest.mark.parametrize("kind", ["pair", "own"])
def test_a_very_long_timeout_waits(wing: Any, kind: str) -> None:
    """M2."""
    left, right = (wing.FramedSocket(sock, LengthPrefix()) for sock in KINDS[kind]())
    with left, right:
        for timeout in (1e300, 3e9, 2.2e6):
            task = Task(right.recv, timeout=timeout)
            waiting = Task(right.recv, timeout=timeout)
            time.sleep(0.03)
            left.send_many([b"a", b"b"], timeout=timeout)
            assert {task.result(), waiting.result()} == {b"a", b"b"}


def test_the_argument_goes_before_the_sockets_timeout(wing: Any) -> None:
    """M8."""
    left, right = wing.pair(LengthPrefix())
    with left, right:
        right.settimeout(LIMIT * 50)
        with pytest.raises(TimeoutError):
            right.recv(timeout=0.01)
        right.settimeout(0.01)
        assert right.gettimeout() == 0.01
        with pytest.raises(TimeoutError):
            right.recv()
        task = Task(right.recv, timeout=None)
        time.sleep(0.05)
        left.send(b"x")
        assert task.result() == b"x"
        right.setblocking(False)
        for call in (right.recv, right.recv_many, right.recv_batch, lambda: next(right),
                     lambda: right.recv_into(bytearray(1))):
            with pytest.raises(BlockingIOError, match="no whole frame has arrived"):
                call()
        right.setblocking(True)
        task = Task(right.recv)
        time.sleep(0.05)
        left.send(b"y")
        assert task.result() == b"y"


def test_the_default_timeout_of_sockets_is_a_deadline(wing: Any) -> None:
    """M8."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(0.01)
    try:
        left, right = wing.pair(LengthPrefix())
    finally:
        socket.setdefaulttimeout(before)
    with left, right:
        with pytest.raises(TimeoutError):
            right.recv()
        with pytest.raises(TimeoutError):
            list(right)


def test_the_flag_of_a_shared_file_is_not_trusted(wing: Any) -> None:
    """K14."""
    left, right = wing.pair(LengthPrefix(), SO_SNDBUF=5000)
    with left, right, left.sock.dup() as one, right.sock.dup() as two:
        for timeout in (None, 5.0):
            left.settimeout(timeout)
            right.settimeout(timeout)
            for blocking in (False, True):  # behind the backs of left and right
                for double in (one, two):
                    double.setblocking(blocking)
                task = Task(right.recv)
                time.sleep(0.03)
                left.send(noise(200_000))
                assert task.result() == noise(200_000)
        one.setblocking(True)
        two.setblocking(True)
        with pytest.raises(BlockingIOError):
            right.recv(timeout=0)
        with pytest.raises(TimeoutError):
            left.send(bytes(8 << 20), timeout=0.01)


def test_deadlines_as_numbers() -> None:
    """M2."""
    assert transport.deadline_after(None) == transport.NEVER
    assert transport.deadline_after(0) == transport.AT_ONCE
    before = time.monotonic_ns()
    assert before + 2 * 10**9 <= transport.deadline_after(2) <= time.monotonic_ns() + 2 * 10**9
    assert before < transport.deadline_after(1e300) < transport.NEVER
    assert transport.deadline_after(1e-12) > 0
    assert repr(transport.UNSET) == "UNSET"
