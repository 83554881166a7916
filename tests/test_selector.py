"""FrameSelector: one call that waits for many connections and brings their frames."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from scripted import WINE, OwnMethods, reset

from sockframe import (
    EndOfStream,
    Frame,
    FrameTooLongError,
    Framing,
    IncompleteFrameError,
    LengthPrefix,
    Lines,
    MalformedFrameError,
)
from sockframe.errors import FramingError

FRAMING = LengthPrefix(4)


@pytest.fixture
def selector(wing: Any) -> Iterator[Any]:
    """A selector of the wing, closed at the end."""
    with wing.FrameSelector() as one:
        yield one


@pytest.fixture
def pair(wing: Any) -> Iterator[Any]:
    """Make connected pairs, (peer, ours), of which ours does not block; they are closed at the end."""
    made: list[Any] = []

    def make(framing: Any = FRAMING, **options: int) -> tuple[Any, Any]:
        peer, ours = wing.pair(framing, **options)
        ours.setblocking(False)
        made.extend((peer, ours))
        return peer, ours

    yield make
    for conn in made:
        conn.close()


def collect(selector: Any, enough: int, seconds: float = 5) -> list[Any]:
    """Select until there are `enough` results, frame by frame, exceptions as they are."""
    results: list[Any] = []
    end = time.monotonic() + seconds
    while len(results) < enough:
        assert time.monotonic() < end, f"only {results!r}"
        for key, got in selector.select(0.5):
            results += [(key.data, got)] if isinstance(got, Exception) else [(key.data, frame) for frame in got]
    return results


def test_frames_come_with_their_key(selector: Any, pair: Any) -> None:
    pairs = [pair() for _ in range(80)]
    keys = [selector.register(ours, number) for number, (_, ours) in enumerate(pairs)]
    assert [(key.conn, key.data) for key in keys] == [(ours, number) for number, (_, ours) in enumerate(pairs)]
    assert len(selector) == 80
    assert set(selector.get_map().values()) == set(selector) == set(keys)
    assert selector.select(0) == []
    for number, (peer, _) in enumerate(pairs):
        peer.send_many([b"%d" % number, b"", b"z"])
    results = collect(selector, 240)
    for number in range(80):
        assert [frame for data, frame in results if data == number] == [b"%d" % number, b"", b"z"]


def test_a_frame_in_pieces_comes_once_it_is_whole(selector: Any, pair: Any) -> None:
    peer, ours = pair()
    selector.register(ours, "it")
    for byte in b"\0\0\0\3abc"[:-1]:
        peer.sock.sendall(bytes((byte,)))
        assert selector.select(0.001) == []
    peer.sock.sendall(b"c")
    assert collect(selector, 1) == [("it", b"abc")]


def test_the_time_is_kept(selector: Any, pair: Any) -> None:
    selector.register(pair()[1])
    begun = time.monotonic()
    assert selector.select(0.05) == []
    assert time.monotonic() - begun >= 0.05
    for bad in (-1, float("nan")):
        with pytest.raises(ValueError, match="timeout must be None, or seconds from 0 on"):
            selector.select(bad)


def test_without_a_timeout_it_waits_until_there_is_something(selector: Any, pair: Any) -> None:
    peer, ours = pair()
    selector.register(ours, "it")
    later = threading.Timer(0.05, peer.send, [b"late"])
    later.start()
    assert [(key.data, frames) for key, frames in selector.select()] == [("it", [b"late"])]
    later.join()


def test_frames_held_before_registering_come_first(selector: Any, pair: Any) -> None:
    """N1."""
    peer, ours = pair()
    peer.send_many([b"a", b"b", b"c"])
    assert ours.recv() == b"a"
    assert ours.pending() == 10
    selector.register(ours)
    assert collect(selector, 2) == [(None, b"b"), (None, b"c")]
    assert ours.pending() == 0
    peer.send(b"d")
    assert collect(selector, 1) == [(None, b"d")]


@pytest.mark.parametrize(("stream", "frames", "kind"), [
    (b"", [], EndOfStream),
    (b"\0\0\0\1x", [b"x"], EndOfStream),
    (b"\0\0\0\1x\0\0\0", [b"x"], IncompleteFrameError),
    (b"\0\0\0\1x\xff\xff\xff\xff", [b"x"], FrameTooLongError),
])
def test_an_end_or_a_fault_comes_behind_the_frames_once(selector: Any, pair: Any, stream: bytes, frames: list[bytes],
                                                        kind: type[FramingError]) -> None:
    peer, ours = pair()
    selector.register(ours, 1)
    peer.sock.sendall(stream)
    peer.close()
    results = collect(selector, len(frames) + 1)
    assert [frame for _, frame in results[:-1]] == frames
    assert type(results[-1][1]) is kind
    assert len(selector) == 0
    assert selector.select(0) == []
    assert not ours.closed


@pytest.mark.skipif(WINE, reason="Wine resets no connection")
def test_a_reset_comes_as_its_error(selector: Any, wing: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        peer = socket.create_connection(listener.getsockname())
        with wing.FramedSocket(listener.accept()[0], FRAMING) as ours:
            ours.setblocking(False)
            selector.register(ours, "it")
            reset(peer)
            ((_, error),) = collect(selector, 1)
            assert isinstance(error, ConnectionResetError)


def test_a_faulty_connection_hurts_no_other(selector: Any, pair: Any) -> None:
    good, bad = pair(Lines("crlf")), pair(Lines("crlf"))
    selector.register(good[1], "good")
    selector.register(bad[1], "bad")
    bad[0].sock.sendall(b"a\nb")
    good[0].sock.sendall(b"fine\r\n")
    results = dict(collect(selector, 2))
    assert results["good"] == b"fine"
    assert isinstance(results["bad"], MalformedFrameError)
    good[0].sock.sendall(b"still\r\n")
    assert collect(selector, 1) == [("good", b"still")]


def test_closing_a_registered_connection_is_told_once(selector: Any, pair: Any) -> None:
    _, ours = pair()
    selector.register(ours, "it")
    ours.close()
    ((data, error),) = collect(selector, 1)
    assert (data, type(error), error.errno) == ("it", OSError, 9)
    assert selector.select(0) == []
    assert len(selector) == 0


def test_a_connection_that_is_given_up_is_told_and_forgotten(selector: Any, pair: Any) -> None:
    _, ours = pair()
    selector.register(ours, "it")
    sock, _ = ours.detach()
    with sock:
        ((data, error),) = collect(selector, 1)
        assert (data, type(error), error.errno) == ("it", OSError, 9)
        assert (selector.select(0), len(selector)) == ([], 0)


def test_the_number_of_a_closed_connection_may_be_used_again(selector: Any, pair: Any, wing: Any) -> None:
    fcntl = pytest.importorskip("fcntl")
    _, ours = pair()
    number = ours.fileno()
    selector.register(ours, "old")
    peer, spare = socket.socketpair()
    with peer, spare:
        ours.close()
        sock = socket.socket(fileno=fcntl.fcntl(spare, fcntl.F_DUPFD_CLOEXEC, number))
        assert sock.fileno() == number
        with wing.FramedSocket(sock, FRAMING) as other:
            selector.register(other, "new")
            peer.sendall(b"\0\0\0\5hello")
            results = dict(collect(selector, 2))
            assert results["new"] == b"hello"
            assert isinstance(results["old"], OSError)


def test_a_peer_that_does_not_read_is_flushed_as_it_reads_on(selector: Any, pair: Any) -> None:
    peer, ours = pair(SO_SNDBUF=65536)
    selector.register(ours)
    payload = os.urandom(3 << 20)
    ours.send(payload)
    assert ours.unsent
    peer.send(b"later")
    assert selector.select(0) == []  # nothing is received while something is unsent
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(peer.recv(timeout=20)))
    reader.start()
    assert collect(selector, 1, 20) == [(None, b"later")]
    reader.join(20)
    assert got == [payload]
    assert not ours.unsent


def test_what_a_socket_hides_is_not_received_while_something_is_unsent(selector: Any, wing: Any) -> None:
    class Hiding(OwnMethods):
        def pending(self) -> int:
            return 1

    left, right = socket.socketpair()
    right.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
    with wing.FramedSocket(left, FRAMING) as peer, \
            wing.FramedSocket(Hiding(fileno=right.detach()), FRAMING) as ours:
        ours.setblocking(False)
        peer.send(b"first")
        selector.register(ours)
        assert collect(selector, 1) == [(None, b"first")]
        payload = bytes(3 << 20)
        ours.send(payload)
        assert ours.unsent
        peer.send(b"later")
        assert selector.select(0.1) == []
        got: list[bytes] = []
        reader = threading.Thread(target=lambda: got.append(peer.recv(timeout=20)))
        reader.start()
        assert collect(selector, 1, 20) == [(None, b"later")]
        reader.join(20)
        assert got == [payload]


def test_a_tail_from_before_registering_is_flushed_too(selector: Any, pair: Any) -> None:
    peer, ours = pair()
    ours.send(bytes(3 << 20))
    selector.register(ours)
    reader = threading.Thread(target=lambda: peer.recv(timeout=20))
    reader.start()
    end = time.monotonic() + 20
    while ours.unsent and time.monotonic() < end:
        selector.select(0.01)
    reader.join(20)
    assert not ours.unsent


@pytest.mark.parametrize("kind", [socket.socket, OwnMethods])
def test_progress_without_a_frame_is_told_where_it_is_asked_for(wing: Any, kind: Any) -> None:
    left, right = socket.socketpair()
    left.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
    with wing.FramedSocket(right, FRAMING) as peer, \
            wing.FramedSocket(kind(fileno=left.detach()), FRAMING) as ours, \
            wing.FrameSelector(progress=True) as selector:
        ours.setblocking(False)
        selector.register(ours, "it")
        peer.sock.sendall(b"\0\0")
        assert [(key.data, frames) for key, frames in selector.select(5)] == [("it", [])]
        peer.sock.sendall(b"\0\1x\0")
        assert [(key.data, frames) for key, frames in selector.select(5)] == [("it", [b"x"])]
        ours.send(bytes(3 << 20))
        assert ours.unsent
        reader = threading.Thread(target=lambda: peer.recv(timeout=20))
        reader.start()
        assert [(key.data, frames) for key, frames in selector.select(20)] == [("it", [])]
        reader.join(20)
        assert not ours.unsent


def test_a_listener_is_watched_together_with_connections(selector: Any, pair: Any) -> None:
    peer, ours = pair()
    selector.register(ours, "it")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        key = selector.watch(listener, "door")
        with socket.create_connection(listener.getsockname()):
            for _ in range(2):  # as long as nobody accepts
                assert selector.select(5) == [(key, [])]
            listener.accept()[0].close()
            assert selector.select(0) == []
            assert len(selector) == 1
            with pytest.raises(KeyError):
                selector.unwatch(ours)
            assert selector.unwatch(listener) is key
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()):
        peer.send(b"x")
        assert collect(selector, 1) == [("it", b"x")]


def test_one_that_sends_much_starves_no_other(selector: Any, pair: Any) -> None:
    loud, quiet = pair(SO_SNDBUF=1 << 20), pair()
    selector.register(loud[1], "loud")
    selector.register(quiet[1], "quiet")
    stop = threading.Event()

    def shout() -> None:
        with suppress(OSError):  # ours is closed at last
            while not stop.is_set():
                loud[0].send_many([bytes(1000)] * 100)

    shouting = threading.Thread(target=shout)
    shouting.start()
    try:
        for key, frames in selector.select(5):
            assert sum(map(len, frames)) <= 65536, key
        quiet[0].send(b"psst")
        heard = False
        for _ in range(4):
            heard |= any(key.data == "quiet" for key, _ in selector.select(5))
        assert heard
    finally:
        stop.set()
        loud[1].close()
        loud[0].close()
        shouting.join(5)


def test_a_connection_that_another_thread_reads_is_left_to_it(selector: Any, pair: Any) -> None:
    peer, ours = pair()
    selector.register(ours)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(ours.recv(timeout=5)))
    reader.start()
    time.sleep(0.05)
    assert selector.select(0) == []
    peer.send(b"for the thread")
    reader.join(5)
    assert got == [b"for the thread"]


def test_registering_is_checked(selector: Any, pair: Any, wing: Any) -> None:
    _, ours = pair()
    selector.register(ours)
    with pytest.raises(KeyError, match="already registered"):
        selector.register(ours)
    with wing.FrameSelector() as other, pytest.raises(ValueError, match="another selector"):
        other.register(ours)
    assert selector.unregister(ours).conn is ours
    with pytest.raises(KeyError, match="not registered"):
        selector.unregister(ours)
    ours.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        selector.register(ours)
    assert selector.select(0) == []


def test_an_unregistered_connection_is_the_users_again(selector: Any, pair: Any) -> None:
    peer, ours = pair()
    selector.register(ours)
    peer.sock.sendall(b"\0\0\0\5he")
    assert selector.select(0.01) == []
    selector.unregister(ours)
    peer.sock.sendall(b"llo")
    assert selector.select(0.01) == []
    assert ours.recv() == b"hello"


def test_a_closed_selector_refuses_everything(selector: Any, pair: Any) -> None:
    peer, ours = pair()
    selector.register(ours)
    selector.close()
    selector.close()
    for call in (lambda: selector.select(0), lambda: selector.register(ours), lambda: selector.unregister(ours)):
        with pytest.raises(OSError, match="selector is closed"):
            call()
    peer.send(b"x")
    assert ours.recv(timeout=5) == b"x"


@pytest.mark.skipif(sys.implementation.name == "pypy", reason="PyPy runs signal handlers between any two steps")
@pytest.mark.skipif(os.name == "nt", reason="Windows has no timer that sends a signal")
@pytest.mark.parametrize("kind", [TimeoutError, ArithmeticError])
def test_a_handler_that_raises_is_no_connections_error(selector: Any, pair: Any, kind: type[Exception],
                                                       no_collector: None) -> None:
    def stop(*_: object) -> None:
        raise kind("the handler")

    pairs = [pair() for _ in range(20)]
    for number, (_, ours) in enumerate(pairs):
        selector.register(ours, number)
    before = signal.signal(signal.SIGALRM, stop)
    try:
        for turn in range(40):
            for number, (peer, _) in enumerate(pairs):
                peer.send(b"%d-%d" % (number, turn))
            with pytest.raises(kind, match="the handler"):
                signal.setitimer(signal.ITIMER_REAL, 0.0005)
                until = time.monotonic() + 20
                while time.monotonic() < until:
                    for _, frames in selector.select(1):
                        assert isinstance(frames, list)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    # Results that select() had returned are lost by this loop, not by the selector.
    for number, (peer, _) in enumerate(pairs):
        peer.send(b"last %d" % number)
    last: set[bytes] = set()
    while len(last) < 20:
        last |= {frame for _, frame in collect(selector, 1) if frame.startswith(b"last")}
    assert last == {b"last %d" % number for number in range(20)}
    assert len(selector) == 20


def test_a_framing_that_raises_loses_nothing(selector: Any, pair: Any) -> None:
    """I4."""
    class Moody(Framing):
        calm = False

        def measure(self, view: memoryview) -> Any:
            if not Moody.calm:
                raise ArithmeticError("not now")
            return Frame(2)

        def wrap(self, payload: bytes) -> bytes:
            return payload

    peer, ours = pair(Moody())
    other = pair(Lines())
    selector.register(ours, "moody")
    selector.register(other[1], "other")
    peer.sock.sendall(b"abcd")
    other[0].send(b"x")
    for _ in range(3):
        with pytest.raises(ArithmeticError, match="not now"):
            selector.select(5)
    Moody.calm = True
    results = collect(selector, 3)
    assert [frame for data, frame in results if data == "moody"] == [b"ab", b"cd"]
    assert [frame for data, frame in results if data == "other"] == [b"x"]


def test_descriptors_above_1024_work(selector: Any, pair: Any) -> None:
    """S10."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    try:
        pairs = [pair() for _ in range(700)]
        assert max(ours.fileno() for _, ours in pairs) > 1024
        for number, (_, ours) in enumerate(pairs):
            selector.register(ours, number)
        for number, (peer, _) in enumerate(pairs):
            peer.send(b"%d" % number)
        assert sorted(collect(selector, 700)) == [(number, b"%d" % number) for number in range(700)]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
