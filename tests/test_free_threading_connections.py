"""Threads that share connections and selectors, also where they run at once: nothing is lost, doubled or mixed."""

from __future__ import annotations

import errno
import importlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from functools import partial
from itertools import chain
from multiprocessing import connection as original
from typing import Any

import pytest
from at_once import ROUNDS, THREADS, all_at_once, ending, switch_often, until_taken, watching
from scripted import LIMIT, Bracketed, Task, noise

from sockframe import EndOfStream, LengthPrefix

__all__ = ["switch_often"]  # fixtures


def receive(conn: Any, how: str) -> list[bytes]:
    """Receive until the end."""
    buffer = bytearray(100_000)
    frames: list[bytes] = []
    try:
        while True:
            if how == "recv_many":
                frames += conn.recv_many(5)
            elif how == "recv_batch":
                frames += conn.recv_batch().tolist()
            elif how == "recv_into":
                frames.append(bytes(buffer[:conn.recv_into(buffer)]))
            elif how == "next":
                frames.append(next(conn))
            else:
                frames.append(conn.recv(timeout=LIMIT) if how == "deadline" else conn.recv())
    except (EndOfStream, StopIteration):
        return frames


RECEIVERS = ["recv", "recv_many", "recv_batch", "recv_into", "next", "deadline"]


def send(conn: Any, mine: list[bytes]) -> None:
    """Send payloads in every way."""
    for at in range(0, len(mine), 4):
        one, *rest = mine[at:at + 4]
        conn.send(one)
        conn.send_many(rest[:2])
        conn.send_many(iter(rest[2:]))
        conn.flush(timeout=LIMIT)


def payloads_of(thread: int, count: int = 48) -> list[bytes]:
    """Return payloads of all sizes that no other thread has."""
    sizes = (3, 40, 0, 700, 5, 90_000, 30, 2100)
    return [b"%d %d " % (thread, number) + noise(sizes[number % 8], thread) for number in range(count)]


def test_all_that_some_send_others_receive(wing: Any) -> None:
    """Each frame comes once, and whole, whatever way each thread sends and receives."""
    for _ in range(ROUNDS):
        left, right = wing.pair(LengthPrefix(), SO_SNDBUF=20_000)
        with left, right:
            left.settimeout(LIMIT)
            right.settimeout(LIMIT)
            senders = [lambda thread=thread, left=left: send(left, payloads_of(thread)) for thread in range(THREADS)]
            done = threading.Event()
            tasks = [Task(receive, right, how) for how in RECEIVERS]
            looking = Task(watching(done, lambda left=left, right=right: look_at(left, right)))
            all_at_once(*senders)
            left.shutdown(socket.SHUT_WR)
            found = [task.result() for task in tasks]
            done.set()
            assert looking.result()
            assert sorted(chain(*found)) == sorted(chain(*map(payloads_of, range(THREADS))))
            for mine in map(payloads_of, range(THREADS)):  # a receiver sees those of a sender in their order
                places = {payload: place for place, payload in enumerate(mine)}
                for frames in found:
                    seen = [places[frame] for frame in frames if frame in places]
                    assert seen == sorted(seen)


def look_at(*conns: Any) -> None:
    """Ask connections all that any thread may."""
    for conn in conns:
        assert 0 <= conn.unsent < 1 << 20
        assert 0 <= conn.pending() < 1 << 20
        assert not conn.closed
        assert conn.framing == LengthPrefix()
        assert conn.recv_event == 1
        assert conn.send_event == 2
        assert conn.fileno() >= 0


def test_small_frames_that_are_here_are_for_one_of_many(wing: Any) -> None:
    """Those that need no system call, and no turn, beside those that do."""
    count = 150 * ROUNDS
    left, right = wing.pair(LengthPrefix())
    with left, right:
        right.settimeout(LIMIT)
        payloads = [b"%d" % number for number in range(count)]
        tasks = [Task(receive, right, how) for how in ("recv", "recv", "next", "recv_many")]
        for at in range(0, count, 10):
            left.send_many(payloads[at:at + 10])
        left.shutdown(socket.SHUT_WR)
        found = [task.result() for task in tasks]
        assert sorted(chain(*found), key=int) == payloads
        assert all(frames == sorted(frames, key=int) for frames in found)


def test_both_directions_go_on_at_once(wing: Any) -> None:
    """One reader and one writer at each end; an own framing's measure() has neither wait for the other."""
    for framing in (LengthPrefix(), Bracketed()):
        for _ in range(ROUNDS):
            left, right = wing.pair(framing, SO_SNDBUF=20_000)
            with left, right:
                for conn in (left, right):
                    conn.settimeout(LIMIT)
                there, back = payloads_of(1, 24), payloads_of(2, 24)
                *_, came, returned = all_at_once(
                    lambda left=left, there=there: send(left, there), lambda right=right, back=back: send(right, back),
                    lambda right=right, there=there: [right.recv() for _ in there],
                    lambda left=left, back=back: [left.recv() for _ in back])
                assert came == there
                assert returned == back


def test_what_runs_in_a_call_waits_for_the_other_direction(wing: Any) -> None:
    """A user's code inside a send holds nothing that a receive needs, however little it yields."""
    left, right = wing.pair(LengthPrefix())
    with left, right:
        came = threading.Event()

        def pulled() -> Iterator[bytes]:
            end = time.monotonic() + LIMIT
            while not came.is_set():
                assert time.monotonic() < end, "the receive waits for the send"
            yield b"sent"

        sending = Task(left.send_many, pulled())
        right.send(b"first")
        assert left.recv(timeout=LIMIT) == b"first"
        left.framing = LengthPrefix()
        assert left.unsent == left.pending() == 0
        came.set()
        sending.result()
        assert right.recv(timeout=LIMIT) == b"sent"


def test_the_framing_changes_while_frames_come_and_go(wing: Any) -> None:
    same = [LengthPrefix(), LengthPrefix(4), LengthPrefix(max_length=200_000)]
    for _ in range(ROUNDS):
        left, right = wing.pair(same[0], SO_SNDBUF=20_000)
        with left, right:
            left.settimeout(LIMIT)
            right.settimeout(LIMIT)
            done = threading.Event()

            def switch(left: Any = left, right: Any = right) -> None:
                for framing in same:
                    left.framing = right.framing = framing
                    assert left.framing in same

            switching = Task(watching(done, switch))
            tasks = [Task(receive, right, how) for how in RECEIVERS]
            senders = [lambda thread=thread, left=left: send(left, payloads_of(thread)) for thread in range(THREADS)]
            all_at_once(*senders)
            left.shutdown(socket.SHUT_WR)
            found = [task.result() for task in tasks]
            done.set()
            switching.result()
            assert sorted(chain(*found)) == sorted(chain(*map(payloads_of, range(THREADS))))


def test_a_list_that_changes_while_it_is_sent(wing: Any) -> None:
    for _ in range(ROUNDS):
        left, right = wing.pair(LengthPrefix())
        with left, right:
            left.settimeout(LIMIT)
            right.settimeout(LIMIT)
            payloads: list[bytes] = [b"0" * 50]
            done = threading.Event()

            def change(payloads: list[bytes] = payloads) -> None:
                for number in range(60):
                    payloads[:] = [b"%d" % number * 50 for _ in range(number % 30)]
                    payloads.extend(b"%d" % number * 50 for _ in range(10))
                    del payloads[::3]

            task = Task(receive, right, "recv_many")
            sending = watching(done, lambda left=left, payloads=payloads: left.send_many(payloads))
            all_at_once(*ending(done, change), sending, sending)
            left.shutdown(socket.SHUT_WR)
            assert all(len(frame) % 50 == 0 and frame == frame[:len(frame) // 50] * 50 for frame in task.result())


def test_closing_wakes_all_and_closes_once(wing: Any) -> None:
    """Whatever is at work: each call ends with what it says, and no descriptor but the connection's own is closed."""
    done = threading.Event()

    def open_files() -> None:
        number = os.dup(1)
        os.fstat(number)
        os.close(number)  # an error, where somebody else closed it
        time.sleep(0.0002)

    victim = Task(watching(done, open_files))
    for number in range(10 * ROUNDS):
        left, right = wing.pair(LengthPrefix(), SO_SNDBUF=5000)
        with right:
            left.settimeout(LIMIT if number % 2 else None)

            def end(call: Callable[[], Any], left: Any = left) -> None:
                with pytest.raises(OSError) as caught:
                    while True:
                        call()
                        time.sleep(0.0005)
                assert caught.value.errno == errno.EBADF, caught.value
                assert left.closed

            calls = [left.recv, lambda left=left: left.send(bytes(9000)), lambda left=left: left.recv_many(3),
                     lambda left=left: left.send_many([bytes(20)] * 9), left.pending, left.flush]
            tasks = [Task(end, call) for call in calls]
            if number % 3:
                time.sleep(0.002 * (number % 3))
            right.send(b"x")
            all_at_once(left.close, left.close)
            for task in tasks:
                task.result()
            assert left.sock.fileno() == -1
    done.set()
    victim.result()


def test_detaching_loses_nothing(wing: Any) -> None:
    """What some threads have not received when another one detaches is what detach() returns, and what is behind it."""
    payloads = [b"%d" % number * 20 for number in range(200)]
    for number in range(5 * ROUNDS):
        left, right = wing.pair(LengthPrefix())
        with left:
            left.settimeout(LIMIT)
            right.settimeout(LIMIT)
            left.send_many(payloads)
            left.shutdown(socket.SHUT_WR)

            def some(right: Any = right) -> list[bytes]:
                found: list[bytes] = []
                with suppress(OSError, EndOfStream):
                    while True:
                        found.append(right.recv())
                return found

            tasks = [Task(some), Task(some)]
            time.sleep(0.0005 * (number % 3))
            sock, rest = right.detach()
            with sock:
                while data := sock.recv(65536):
                    rest += data
            found = [*tasks[0].result(), *tasks[1].result(), *wing.Decoder(LengthPrefix()).decode(rest)]
            assert sorted(found) == sorted(payloads)


# ---- the selector ----

def test_a_selector_whose_connections_others_use_and_close(wing: Any) -> None:
    """Each connection brings all of its frames, and then its end, once."""
    for _ in range(ROUNDS):
        pairs = [wing.pair(LengthPrefix(), SO_SNDBUF=5000) for _ in range(8)]
        with wing.FrameSelector(progress=True) as selector:
            for _, mine in pairs:
                mine.setblocking(False)
                selector.register(mine)
            enough = threading.Event()

            def use(number: int, pairs: Any = pairs, enough: Any = enough) -> int:
                """Send and receive at one end, and at the end close one of the two."""
                theirs, mine = pairs[number]
                theirs.settimeout(LIMIT)
                theirs.send_many([b"%d" % number * 10] * 30)
                sent = 0
                with suppress(BlockingIOError):
                    while sent < 10:
                        mine.send(bytes(3000))  # to be flushed by the selector
                        sent += 1
                for _ in range(sent):
                    assert len(theirs.recv()) == 3000
                assert enough.wait(LIMIT)
                (mine if number % 2 else theirs).close()
                return sent

            tasks = [Task(use, number) for number in range(len(pairs))]
            found: dict[Any, list[bytes]] = {mine: [] for _, mine in pairs}
            ends: dict[Any, Exception] = {}
            limit = time.monotonic() + LIMIT
            while len(ends) < len(pairs):
                assert time.monotonic() < limit
                for key, frames in selector.select(0.05):
                    assert key.conn not in ends
                    if isinstance(frames, Exception):
                        ends[key.conn] = frames
                    else:
                        found[key.conn] += frames
                if sum(map(len, found.values())) == 30 * len(pairs):
                    enough.set()
            for task in tasks:
                task.result()
            assert len(selector) == 0
            for number, (theirs, mine) in enumerate(pairs):
                assert found[mine] == [b"%d" % number * 10] * 30
                if number % 2:
                    assert isinstance(ends[mine], OSError)
                    assert ends[mine].errno == errno.EBADF
                else:
                    assert isinstance(ends[mine], EndOfStream)
                theirs.close()
                mine.close()


def test_a_selector_that_is_asked_while_others_register_and_close(wing: Any) -> None:
    with wing.FrameSelector() as selector:
        done = threading.Event()
        ended: list[Any] = []

        def come_and_go() -> int:
            for number in range(20 * ROUNDS):
                theirs, mine = wing.pair(LengthPrefix())
                with theirs, mine:
                    selector.register(mine, number)
                    theirs.send(b"x")
                    if number % 2:
                        selector.unregister(mine)
                    else:
                        mine.close()
            return 10 * ROUNDS

        def ask() -> None:
            assert len(selector.get_map()) <= 3
            assert len(selector) <= 3

        def select() -> None:
            ended.extend(key.data for key, frames in selector.select(0) if isinstance(frames, OSError))

        *closed, _, _ = all_at_once(*ending(done, come_and_go, come_and_go), watching(done, ask),
                                    watching(done, select))
        select()
        assert len(ended) == sum(closed)
        assert len(selector) == 0


# ---- what has one thread at a time ----

def test_a_stream_buffer_is_for_whoever_has_its_lock(wing: Any) -> None:
    """In the core each call is done as a whole even without one; views of its memory are dropped by any thread."""
    count = 200
    for _ in range(ROUNDS):
        buffer = wing.StreamBuffer(1 << 16)
        lock: Any = nullcontext() if wing.name == "core" else threading.Lock()
        views: list[Any] = []
        done = threading.Event()

        def bring(first: int, buffer: Any = buffer, lock: Any = lock) -> None:
            for number in range(first, first + count):
                with lock:
                    buffer.feed(b"%07d\n" % number)

        def take(how: str, buffer: Any = buffer, lock: Any = lock, done: Any = done,
                 views: list[Any] = views) -> list[bytes]:
            found: list[bytes] = []
            while True:
                last = done.is_set()
                with lock:
                    line = buffer.take(8) if how == "take" else buffer.take_through(b"\n")
                    assert buffer.held >= 0
                    assert buffer.missing >= 0
                    views.append(buffer.get_buffer())
                if line is not None:
                    found.append(line)
                elif last:
                    return found
                views.clear()

        *_, one, other = all_at_once(*ending(done, partial(bring, 0), partial(bring, count)), partial(take, "take"),
                                     partial(take, "take_through"))
        assert sorted(one + other) == [b"%07d\n" % number for number in range(2 * count)]
        assert buffer.held == 0


def test_a_message_connection_has_one_at_work_in_each_direction(wing: Any) -> None:
    """A second one is refused, and has harmed nothing."""
    module = importlib.import_module("sockframe.drop_in.multiprocessing")
    base = importlib.import_module(f"sockframe._{wing.name}").MessageConnection
    kept = {name: value for name, value in vars(module.Connection).items() if name not in ("__dict__", "__weakref__")}
    kind: Any = type("Connection", (base, original.Connection), kept)
    for _ in range(ROUNDS):
        left, right = (kind(sock.detach()) for sock in socket.socketpair())
        with left, right:
            payloads = [[b"%d %d" % (thread, number) * 10 for number in range(60)] for thread in range(3)]

            def bring(mine: list[bytes], left: Any = left) -> None:
                for payload in mine:
                    until_taken(left.send_bytes, payload)
                until_taken(left.send_bytes, b"")

            def take(right: Any = right) -> list[bytes]:
                found: list[bytes] = []
                while message := until_taken(right.recv_bytes):
                    found.append(message)
                return found

            *found, _, _, _ = all_at_once(take, take, take, *(lambda mine=mine: bring(mine) for mine in payloads))
            assert sorted(chain(*found)) == sorted(chain(*payloads))
            assert not left._midway()
            assert not right._midway()
