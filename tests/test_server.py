"""Servers in all three modes: what handlers answer, over every kind of socket, and how connections fail alone."""

from __future__ import annotations

import array
import os
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from scripted import LIMIT, Task, has_ipv6, noise, reset_when_closed
from serving import FRAMING, MODES, Counter, Running, serving

from sockframe import EndOfStream, Frame, Framing, Lines, UntilClose, connect


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    """Each mode in turn."""
    return str(request.param)


@pytest.fixture
def serve(wing: Any, mode: str, alone: None) -> Callable[..., Any]:
    """Return what runs a server of the wing in the mode."""
    def run(handler: Callable[[bytes], Any], **options: Any) -> Any:
        return serving(wing, handler, mode=mode, **options)

    return run


def echo(payload: bytes) -> bytes:
    """Answer with the payload itself."""
    return payload


def still_answers(server: Running) -> None:
    """Check that a new client is served."""
    with server.connect() as conn:
        conn.send(b"hello")
        assert conn.recv()


def ends(conn: Any) -> bool:
    """Say whether no more frames come, at a frame boundary or by a reset."""
    try:
        conn.recv()
    except (EndOfStream, ConnectionError):
        return True
    return False


ADDRESSES: list[Any] = [("127.0.0.1", 0), "file", b"file", Path("file")]
if has_ipv6():
    ADDRESSES.append(("::1", 0))


@pytest.mark.parametrize("address", ADDRESSES, ids=str)
def test_frames_of_all_sizes_are_answered_in_order(serve: Any, address: Any) -> None:
    payloads = [noise(size) for size in (0, 1, 100, 16_384, 16_385, 65_536, 1_000_000, 3)]
    with tempfile.TemporaryDirectory() as folder:
        if not isinstance(address, tuple):
            address = type(address)(os.fsencode(folder) + b"/s" if address == b"file" else folder + "/s")
        with serve(echo, address=address) as server:
            if isinstance(address, tuple):
                assert server.address[0] == address[0]
                assert server.address[1] > 0
            with server.connect() as conn, server.connect() as other:
                for _ in range(2):
                    task = Task(conn.send_many, payloads)
                    assert [conn.recv() for _ in payloads] == payloads
                    task.result()
                other.send(b"at the same time")
                assert other.recv() == b"at the same time"
        assert os.listdir(folder) == []


REPLIES: dict[bytes, tuple[Callable[[], Any], list[bytes]]] = {
    b"none": (lambda: None, []),
    b"empty": (lambda: b"", [b""]),
    b"bytes": (lambda: b"one", [b"one"]),
    b"bytearray": (lambda: bytearray(b"two"), [b"two"]),
    b"view": (lambda: memoryview(b"three")[1:], [b"hree"]),
    b"array": (lambda: array.array("H", [0x6161, 0x6262]), [b"aabb"]),
    b"list": (lambda: [b"x", bytearray(b"y"), memoryview(b"z")], [b"x", b"y", b"z"]),
    b"nothing": (list, []),
    b"tuple": (lambda: (b"", b""), [b"", b""]),
    b"generator": (lambda: (b"%d" % number for number in range(3000)), [b"%d" % number for number in range(3000)]),
    b"large": (lambda: [noise(300_000), b"small", noise(100_000, 2)], [noise(300_000), b"small", noise(100_000, 2)]),
}


def test_a_handler_answers_with_none_one_or_many(serve: Any) -> None:
    with serve(lambda payload: REPLIES[payload][0]()) as server, server.connect() as conn:
        for wanted in ([name] for name in REPLIES), [list(REPLIES)] * 2:
            for names in wanted:
                expected = [reply for name in names for reply in REPLIES[name][1]]
                conn.send_many([*names, b"bytes"])
                assert [conn.recv() for _ in expected] == expected
                assert conn.recv() == b"one"


def test_a_reply_is_what_it_was_when_it_was_returned(serve: Any) -> None:
    same = bytearray(2)

    def handler(payload: bytes) -> Any:
        def many() -> Iterator[bytearray]:
            for number in range(3):
                same[:] = payload[:1] + b"%d" % number
                yield same

        same[:] = payload
        return many() if payload[1:] == b"*" else same

    with serve(handler) as server, server.connect() as conn:
        conn.send_many([b"ab", b"c*", b"cd"])
        assert [conn.recv() for _ in range(5)] == [b"ab", b"c0", b"c1", b"c2", b"cd"]


def later_fault() -> Iterator[bytes]:
    yield b"part"
    raise ArithmeticError("later")


FAULTS: dict[bytes, tuple[Callable[[], Any], list[bytes], str]] = {
    b"raise": (lambda: 1 / 0, [], "ZeroDivisionError"),
    b"later": (later_fault, [b"part"], "ArithmeticError: later"),
    b"int": (lambda: 5, [], "TypeError: the handler returned int, and not None, a bytes-like"),
    b"str": (lambda: "text", [], "TypeError: the handler returned str"),
    b"item": (lambda: [b"good", "bad"], [b"good"], "TypeError: reply must be a bytes-like object, not str"),
    b"number": (lambda: [b"good", 5], [b"good"], "TypeError: reply must be a bytes-like object, not int"),
    b"not a line": (lambda: [b"good", b"a\nb", b"c"], [b"good"], "holds a delimiter"),
    b"system call": (lambda: os.stat("/nowhere/at/all"), [], "FileNotFoundError"),
}


@pytest.mark.parametrize("name", FAULTS, ids=bytes.decode)
def test_a_handler_that_fails_loses_its_connection_alone(serve: Any, name: bytes) -> None:
    _, before, text = FAULTS[name]
    def handler(payload: bytes) -> Any:
        return FAULTS[payload][0]() if payload in FAULTS else payload

    with serve(handler, framing=Lines()) as server, server.connect() as conn, server.connect() as other:
        conn.send_many([b"a", b"b", name, b"c"])
        assert list(conn) == [b"a", b"b", *before]
        other.send(b"unharmed")
        assert other.recv() == b"unharmed"
        log = server.says(text)
        assert log.count("the handler failed") == log.count("Traceback") == 1
        host, port = conn.sock.getsockname()
        assert f"ERROR {host}:{port}: the handler failed" in log


def test_a_half_closing_client_gets_all_its_replies(serve: Any) -> None:
    """P2: ten thousand frames in a row, the end, and only then are replies read."""
    payloads = [b"%d" % number for number in range(10_000)]
    with serve(lambda payload: [payload, b"again"]) as server, server.connect() as conn:
        conn.send_many(payloads)
        conn.shutdown(socket.SHUT_WR)
        assert list(conn) == [reply for payload in payloads for reply in (payload, b"again")]


def test_replies_larger_than_all_buffers_follow_a_half_close(serve: Any) -> None:
    large = noise(3_000_000)
    with serve(lambda payload: (large for _ in range(5))) as server, server.connect() as conn:
        conn.send_many([b"a", b"b"])
        conn.shutdown(socket.SHUT_WR)
        time.sleep(0.1)  # so that everything is full
        assert [reply == large for reply in conn] == [True] * 10


def test_one_payload_until_the_stream_closes(serve: Any) -> None:
    with serve(lambda payload: payload[::-1], framing=UntilClose()) as server, server.connect() as conn:
        conn.send(b"abc" * 100_000)
        conn.shutdown(socket.SHUT_WR)
        assert conn.recv() == b"cba" * 100_000


def test_replies_without_end_are_pulled_as_the_peer_takes_them(serve: Any) -> None:
    """P8: a client that reads slowly costs a bounded number of replies, and hurts nobody."""
    pulled = Counter()

    def endless() -> Iterator[bytes]:
        while True:
            yield noise(1000, pulled.add())

    with serve(lambda payload: endless() if payload == b"all" else payload) as server, server.connect() as slow:
        slow.send(b"all")
        slow.recv()
        before = -1
        while before != (before := pulled.value):  # as long as it fills what there is of buffers
            for _ in range(20):
                still_answers(server)
        assert before < 30_000
        for number in range(2, before + 2000):
            assert slow.recv() == noise(1000, number)


def test_a_client_that_only_sends_is_not_received_from(serve: Any) -> None:
    with serve(echo) as server, server.connect() as greedy:
        taken = 0
        payload = noise(50_000)
        while True:
            try:
                greedy.send(payload, timeout=1)
                taken += 1
            except TimeoutError:
                break
            assert taken < 2000, "the server takes all that comes"
        still_answers(server)
        task = Task(greedy.flush)
        expected = taken + (1 if greedy.unsent else 0)
        assert [greedy.recv() == payload for _ in range(expected)] == [True] * expected
        task.result()


def test_bytes_that_are_no_frame_end_a_connection_behind_its_replies(serve: Any) -> None:
    with serve(echo) as server, server.connect() as conn:
        conn.send_many([b"a", b"b"])
        conn.sock.sendall(b"GET / HTTP/1.1\r\n\r\n" + bytes(100_000))
        assert [conn.recv(), conn.recv()] == [b"a", b"b"]
        assert ends(conn)
        log = server.says("frame is too long", "the bytes read as HTTP")
        assert "Traceback" not in log
        assert log.count("WARNING") == 1
        still_answers(server)


def test_a_fault_behind_frames_that_take_more_than_a_turn(serve: Any) -> None:
    def slowly(payload: bytes) -> bytes:
        time.sleep(0.003)
        return payload

    with serve(slowly) as server, server.connect() as conn:
        conn.sock.sendall(b"\0\0\0\1x" * 30 + b"\xff" * 4)
        assert [conn.recv() for _ in range(30)] == [b"x"] * 30
        assert ends(conn)
        assert server.says("WARNING").count("frame is too long") == 1
        still_answers(server)


@pytest.mark.parametrize("how", ["close", "reset", "kill"])
def test_a_client_that_vanishes_inside_a_frame_hurts_no_one(serve: Any, how: str) -> None:
    with serve(echo) as server:
        pid = os.fork()
        if not pid:
            with connect(server.address, FRAMING) as conn:
                conn.sock.sendall(b"\0\0\0\1a" + b"\0\0\1\0" + b"half")
                conn.recv()
                if how == "reset":
                    reset_when_closed(conn.sock)
                if how == "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
            os._exit(0)
        os.waitpid(pid, 0)
        log = server.says("Connection reset" if how == "reset" else "stream ended 8 bytes into a frame")
        assert "Traceback" not in log
        still_answers(server)


def test_a_client_that_is_gone_when_its_replies_come(serve: Any) -> None:
    with serve(lambda payload: (noise(100_000) for _ in range(1000))) as server:
        for _ in range(3):
            conn = server.connect()
            conn.send_many([b"a", b"b", b"c"])
            conn.recv()
            conn.close()
        log = server.says("closed: ")
        assert "Traceback" not in log
        assert "ERROR" not in log
        still_answers(server)


def test_a_framing_that_raises_loses_its_connection_alone(serve: Any) -> None:
    class Moody(Framing):
        def measure(self, view: memoryview) -> Frame:
            if view[0] == ord("!"):
                raise ArithmeticError("what is this?")
            return Frame(1)

        def wrap(self, payload: bytes) -> bytes:
            return payload

    with serve(echo, framing=Moody()) as server, server.connect() as bad, server.connect() as good:
        bad.sock.sendall(b"x")
        assert bad.recv() == b"x"
        bad.sock.sendall(b"!")
        good.sock.sendall(b"ab")
        assert [good.recv(), good.recv()] == [b"a", b"b"]
        assert ends(bad)
        server.says("ArithmeticError: what is this?")
        good.sock.sendall(b"c")
        assert good.recv() == b"c"


def test_many_clients_at_once(serve: Any) -> None:
    with serve(lambda payload: payload * 2) as server:
        conns = [server.connect() for _ in range(40)]
        for turn in range(3):
            for number, conn in enumerate(conns):
                conn.send_many([b"%d %d %d" % (turn, number, each) for each in range(20)])
            for number, conn in enumerate(conns):
                for each in range(20):
                    assert conn.recv() == b"%d %d %d" % (turn, number, each) * 2
        for conn in conns:
            conn.close()


def test_each_process_has_its_own_memory_and_is_collected(wing: Any, alone: None) -> None:
    seen: list[bytes] = []

    def handler(payload: bytes) -> bytes:
        seen.append(payload)
        return b"%d %d" % (os.getpid(), len(seen))

    with serving(wing, handler, mode="processes") as server:
        pids = []
        for _ in range(2):
            with server.connect() as conn:
                conn.send_many([b"a", b"b"])
                pid, count = conn.recv().split()
                assert count == b"1"
                assert conn.recv().split() == [pid, b"2"]
                pids.append(int(pid))
        assert len({server.pid, *pids}) == 3
        end = time.monotonic() + LIMIT
        for pid in pids:
            while Path(f"/proc/{pid}").exists():  # a zombie is there too
                assert time.monotonic() < end
                time.sleep(0.01)


def test_a_handler_that_kills_its_process_kills_no_other(wing: Any, alone: None) -> None:
    def handler(payload: bytes) -> bytes:
        if payload == b"die":
            os.kill(os.getpid(), signal.SIGKILL)
        return payload

    with serving(wing, handler, mode="processes") as server, server.connect() as other, server.connect() as conn:
        conn.send(b"die")
        assert ends(conn)
        other.send(b"alive")
        assert other.recv() == b"alive"
        still_answers(server)
