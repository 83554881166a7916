"""Signals: a handler that returns is not noticed, one that raises loses nothing, one that calls back harms nothing."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from scripted import KINDS as SOCKETS
from scripted import LIMIT, MethodsInC, Task, noise, watched

from sockframe import LengthPrefix

pytestmark = pytest.mark.usefixtures("no_collector")


class Interrupted(Exception):
    """What a signal handler raises."""


def with_methods_in_c() -> tuple[socket.socket, socket.socket]:
    """Return two connected sockets that are served through methods in C, as those of Windows are."""
    one, other = (MethodsInC(fileno=sock.detach()) for sock in socket.socketpair())
    return one, other


KINDS = {**SOCKETS, "in C": with_methods_in_c}


@contextmanager
def handler(action: Callable[[], Any], every: float = 0.0) -> Iterator[list[int]]:
    """Call `action` for each signal, and let one come `every` so many seconds; count them."""
    seen: list[int] = []

    def handle(number: int, frame: Any) -> None:
        seen.append(number)
        action()

    before = signal.signal(signal.SIGALRM, handle)
    try:
        signal.setitimer(signal.ITIMER_REAL, every, every)
        yield seen
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        # One that comes late, of a test that has failed, must not end the suite.
        signal.signal(signal.SIGALRM, signal.SIG_IGN if before is signal.SIG_DFL else before)


def interrupt(pause: float = 0.04) -> Task:
    """Send this process a signal, once it waits."""
    def send() -> None:
        time.sleep(pause)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGALRM)

    return Task(send)


def slowly(sock: socket.socket, data: bytes) -> None:
    for at in range(0, len(data), 100_000):
        sock.sendall(data[at:at + 100_000])
        time.sleep(0.003)


@pytest.mark.parametrize("kind", ["pair", "own"])
@pytest.mark.parametrize("timeout", [None, LIMIT])
@pytest.mark.parametrize("how", ["recv", "recv_into", "recv_many"])
def test_a_handler_that_returns_is_not_noticed_in_receiving(wing: Any, kind: str, timeout: Any, how: str) -> None:
    """S1."""
    payload = noise(2_000_000)
    left, right = KINDS[kind]()
    with left, wing.FramedSocket(right, LengthPrefix()) as conn, watched(left), handler(lambda: None, 0.005) as seen:
        task = Task(slowly, left, len(payload).to_bytes(4, "big") + payload)
        if how == "recv_into":
            target = bytearray(2_000_000)
            assert conn.recv_into(target, timeout=timeout) == len(payload)
            assert target == payload
        else:
            assert (conn.recv(timeout=timeout) if how == "recv" else conn.recv_many(timeout=timeout)[0]) == payload
        assert seen
        task.result()


@pytest.mark.parametrize("kind", ["pair", "own"])
@pytest.mark.parametrize("timeout", [None, LIMIT])
def test_a_handler_that_returns_is_not_noticed_in_sending(wing: Any, kind: str, timeout: Any) -> None:
    """S1."""
    payload = noise(2_000_000)
    left, right = KINDS[kind]()
    with right, wing.FramedSocket(left, LengthPrefix()) as conn, watched(right), handler(lambda: None, 0.005) as seen:
        def read() -> bytes:
            data = bytearray()
            while len(data) < 2 * (4 + len(payload)):
                data += right.recv(50_000)
                time.sleep(0.001)
            return bytes(data)

        task = Task(read)
        conn.send(payload, timeout=timeout)
        conn.send_many([payload], timeout=timeout)
        assert task.result() == (len(payload).to_bytes(4, "big") + payload) * 2
        assert seen


@pytest.mark.parametrize("kind", ["pair", "own"])
def test_the_deadline_is_kept_through_signals(wing: Any, kind: str) -> None:
    """M6, S1."""
    left, right = KINDS[kind]()
    with left, wing.FramedSocket(right, LengthPrefix()) as conn, handler(lambda: None, 0.02) as seen:
        begun = time.monotonic()
        with pytest.raises(TimeoutError):
            conn.recv(timeout=0.2)
        assert 0.2 <= time.monotonic() - begun < 2
        assert len(seen) >= 2


@pytest.mark.parametrize("timeout", [None, LIMIT])
@pytest.mark.parametrize("how", ["recv", "recv_into", "recv_many", "recv_batch"])
def test_a_handler_that_raises_in_any_part_of_a_frame_loses_nothing(wing: Any, timeout: Any, how: str) -> None:
    """S2."""
    def fail() -> None:
        raise Interrupted

    payload = noise(200_000)
    stream = len(payload).to_bytes(4, "big") + payload + b"\0\0\0\1x"
    target = bytearray(200_000)
    calls = {"recv": lambda: conn.recv(timeout=timeout), "recv_many": lambda: conn.recv_many(timeout=timeout),
             "recv_batch": lambda: conn.recv_batch(timeout=timeout).tolist(),
             "recv_into": lambda: conn.recv_into(target, timeout=timeout)}
    left, right = socket.socketpair()
    left.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    with left, wing.FramedSocket(right, LengthPrefix()) as conn, watched(left), handler(fail):
        at = 0
        for place in (0, 2, 5, 70_000, 200_003):
            left.sendall(stream[at:place])
            at = place
            task = interrupt()
            with pytest.raises(Interrupted):
                calls[how]()
            task.result()
        left.sendall(stream[at:])
        assert conn.recv(timeout=LIMIT) == payload
        assert conn.recv(timeout=LIMIT) == b"x"


def test_a_handler_that_raises_in_a_send_leaves_the_rest_to_be_sent(wing: Any) -> None:
    def fail() -> None:
        raise Interrupted

    for how in ("send", "list", "iterator"):
        left, right = wing.pair(LengthPrefix(), SO_SNDBUF=5000)
        payloads = [noise(100_000, 1), noise(50_000, 2)]
        with left, right, watched(right), handler(fail):
            task = interrupt()
            with pytest.raises(Interrupted):
                if how == "send":
                    left.send(payloads[0])
                else:
                    left.send_many(payloads if how == "list" else iter(payloads))
            task.result()
            expected = payloads if how == "list" else payloads[:1]
            assert 0 < left.unsent < sum(4 + len(payload) for payload in expected)
            task = interrupt()
            with pytest.raises(Interrupted):
                left.flush()
            task.result()
            task = Task(left.send, b"next", timeout=LIMIT)
            assert [right.recv(timeout=LIMIT) for _ in expected] == expected
            assert right.recv(timeout=LIMIT) == b"next"
            task.result()


class Storm:
    """Signals whose handler raises, each in the midst of a call: main() repeats the call, `strike` sends one signal."""

    def __init__(self) -> None:
        self.inside = threading.Event()
        self.struck = threading.Event()

    def fail(self) -> None:
        if not self.inside.is_set():
            return  # one signal more than was needed
        self.inside.clear()
        self.struck.set()
        raise Interrupted

    def strike(self) -> None:
        """Send a signal once the call is at work, and wait until its handler has run."""
        assert self.inside.wait(LIMIT)
        time.sleep(0.003)  # it waits by then, as a rule; before that, it is interrupted elsewhere
        end = time.monotonic() + LIMIT
        while True:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGALRM)
            # One that comes between the last look for signals and the system call does not end that: so it is with
            # every call of Python's that waits.
            if self.struck.wait(0.5):
                break
            assert time.monotonic() < end
        self.struck.clear()

    def main(self, call: Callable[[], Any], then: Callable[[], Any]) -> Any:
        """Call until it is not interrupted: `then`, after the first time. It must not return while signals may come."""
        try:
            self.inside.set()
            return call()
        except Interrupted:
            return self.main(then, then)


@pytest.mark.parametrize("kind", ["pair", "own", "in C"])
@pytest.mark.parametrize("timeout", [None, LIMIT])
@pytest.mark.parametrize("how", ["recv", "recv_into", "recv_many", "recv_batch"])
def test_a_signal_that_raises_before_every_byte_loses_nothing(wing: Any, kind: str, timeout: Any, how: str) -> None:
    """S2: of the header as of the payload."""
    storm, target = Storm(), bytearray(5)
    left, right = KINDS[kind]()

    def send() -> None:
        for place, byte in enumerate(b"\0\0\0\5hello"):
            # A method in Python may be interrupted with what it has received: not struck before that is held.
            while kind == "own" and conn.pending() < place:
                time.sleep(0.001)
            storm.strike()
            left.send(bytes((byte,)))

    with left, wing.FramedSocket(right, LengthPrefix()) as conn, watched(left), handler(storm.fail):
        call = {"recv": conn.recv, "recv_many": conn.recv_many,
                "recv_batch": lambda **how: conn.recv_batch(**how).tolist(),
                "recv_into": lambda **how: conn.recv_into(target, **how)}
        task = Task(send)
        got = storm.main(lambda: call[how](timeout=timeout), lambda: call[how](timeout=timeout))
        task.result()
        assert got == {"recv": b"hello", "recv_into": 5}.get(how, [b"hello"])
        assert target == (b"hello" if how == "recv_into" else bytes(5))


@pytest.mark.parametrize("kind", ["pair", "tcp", "in C"])
@pytest.mark.parametrize("timeout", [None, LIMIT])
@pytest.mark.parametrize("how", ["send", "list", "iterator"])
def test_signals_that_raise_all_along_a_send_lose_nothing(wing: Any, kind: str, timeout: Any, how: str) -> None:
    """S2: send() and send_many(), then flush() again and again, while the peer reads a little at a time."""
    storm, payload = Storm(), noise(600_000)
    stream = len(payload).to_bytes(4, "big") + payload
    left, right = KINDS[kind]()
    for sock in (left, right):
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            # Over TCP a smaller window is opened again by a timer only, many times a second too seldom.
            sock.setsockopt(socket.SOL_SOCKET, option, 32768 if kind == "tcp" else 5000)
    got = bytearray()

    def read() -> None:
        strikes = 0
        while len(got) < len(stream):
            if len(stream) - len(got) > 300_000 and strikes < 20:  # so much that the call can't end
                storm.strike()
                strikes += 1
            got.extend(right.recv(10_000))
        assert strikes == 20

    with right, wing.FramedSocket(left, LengthPrefix()) as conn, watched(right), handler(storm.fail):
        call = {"send": lambda: conn.send(payload, timeout=timeout),
                "list": lambda: conn.send_many([payload], timeout=timeout),
                "iterator": lambda: conn.send_many(iter([payload]), timeout=timeout)}
        task = Task(read)

        def go_on() -> None:
            if conn.unsent:
                conn.flush(timeout=timeout)
            else:  # nothing of it was taken
                call[how]()

        storm.main(call[how], go_on)
        task.result()
        assert got == stream
        assert conn.unsent == 0


@pytest.mark.parametrize("kind", ["pair", "own"])
def test_a_handler_that_calls_back_is_refused(wing: Any, kind: str) -> None:
    """I9."""
    left, right = (wing.FramedSocket(sock, LengthPrefix()) for sock in KINDS[kind]())
    caught: list[str] = []

    def call_back() -> None:
        for call in (right.recv, right.recv_many, right.recv_batch, lambda: right.recv_into(bytearray(9)),
                     lambda: next(right), right.detach):
            with pytest.raises(RuntimeError) as error:
                call()
            caught.append(str(error.value))
        right.send(b"from the handler")  # the other direction is free
        left.send(b"an end to it")

    with left, right, watched(left), handler(call_back):
        task = interrupt()
        assert right.recv() == b"an end to it"
        task.result()
        assert caught == ["FramedSocket is already at work in this call"] * 6
        assert left.recv(timeout=LIMIT) == b"from the handler"


@pytest.mark.parametrize("kind", ["pair", "own"])
@pytest.mark.parametrize("timeout", [None, LIMIT])
def test_a_handler_that_closes_ends_the_call(wing: Any, kind: str, timeout: Any) -> None:
    """I9."""
    for how in ("recv", "send"):
        left, right = (wing.FramedSocket(sock, LengthPrefix()) for sock in KINDS[kind]())
        with left, right, watched(left), handler(right.close):
            task = interrupt()
            with pytest.raises(OSError, match="Bad file descriptor"):
                right.recv(timeout=timeout) if how == "recv" else right.send(bytes(8 << 20), timeout=timeout)
            task.result()
            assert right.sock.fileno() == -1


def test_a_peer_that_is_gone_is_no_signal(wing: Any) -> None:
    """S5."""
    before = signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # it would end this process
    try:
        for kind in KINDS.values():
            left, right = kind()
            if type(left) is not socket.socket:
                left.close()
                right.close()
                continue
            with wing.FramedSocket(left, LengthPrefix()) as conn:
                right.close()
                with pytest.raises(ConnectionError):
                    for _ in range(100):
                        conn.send(bytes(1000), timeout=LIMIT)
                with pytest.raises(ConnectionError):
                    conn.send_many([b"x"] * 10, timeout=LIMIT)
    finally:
        signal.signal(signal.SIGPIPE, before)
