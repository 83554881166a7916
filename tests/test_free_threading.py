"""Threads that share every kind of object, also where they run at once: nothing is lost, doubled, mixed or corrupted.

On a Python with the GIL these run too, with threads that are switched as often as can be; without it there are more
rounds.
"""

from __future__ import annotations

import errno
import importlib
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from functools import partial
from itertools import chain
from multiprocessing import connection as original
from pathlib import Path
from typing import Any

import pytest
from conftest import FREE
from scripted import LIMIT, Bracketed, Task, noise

import sockframe
from sockframe import (
    AsciiLength,
    Cobs,
    Delimiter,
    EndOfStream,
    FixedLength,
    FramingError,
    HeaderBlock,
    LengthField,
    LengthPrefix,
    Lines,
    Slip,
    Tagged,
    Varint,
)

ROUNDS = 4 if FREE else 1
THREADS = 4

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def switch_often() -> Iterator[None]:
    """Have threads take turns as often as can be."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def all_at_once(*calls: Callable[[], Any]) -> list[Any]:
    """Make these calls at the same time, each in a thread; return what they return."""
    start = threading.Barrier(len(calls))

    def begin(call: Callable[[], Any]) -> Any:
        start.wait(LIMIT)
        return call()

    tasks = [Task(begin, call) for call in calls]
    return [task.result() for task in tasks]


def until_taken(call: Callable[..., Any], *args: Any) -> Any:
    """Make a call again for as long as it is refused because another one is at work (law 12)."""
    end = time.monotonic() + LIMIT
    while True:
        try:
            return call(*args)
        except RuntimeError as error:  # noqa: PERF203
            assert str(error).endswith("is already at work in this call")
            assert time.monotonic() < end


def watching(done: threading.Event, look: Callable[[], Any]) -> Callable[[], int]:
    """Return what looks again and again until it is done, and then says how often."""
    def watch() -> int:
        count = 0
        while not done.is_set() or not count:
            look()
            count += 1
            time.sleep(0)
        return count

    return watch


def ending(done: threading.Event, *calls: Callable[[], Any]) -> list[Callable[[], Any]]:
    """Return these calls, of which the last one to end says that it is done."""
    left = list(calls)

    def finishing(call: Callable[[], Any]) -> Any:
        try:
            return call()
        finally:
            left.pop()
            if not left:
                done.set()

    return [lambda call=call: finishing(call) for call in calls]


# ---- the build ----

def test_importing_leaves_the_gil_as_it_is() -> None:
    """Every extension says that it needs none; where Python has none, importing all that there is turns none on."""
    rooms = sorted((ROOT / "src" / "sockframe" / "_core").glob("*.pyx"))
    assert len(rooms) >= 7
    for room in rooms:
        header = room.read_text().split('"""')[0]
        assert "freethreading_compatible=True" in header, room.name
    program = ("import importlib, pkgutil, sys, sockframe\n"
               "for module in pkgutil.walk_packages(sockframe.__path__, 'sockframe.'):\n"
               "    if not module.name.endswith(('__main__', 'twisted')):\n"
               "        importlib.import_module(module.name)\n"
               "print(sockframe.wing, getattr(sys, '_is_gil_enabled', lambda: True)())\n")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHON_GIL"}
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], env=environment, capture_output=True,
                          text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [sockframe.wing, str(not FREE)]


# ---- without I/O ----

def framings() -> list[Any]:
    return [LengthPrefix(), Lines(), Lines("crlf"), Delimiter(b"--"), Cobs(), Slip(), Varint(), Bracketed(),
            AsciiLength(separator=b":", end=b",")]


@pytest.mark.parametrize("framing", framings(), ids=repr)
@pytest.mark.parametrize("how", ["decode", "decode_batch"])
def test_a_decoder_gives_each_frame_once(wing: Any, framing: Any, how: str) -> None:
    """Each call is done as a whole, or refused and then harms nothing."""
    encoder = wing.Encoder(framing)
    for _ in range(ROUNDS):
        decoder = wing.Decoder(framing)
        payloads = [[b"%d %d" % (thread, number) * (1 + number % 9) for number in range(60)]
                    for thread in range(THREADS)]
        done = threading.Event()

        def decode(mine: list[bytes], decoder: Any = decoder) -> list[bytes]:
            found = []
            for at in range(0, len(mine), 6):
                frames = until_taken(getattr(decoder, how), encoder.encode_many(mine[at:at + 6]))
                found += frames if how == "decode" else frames.tolist()
            return found

        def look(decoder: Any = decoder) -> None:
            assert decoder.buffered >= 0
            assert decoder.skipped == 0
            assert decoder.position >= 0
            assert decoder.framing is framing
            until_taken(lambda: decoder.need)

        *found, _ = all_at_once(*ending(done, *(lambda mine=mine: decode(mine) for mine in payloads)),
                                watching(done, look))
        assert sorted(chain(*found)) == sorted(chain(*payloads))
        assert decoder.buffered == 0
        assert decoder.position == len(encoder.encode_many([*chain(*payloads)]))


def test_a_decoder_is_fed_by_some_and_asked_by_others(wing: Any) -> None:
    framing = LengthPrefix(overlong="skip", max_length=300)
    encoder = wing.Encoder(LengthPrefix())
    for _ in range(ROUNDS):
        decoder = wing.Decoder(framing)
        payloads = [[b"%d %d" % (thread, number) * 20 for number in range(50)] for thread in range(2)]
        done = threading.Event()

        def feed(mine: list[bytes], decoder: Any = decoder) -> None:
            for payload in mine:
                until_taken(decoder.feed, encoder.encode_many([payload, bytes(301)]))

        def take(decoder: Any = decoder, done: Any = done) -> list[bytes]:
            found: list[bytes] = []
            while True:
                last = done.is_set()
                frame = until_taken(decoder.next_frame)
                if frame is not None:
                    found.append(frame)
                elif last:
                    return found
                found += until_taken(decoder.next_batch).tolist()

        *_, one, other = all_at_once(*ending(done, *(lambda mine=mine: feed(mine) for mine in payloads)), take, take)
        assert sorted(one + other) == sorted(chain(*payloads))
        assert decoder.skipped == 100


def test_a_decoder_is_switched_while_it_is_at_work(wing: Any) -> None:
    """Whichever of its framings is in force, they are the same on the wire."""
    same = [LengthPrefix(), LengthPrefix(4), LengthPrefix(max_length=5000)]
    encoder = wing.Encoder(same[0])
    for _ in range(ROUNDS):
        decoder = wing.Decoder(same[0])
        payloads = [noise(size, size) for size in (0, 5, 70, 900)] * 20
        done = threading.Event()

        def decode(decoder: Any = decoder, payloads: list[bytes] = payloads) -> list[bytes]:
            return [*chain(*(until_taken(decoder.decode, encoder.encode(payload)) for payload in payloads))]

        def switch(decoder: Any = decoder) -> None:
            for framing in same:
                until_taken(setattr, decoder, "framing", framing)
                assert decoder.framing in same

        one, other, _ = all_at_once(*ending(done, decode, decode), watching(done, switch))
        assert sorted(one + other) == sorted(payloads * 2)


def test_memory_that_was_lent_is_given_back_in_any_thread(wing: Any) -> None:
    """Views are dropped while the decoder goes on in what they are of, or elsewhere."""
    encoder = wing.Encoder(Lines())
    payloads = [b"%d" % number * 30 for number in range(100)]
    stream = encoder.encode_many(payloads)
    for _ in range(ROUNDS):
        decoder = wing.Decoder(Lines())
        batches: list[Any] = []
        done = threading.Event()

        def decode(decoder: Any = decoder, batches: list[Any] = batches) -> None:
            for at in range(0, len(stream) * 3, 1000):
                data = (stream * 3)[at:at + 1000]
                lent = decoder.get_buffer(len(data))
                lent[:len(data)] = data
                decoder.buffer_updated(len(data))
                del lent
                batches.append(decoder.next_batch())

        def drop(batches: list[Any] = batches, done: Any = done) -> list[bytes]:
            found: list[bytes] = []
            while True:
                last = done.is_set()
                try:
                    batch = batches.pop()
                except IndexError:
                    if last:
                        return found
                    continue
                views = list(batch)
                batch = None
                found += map(bytes, views)
                if views:
                    assert memoryview(views[0].obj).nbytes >= 0

        *_, one, other = all_at_once(*ending(done, decode), drop, drop)
        assert sorted(one + other) == sorted(payloads * 3)


def test_an_encoder_is_for_all(wing: Any) -> None:
    payloads = [b"%d " % size * size for size in (1, 20, 300, 5000)]
    for framing in framings():
        encoder = wing.Encoder(framing)
        expected = [encoder.encode(payload) for payload in payloads]

        def encode(encoder: Any = encoder, expected: list[bytes] = expected) -> None:
            buffer = bytearray(50_000)
            for _ in range(5 * ROUNDS):
                assert [encoder.encode(payload) for payload in payloads] == expected
                assert encoder.encode_many(payloads) == b"".join(expected)
                for payload, frame in zip(payloads, expected, strict=True):
                    assert encoder.encode_into(payload, buffer) == len(frame)
                    assert buffer[:len(frame)] == frame

        all_at_once(*[encode] * THREADS)


def test_a_framing_is_compiled_by_the_first_of_many(wing: Any) -> None:
    for number in range(20 * ROUNDS):
        framing = Delimiter(b"--", b"%d" % number)
        made = all_at_once(*[lambda framing=framing: wing.Encoder(framing).encode(b"ab")] * THREADS)
        assert made == [b"ab--"] * THREADS


def test_a_batch_is_for_all(wing: Any) -> None:
    payloads = [b"%d" % number * (number % 40) for number in range(300)]
    batch = wing.Decoder(LengthPrefix()).decode_batch(wing.Encoder(LengthPrefix()).encode_many(payloads))

    def read() -> None:
        for _ in range(2 * ROUNDS):
            assert batch.tolist() == payloads
            assert batch.join() == b"".join(payloads)
            assert [bytes(view) for view in batch] == payloads
            assert bytes(batch[-1]) == payloads[-1]
            assert batch[10:400:3].tolist() == payloads[10:400:3]
            assert [bytes(batch.buffer[start:stop]) for start, stop in batch.spans.tolist()] == payloads
            assert len(batch.__arrow_c_array__()) == 2

    all_at_once(*[read] * THREADS)


@pytest.mark.parametrize("kind", [list, tuple])
def test_a_list_that_changes_while_it_is_encoded(wing: Any, kind: type) -> None:
    """It is taken as it was at one moment, or in part of one change: no payload is one that was never there."""
    encoder = wing.Encoder(LengthPrefix())
    payloads: list[bytes] = []
    done = threading.Event()

    def change() -> None:
        for number in range(50):
            payloads.extend(b"%d" % number * 50 for _ in range(20))
            payloads[::2] = [b"%d" % number * 50 for _ in payloads[::2]]
            payloads.reverse()
        payloads.clear()

    def encode() -> None:
        frames = wing.Decoder(LengthPrefix()).decode(encoder.encode_many(payloads if kind is list else tuple(payloads)))
        assert all(frame == frame[:len(frame) // 50] * 50 for frame in frames)

    for _ in range(ROUNDS):
        done.clear()
        all_at_once(*ending(done, change), watching(done, encode), watching(done, encode))


MOVING = [*framings(), LengthField(2, offset=1), HeaderBlock(strip=False), HeaderBlock(), FixedLength(600),
          Tagged({1: LengthPrefix(1)}, default=Cobs(), max_length=1000)]


@pytest.mark.parametrize("framing", MOVING, ids=repr)
def test_bytes_that_change_while_they_are_read(wing: Any, framing: Any) -> None:
    """They make other frames, or faults, and harm nothing else."""
    encoder = wing.Encoder(framing)
    pieces = [b"\x01", b"\0", b"\xc0", b"\xdb\xdc", b"\xff", b"\r\n", b": 5\r\n\r\n", b"7:", b"a" * 260]
    payload = bytearray(b"b" * 600)
    stream = bytearray(b"\x03abc\0" * 200)
    done = threading.Event()

    def change() -> None:
        chance = random.Random(7)
        for _ in range(300 * ROUNDS):
            for target in (payload, stream):
                piece = chance.choice(pieces)
                at = chance.randrange(len(target) - len(piece))
                target[at:at + len(piece)] = piece

    def encode() -> None:
        for call in (lambda: encoder.encode(payload), lambda: encoder.encode_many([payload] * 3),
                     lambda: encoder.encode_into(payload, bytearray(2000))):
            with suppress(ValueError):
                call()

    def decode() -> None:
        for how in ("decode", "decode_batch"):
            decoder = wing.Decoder(framing)
            with suppress(FramingError):
                assert sum(map(len, getattr(decoder, how)(stream))) <= 2 * len(stream)
                decoder.finish()

    all_at_once(*ending(done, change), watching(done, encode), watching(done, decode))


# ---- connections ----

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
