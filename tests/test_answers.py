"""Connection._answer: a handler's replies, sent together; it stops where the caller decides, and loses nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from scripted import LIMIT, Bracketed, Task, Timed, noise, wait_for_turn_taken

from sockframe import Cobs, Framing, LengthPrefix, Lines, UntilClose

SECOND = 10**9


class Interrupted(BaseException):
    """What a signal handler raises."""


def echo(payload: bytes) -> bytes:
    return payload


def connected(wing: Any, framing: Framing | None = None, **buffers: int) -> tuple[Any, Any]:
    """Return a connection that does not block, and its peer."""
    near, far = wing.pair(LengthPrefix() if framing is None else framing, **buffers)
    near.setblocking(False)
    far.settimeout(LIMIT)
    return near, far


@pytest.mark.parametrize("framing", [LengthPrefix(), Lines(), Cobs(), Bracketed()], ids=repr)
@pytest.mark.parametrize("count", [0, 1, 3, 200])
def test_every_reply_arrives_in_order(wing: Any, framing: Framing, count: int) -> None:
    payloads = [b"%d" % number for number in range(count)]
    near, far = connected(wing, framing)
    with near, far:
        assert near._answer(payloads, lambda payload: b"<%s>" % payload, SECOND) is None
        assert [far.recv() for _ in payloads] == [b"<%s>" % payload for payload in payloads]
        assert near.unsent == 0


def test_none_is_no_reply(wing: Any) -> None:
    near, far = connected(wing)
    with near, far:
        assert near._answer([b"1", b"2", b"3"], lambda payload: None if payload == b"2" else payload, SECOND) is None
        assert [far.recv(), far.recv()] == [b"1", b"3"]


@pytest.mark.parametrize("sizes", [[60_000] * 5, [16_380, 16_381, 1, 300_000, 2], [70_000, 0, 70_000]], ids=repr)
def test_large_replies_are_sent_too(wing: Any, sizes: list[int]) -> None:
    payloads = [noise(size, number) for number, size in enumerate(sizes)]
    near, far = connected(wing, None, SO_SNDBUF=1 << 21)
    with near, far:
        task = Task(lambda: [far.recv() for _ in payloads])
        assert near._answer(payloads, echo, SECOND) is None
        near.flush(timeout=LIMIT)
        assert task.result() == payloads


@pytest.mark.parametrize("reply", [bytearray(b"x"), [b"a", b"b"], "text", 7, iter([b"x"])],
                         ids=lambda reply: type(reply).__name__)
def test_what_is_neither_none_nor_bytes_is_left_to_the_caller(wing: Any, reply: Any) -> None:
    near, far = connected(wing)
    with near, far:
        given, left, error = near._answer([b"1", b"2", b"3"], lambda payload: payload if payload == b"1" else reply,
                                          SECOND)
        assert (given, error) == (2, None)
        assert left is reply
        assert far.recv() == b"1"
        near.send(b"next")
        assert far.recv() == b"next"


@pytest.mark.parametrize(("framing", "bad"), [(Lines(), b"a\nb"), (LengthPrefix(max_length=5), b"longer"),
                                              (Bracketed(max_length=5), b"longer")], ids=repr)
def test_a_reply_that_can_not_be_sent_is_left_to_the_caller(wing: Any, framing: Framing, bad: bytes) -> None:
    near, far = connected(wing, framing)
    with near, far:
        assert near._answer([b"1", bad, b"3"], echo, SECOND) == (2, bad, None)
        near.send(b"next")
        assert [far.recv(), far.recv()] == [b"1", b"next"]


def test_nothing_follows_a_reply_that_lasts_until_the_end(wing: Any) -> None:
    near, far = connected(wing, UntilClose())
    with far:
        with near:
            assert near._answer([b"all", b"more"], echo, SECOND) == (2, b"more", None)
        assert far.recv() == b"all"


def test_what_the_handler_raises_comes_behind_the_replies_before(wing: Any) -> None:
    failure = ZeroDivisionError("in the handler")

    def handler(payload: bytes) -> bytes:
        if payload == b"3":
            raise failure
        return payload

    near, far = connected(wing)
    with near, far:
        assert near._answer([b"1", b"2", b"3", b"4"], handler, SECOND) == (3, None, failure)
        assert [far.recv(), far.recv()] == [b"1", b"2"]


def test_what_a_signal_handler_raises_passes_through(wing: Any) -> None:
    """The replies before it are sent."""
    def handler(payload: bytes) -> bytes:
        if payload == b"3":
            raise Interrupted
        return payload

    near, far = connected(wing)
    with near, far:
        with pytest.raises(Interrupted):
            near._answer([b"1", b"2", b"3", b"4"], handler, SECOND)
        near.send(b"next")
        assert [far.recv() for _ in range(3)] == [b"1", b"2", b"next"]


def test_no_payload_is_given_behind_a_tail(wing: Any) -> None:
    sock = Timed(takes=[3, BlockingIOError()])
    conn = wing.FramedSocket(sock, LengthPrefix())
    conn.settimeout(0)
    conn.send(b"payload")
    assert conn.unsent
    asked: list[bytes] = []
    assert conn._answer([b"1"], asked.append, SECOND) == (0, None, None)
    assert asked == []
    conn.flush(timeout=None)
    assert sock.sent == b"\0\0\0\7payload"


@pytest.mark.parametrize("size", [1000, 16_000, 40_000, 200_000])
def test_where_the_socket_takes_no_more_the_handler_gets_no_more(wing: Any, size: int) -> None:
    payloads = [noise(size, number) for number in range(4_000_000 // size)]
    asked: list[bytes] = []

    def handler(payload: bytes) -> bytes:
        asked.append(payload)
        return payload

    near, far = connected(wing, None, SO_SNDBUF=20_000)
    with near, far:
        given, reply, error = near._answer(payloads, handler, 10 * SECOND)
        assert (reply, error) == (None, None)
        assert asked == payloads[:given]
        assert 0 < given < len(payloads)
        assert near.unsent
        task = Task(lambda: [far.recv() for _ in range(given)])
        near.flush(timeout=LIMIT)
        assert task.result() == payloads[:given]


def test_it_ends_when_its_turn_is_over(wing: Any) -> None:
    asked: list[bytes] = []

    def handler(payload: bytes) -> bytes:
        asked.append(payload)
        time.sleep(0.01)
        return payload

    near, far = connected(wing)
    with near, far:
        assert near._answer([b"%d" % number for number in range(100)], handler, SECOND // 1000) == (1, None, None)
        assert asked == [b"0"]
        assert far.recv() == b"0"


def test_a_handler_may_not_send_on_the_same_connection(wing: Any) -> None:
    near, far = connected(wing)
    with near, far:
        given, reply, error = near._answer([b"1", b"2"], near.send, SECOND)
        assert (given, reply, type(error)) == (1, None, RuntimeError)
        assert near._answer([b"1"], echo, SECOND) is None
        assert far.recv() == b"1"


@pytest.mark.parametrize("call", [lambda conn: conn.close(), lambda conn: conn.detach()[0].close()],
                         ids=["close", "detach"])
def test_a_handler_that_closes_the_connection(wing: Any, call: Callable[[Any], object]) -> None:
    near, far = connected(wing)

    def handler(payload: bytes) -> bytes:
        call(near)
        return payload

    with near, far:
        try:
            given, _, error = near._answer([b"1", b"2"], handler, SECOND)
        except OSError:
            assert near.closed
        else:  # it may not be detached from inside
            assert (given, type(error)) == (1, RuntimeError)
            assert not near.closed


def test_a_turn_that_another_thread_has_is_not_waited_for(wing: Any) -> None:
    near, far = connected(wing, None, SO_SNDBUF=10_000)
    with near, far:
        task = Task(near.send, bytes(3_000_000), timeout=LIMIT)
        wait_for_turn_taken(near.flush)
        asked: list[bytes] = []
        with pytest.raises(BlockingIOError):
            near._answer([b"1"], asked.append, SECOND)
        assert asked == []
        assert far.recv() == bytes(3_000_000)
        task.result()


@pytest.mark.parametrize("size", [1, 70_000])
def test_a_failed_socket_raises(wing: Any, size: int) -> None:
    """It is no failure of the handler's, which is asked no more."""
    sock = Timed(takes=[ConnectionResetError(104, "reset")])
    conn = wing.FramedSocket(sock, LengthPrefix())
    asked: list[int] = []
    with pytest.raises(ConnectionResetError):
        conn._answer([bytes(size)] * 3, lambda payload: asked.append(1) or payload, SECOND)
    assert len(asked) == (1 if size > 1 else 3)
