"""Receiving: the same frames and errors however a stream is cut and a call interrupted; the end of a stream; faults."""

from __future__ import annotations

import itertools
import random
import socket
import struct
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from scripted import LIMIT, WINE, Bracketed, Scripted, Timed, over_tcp, reset

from sockframe import (
    AsciiLength,
    BufferTooSmallError,
    Cobs,
    Delimiter,
    EndOfStream,
    FixedLength,
    FrameTooLongError,
    HeaderBlock,
    IncompleteFrameError,
    LengthField,
    LengthPrefix,
    Lines,
    Slip,
    Tagged,
    UntilClose,
    Varint,
)


class Interrupted(Exception):
    """What a signal handler raises."""


#: Streams that end cleanly, are cut off, are faulty, or overlong.
STREAMS: list[tuple[Any, bytes]] = [
    (LengthPrefix(2), b"\0\1a\0\0\0\5hello\0\0\0\2xy"),
    (LengthPrefix(2), b"\0\1a\0\0\0\5hel"),
    (LengthPrefix(2), b"\0\1a\0"),
    (LengthPrefix(2), b"\0\1a\0\5"),
    (LengthPrefix(1, max_length=5), b"\1a\5hello\x06123456\1b"),
    (LengthPrefix(1, max_length=3, overlong="skip"), b"\1a\5hello\2bc\0\4wors\1d"),
    (LengthPrefix(1, max_length=3, overlong="truncate"), b"\1a\5hello\2bc\0\4wor"),
    (LengthPrefix(1, inclusive=True), b"\2a\1\0\2b"),
    (FixedLength(3), b"onetwothrfo"),
    (Lines(), b"one\n\r\ntwo\r\r\nthree\n"),
    (Lines(), b"one\n\ntwo\r"),
    (Lines("crlf"), b"one\r\n\r\ntwo\nthree\r\n"),
    (Lines(max_length=3), b"one\r\ntwo\nthree\nfour\n"),
    (Delimiter(b"aab", b"cd"), b"aaab-cd-aabcd-aa"),
    (Delimiter(b"|", tail="deliver"), b"one||two"),
    (Delimiter(b"|", keep=True, tail="deliver"), b"one|"),
    (AsciiLength(separator=b":", end=b","), b"5:hello,0:,2:xy;1:a,"),
    (AsciiLength(separator=b" "), b"5 hello0 01 a"),
    (AsciiLength(3), b"001a000003abc 12"),
    (Varint(max_bytes=2), b"\1a\0\x80\1" + bytes(128) + b"\x80\0"),
    (LengthField(2, offset=1, add=4, strip=3, end=b"\xce"), b"A\0\3one\xceB\0\0\xceC\0\1c\xcdD\0\0\xce"),
    (Tagged({b"A": 3, b"B": LengthPrefix(1, max_length=9)}, default=None), b"A12Cno"),
    (HeaderBlock(), b"Content-Length: 3\r\n\r\noneType: x\r\ncontent-length:0\r\n\r\nType\r\n\r\n"),
    (Cobs(), b"\2a\0\1\1\0\3bc\0\5bc\0\1\0"),
    (Slip(), b"\xc0one\xc0two\xdb\xdc\xc0\xdb\xdd\xc0\xdbx\xc0"),
    (Bracketed(), b"<00003abc><00000><00001xy<00000>"),
    (UntilClose(), b"all of it"),
    (UntilClose(), b""),
    (UntilClose(max_length=5), b"all of it"),
]

Outcome = tuple[list[bytes], Any]


def told(error: BaseException) -> Any:
    """Return all that an exception says."""
    return type(error), str(error), vars(error)


def expected(wing: Any, framing: Any, stream: bytes) -> Outcome:
    """Return the frames of a stream, and how it ends, from a decoder that is fed all at once."""
    decoder = wing.Decoder(framing)
    frames: list[bytes] = []
    try:
        frames += decoder.decode(stream)
        frames += decoder.finish()
        decoder.finish()
    except Exception as error:
        return frames, told(error)
    return frames, told(EndOfStream(f"stream ended at position {len(stream)}"))


def into(conn: Any, size: int = 1000) -> list[bytes]:
    buffer = bytearray(size)
    got = conn.recv_into(buffer)
    return [bytes(buffer[:got])]


def step(conn: Any) -> list[bytes]:
    """Iterate once; the end of the iteration is asked for once more."""
    for frame in conn:
        return [frame]
    return [conn.recv()]


WAYS: dict[str, Callable[[Any], list[bytes]]] = {
    "recv": lambda conn: [conn.recv()],
    "recv_into": into,
    "recv_many": lambda conn: conn.recv_many(),
    "recv_many(2)": lambda conn: conn.recv_many(2),
    "recv_batch": lambda conn: conn.recv_batch().tolist(),
    "iterate": step,
}


def attempt(receive: Callable[[Any], list[bytes]], conn: Any) -> tuple[list[bytes], Exception | None]:
    """Return what a call gives, and what it raises."""
    try:
        return receive(conn), None
    except Exception as error:
        return [], error


def outcome(conn: Any, ways: Iterable[Callable[[Any], list[bytes]]],
            passing: tuple[type[Exception], ...] = ()) -> Outcome:
    """Receive until an error that is not passing, which comes again; each call in the next of the ways."""
    frames: list[bytes] = []
    ways = iter(ways)
    for receive in ways:
        more, error = attempt(receive, conn)
        frames += more
        if error is None or isinstance(error, passing):
            continue
        for again in (receive, next(ways)):
            other = attempt(again, conn)[1]
            assert other is not None
            assert told(other) == told(error)
        return frames, told(error)
    raise AssertionError("never ends")


def cuts_of(size: int) -> Iterator[Iterable[int]]:
    """Cut a stream once anywhere, everywhere, and at random places."""
    yield ()
    yield range(size)
    for at in range(1, size):
        yield (at,)
    chance = random.Random(size)
    for _ in range(10):
        yield [at for at in range(size) if chance.random() < 0.3]


@pytest.mark.parametrize("way", WAYS)
def test_no_cut_makes_a_difference(wing: Any, way: str) -> None:
    """E1, E5, E6."""
    for framing, stream in STREAMS:
        whole = expected(wing, framing, stream)
        for cuts in cuts_of(len(stream)):
            conn = wing.FramedSocket(Scripted(stream, cuts=cuts), framing)
            assert outcome(conn, itertools.repeat(WAYS[way])) == whole, (framing, cuts)


def too_small(conn: Any) -> list[bytes]:
    return into(conn, 0)


MIXED = [WAYS["recv"], too_small, into, WAYS["recv_many(2)"], too_small, WAYS["recv_many"], WAYS["recv_batch"],
         step]


@pytest.mark.parametrize("error", [BlockingIOError(), TimeoutError(), Interrupted(), ConnectionResetError()])
def test_an_interruption_at_every_byte_loses_nothing(wing: Any, error: Exception) -> None:
    """O6, S13."""
    passing = (type(error), BlockingIOError, BufferTooSmallError)
    for framing, stream in STREAMS:
        events = {at: [error] for at in range(len(stream) + 1)}
        whole = expected(wing, framing, stream)
        for begin in range(len(MIXED)):
            ways = itertools.cycle(MIXED[begin:] + MIXED[:begin])
            conn = wing.FramedSocket(Timed(stream, cuts=range(len(stream)), events=events), framing)
            assert outcome(conn, ways, passing) == whole, framing


@pytest.mark.parametrize("timeout", [0, 0.0005])
def test_a_deadline_at_every_byte_loses_nothing(wing: Any, timeout: float) -> None:
    """M3."""
    for framing, stream in STREAMS if not timeout else STREAMS[::3]:
        left, right = socket.socketpair()
        frames: list[bytes] = []
        with left, wing.FramedSocket(right, framing) as conn:
            conn.settimeout(timeout)
            ways = itertools.cycle(MIXED)
            error: Exception | None = None
            for at in range(len(stream) + 1):
                while error is None or isinstance(error, BufferTooSmallError):
                    more, error = attempt(next(ways), conn)
                    frames += more
                if isinstance(error, (BlockingIOError, TimeoutError)):
                    assert isinstance(error, BlockingIOError) == (timeout == 0)
                    error = None
                if at < len(stream):
                    left.send(stream[at:at + 1])
            left.shutdown(socket.SHUT_WR)
            more, end = outcome(conn, ways, (BufferTooSmallError,))
        assert (frames + more, end) == expected(wing, framing, stream), framing


def test_a_deadline_tells_what_it_is_of(wing: Any) -> None:
    left, right = wing.pair(LengthPrefix())
    with left, right:
        for receive in (right.recv, right.recv_many, lambda **how: right.recv_into(bytearray(9), **how)):
            with pytest.raises(TimeoutError, match=r"^timed out$"):
                receive(timeout=0.001)
            with pytest.raises(BlockingIOError, match=r"no whole frame has arrived$"):
                receive(timeout=0)


# ---- the end of a stream ----

def test_after_the_end_nothing_is_asked_of_the_socket(wing: Any) -> None:
    """E7."""
    for framing, stream in STREAMS:
        sock = Scripted(stream)
        conn = wing.FramedSocket(sock, framing)
        outcome(conn, itertools.cycle(MIXED), (BufferTooSmallError,))
        calls = sock.calls
        outcome(conn, itertools.cycle(MIXED), (BufferTooSmallError,))
        assert sock.calls == calls


def test_every_end_inside_a_frame_is_told(wing: Any) -> None:
    """E2, E3, E4."""
    stream = b"\0\0\0\1x" + struct.pack("!I", 200_000) + bytes(200_000)
    for size in (6, 7, 8, 9, 10, 65_000, 65_536, 140_000, 200_008):
        for receive in (lambda conn: [conn.recv()], lambda conn: into(conn, 200_000), lambda conn: conn.recv_many()):
            conn = wing.FramedSocket(Scripted(stream[:size]), LengthPrefix())
            frames, end = outcome(conn, itertools.repeat(receive))
            need = {6: 4 - 1, 7: 2 + 0x30000, 8: 1 + 0x30D00}.get(size, len(stream) - size)
            assert frames == [b"x"]
            assert end == (IncompleteFrameError, f"stream ended {size - 5} bytes into a frame, at least {need} more "
                           "were needed (frame at stream position 5)",
                           {"partial": stream[5:min(size, 105)], "need": need, "position": 5})


def test_an_empty_payload_no_frame_and_the_end_are_three_things(wing: Any) -> None:
    """E9, E10."""
    left, right = wing.pair(LengthPrefix())
    with left, right:
        left.send(b"")
        assert right.recv() == b""
        left.send(b"")
        assert right.recv_into(bytearray()) == 0
        left.send(b"")
        assert right.recv_many() == [b""]
        with pytest.raises(BlockingIOError):
            right.recv(timeout=0)
        left.shutdown(socket.SHUT_WR)
        with pytest.raises(EndOfStream, match="position 12"):
            right.recv()
        right.send(b"still open this way")
        assert left.recv() == b"still open this way"


@pytest.mark.skipif(WINE, reason="Wine resets no connection")
@pytest.mark.parametrize("unread", [False, True])
def test_a_peer_that_resets_comes_after_its_frames(wing: Any, unread: bool) -> None:
    """P7, R4."""
    left, right = over_tcp()
    with wing.FramedSocket(right, LengthPrefix()) as conn:
        conn.send(b"never read")
        left.send(b"\0\0\0\3one\0\0\0\3two\0\0")
        if unread:
            left.close()
        else:
            reset(left)
        conn.settimeout(LIMIT)
        assert [*conn.recv_many(1), conn.recv()] == [b"one", b"two"]
        with pytest.raises(ConnectionResetError):
            conn.recv()


# ---- one after the other ----

def test_a_call_that_wants_many_does_not_wait_for_more(wing: Any) -> None:
    """M7."""
    left, right = wing.pair(LengthPrefix())
    with left, right:
        right.settimeout(None)
        left.send_many([b"%d" % number for number in range(10)])
        assert right.recv_many(4) == [b"0", b"1", b"2", b"3"]
        left.sock.send(b"\0\0")
        assert right.recv_many(timeout=None) == [b"4", b"5", b"6", b"7", b"8", b"9"]
        left.sock.send(b"\0\0")
        assert right.recv_many(2**70) == [b""]
        for bad, error in ((0, ValueError), (-1, ValueError), (1.5, TypeError), ("1", TypeError), (None, TypeError)):
            with pytest.raises(error):
                right.recv_many(bad)


def test_many_frames_come_in_bounded_lists(wing: Any) -> None:
    """F3."""
    frame = LengthPrefix(2), b"\xff\xff" + bytes(65535)
    conn = wing.FramedSocket(Scripted(frame[1] * 64), frame[0])
    sizes: list[int] = []
    while sum(sizes) < 64 * 65535:
        sizes.append(sum(map(len, conn.recv_many())))
    assert max(sizes) <= (1 << 20) + 65535


def test_a_protocol_switches_framing_with_what_is_here(wing: Any) -> None:
    """O7."""
    stream = b"POST\r\nsize: 5\r\n\r\nhello\3abc|\xff\xff\xff"
    for cuts in ((), range(len(stream))):
        conn = wing.FramedSocket(Scripted(stream, cuts=cuts), Lines())
        assert [conn.recv(), conn.recv(), conn.recv()] == [b"POST", b"size: 5", b""]
        assert conn.recv(FixedLength(5)) == b"hello"
        buffer = bytearray(3)
        with pytest.raises(BufferTooSmallError):
            conn.recv_into(bytearray(2), LengthPrefix(1))
        assert conn.recv_into(buffer, LengthPrefix(1)) == 3
        assert buffer == b"abc"
        assert conn.framing == Lines()
        conn.framing = Delimiter(b"|")
        assert conn.framing == Delimiter(b"|")
        assert conn.recv_many() == [b""]
        assert conn.detach()[1] == (b"\xff\xff\xff" if not cuts else b"")
        for bad in (None, 5, "lines", Lines):
            with pytest.raises((TypeError, OSError)):
                conn.framing = bad


def test_a_buffer_too_small_keeps_any_frame_the_next_one(wing: Any) -> None:
    """E10."""
    for framing, stream, payload in ((Cobs(), b"\3ab\0", b"ab"), (Slip(), b"a\xdb\xdc\xc0", b"a\xc0"),
                                     (Lines(), b"ab\n", b"ab"), (Bracketed(), b"<00002ab>", b"ab")):
        for finish in ("into", "recv", "detach", "framing"):
            conn = wing.FramedSocket(Scripted(stream + b"rest"), framing)
            for size in (0, 1, 0):
                with pytest.raises(BufferTooSmallError, match=f"^buffer has {size} bytes, 2 are needed$") as caught:
                    conn.recv_into(bytearray(size))
                assert caught.value.need == 2
            if finish == "into":
                target = bytearray(b"...")
                assert conn.recv_into(target) == 2
                assert target == payload + b"."
            elif finish == "recv":
                assert conn.recv() == payload
            elif finish == "framing":
                assert conn.recv(FixedLength(len(stream))) == stream
            else:
                assert conn.detach()[1] == stream + b"rest"
                continue
            assert conn.detach()[1] == b"rest"


def test_a_fault_is_final_and_nothing_more_is_received(wing: Any) -> None:
    """I8."""
    sock = Scripted(b"\1a\1b\6toolong", cuts=[5, 6, 7])
    conn = wing.FramedSocket(sock, LengthPrefix(1, max_length=5))
    assert conn.recv_many() == [b"a", b"b"]
    for again in MIXED * 2:
        with pytest.raises(FrameTooLongError) as caught:
            again(conn)
        assert (caught.value.length, caught.value.position, caught.value.header) == (6, 4, b"\6")
    conn.framing = FixedLength(1)
    with pytest.raises(FrameTooLongError):
        conn.recv()
    assert sock.at == 5
    with pytest.raises(FrameTooLongError, match=r"the bytes read as HTTP: b'GET '$"):
        wing.FramedSocket(Scripted(b"GET / HTTP/1.1\r\n"), LengthPrefix()).recv()
