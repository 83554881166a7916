"""multiprocessing's connections by sockframe: CPython's own tests pass, the wire is the same, its faults are not."""

import array
import importlib
import importlib.util
import multiprocessing
import os
import random
import socket
import struct
import subprocess
import sys
import threading
from itertools import pairwise
from multiprocessing import connection as original
from pathlib import Path
from typing import Any

import pytest
from conftest import WINGS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from message_ends import LONG, Original, message, ours, reader
from peers.programs import lacking

__all__ = ["ours"]  # fixtures

ROOT = Path(__file__).parent.parent
OWN_TESTS = ROOT / "tests" / "multiprocessing_own_tests.py"

#: CPython's test classes about connections, and those that use them most.
OWN = ["_TestConnection", "_TestListener", "_TestListenerClient", "_TestPoll", "_TestPicklingConnections",
       "_TestPollEintr", "TestWait", "OtherTest", "TestInvalidHandle", "TestIgnoreEINTR", "TestTimeouts"]
USERS = ["_TestPool", "_TestQueue", "TestSimpleQueue", "_TestMyManager", "_TestRemoteManager", "_TestManagerRestart"]

# ---- CPython's own tests ----

def own_tests(wing: str, names: "list[str]", folder: Path) -> None:
    """Run CPython's own tests of these names in a folder of their own: they make a directory with a fixed name."""
    if importlib.util.find_spec("test._test_multiprocessing") is None:
        lacking("CPython's own tests", "apt-get install libpython3-testsuite")
    environment = {**os.environ, "SOCKFRAME_CORE": "1" if wing == "core" else "0"}
    done = subprocess.run([sys.executable, OWN_TESTS, wing, *names], env=environment, capture_output=True, text=True,
                          timeout=300, cwd=folder)
    assert done.returncode == 0, done.stderr
    ran, skipped = map(int, done.stdout.split()[-2:])
    assert ran - skipped > 10, done.stderr


@pytest.mark.parametrize("name", WINGS)
def test_cpythons_own_tests_of_connections_pass(name: str, tmp_path: Path) -> None:
    own_tests(name, OWN, tmp_path)


@pytest.mark.parametrize("name", WINGS)
def test_cpythons_own_tests_of_pools_queues_and_managers_pass(name: str, tmp_path: Path) -> None:
    own_tests(name, USERS, tmp_path)


USE = """
import multiprocessing
import multiprocessing.connection
import sys
from sockframe.drop_in.multiprocessing import Connection

multiprocessing.connection.Connection = Connection


def work(number):
    return number * 2, type(multiprocessing.connection.Pipe()[0]) is Connection


def pass_on(conn, queue):
    queue.put(conn.recv())


if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    with context.Pool(2) as pool:
        assert type(pool._inqueue._reader) is Connection
        assert pool.map(work, range(100)) == [(2 * number, True) for number in range(100)]
    queue = context.Queue()
    assert type(queue._reader) is Connection
    one, other = context.Pipe()
    process = context.Process(target=pass_on, args=(other, queue))
    process.start()
    one.send({"large": bytes(1 << 20)})
    assert queue.get(timeout=60) == {"large": bytes(1 << 20)}
    process.join()
    with context.Manager() as manager:
        shared = manager.list([1])
        shared.append(2)
        assert list(shared) == [1, 2]
        assert type(shared._tls.connection) is Connection
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("name", WINGS)
def test_pools_queues_and_managers_use_it(tmp_path: Path, name: str, method: str) -> None:
    """One assignment puts it in the original's place, in each process."""
    program = tmp_path / "use.py"
    program.write_text(USE)
    environment = {**os.environ, "SOCKFRAME_CORE": "1" if name == "core" else "0"}
    done = subprocess.run([sys.executable, program, method], env=environment, capture_output=True, text=True,
                          timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


# ---- the wire ----

SIZES = [0, 1, 3, 4, 16380, 16384, 16385, 65535, 65536, 65537, 1 << 20]


@pytest.mark.parametrize("duplex", [True, False])
@pytest.mark.parametrize("size", SIZES)
def test_each_understands_the_other(ours: Any, size: int, duplex: bool) -> None:
    payload = random.Random(size).randbytes(size)
    for sending, receiving in ((ours.Connection, Original), (Original, ours.Connection), (ours.Connection,) * 2):
        if duplex:
            left, right = (end.detach() for end in socket.socketpair())
        else:
            right, left = os.pipe()
        with sending(left, readable=duplex) as sender, receiving(right, writable=duplex) as receiver:
            thread = threading.Thread(target=lambda to=sender: (to.send_bytes(payload), to.send({"the": payload})))
            thread.start()
            assert receiver.recv_bytes() == payload
            assert receiver.recv() == {"the": payload}
            thread.join()


def test_what_is_sent_is_what_the_original_sends(ours: Any) -> None:
    for payload in (b"", b"x", bytes(16384), array.array("i", [1, -1]), memoryview(b"abcdef")[1:3]):
        sent = []
        for kind in (Original, ours.Connection):
            end, other = os.pipe()
            with kind(other, readable=False) as conn:
                conn.send_bytes(payload)
            with open(end, "rb") as file:
                sent.append(file.read())
        assert sent[0] == sent[1]


@pytest.mark.parametrize("arguments", [
    (b"abc", 1), (b"abc", 1, 2), (b"abc", 3), (b"abc", 0, 0), (b"abc", -1), (b"abc", 4), (b"abc", 1, 3),
    (b"abc", 0, -1), (b"", 0, None), (array.array("i", [1, 2]), 4, 4), (b"abc", "0"), ("abc",), (7,), (None,)])
def test_the_arguments_of_send_bytes(ours: Any, arguments: "tuple[Any, ...]") -> None:
    answers: list[Any] = []
    for kind in (Original, ours.Connection):
        end, other = os.pipe()
        with open(end, "rb") as file:
            with kind(other, readable=False) as conn:
                try:
                    conn.send_bytes(*arguments)
                except Exception as error:
                    answers.append((type(error), str(error) if isinstance(error, ValueError) else ""))
            answers.append(file.read())
    assert answers[:len(answers) // 2] == answers[len(answers) // 2:]


def test_a_buffer_with_gaps_is_not_sent(ours: Any) -> None:
    """J8."""
    left, right = ours.Pipe()
    with left, right:
        with pytest.raises(BufferError, match="C-contiguous"):
            left.send_bytes(memoryview(b"abcd")[::2])
        left.send_bytes(memoryview(b"abcd").cast("B", (2, 2)))
        assert right.recv_bytes() == b"abcd"


@given(payloads=st.lists(st.binary(max_size=20) | st.just(bytes(70_000)), max_size=5),
       cuts=st.lists(st.integers(0, 1 << 20)),
       ending=st.sampled_from([b"", b"\0", b"\0\0\0\5ab", LONG, LONG + bytes(7), b"\xff\xff\xff\xfe",
                               LONG + b"\x80" + bytes(7)]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_cuts_and_full_stops_change_nothing(ours: Any, payloads: "list[bytes]", cuts: "list[int]",
                                            ending: bytes) -> None:
    """A1, A2, S3, M3: a non-blocking one says that there is no more, and goes on with the next call."""
    stream = b"".join(LONG + struct.pack("!Q", len(payload)) + payload if i % 2 else message(payload)
                      for i, payload in enumerate(payloads)) + ending
    # No piece is more than the kernel holds.
    edges = sorted({*(cut % (len(stream) + 1) for cut in cuts), *range(0, len(stream), 30_000), 0, len(stream)})
    conn, peer = reader(ours)
    got: list[Any] = []
    with conn, peer:
        os.set_blocking(conn.fileno(), False)
        for start, stop in pairwise(edges):
            peer.sendall(stream[start:stop])
            try:
                while True:
                    if len(got) % 2:
                        buffer = bytearray(70_010)
                        size = conn.recv_bytes_into(buffer, 3)
                        got.append(bytes(buffer[3:3 + size]))
                    else:
                        got.append(conn.recv_bytes())
            except BlockingIOError:
                pass
            except OSError as error:
                got.append(str(error))
                break
        peer.shutdown(socket.SHUT_WR)
        if not conn.closed:
            with pytest.raises((EOFError, OSError)) as caught:
                conn.recv_bytes()
            assert isinstance(caught.value, EOFError) == (not ending)
    assert got == payloads + (["bad message length"] if ending[-1:] == b"\xfe" or ending[4:5] == b"\x80" else [])


# ---- the rest of the interface ----

def test_what_a_connection_is(ours: Any) -> None:
    left, right = ours.Pipe(duplex=False)
    assert isinstance(left, Original) and type(left) is ours.Connection
    assert (left.readable, left.writable, right.readable, right.writable) == (True, False, False, True)
    with pytest.raises(OSError, match="read-only"):
        left.send_bytes(b"")
    with pytest.raises(OSError, match="write-only"):
        right.recv_bytes()
    with left, right:
        assert left.fileno() != right.fileno()
    assert left.closed
    left.close()
    for call in (left.recv, left.recv_bytes, lambda: left.recv_bytes_into(bytearray()), left.poll, left.fileno,
                 lambda: right.send(1), lambda: right.send_bytes(b"")):
        with pytest.raises(OSError, match="handle is closed"):
            call()
    for arguments in ((-1,), (1, False, False)):
        with pytest.raises(ValueError):
            ours.Connection(*arguments)


@pytest.mark.parametrize("family", ["AF_UNIX", "AF_INET"])
@pytest.mark.parametrize("kinds", ["both", "listener", "client"])
def test_listeners_and_clients_with_a_key(ours: Any, family: str, kinds: str) -> None:
    listening = (original if kinds == "client" else ours).Listener
    client = (original if kinds == "listener" else ours).Client
    accepted: list[Any] = []

    def accept() -> None:
        for _ in range(2):
            try:
                accepted.append(listener.accept())
            except Exception as error:  # noqa: PERF203
                accepted.append(type(error))

    with listening(family=family, authkey=b"key") as listener:
        thread = threading.Thread(target=accept)
        thread.start()
        with client(listener.address, authkey=b"key") as conn:
            conn.send("hello")
            if kinds != "listener":
                assert type(conn) is ours.Connection
        with pytest.raises(multiprocessing.AuthenticationError):
            client(listener.address, authkey=b"another")
        thread.join()
    with accepted[0] as served:
        assert served.recv() == "hello"
        if kinds != "client":
            assert type(served) is ours.Connection
    assert accepted[1] is multiprocessing.AuthenticationError


def test_a_peer_that_lies_before_it_is_known(ours: Any) -> None:
    with ours.Listener(family="AF_INET", authkey=b"key") as listener, socket.socket() as peer:
        peer.connect(listener.address)
        peer.sendall(struct.pack("!i", -2))
        with pytest.raises(OSError, match="bad message length"):
            listener.accept()
        while peer.recv(100):
            pass  # until it is closed, not once it is collected
    with pytest.raises(OSError, match="listener is closed"):
        listener.accept()
    with pytest.raises(TypeError, match="authkey must be bytes"):
        ours.Client("/nowhere", authkey="text")
