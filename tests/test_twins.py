"""Both wings in step: the same calls over the same socket give the same values, errors and state."""

from __future__ import annotations

import errno
import random
import re
from contextlib import suppress
from typing import Any

import pytest
from scripted import Bracketed, Scripted, Timed

from sockframe import (
    AsciiLength,
    Cobs,
    Delimiter,
    Encoder,
    FixedLength,
    HeaderBlock,
    LengthField,
    LengthPrefix,
    Lines,
    Slip,
    Tagged,
    UntilClose,
    Varint,
)

FRAMINGS: list[Any] = [
    LengthPrefix(1, max_length=40), LengthPrefix(2, "little", inclusive=True), LengthPrefix(4, max_length=90_000),
    LengthPrefix(2, max_length=20, overlong="skip"), LengthPrefix(2, max_length=20, overlong="truncate"),
    Lines(), Lines("crlf"), Lines(max_length=9, overlong="truncate"), Delimiter(b"ab", b"c", keep=True, tail="deliver"),
    Delimiter(b"\n", max_length=9, overlong="skip"), FixedLength(5), FixedLength(70_000), Varint(), Cobs(), Slip(),
    Cobs(max_length=9, overlong="skip"), AsciiLength(3), AsciiLength(separator=b":", end=b","),
    LengthField(2, offset=1, strip=3, align=4), HeaderBlock(), UntilClose(), UntilClose(max_length=100),
    Tagged({b"a": 3, b"b": LengthPrefix(1)}, default=Lines()), Bracketed(), Bracketed(max_length=9, overlong="skip")]


class Interrupted(Exception):
    """What a signal handler raises."""


def some_payload(chance: random.Random, large: bool) -> bytes:
    size = chance.choice([0, 1, 3, 5, 9, 10, 30, 200, 1500, *[2040, 2060, 17_000, 70_000, 100_000] * large])
    return bytes(chance.choice(b"ab\n\r\0|c<>:,0123") for _ in range(min(size, 30))) + bytes(max(0, size - 30))


def some_stream(chance: random.Random, framing: Any, large: bool) -> bytes:
    """Return frames of the framing, perhaps with noise between, perhaps cut off."""
    encoder, stream = Encoder(framing), bytearray()
    for _ in range(chance.randrange(8)):
        with suppress(ValueError):
            stream += encoder.encode(some_payload(chance, large))
    if chance.random() < 0.2:
        stream += some_payload(chance, large)
    return bytes(stream[:chance.randrange(len(stream) + 1)] if chance.random() < 0.4 else stream)


#: What a socket does now and then instead of what it should.
EVENTS: list[Any] = [
    BlockingIOError(), TimeoutError(), Interrupted(), ConnectionResetError(errno.ECONNRESET, "reset"), None,
    TimeoutError(errno.ETIMEDOUT, "dead"), OSError(errno.ENOBUFS, "none"), 5, "text"]


def sockets(chance: random.Random, framing: Any, large: bool) -> list[Timed]:
    """Return two sockets that do the same."""
    stream = some_stream(chance, framing, large)
    size = len(stream)
    cuts = [chance.randrange(size + 1) for _ in range(chance.randrange(10))]
    events = {chance.randrange(size + 1): [chance.choice(EVENTS)] * chance.randrange(3)
              for _ in range(chance.randrange(6))}
    takes = [chance.choice([chance.randrange(1, 10), 10_000, 100_000, lambda: None, 0, *EVENTS[:4]])
             for _ in range(chance.randrange(15))]
    timeout = chance.choice([None, None, 0.0, 60.0])
    return [Timed(stream, cuts=cuts, events=events, takes=takes, timeout=timeout) for _ in range(2)]


def some_call(chance: random.Random, large: bool) -> tuple[str, list[Any], dict[str, Any]]:
    """Return a method's name and its arguments."""
    how: dict[str, Any] = {"timeout": 0} if chance.random() < 0.2 else {}
    other = chance.choice([FixedLength(3), Lines(), LengthPrefix(1), chance.choice(FRAMINGS)])
    name = chance.choice(["recv", "recv", "recv_into", "recv_into", "recv_many", "recv_batch", "next", "send",
                          "send", "send_many", "send_iterator", "flush", "framing", "unsent", "closed", "detach",
                          "close", "gettimeout"])
    if name in ("detach", "close", "framing") and chance.random() < 0.8:
        name = "recv"
    if name == "recv":
        return name, [other] if chance.random() < 0.1 else [], how
    if name == "recv_into":
        return name, [chance.choice([0, 1, 9, 100, 100_000]), *([other] if chance.random() < 0.1 else [])], how
    # How many of them are here is a wing's own affair, where large frames are received straight into place.
    if name == "recv_batch" and not large:
        return name, [], how
    if name in ("recv_many", "recv_batch"):
        return "recv_many", [1 if large else chance.choice([1, 2, 5, 1024, 0])], how
    if name == "send":
        return name, [some_payload(chance, large)], how
    if name in ("send_many", "send_iterator"):
        return name, [[some_payload(chance, large) for _ in range(chance.randrange(6))]], how
    return name, [other] if name == "framing" else [], how if name == "flush" else {}


def call(conn: Any, name: str, arguments: list[Any], how: dict[str, Any]) -> Any:
    """Make a call; return all that it gives, as values that can be compared."""
    if name in ("unsent", "closed"):
        return getattr(conn, name)
    if name == "next":
        return next(conn, "the end")
    if name == "framing":
        conn.framing = arguments[0]
        return conn.framing
    if name == "recv_into":
        target = bytearray(b"\xaa" * arguments[0])
        size = conn.recv_into(target, *arguments[1:], **how)
        return bytes(target[:size]), target[size:] == b"\xaa" * (len(target) - size)
    if name == "send_iterator":
        return conn.send_many(iter(arguments[0]), **how)
    answer = getattr(conn, name)(*arguments, **how)
    if name == "recv_batch":
        return answer.tolist()
    # How far ahead of the frames it receives is a wing's own affair.
    return answer[1] + answer[0].stream[answer[0].at:] if name == "detach" else answer


def attempt(conn: Any, step: tuple[str, list[Any], dict[str, Any]]) -> Any:
    """Make a call; return what it gives, or all that its error says, and the state after it."""
    try:
        result = call(conn, *step)
    except Exception as error:
        text = re.sub(r"recv\(\d+\)", "recv(...)", str(error))
        result = type(error), text, vars(error), getattr(error, "errno", None)
    return result, conn.unsent, conn.closed


@pytest.mark.parametrize("seed", range(20))
def test_the_same_calls_give_the_same(wings: list[Any], seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(60):
        framing, large = chance.choice(FRAMINGS), chance.random() < 0.5
        pair = sockets(chance, framing, large)
        steps = [some_call(chance, large) for _ in range(chance.randrange(1, 25))]
        one, *others = [wing.FramedSocket(sock, framing) for wing, sock in zip(wings, pair, strict=False)]
        for number, step in enumerate(steps):
            expected = attempt(one, step)
            for other in others:
                assert attempt(other, step) == expected, (framing, steps[:number + 1])
        for sock in pair[1:len(wings)]:
            assert sock.sent == pair[0].sent
            assert bool(sock.closed) == bool(pair[0].closed)


def test_what_is_sent_is_the_same_whole_frames(wings: list[Any]) -> None:
    for seed in range(60):
        chance = random.Random(seed)
        framing = chance.choice(FRAMINGS)
        payloads = [some_payload(chance, True) for _ in range(6)]
        sent = []
        for wing in wings:
            good = []
            for payload in payloads:
                conn = wing.FramedSocket(Scripted(), framing)
                if attempt(conn, ("send", [payload], {}))[0] is None:
                    good.append(payload)
                    assert conn.sock.sent == Encoder(framing).encode(payload)
            conn = wing.FramedSocket(Scripted(takes=[1, 2, 3] * 5), framing)
            result = attempt(conn, ("send_many", [good], {}))
            sent.append((good, result, conn.sock.sent))
        assert all(item == sent[0] for item in sent)
