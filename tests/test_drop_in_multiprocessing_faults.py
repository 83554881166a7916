"""multiprocessing's connections by sockframe: ends, lies, others at the descriptor, interruptions."""

import array
import copy
import multiprocessing
import os
import pickle
import random
import signal
import struct
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import pytest
from conftest import WINGS
from message_ends import LONG, message, ours, reader

__all__ = ["ours"]  # fixtures

# ---- ends and lies ----

@pytest.mark.parametrize("held", [b"\0", b"\0\0\0", b"\0\0\0\1", b"\0\0\0\5four", LONG, LONG + bytes(7),
                                  LONG + bytes(7) + b"\1", LONG + b"\0\0\1" + bytes(5), b"\x7f\xff\xff\xff"])
def test_an_end_within_a_message_is_no_clean_one(ours: Any, held: bytes) -> None:
    """E2, E3, E4: behind a header, the original says that all is well. E7: again, it is the same."""
    for stream in (held, message(b"before") + held):
        with reader(ours, stream) as conn:
            if stream != held:
                assert conn.recv_bytes() == b"before"
            for _ in range(2):
                with pytest.raises(OSError, match="got end of file during message") as caught:
                    conn.recv_bytes()
                assert not isinstance(caught.value, EOFError)


def test_an_end_between_messages_is_an_eof_error(ours: Any) -> None:
    """E1, D9, F1."""
    with reader(ours, message(b"")) as conn:
        assert conn.recv_bytes() == b""
        for receive in (conn.recv_bytes, conn.recv, lambda: conn.recv_bytes_into(bytearray(1))):
            with pytest.raises(EOFError):
                receive()


@pytest.mark.parametrize("header", [struct.pack("!i", -2), struct.pack("!i", -2**31), LONG + struct.pack("!Q", 1 << 63),
                                    LONG + b"\xff" * 8])
def test_a_length_that_none_can_have(ours: Any, header: bytes) -> None:
    """B1, B2, B3: of -2 the original makes b""."""
    for receive in ("recv_bytes", "recv"):
        with reader(ours, header + bytes(10)) as conn:
            with pytest.raises(OSError, match="bad message length"):
                getattr(conn, receive)()
            assert conn.closed  # as it is for reading alone
        left, right = ours.Pipe()
        with left, right:
            os.write(right.fileno(), header + bytes(10))
            with pytest.raises(OSError, match="bad message length"):
                getattr(left, receive)()
            assert (left.readable, left.writable, left.closed) == (False, True, False)
            with pytest.raises(OSError, match="write-only"):
                left.recv_bytes()


def test_a_message_above_maxlength(ours: Any) -> None:
    """G3."""
    with reader(ours, message(b"four") + message(b"fives")) as conn:
        with pytest.raises(ValueError, match="negative maxlength"):
            conn.recv_bytes(-1)
        assert conn.recv_bytes(4) == b"four"
        with pytest.raises(OSError, match="bad message length"):
            conn.recv_bytes(4)
        assert conn.closed


@pytest.mark.parametrize("header", [struct.pack("!i", 2**31 - 1), LONG + struct.pack("!Q", 1 << 40)])
def test_memory_follows_what_arrived(ours: Any, header: bytes) -> None:
    """G1: for four bytes the original sets two gigabytes aside."""
    conn, peer = reader(ours)
    with conn, peer:
        os.set_blocking(conn.fileno(), False)
        peer.sendall(header + b"four")
        tracemalloc.start()
        try:
            for _ in range(3):
                with pytest.raises(BlockingIOError):
                    conn.recv_bytes()
            assert tracemalloc.get_traced_memory()[1] < 1 << 18
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("into", [False, True])
def test_a_large_message_takes_its_own_memory(ours: Any, wing: Any, into: bool) -> None:
    size = 32 << 20
    conn, peer = reader(ours)
    target = bytearray(size if into else 0)
    with conn, peer:
        thread = threading.Thread(target=lambda: [peer.sendall(message(bytes(size)))])
        thread.start()
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            got = conn.recv_bytes_into(target) if into else len(conn.recv_bytes())
            peak = tracemalloc.get_traced_memory()[1] - before - 2 * size  # the sender's own
        finally:
            tracemalloc.stop()
            thread.join()
        assert got == size
        assert peak < ((1 << 18) if into and wing.name == "core" else 1.2 * size)


def test_a_buffer_that_is_too_short(ours: Any) -> None:
    """J6, J7, J9, J10, J11: the message is in the exception, as in the original's; what is no buffer costs none."""
    with reader(ours, message(b"too long") + message(b"good") * 4) as conn:
        with pytest.raises(multiprocessing.BufferTooShort) as caught:
            conn.recv_bytes_into(bytearray(7))
        assert caught.value.args == (b"too long",)
        for bad in (b"read-only", memoryview(bytearray(20))[::2], "text", None):
            with pytest.raises((TypeError, BufferError)):
                conn.recv_bytes_into(bad)
        for offset in (-1, 6):
            with pytest.raises(ValueError):
                conn.recv_bytes_into(bytearray(5), offset)
        target = bytearray(b"......")
        assert conn.recv_bytes_into(target, 1) == 4 and target == b".good."
        ints = array.array("i", [0, 0])
        assert conn.recv_bytes_into(ints, 4) == 4 and ints.tobytes() == bytes(4) + b"good"
        square = memoryview(bytearray(4)).cast("B", (2, 2))
        assert conn.recv_bytes_into(square) == 4 and square.tobytes() == b"good"
        with pytest.raises(multiprocessing.BufferTooShort):
            conn.recv_bytes_into(bytearray(6), 3)
        with pytest.raises(EOFError):
            conn.recv_bytes()


# ---- others at the descriptor ----

def test_no_byte_behind_a_message_is_read(ours: Any) -> None:
    """K15: so others may wait at the descriptor, read on from there, or get it."""
    conn, peer = reader(ours)
    with conn, peer:
        peer.sendall(message(b"one") + message(bytes(70_000)) + message(b"three"))
        assert conn.recv_bytes() == b"one"
        assert conn.poll() and ours.wait([conn], 0) == [conn]
        assert conn.recv_bytes() == bytes(70_000)
        assert os.read(conn.fileno(), 100) == message(b"three")
        assert not conn.poll() and not conn.poll(0.01) and not conn.poll(-1) and ours.wait([conn], 0) == []
        peer.close()
        assert conn.poll(None)


@pytest.mark.skipif(not os.path.exists("/proc/self/io"), reason="system calls are counted by Linux's /proc/self/io")
def test_a_message_is_two_reads_or_one_write(ours: Any) -> None:
    def calls(name: str) -> int:
        return int(Path("/proc/self/io").read_text().split(f"{name}: ")[1].split()[0])

    def count(work: Any, name: str) -> int:
        own = -calls(name) + calls(name)  # of looking
        before = calls(name)
        for _ in range(20):
            work()
        return calls(name) - before - own

    left, right = ours.Pipe(duplex=False)
    with left, right:
        assert count(lambda: right.send_bytes(b"x" * 64), "syscw") == 20
        assert count(left.recv_bytes, "syscr") == 40


def test_a_connection_goes_to_another_process_between_messages_only(ours: Any) -> None:
    conn, peer = reader(ours)
    with conn, peer:
        peer.sendall(message(b"one")[:5])
        os.set_blocking(conn.fileno(), False)
        with pytest.raises(BlockingIOError):
            conn.recv_bytes()
        with pytest.raises(pickle.PicklingError, match="a part of a message"):
            ForkingPickler.dumps(conn)
        peer.sendall(message(b"one")[5:])
        assert conn.recv_bytes() == b"one"
        for duplicate in (copy.copy, pickle.dumps):
            with pytest.raises(TypeError, match="it belongs to one stream"):
                duplicate(conn)


FORK = """
import os, sys, threading, time, warnings
from sockframe.drop_in.multiprocessing import Pipe
warnings.simplefilter("ignore", DeprecationWarning)  # of threads and forks

left, right = Pipe()
os.write(right.fileno(), b"\\0\\0")
got = []
thread = threading.Thread(target=lambda: got.append(left.recv_bytes()))
thread.start()
while not left._midway():
    time.sleep(0.01)
time.sleep(0.1)  # until it reads on
told, tell = os.pipe()
child = os.fork()
if not child:
    os.read(told, 1)
    # It is the thread of the parent that had half a header.
    assert left.recv_bytes() == b"child"
    os._exit(0)
os.write(right.fileno(), b"\\0\\6parent")
thread.join()
assert got == [b"parent"], got
right.send_bytes(b"child")
os.write(tell, b"!")
assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.parametrize("name", WINGS)
def test_a_fork_while_a_thread_receives(name: str) -> None:
    """K10: the child may receive, and what the thread had begun is the parent's alone."""
    environment = {**os.environ, "SOCKFRAME_CORE": "1" if name == "core" else "0"}
    done = subprocess.run([sys.executable, "-c", FORK], env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


# ---- interruptions ----

class Rung(Exception):
    """What the handler of a signal raises."""


@pytest.fixture
def alarm() -> Iterator[Any]:
    """Set a timer whose handler does something and raises `Rung`, unless that is over."""
    def start(seconds: float, action: Any = None, every: float = 0.0, over: Any = None) -> None:
        def ring(number: int, frame: Any) -> None:
            if action is not None:
                action()
            if over is None or not over():
                raise Rung

        signal.signal(signal.SIGALRM, ring)
        signal.setitimer(signal.ITIMER_REAL, seconds, every)

    before = signal.getsignal(signal.SIGALRM)
    yield start
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("into", [False, True])
@pytest.mark.parametrize("held", [0, 2, 4, 5, 9, 100_000])
def test_a_handler_that_raises_costs_no_byte_received(ours: Any, alarm: Any, held: int, into: bool) -> None:
    """S2: the original loses what it has."""
    payload = random.Random(held).randbytes(140_000)
    wire = message(payload)
    conn, peer = reader(ours)
    target = bytearray(len(payload))
    with conn, peer:
        peer.sendall(wire[:held])
        alarm(0.05)
        with pytest.raises(Rung):
            conn.recv_bytes_into(target) if into else conn.recv_bytes()
        thread = threading.Thread(target=lambda: peer.sendall(wire[held:] + message(b"next")))
        thread.start()
        if into:
            target = bytearray(len(payload))
            assert conn.recv_bytes_into(target) == len(payload) and target == payload
        else:
            assert conn.recv_bytes() == payload
        assert conn.recv_bytes() == b"next"
        thread.join()


@pytest.mark.parametrize("size", [10, 1 << 20])
def test_a_handler_that_raises_leaves_no_half_message(ours: Any, alarm: Any, size: int) -> None:
    """S5, M5: a message of which a byte was sent is finished by the next call; another one was not taken."""
    payload = random.Random(size).randbytes(size)
    sender, receiver = ours.Pipe()
    with sender, receiver:
        taken = 0
        for _ in range(2):
            alarm(0.2)
            with pytest.raises(Rung):
                while True:
                    sender.send_bytes(payload)
                    taken += 1
        taken += sender._midway()
        got: list[bytes] = []
        thread = threading.Thread(target=lambda: got.extend(iter(receiver.recv_bytes, b"end")))
        thread.start()
        sender.send_bytes(b"end")
        thread.join()
        assert got == [payload] * taken and not sender._midway()


def test_a_storm_of_signals_loses_and_mixes_nothing(ours: Any, alarm: Any, no_collector: None) -> None:
    """S1, S2: each message is received once, in order, though every other call is interrupted somewhere."""
    count = 3000
    payloads = [str(number).encode() * (1 + number % 7) * (1 if number % 50 else 2000) for number in range(count)]
    left, right = ours.Pipe(duplex=False)
    with left, right:
        thread = threading.Thread(target=lambda: [right.send_bytes(payload) for payload in payloads])
        got: list[bytes] = []
        rung = 0
        thread.start()
        armed: list[bool] = []
        alarm(0.0005, every=0.0005, over=lambda: not armed or armed.clear())
        while len(got) < count:
            try:
                armed.append(True)
                # Within one call in C, so that nothing is lost between it and the list.
                got.extend(map(left.recv_bytes, [None] * (count - len(got))))
                armed.clear()
            except Rung:  # noqa: PERF203
                rung += 1
        thread.join()
        assert got == payloads
        assert rung


def test_a_call_from_inside_another_is_refused(ours: Any, alarm: Any) -> None:
    """I9, K4: a signal handler's, or another thread's; the one that is at work goes on."""
    left, right = ours.Pipe()
    refused: list[Any] = []
    got: list[bytes] = []

    def call() -> None:
        for way in (left.recv_bytes, lambda: left.recv_bytes_into(bytearray(9)), left.recv):
            with pytest.raises(RuntimeError, match="already at work") as caught:
                way()
            refused.append(caught.value)
        left.send_bytes(b"the other direction is free")

    def receive() -> None:
        while not got:
            with suppress(BlockingIOError, RuntimeError):  # the other thread is trying, without blocking
                got.append(left.recv_bytes())

    with left, right:
        alarm(0.05, call)
        with pytest.raises(Rung):
            left.recv_bytes()
        thread = threading.Thread(target=receive)
        thread.start()
        while True:
            try:
                os.set_blocking(left.fileno(), False)
                left.recv_bytes()
            except BlockingIOError:  # noqa: PERF203
                continue  # the thread is not yet at work
            except RuntimeError as error:
                refused.append(error)
                break
            finally:
                os.set_blocking(left.fileno(), True)
        right.send_bytes(b"goes on")
        thread.join()
        assert len(refused) == 4
        assert [*got, right.recv_bytes()] == [b"goes on", b"the other direction is free"]


def test_arguments_that_close_the_connection(ours: Any) -> None:
    """I2, I3: no other file's descriptor is used."""
    class Closing:
        def __init__(self, conn: Any) -> None:
            self.conn = conn

        def __index__(self) -> int:
            self.conn.close()
            return 0

    for name, buffer in (("send_bytes", b"x"), ("recv_bytes_into", bytearray(3))):
        left, right = ours.Pipe()
        with right, pytest.raises(OSError, match="handle is closed"):
            getattr(left, name)(buffer, Closing(left))


def test_a_full_pipe(ours: Any) -> None:
    """S3, S5: a non-blocking one takes the whole message or nothing; a broken one says so."""
    left, right = ours.Pipe(duplex=False)
    with left, right:
        os.set_blocking(right.fileno(), False)
        sent = 0
        with pytest.raises(BlockingIOError):
            while True:
                right.send_bytes(b"x" * 4092)
                sent += 1
        assert not right._midway() and sent
        left.recv_bytes()
        thread = threading.Thread(target=lambda: got.extend(left.recv_bytes() for _ in range(sent)))
        got: list[bytes] = []
        timer = threading.Timer(0.05, thread.start)
        timer.start()
        right.send_bytes(b"y" * 100_000)  # of which a part finds room, and the rest waits for it
        timer.join()
        thread.join()
        assert got == [b"x" * 4092] * (sent - 1) + [b"y" * 100_000]
        left.close()
        with pytest.raises(BrokenPipeError):
            right.send_bytes(b"x")
