"""Where there is no memory: nothing is lost, or the connection is closed; the next frame is never the wrong one.

Each call is made again and again, with one more allocation failing each time, until none is left to fail. In the
core alone: in the pure wing the interpreter itself allocates between any two steps. (CPython's `_testcapi` makes
allocations fail; where a Python comes without it, there is nothing here to run.)
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from conftest import WINGS, load_wing
from scripted import LIMIT, Bracketed, Task, noise

from sockframe import Cobs, IncompleteFrameError, LengthPrefix, Lines

pytestmark = pytest.mark.usefixtures("alone")

HERE = "core" in WINGS and importlib.util.find_spec("_testcapi") is not None

SMALL = [b"one", b"", noise(3000), b"four"]
LARGE = [noise(150_000, 1), b"two", noise(90_000, 2)]


def sweep(make: Callable[[], Any], call: Callable[[Any], Any], check: Callable[[Any, Any], None]) -> None:
    """Let each allocation of a call fail in turn; `check` what it gave, an error or not."""
    import _testcapi

    for number in range(1, 400):
        conn = make()
        result: Any = None
        _testcapi.set_nomemory(number, number + 1)
        try:
            result = call(conn)
        except (MemoryError, SystemError) as error:
            # The interpreter itself raises a SystemError where it has no room for a function's frame.
            result = MemoryError() if str(error) == "error return without exception set" else error
        finally:
            _testcapi.remove_mem_hooks()
        check(conn, result)
        if not isinstance(result, MemoryError):
            return
    raise AssertionError("never without a failure")


def pair(framing: Any, size: int = 1 << 20) -> tuple[Any, Any]:
    left, right = load_wing("core").pair(framing, SO_SNDBUF=size)
    left.setblocking(False)
    right.settimeout(LIMIT)
    return left, right


def rest(conn: Any) -> list[bytes]:
    """Receive until the end."""
    conn.sock.setblocking(True)
    return list(conn)


RECEIVE: dict[str, Callable[[Any], Any]] = {
    "recv": lambda conn: conn.recv(),
    "recv(framing)": lambda conn: conn.recv(conn.framing),
    "recv_many": lambda conn: conn.recv_many(),
    "recv_many(2)": lambda conn: conn.recv_many(2),
    "next": lambda conn: next(conn),
}
SEND: dict[str, Callable[[Any, list[bytes]], Any]] = {
    "send": lambda conn, payloads: conn.send(payloads[0]),
    "list": lambda conn, payloads: conn.send_many(payloads),
    "iterator": lambda conn, payloads: conn.send_many(iter(payloads)),
}

if HERE:
    @pytest.mark.parametrize("how", [*RECEIVE, "recv_into"])
    @pytest.mark.parametrize("framing", [LengthPrefix(), Lines(), Cobs(), Bracketed()], ids=repr)
    @pytest.mark.parametrize("payloads", [SMALL, LARGE], ids=["small", "large"])
    def test_nothing_that_arrives_is_lost(how: str, framing: Any, payloads: list[bytes]) -> None:
        target = bytearray(200_000)

        def make() -> Any:
            left, right = pair(framing)
            left.send_many(payloads)
            assert left.unsent == 0
            left.close()
            return right

        def call(conn: Any) -> Any:
            return conn.recv_into(target) if how == "recv_into" else RECEIVE[how](conn)

        def check(conn: Any, result: Any) -> None:
            if isinstance(result, int):
                result = bytes(target[:result])
            with conn:
                if conn.closed:
                    assert isinstance(result, MemoryError)
                else:
                    got = [] if isinstance(result, MemoryError) else result if isinstance(result, list) else [result]
                    assert got + rest(conn) == payloads

        sweep(make, call, check)

    @pytest.mark.parametrize("size", [1, 1 << 20])
    @pytest.mark.parametrize("how", SEND)
    @pytest.mark.parametrize("framing", [LengthPrefix(), Cobs(), Bracketed()], ids=repr)
    @pytest.mark.parametrize("payloads", [SMALL, LARGE], ids=["small", "large"])
    def test_only_whole_frames_are_sent(how: str, framing: Any, payloads: list[bytes], size: int) -> None:
        peers: list[Any] = []

        def make() -> Any:
            left, right = pair(framing, size)
            peers.append(right)
            return left

        def call(conn: Any) -> Any:
            try:
                SEND[how](conn, payloads)
            except BlockingIOError:
                assert conn.unsent

        def check(conn: Any, result: Any) -> None:
            with conn, peers.pop() as peer:
                reader = Task(frames_before_the_end, peer)
                if not conn.closed:
                    conn.settimeout(LIMIT)
                    conn.send(b"the last")
                    conn.close()
                frames = reader.result()
                if frames[-1:] == [b"the last"]:
                    assert frames[:-1] == payloads[:len(frames) - 1]
                    assert how != "list" or len(frames) in (1, 1 + len(payloads))
                else:
                    assert isinstance(result, MemoryError)
                    assert frames == payloads[:len(frames)]

        sweep(make, call, check)


def frames_before_the_end(conn: Any) -> list[bytes]:
    """Receive until the end, wherever it is."""
    frames: list[bytes] = []
    with suppress(IncompleteFrameError):
        frames.extend(conn)
    return frames
