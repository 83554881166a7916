"""What a server allows its clients, how it stops, and what it listens at."""

from __future__ import annotations

import errno
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from scripted import LIMIT, Task, noise
from serving import FRAMING, LOCAL, MODES, Counter, of_wing, serving
from test_server import echo, ends, mode, serve, still_answers

import sockframe.server.replies
from sockframe import EndOfStream, connect

__all__ = ["mode", "serve"]  # fixtures


# ---- limits ----

def test_a_client_too_many_is_told_at_once(serve: Any) -> None:
    with serve(echo, max_connections=2) as server, server.connect() as one:
        other = server.connect()
        for conn in (one, other):
            conn.send(b"in")
            assert conn.recv() == b"in"
        for _ in range(3):
            with server.connect() as third:
                assert ends(third)
        assert server.says("WARNING refused").count("refused") == 1
        one.send(b"still in")
        assert one.recv() == b"still in"
        other.close()
        end = time.monotonic() + LIMIT
        while True:
            with server.connect() as third, suppress(EndOfStream, ConnectionError):
                third.send(b"in")
                assert third.recv() == b"in"
                break
            assert time.monotonic() < end


def test_an_idle_client_is_sent_away(serve: Any) -> None:
    with serve(echo, idle_timeout=0.3) as server:
        begun = time.monotonic()
        with server.connect() as silent:
            assert ends(silent)
            assert time.monotonic() - begun >= 0.3
        with server.connect() as conn:
            for number in range(3):
                begun = time.monotonic()
                conn.send(b"%d" % number)
                assert conn.recv() == b"%d" % number
            conn.sock.sendall(b"\0\0")  # between its first byte and its last a frame has its own limit
            time.sleep(0.6)
            conn.sock.sendall(b"\0\1x")
            assert conn.recv() == b"x"
            assert ends(conn)
        log = server.says("TimeoutError: no frame has come for 0.3 s")
        assert log.count("INFO") == 2


def test_a_frame_that_comes_too_slowly_is_given_up(serve: Any) -> None:
    """P3: however often a byte comes."""
    with serve(echo, frame_timeout=0.4) as server, server.connect() as quiet, server.connect() as slow:
        slow.sock.sendall(b"\0\0\0\1a" + b"\0\0\1\0")  # one frame, and the beginning of the next
        begun = time.monotonic()
        with suppress(ConnectionError):
            for _ in range(200):
                slow.sock.sendall(b"x")
                time.sleep(0.02)
        assert slow.recv() == b"a"
        assert ends(slow)
        assert time.monotonic() - begun >= 0.4
        server.says("INFO", "TimeoutError: a frame was not whole 0.4 s after its first byte")
        quiet.sock.sendall(b"\0\0")
        quiet.sock.sendall(b"\0\1q" + b"\0" * 3)  # it had been silent all the time
        assert quiet.recv() == b"q"
        assert ends(quiet)


def test_a_frame_that_comes_in_time_has_its_whole_time_again(serve: Any) -> None:
    limits = dict.fromkeys(("frame_timeout", "idle_timeout", "send_timeout"), 20 * LIMIT)
    with serve(echo, **limits) as server, server.connect() as conn:
        for _ in range(5):
            conn.sock.sendall(b"\0\0\0")
            time.sleep(0.01)
            conn.sock.sendall(b"\1x\0\0\0\1y")
            assert [conn.recv(), conn.recv()] == [b"x", b"y"]


def test_replies_that_nobody_takes_are_given_up(serve: Any) -> None:
    with serve(echo, send_timeout=0.3) as server, server.connect() as greedy:
        with pytest.raises((ConnectionError, TimeoutError)):
            while True:
                greedy.send(noise(50_000), timeout=LIMIT)
        server.says("INFO", "TimeoutError: ")
        still_answers(server)


@pytest.mark.parametrize("way", ["threads", "select"])
def test_without_a_descriptor_for_a_client_the_others_are_served(wing: Any, way: str, alone: None) -> None:
    """S16."""
    with serving(wing, echo, mode=way, spare=8) as server:
        waiting = [server.connect() for _ in range(20)]  # most of them in the backlog
        server.says("can't accept: ", "Too many open files")
        for conn in waiting:
            conn.send(b"hello")
        while waiting:
            served = []
            for conn in waiting:
                with suppress(TimeoutError):
                    assert conn.recv(timeout=0.02) == b"hello"
                    served.append(conn)
            for conn in served:  # others have its place now
                conn.close()
                waiting.remove(conn)
        assert server.log.read_text().count("can't accept") <= 20


# ---- the end ----

def test_a_signal_lets_what_has_arrived_be_answered(serve: Any) -> None:
    def slowly(payload: bytes) -> bytes:
        time.sleep(0.005)
        return payload

    payloads = [b"%d" % number for number in range(100)]
    with serve(slowly, grace=10 * LIMIT) as server, server.connect() as conn, server.connect() as idle:
        idle.send(b"x")
        assert idle.recv() == b"x"
        conn.send_many(payloads)
        assert conn.recv() == payloads[0]
        server.stop()
        assert [*conn] == payloads[1:]
        with pytest.raises(EndOfStream):
            idle.recv()
        server.wait()
        with pytest.raises(ConnectionRefusedError):
            server.connect()


def test_a_frame_that_has_begun_may_be_finished(serve: Any) -> None:
    with serve(echo, grace=10 * LIMIT) as server, server.connect() as conn, server.connect() as idle:
        conn.sock.sendall(b"\0\0\0\1a\0\0\0\2b")
        assert conn.recv() == b"a"
        server.stop()
        assert ends(idle)  # it is at work on its end
        time.sleep(0.1)
        conn.sock.sendall(b"c")
        assert list(conn) == [b"bc"]
        server.wait()


def test_after_the_grace_all_is_over(serve: Any) -> None:
    def handler(payload: bytes) -> Any:
        return (noise(100_000) for _ in range(1000)) if payload == b"many" else payload

    with serve(handler, grace=0.3) as server, server.connect() as half, server.connect() as deaf:
        deaf.send(b"many")
        deaf.recv()
        half.sock.sendall(b"\0\0\0\1a\0")
        assert half.recv() == b"a"
        begun = time.monotonic()
        server.stop()
        assert ends(half)
        assert time.monotonic() - begun >= 0.3
        server.wait()
        server.says("2 connections are closed, for the grace is over")


def test_a_second_signal_cuts_the_grace_short(serve: Any) -> None:
    with serve(echo, grace=100 * LIMIT) as server, server.connect() as half, server.connect() as idle:
        half.sock.sendall(b"\0\0\0\1a\0\0")
        assert half.recv() == b"a"
        server.stop()
        assert ends(idle)
        server.stop()
        assert ends(half)
        server.wait()


def test_a_handler_can_stop_its_server(wing: Any, mode: str, alone: None) -> None:
    stop: list[Callable[[], None]] = []

    def handler(payload: bytes) -> bytes:
        if payload == b"stop":
            stop[0]()
        return payload

    with serving(wing, handler, mode=mode, then=lambda server: stop.append(server.stop)) as server:
        with server.connect() as conn, server.connect() as idle:
            conn.send_many([b"a", b"stop", b"b"])
            assert list(conn) == [b"a", b"stop", b"b"]
            assert ends(idle)
        server.wait()


def test_a_handler_that_never_returns_does_not_keep_the_server(wing: Any, alone: None) -> None:
    begun = Counter()

    def handler(payload: bytes) -> None:
        begun.add()
        time.sleep(100 * LIMIT)

    with serving(wing, handler, mode="processes", grace=0.1) as server, server.connect() as conn:
        conn.send(b"x")
        while not begun.value:
            time.sleep(0.01)
        server.stop()
        server.wait()
        assert ends(conn)


@pytest.mark.parametrize("mode", ["threads", "select"])
def test_another_thread_stops_it(wing: Any, mode: str, alone: None) -> None:
    server = of_wing(wing)(echo, LOCAL, FRAMING, mode=mode)
    task = Task(server.serve_forever)
    with connect(server.address, FRAMING, timeout=LIMIT) as conn:
        conn.send(b"a")
        assert conn.recv() == b"a"
        assert server.connections == 1
        with pytest.raises(RuntimeError, match="is running, or has ended"):
            server.serve_forever()
        server.stop()
        assert ends(conn)
    task.result()
    assert server.connections == 0
    server.stop()
    server.close()
    with pytest.raises(RuntimeError, match="is running, or has ended"):
        server.serve_forever()


@pytest.mark.parametrize("mode", ["threads", "select"])
def test_leaving_the_block_waits_for_the_end(wing: Any, mode: str, alone: None) -> None:
    with of_wing(wing)(echo, LOCAL, FRAMING, mode=mode) as server:
        task = Task(server.serve_forever)
        conn = connect(server.address, FRAMING, timeout=LIMIT)
        conn.send(b"a")
        assert conn.recv() == b"a"
    assert server.connections == 0
    assert ends(conn)
    conn.close()
    task.result()


def test_a_server_stopped_before_it_serves_returns(wing: Any, mode: str) -> None:
    server = of_wing(wing)(echo, LOCAL, FRAMING, mode=mode)
    address = server.address
    server.stop()
    server.serve_forever()
    with pytest.raises(ConnectionRefusedError):
        connect(address, FRAMING)
    with of_wing(wing)(echo, LOCAL, FRAMING, mode=mode) as server:
        address = server.address
    with pytest.raises(ConnectionRefusedError):
        connect(address, FRAMING)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_gives_the_signals_back(mode: str, number: signal.Signals) -> None:
    def before(*_: object) -> None:
        raise AssertionError("it is not asked meanwhile")

    was = {each: signal.signal(each, before) for each in (signal.SIGTERM, signal.SIGINT)}
    threading.Timer(0.2, os.kill, [os.getpid(), number]).start()
    try:
        sockframe.server.serve(echo, LOCAL, FRAMING, mode=mode)
        assert [signal.getsignal(each) for each in was] == [before, before]
    finally:
        for each, handler in was.items():
            signal.signal(each, handler)


@pytest.mark.parametrize("way", ["threads", "select"])
def test_a_signal_that_another_thread_got_stops_the_server(wing: Any, way: str, alone: None) -> None:
    def handler(payload: bytes) -> bytes:
        thread = threading.Thread(target=time.sleep, args=[0.3])
        thread.start()
        signal.pthread_kill(thread.ident or 0, signal.SIGTERM)
        thread.join()
        return payload

    with serving(wing, handler, mode=way) as server, server.connect() as conn:
        conn.send(b"x")
        assert list(conn) == [b"x"]
        server.wait()


# ---- addresses and arguments ----

@pytest.fixture
def path(tmp_path: Path) -> Iterator[str]:
    """A path short enough for a Unix socket."""
    here = os.getcwd()
    os.chdir(tmp_path)
    yield "socket"
    os.chdir(here)


def test_the_file_of_a_dead_server_is_replaced(path: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(path)
    assert os.path.exists(path)
    with sockframe.server.Server(echo, path, FRAMING) as server:
        assert server.address == path
        connect(path, FRAMING).close()
        with pytest.raises(OSError, match=f"can't listen at '{path}'") as refused:
            sockframe.server.Server(echo, path, FRAMING)
        assert refused.value.errno == errno.EADDRINUSE
        connect(path, FRAMING).close()
    assert not os.path.exists(path)


def test_a_file_that_is_another_s_is_left_alone(path: str) -> None:
    Path(path).write_text("important")
    with pytest.raises(OSError, match="can't listen at"):
        sockframe.server.Server(echo, path, FRAMING)
    assert Path(path).read_text() == "important"
    os.remove(path)
    with sockframe.server.Server(echo, path, FRAMING):
        os.rename(path, "elsewhere")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
            other.bind(path)
    assert os.path.exists(path)


def test_an_address_in_use_is_named() -> None:
    with socket.create_server(LOCAL) as other:
        text = f"in use: can't listen at 127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(OSError, match=text):
            sockframe.server.Server(echo, other.getsockname(), FRAMING)


@pytest.mark.parametrize("kind", ["bytes", "list", "none"])
def test_frames_that_are_answered_are_not_held(kind: str) -> None:
    def handler(payload: bytes) -> Any:
        return {"bytes": payload, "list": [payload, payload], "none": None}[kind]

    payload = noise(1000)
    replies = sockframe.server.replies.Replies(handler)
    before = sys.getrefcount(payload)
    for _ in range(3):
        replies.add([payload] * 30)
        while not replies.done:
            replies.take()
    assert sys.getrefcount(payload) == before


def test_frames_are_sent_without_delay() -> None:
    with sockframe.server.Server(echo, LOCAL, FRAMING) as server, connect(server.address, FRAMING):
        while (accepted := server.accept()) is None:
            pass
        with accepted[0] as sock:
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize(("arguments", "error", "text"), [
    ({"handler": None}, TypeError, "handler must be callable, not NoneType"),
    ({"framing": b"\n"}, TypeError, "framing must be a Framing, not bytes"),
    ({"mode": "fibres"}, ValueError, "mode must be 'threads', 'processes', 'select', not 'fibres'"),
    ({"max_connections": 0}, ValueError, "max_connections must be 1 or more, not 0"),
    ({"grace": -1}, ValueError, "grace must be seconds from 0 on, not -1"),
    ({"grace": float("nan")}, ValueError, "grace must be seconds from 0 on, not nan"),
    ({"idle_timeout": 0}, ValueError, "idle_timeout must be None, or seconds above 0, not 0"),
    ({"frame_timeout": float("inf")}, ValueError, "frame_timeout must be None, or seconds above 0, not inf"),
    ({"send_timeout": -2}, ValueError, "send_timeout must be None, or seconds above 0, not -2"),
])
def test_arguments_are_checked(arguments: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        sockframe.server.Server(**{"handler": echo, "address": LOCAL, "framing": FRAMING, **arguments})


def test_processes_need_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "fork")
    with pytest.raises(ValueError, match="mode 'processes' needs os"):
        sockframe.server.Server(echo, LOCAL, FRAMING, mode="processes")


def test_errors_of_accepting_are_survived(caplog: pytest.LogCaptureFixture) -> None:
    with sockframe.server.Server(echo, LOCAL, FRAMING) as server:
        real = server.listener
        for number, pause, logged in [(errno.ECONNABORTED, False, 0), (errno.EINTR, False, 0), (errno.EMFILE, True, 1),
                                      (errno.ENOBUFS, True, 1), (errno.EPERM, True, 1)]:
            class Failing:
                def accept(self, number: int = number) -> Any:
                    raise OSError(number, os.strerror(number))

            server._starved = False
            server._resume = 0.0
            caplog.clear()
            server.listener = Failing()  # type: ignore[assignment]
            for _ in range(3):
                assert server.accept() is None
            server.listener = real
            assert (server.accept_at() > 0) == pause
            assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == logged


class OddError(Exception):
    """Of the user's."""


@pytest.mark.parametrize("holding", [False, True])
def test_what_a_signal_handler_raises_comes_out_of_a_select_server(wing: Any, holding: bool, alone: None) -> None:
    """A server that swallowed it would wait, or ask in vain, for ever."""
    def raises(_: int, frame: Any) -> None:
        while frame is not None and frame.f_code.co_name != "serve_forever":
            frame = frame.f_back
        if frame is not None:
            raise OddError

    def client() -> Any:
        conn = connect(server.address, FRAMING, timeout=LIMIT)
        conn.send(b"a")
        assert conn.recv() == b"a"
        if holding:
            conn.sock.sendall(b"\0\0")  # of a header: it may have been this one
        signal.setitimer(signal.ITIMER_REAL, 0.05, 0.2)
        return conn

    was = signal.signal(signal.SIGALRM, raises)
    with of_wing(wing)(echo, LOCAL, FRAMING, mode="select") as server:
        task = Task(client)
        try:
            with pytest.raises(OddError):
                server.serve_forever()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, was)
        with task.result() as conn:
            assert ends(conn)


def test_a_selector_that_fails_again_ends_its_server(wing: Any, monkeypatch: pytest.MonkeyPatch, alone: None) -> None:
    asked = Counter()

    def fails(*_: object) -> None:
        asked.add()
        raise MemoryError

    with of_wing(wing)(echo, LOCAL, FRAMING, mode="select") as server:
        monkeypatch.setattr(server.FrameSelector, "select", fails)
        with pytest.raises(MemoryError):
            server.serve_forever()
    assert asked.value == 2
