"""Where there is no memory: nothing is lost, or the connection is closed; the next frame is never the wrong one.

Each call is made again and again, with one more allocation failing each time, until none is left to fail. In the
core alone: in the pure wing the interpreter itself allocates between any two steps. (CPython's `_testcapi` makes
allocations fail; where a Python comes without it, there is nothing here to run. Nor is there without the GIL: such a
3.13 crashes where an allocation fails in code in Python alone.)
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from contextlib import suppress
from socket import SHUT_WR, SO_SNDBUF, SOL_SOCKET
from typing import Any

import pytest
from conftest import FREE, WINGS, load_wing
from scripted import LIMIT, Bracketed, Task, noise

from sockframe import Cobs, IncompleteFrameError, LengthPrefix, Lines
from sockframe._pure import Decoder

pytestmark = pytest.mark.usefixtures("alone", "no_collector")

HERE = "core" in WINGS and not FREE and importlib.util.find_spec("_testcapi") is not None

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
    "recv_batch": lambda conn: conn.recv_batch().tolist(),
    "next": lambda conn: next(conn),
}
SEND: dict[str, Callable[[Any, list[bytes]], Any]] = {
    "send": lambda conn, payloads: conn.send(payloads[0]),
    "list": lambda conn, payloads: conn.send_many(payloads),
    "iterator": lambda conn, payloads: conn.send_many(iter(payloads)),
}

OTHER: dict[str, Callable[[Any], Any]] = {
    "flush": lambda conn: conn.flush(),
    "shutdown": lambda conn: conn.shutdown(SHUT_WR),
    "pending": lambda conn: conn.pending(),
    "unsent": lambda conn: conn.unsent,
    "framing": lambda conn: conn.framing,
    "framing =": lambda conn: setattr(conn, "framing", LengthPrefix(4, max_length=1 << 20)),
    "detach": lambda conn: conn.detach(),
    "fileno": lambda conn: conn.fileno(),
    "settimeout": lambda conn: conn.settimeout(0),
    "gettimeout": lambda conn: conn.gettimeout(),
    "setblocking": lambda conn: conn.setblocking(False),
    "getpeername": lambda conn: conn.getpeername(),
    "getsockname": lambda conn: conn.getsockname(),
    "repr": repr,
    "with": lambda conn: conn.__enter__(),
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


    @pytest.mark.parametrize("tail", [False, True])
    @pytest.mark.parametrize("how", OTHER)
    def test_no_other_call_loses_anything(how: str, tail: bool) -> None:
        """Neither what is held nor what is unsent; a call that failed can be made again."""
        large = noise(300_000)
        peers: list[Any] = []

        def make() -> Any:
            ours, peer = pair(LengthPrefix())
            ours.sock.setsockopt(SOL_SOCKET, SO_SNDBUF, 1)
            peer.send_many(SMALL)
            assert ours.recv() == SMALL[0]
            if tail:
                ours.send(large)
                assert ours.unsent
            peers.append(peer)
            return ours

        def call(conn: Any) -> Any:
            try:
                return OTHER[how](conn)
            except BlockingIOError:
                assert tail
                return None

        def check(conn: Any, result: Any) -> None:
            with conn, peers.pop() as peer:
                if isinstance(result, MemoryError):
                    assert not conn.closed
                    result = call(conn)
                if how == "detach" and not tail:
                    sock, held = result
                    sock.close()
                    assert Decoder(LengthPrefix()).decode(held) == SMALL[1:]
                    return
                assert [conn.recv() for _ in SMALL[1:]] == SMALL[1:]
                reader = Task(frames_before_the_end, peer)
                conn.settimeout(LIMIT)
                if how != "shutdown" or tail:
                    conn.send(b"the last")
                conn.close()
                assert reader.result() == [large] * tail + [b"the last"] * (how != "shutdown" or tail)

        sweep(make, call, check)

    def test_a_close_that_fails_can_be_made_again() -> None:
        """And closes the socket then, whether a selector watches it or not."""
        for watched in (False, True):
            with load_wing("core").FrameSelector() as selector:
                def make(watched: bool = watched, selector: Any = selector) -> Any:
                    ours, peer = pair(LengthPrefix())
                    peer.close()
                    if watched:
                        selector.register(ours)
                    return ours

                def check(conn: Any, result: Any, selector: Any = selector) -> None:
                    conn.close()
                    assert conn.closed
                    assert conn.sock.fileno() == -1
                    assert len(selector) == 0
                    conn.close()

                sweep(make, lambda conn: conn.close(), check)

    def test_making_a_connection_that_fails() -> None:
        """The socket is as it was."""
        kind = load_wing("core").FramedSocket

        def make() -> Any:
            ours, peer = pair(LengthPrefix())
            with peer:
                peer.send(b"one")
                return ours.detach()[0]

        def check(sock: Any, result: Any) -> None:
            with kind(sock, LengthPrefix()) as conn:
                assert conn.recv() == b"one"

        sweep(make, lambda sock: kind(sock, LengthPrefix()), check)

    def test_answers_whose_call_fails() -> None:
        """The replies that were sent are those to the first payloads, whole; what the caller is told is what it has to
        go on behind."""
        def make() -> Any:
            ours, peer = pair(LengthPrefix())
            return ours, peer

        def check(made: Any, result: Any) -> None:
            ours, peer = made
            with peer:
                with ours:
                    if not ours.closed:
                        ours.send(b"the last")
                got = rest(peer)
                sent = got[:-1] if got[-1:] == [b"the last"] else got
                assert sent == SMALL[:len(sent)]
                if isinstance(result, tuple):
                    given, reply, error = result
                    assert len(sent) == given - (reply is not None or error is not None)
                elif result is None:
                    assert sent == SMALL

        sweep(make, lambda made: made[0]._answer(SMALL, bytes, 10**9), check)

    @pytest.mark.parametrize("here", [True, False], ids=["here", "awaited"])
    def test_an_await_of_the_next_frame_that_fails(here: bool) -> None:
        """No frame is taken before there is an exception to carry it."""
        def make() -> Any:
            decoder = load_wing("core").Decoder(LengthPrefix(1))
            decoder.feed(b"\3one\3two")

            async def wait() -> Any:
                return decoder.next_frame()

            frames = load_wing("core").AsyncFrames(wait)
            if here:
                frames.ready = decoder
            return decoder, frames, [None]

        async def take(frames: Any, got: list[Any]) -> None:
            got[0] = await frames.__anext__()

        def call(made: Any) -> None:
            with suppress(StopIteration):
                take(*made[1:]).send(None)

        def check(made: Any, result: Any) -> None:
            got = [] if made[2] == [None] else made[2]
            assert got + list(made[0]) == [b"one", b"two"]
            assert got or isinstance(result, MemoryError)

        sweep(make, call, check)

    @pytest.mark.parametrize("how", ["register", "select", "unregister", "close", "want_write"])
    def test_a_selector_whose_call_fails(how: str) -> None:
        """Its connections keep their frames, and it can go on."""
        def make() -> Any:
            ours, peer = pair(LengthPrefix())
            selector = load_wing("core").FrameSelector()
            if how != "register":
                selector.register(ours, "data")
            peer.send_many(SMALL)
            return selector, ours, peer

        def call(made: Any) -> Any:
            selector, ours, _ = made
            if how == "select":
                return selector.select(0)
            if how == "close":
                return selector.close()
            return getattr(selector, how)(ours)

        def check(made: Any, result: Any) -> None:
            selector, ours, peer = made
            got = [frame for _, frames in result for frame in frames] if how == "select" and isinstance(result, list) \
                else []
            with peer, ours, selector:
                if how in ("unregister", "close"):
                    if isinstance(result, MemoryError):
                        with suppress(KeyError):
                            call(made)
                    assert how == "close" or len(selector) == 0
                else:
                    if len(selector) == 0:
                        selector.register(ours)
                    peer.send(b"the last")
                    while b"the last" not in got:
                        for key, frames in selector.select(LIMIT):
                            assert key.conn is ours
                            got += frames
                    assert got == [*SMALL, b"the last"]
                    return
                ours.settimeout(LIMIT)
                assert [ours.recv() for _ in SMALL] == SMALL

        sweep(make, call, check)


def frames_before_the_end(conn: Any) -> list[bytes]:
    """Receive until the end, wherever it is."""
    frames: list[bytes] = []
    with suppress(IncompleteFrameError):
        frames.extend(conn)
    return frames
