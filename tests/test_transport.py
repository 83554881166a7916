"""Sockets of every sort: which are served by system calls, which by their own methods, and what those may do."""

from __future__ import annotations

import array
import errno
import itertools
import resource
import socket
from contextlib import suppress
from typing import Any

import pytest
from scripted import LIMIT, MethodsInC, OwnMethods, Scripted, Task, Timed, noise, tls_contexts, with_own_methods

from sockframe import EndOfStream, FixedLength, FramingError, LengthPrefix, errors, transport


class Subclass(socket.socket):
    """As plain as its base."""

    extra = 1


def test_only_sockets_whose_methods_are_the_system_calls_are_plain() -> None:
    """O1."""
    left, right = socket.socketpair()
    with left, right:
        assert transport.is_plain(left)
        with Subclass(fileno=left.detach()) as sub:
            assert transport.is_plain(sub)
            with OwnMethods(fileno=sub.detach()) as own:
                assert not transport.is_plain(own)
                with MethodsInC(fileno=own.detach()) as other:
                    assert not transport.is_plain(other)
    assert not transport.is_plain(Scripted())


def test_a_subclass_with_its_own_methods_has_them_called(wing: Any) -> None:
    """O1."""
    left, right = with_own_methods()
    with wing.FramedSocket(left, LengthPrefix()) as one, wing.FramedSocket(right, LengthPrefix()) as two:
        one.send(b"a frame")
        one.send_many([b"b", noise(100_000)])
        assert [two.recv(), two.recv(), two.recv()] == [b"a frame", b"b", noise(100_000)]
        assert left.sends >= 2
        assert right.receives >= 2


@pytest.mark.parametrize("made", [Subclass, MethodsInC, socket.socket])
def test_sockets_made_of_a_descriptor(wing: Any, made: Any) -> None:
    """O3."""
    sockets = [made(fileno=sock.detach()) for sock in socket.socketpair()]
    one, two = (wing.FramedSocket(sock, LengthPrefix()) for sock in sockets)
    with one, two:
        one.send(b"x")
        assert two.recv(timeout=LIMIT) == b"x"
    gone = socket.socket()
    gone.detach()
    with pytest.raises(OSError, match="Bad file descriptor"):
        wing.FramedSocket(gone, LengthPrefix())


def test_what_carries_no_stream_is_refused(wing: Any) -> None:
    """O5, S11."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, pytest.raises(ValueError, match="not one of type"):
        wing.FramedSocket(sock, LengthPrefix())
    with socket.create_server(("127.0.0.1", 0)) as sock, pytest.raises(ValueError, match="not one that listens"):
        wing.FramedSocket(sock, LengthPrefix())
    one, two = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with one, two, pytest.raises(ValueError, match="not one of type"):
        wing.FramedSocket(one, LengthPrefix())
    for bad in (None, 5, b"bytes", object(), socket):
        with pytest.raises(TypeError, match="a stream socket is needed"):
            wing.FramedSocket(bad, LengthPrefix())
    with socket.socket() as sock:
        for framing in (None, "lines", LengthPrefix):
            with pytest.raises(TypeError, match="framing must be a Framing"):
                wing.FramedSocket(sock, framing)
        conn = wing.FramedSocket(sock, LengthPrefix())
        for call in (lambda: conn.send(b"x"), conn.recv, conn.getpeername):
            with pytest.raises(OSError) as caught:
                call()
            assert caught.value.errno in (errno.ENOTCONN, errno.EPIPE)


def test_an_object_with_recv_and_send_alone(wing: Any) -> None:
    """O4."""
    sock = Scripted(b"\0\0\0\3one\0\0\0\3two", cuts=range(20))
    with wing.FramedSocket(sock, LengthPrefix()) as conn:
        conn.send(b"x")
        assert conn.recv(timeout=5) == b"one"
        assert list(conn) == [b"two"]
        assert conn.detach() == (sock, b"")
    assert sock.sent == b"\0\0\0\1x"


class Stopped(Exception):
    """What a signal handler raises."""


class Stopping(Timed):
    """A handler comes and raises when a call gives the socket its own timeout back."""

    stops = False

    def settimeout(self, timeout: float | None) -> None:
        super().settimeout(timeout)
        if self.stops and timeout is None:
            self.stops = False
            raise Stopped


@pytest.mark.parametrize("then", ["recv", "detach", "start_tls"])
def test_what_an_interrupted_receive_has_got_is_there(wing: Any, then: str) -> None:
    """S2."""
    sock = Stopping(b"\0\0\0\3one\0\0\0\3two")
    conn = wing.FramedSocket(sock, LengthPrefix())
    sock.stops = True
    with pytest.raises(Stopped):
        conn.recv(timeout=LIMIT)
    assert conn.pending() == 14
    assert sock.timeouts[-1] is None
    if then == "recv":
        assert [conn.recv(timeout=LIMIT), conn.recv(FixedLength(7)), conn.pending()] == [b"one", b"\0\0\0\3two", 0]
    elif then == "detach":
        assert conn.detach() == (sock, sock.stream)
    else:
        with pytest.raises(FramingError, match="14 bytes"):
            conn.start_tls(tls_contexts()[1], server_hostname="localhost")


def test_what_an_interrupted_send_has_sent_is_sent_once(wing: Any) -> None:
    """S2."""
    for how in ("send", "flush"):
        sock = Stopping(takes=[5, 3])
        conn = wing.FramedSocket(sock, LengthPrefix())
        sock.stops = True
        with pytest.raises(Stopped):
            conn.send(b"payload", timeout=LIMIT)
        assert conn.unsent == 11
        conn.send(b"next") if how == "send" else conn.flush(timeout=LIMIT)
        assert sock.sent == b"\0\0\0\7payload" + b"\0\0\0\4next" * (how == "send")


class Bare:
    """What has no more than it must."""

    def recv(self, size: int) -> bytes:
        return b""

    def send(self, data: Any) -> int:
        return len(data)


def test_an_object_that_can_not_be_closed_is_let_go(wing: Any) -> None:
    """O4."""
    with wing.FramedSocket(Bare(), LengthPrefix()) as conn:
        conn.send(b"x")
        with pytest.raises(EndOfStream):
            conn.recv()
        assert conn.gettimeout() is None
        for call in (conn.fileno, conn.getpeername, lambda: conn.settimeout(1)):
            with pytest.raises(AttributeError):
                call()
    assert conn.closed
    assert conn.fileno() == -1


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_bytes_may_come_from_a_recv(wing: Any, kind: Any) -> None:
    """S12."""
    large = noise(200_000)
    stream = wing.Encoder(LengthPrefix()).encode_many([b"abc", large])
    for how in ("recv", "recv_many", "recv_into"):
        sock = Scripted(stream)
        sock.recv = lambda size, sock=sock: kind(Scripted.recv(sock, size))  # type: ignore[method-assign]
        conn = wing.FramedSocket(sock, LengthPrefix())
        if how == "recv_into":
            target = bytearray(200_000)
            assert [conn.recv_into(target), conn.recv_into(target)] == [3, 200_000]
            assert target == large
        else:
            assert [conn.recv_many(1)[0] if how == "recv_many" else conn.recv() for _ in range(2)] == [b"abc", large]


class Shy(bytes):
    """Bytes that say they are fewer."""

    def __len__(self) -> int:
        return 1


@pytest.mark.parametrize("answer", [bytes(300_001), bytearray(300_001), memoryview(array.array("q", range(60_000))),
                                    Shy(300_001), "text", 5, [1], True, 1.5], ids=lambda value: type(value).__name__)
def test_an_impossible_recv_is_an_error_and_nothing_is_lost(wing: Any, answer: Any) -> None:
    """S12."""
    stream = wing.Encoder(LengthPrefix()).encode(noise(300_000))
    for place in (0, 2, 4, 100, 70_000, 200_000):
        for into in (False, True):
            conn = wing.FramedSocket(Scripted(stream, events={place: [lambda: answer]}), LengthPrefix())
            target = bytearray(300_000)
            with pytest.raises(RuntimeError, match=r"^recv\(\d+\) returned "):
                conn.recv_into(target) if into else conn.recv()
            assert conn.recv() == noise(300_000)


def test_none_is_not_the_end(wing: Any) -> None:
    """S12, E11."""
    for timeout in (None, 0.0, 5.0):
        takes = [lambda: None, 2, lambda: None]
        sock = Timed(b"\0\0\0\1x", events={0: [None], 3: [None]}, takes=takes, timeout=timeout)
        conn = wing.FramedSocket(sock, LengthPrefix())
        for _ in range(2):
            with pytest.raises(BlockingIOError, match="no whole frame has arrived"):
                conn.recv()
        assert conn.recv() == b"x"
        with pytest.raises(BlockingIOError):
            conn.send(b"x")
        assert conn.unsent == 0
        conn.send(b"y")
        assert conn.unsent == 3
        conn.flush()
        assert sock.sent == b"\0\0\0\1y"
        assert sock.timeouts[-1] == timeout


@pytest.mark.parametrize("answer", [-1, 100, True, False, 1.0, "5", b""])
def test_an_impossible_send_is_an_error(wing: Any, answer: Any) -> None:
    """S12."""
    for before in (0, 1, 3):
        sock = Scripted(takes=[*[before] * bool(before), lambda: answer])
        conn = wing.FramedSocket(sock, LengthPrefix())
        with pytest.raises(RuntimeError, match=r"^send\(\) of \d bytes returned "):
            conn.send(b"x")
        assert conn.unsent == (5 - before if before else 0)


def test_a_send_that_takes_nothing_is_not_tried_for_ever(wing: Any) -> None:
    sock = Scripted(takes=[0, 3, 0])
    conn = wing.FramedSocket(sock, LengthPrefix())
    with pytest.raises(BlockingIOError):
        conn.send(b"no")
    conn.send(b"yes")
    conn.flush()
    assert sock.sent == b"\0\0\0\3yes"


def test_the_kernels_own_timeout_is_a_dead_peer(wing: Any) -> None:
    """M4."""
    assert type(errors.os_error(errno.ETIMEDOUT)) is ConnectionError
    assert type(errors.os_error(errno.EPIPE)) is BrokenPipeError
    dead = TimeoutError(errno.ETIMEDOUT, "Connection timed out")
    for timeout in (None, 5.0, 0.0):
        sock = Timed(b"\0\0\0\1x", events={2: [dead]}, takes=[1, dead], timeout=timeout)
        conn = wing.FramedSocket(sock, LengthPrefix())
        for call in (conn.recv, lambda conn=conn: conn.send(b"x")):
            with pytest.raises(ConnectionError) as caught:
                call()
            assert caught.value.errno == errno.ETIMEDOUT
            assert not isinstance(caught.value, TimeoutError)


def test_a_sockets_own_timeout_is_lent_and_given_back(wing: Any) -> None:
    sock = Timed(b"\0\0\0\1x" * 4, cuts=(5, 10, 15), events={1: [TimeoutError("timed out")]}, timeout=7.0)
    conn = wing.FramedSocket(sock, LengthPrefix())
    with pytest.raises(TimeoutError, match=r"^timed out$"):
        conn.recv()
    assert 6 < sock.timeouts[1] < 7
    assert sock.timeouts[-1] == conn.gettimeout() == 7.0
    for timeout, least, most in ((None, None, None), (0, 0.0, 0.0), (1e300, None, None), (3.0, 2.0, 3.0)):
        del sock.timeouts[:-1]
        assert conn.recv_many(1, timeout=timeout) == [b"x"]
        lent = sock.timeouts[1]
        assert lent is least if least is None else least <= lent <= most
        assert sock.timeouts[-1] == 7.0


def test_two_threads_lend_one_timeout_without_mixing_theirs(wing: Any) -> None:
    left, right = with_own_methods()
    with wing.FramedSocket(left, LengthPrefix()) as conn, wing.FramedSocket(right, LengthPrefix()) as peer:
        conn.settimeout(LIMIT)
        payload = noise(400_000)

        def poll() -> int:
            for passed in itertools.count():
                with suppress(TimeoutError):
                    assert conn.recv(timeout=0.001) == b"stop"
                    return passed
            raise AssertionError

        reader = Task(poll)
        for _ in range(30):
            sender = Task(conn.send, payload)
            assert peer.recv(timeout=LIMIT) == payload
            sender.result()
        peer.send(b"stop")
        assert reader.result() > 0
        assert conn.gettimeout() == left.gettimeout() == LIMIT


def test_a_timeout_set_while_a_call_is_at_work_stays(wing: Any) -> None:
    """K14."""
    left, right = with_own_methods()
    with wing.FramedSocket(left, LengthPrefix()) as conn, wing.FramedSocket(right, LengthPrefix()) as peer:
        task = Task(conn.recv, timeout=LIMIT)
        while not left.receives:
            pass
        conn.settimeout(3)
        assert conn.gettimeout() == 3
        peer.send(b"x")
        assert task.result() == b"x"
        assert left.gettimeout() == conn.gettimeout() == 3
        conn.setblocking(False)
        with pytest.raises(BlockingIOError):
            conn.recv()


def test_descriptors_above_1024(wing: Any) -> None:
    """S10."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 1100 if hard == resource.RLIM_INFINITY else min(1100, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    held: list[socket.socket] = []
    try:
        left, right = socket.socketpair()
        while left.fileno() < min(1050, wanted - 20):
            held += [left, right]
            left, right = socket.socketpair()
        with wing.FramedSocket(left, LengthPrefix()) as one, wing.FramedSocket(right, LengthPrefix()) as two:
            with pytest.raises(TimeoutError):
                two.recv(timeout=0.001)
            one.send(b"x", timeout=LIMIT)
            assert two.recv(timeout=LIMIT) == b"x"
    finally:
        for sock in held:
            sock.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
