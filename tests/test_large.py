"""Large payloads, received straight into place: interrupted anywhere, gone on with in any way, in bounded memory."""

from __future__ import annotations

import socket
import struct
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from scripted import LIMIT, Scripted, Task, Timed, noise

from sockframe import (
    AsciiLength,
    BufferTooSmallError,
    EndOfStream,
    FixedLength,
    IncompleteFrameError,
    LengthField,
    LengthPrefix,
    Varint,
)


class Interrupted(Exception):
    """What a signal handler raises."""


KiB = 1 << 10
SIZE = 300_000
PAYLOADS = [noise(7, 1), noise(SIZE, 2), b"", noise(SIZE, 3), noise(9, 4)]

#: Places in a large frame where there is something to go wrong: around its header, its start, 64 and 128 KiB, its end.
PLACES = (1, 3, 4, 5, 6, 1000, 65_535, 65_536, 65_540, 131_071, 131_072, 131_076, 196_608, 262_144, SIZE - 1, SIZE,
          SIZE + 3, SIZE + 4, SIZE + 5)

FRAMINGS = [LengthPrefix(), Varint(), AsciiLength(separator=b":", end=b","), LengthField(4, offset=1, strip=5),
            LengthField(4, add=2, end=b"\xce!", strip=4, align=8), FixedLength(SIZE)]


def into(conn: Any, size: int = SIZE) -> bytes:
    """Receive into a buffer that is as large, and has a margin that must stay."""
    memory = bytearray(b"\xaa" * (size + 16))
    with memoryview(memory) as view:
        got = conn.recv_into(view[8:8 + size])
    assert memory[:8] == memory[8 + size:] == b"\xaa" * 8
    return bytes(memory[8:8 + got])


def too_small(conn: Any) -> bytes:
    with pytest.raises(BufferTooSmallError) as caught:
        into(conn, SIZE - 1)
    assert caught.value.need == SIZE
    return into(conn)


WAYS: dict[str, Callable[[Any], bytes]] = {
    "recv": lambda conn: conn.recv(),
    "recv_into": into,
    "recv_many": lambda conn: conn.recv_many(1)[0],
    "iterate": lambda conn: next(iter(conn)),
}


def interrupted(conn: Any, receive: Callable[[Any], Any]) -> None:
    with pytest.raises((BlockingIOError, TimeoutError, Interrupted)):
        receive(conn)


@pytest.mark.parametrize("first", WAYS)
@pytest.mark.parametrize("second", [*WAYS, "too small"])
def test_any_call_goes_on_where_another_was_interrupted(wing: Any, first: str, second: str) -> None:
    stream = wing.Encoder(LengthPrefix()).encode_many(PAYLOADS)
    for place in PLACES:
        sock = Timed(stream, events={11 + place: [Interrupted(), BlockingIOError(), TimeoutError()]})
        conn = wing.FramedSocket(sock, LengthPrefix())
        assert conn.recv() == PAYLOADS[0]
        if place < SIZE + 4:
            for _ in range(3):
                interrupted(conn, WAYS[first])
        assert (too_small if second == "too small" else WAYS[second])(conn) == PAYLOADS[1]
        if place >= SIZE + 4:
            sock.events.clear()
        assert [conn.recv(), into(conn), conn.recv_many()] == [*PAYLOADS[2:4], PAYLOADS[4:]]
        with pytest.raises(EndOfStream, match=f"position {len(stream)}"):
            conn.recv()


@pytest.mark.parametrize("framing", FRAMINGS, ids=repr)
def test_every_framing_survives_interruptions_all_along_a_large_frame(wing: Any, framing: Any) -> None:
    payloads = [payload for payload in PAYLOADS if framing != FixedLength(SIZE) or len(payload) == SIZE]
    stream = wing.Encoder(framing).encode_many(payloads)
    expected = wing.Decoder(framing).decode(stream)
    places = [*range(0, len(stream), 10_007), *range(SIZE - 60, SIZE + 60)]
    for begin in range(len(WAYS)):
        conn = wing.FramedSocket(
            Scripted(stream, cuts=places, events={place: [Interrupted()] for place in places}), framing)
        frames: list[bytes] = []
        turn = begin
        while len(frames) < len(expected):
            turn += 1
            try:
                frames.append(list(WAYS.values())[turn % len(WAYS)](conn))
            except Interrupted:
                assert turn < len(places) + 20
        assert frames == expected


@pytest.mark.parametrize("first", ["recv", "recv_into"])
@pytest.mark.parametrize("how", ["recv", "recv_into", "setter", "detach"])
def test_bytes_of_an_interrupted_large_frame_can_be_read_otherwise(wing: Any, first: str, how: str) -> None:
    stream = struct.pack("!I", SIZE) + noise(SIZE) + b"\0\0\0\1x"
    for place in PLACES[:-2]:
        conn = wing.FramedSocket(Scripted(stream, events={place: [Interrupted()] * 2}), LengthPrefix())
        interrupted(conn, WAYS[first])
        if how == "detach":
            assert conn.detach()[1] == stream[:place]
            continue
        piece = FixedLength(min(place, SIZE))
        if how == "recv":
            assert conn.recv(piece) == stream[:piece.length]
        elif how == "recv_into":
            target = bytearray(piece.length)
            assert conn.recv_into(target, piece) == piece.length
            assert target == stream[:piece.length]
        else:
            conn.framing = piece
            assert conn.recv_many(1) == [stream[:piece.length]]
            interrupted(conn, lambda conn: conn.recv_many())
            assert conn.recv(FixedLength(9)) == stream[piece.length:piece.length + 9]
            continue
        with pytest.raises((Interrupted, IncompleteFrameError, ValueError)):
            conn.recv(FixedLength(len(stream)))


@pytest.mark.parametrize("how", ["recv", "recv_into"])
def test_deadlines_all_along_a_large_payload_from_a_real_socket(wing: Any, how: str) -> None:
    """M3."""
    for first in ("recv", "recv_into"):
        left, right = wing.pair(LengthPrefix(), SO_SNDBUF=20_000)
        with left, right:
            task = Task(left.send_many, PAYLOADS[1:], timeout=LIMIT)
            passed = 0
            while True:
                try:
                    payload = WAYS[how if passed % 2 else first](right) if passed > 10 else WAYS[first](right)
                    break
                except (TimeoutError, BlockingIOError):
                    passed += 1
                right.settimeout(0 if passed % 2 else 0.0002)
            right.settimeout(LIMIT)
            assert [payload, right.recv(), right.recv(), into(right)] == PAYLOADS[1:]
            task.result()


def receive_in_pieces(wing: Any, how: str, sock: Any, conn: Any, total: int) -> None:
    """Receive a frame that is announced with `total` bytes, and check what it holds as it comes."""
    payload = memoryview(noise(total))
    target = bytearray(total) if how == "recv_into" else bytearray()
    calls = {"recv": lambda: conn.recv(timeout=0), "recv_many": lambda: conn.recv_many(timeout=0),
             "recv_batch": lambda: conn.recv_batch(timeout=0), "recv_into": lambda: conn.recv_into(target, timeout=0)}
    sock.send(struct.pack("!I", total))
    at = 0
    tracemalloc.start()
    try:
        base = tracemalloc.get_traced_memory()[0]
        for piece in (1, 10, 100, 1000, 10_000, 50_000, *[30_000] * 30, *[100_000] * 12):
            with pytest.raises(BlockingIOError):
                calls[how]()
            sock.send(payload[at:at + piece])
            at += piece
            tracemalloc.reset_peak()
            with pytest.raises(BlockingIOError):
                calls[how]()
            held, peak = (size - base for size in tracemalloc.get_traced_memory())
            assert peak <= 2 * at + 72 * KiB, f"{held} bytes held, {peak} at the peak, of {at} received"
    finally:
        tracemalloc.stop()
    sock.setblocking(True)
    task = Task(sock.sendall, payload[at:])
    conn.settimeout(LIMIT)
    result = {"recv": conn.recv, "recv_many": lambda: conn.recv_many()[0], "recv_batch": lambda: conn.recv_batch()[0],
              "recv_into": lambda: bytes(target[:conn.recv_into(target)])}[how]()
    assert result == payload
    task.result()


@pytest.mark.parametrize("how", ["recv", "recv_into", "recv_many", "recv_batch"])
def test_memory_follows_what_arrived(wing: Any, how: str) -> None:
    left, right = socket.socketpair()
    left.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 400_000)
    with left, wing.FramedSocket(right, LengthPrefix()) as conn:
        receive_in_pieces(wing, how, left, conn, 8 << 20)


@pytest.mark.parametrize("how", ["recv", "recv_into", "recv_many", "recv_batch"])
def test_many_claims_of_eight_mebibytes_hold_little(wing: Any, how: str) -> None:
    pairs = []
    target = bytearray(8 << 20)
    tracemalloc.start()
    try:
        for _ in range(50):
            left, right = socket.socketpair()
            pairs.append((left, wing.FramedSocket(right, LengthPrefix())))
            left.send(struct.pack("!I", 8 << 20) + b"1234")
        base = tracemalloc.get_traced_memory()[0]
        for _, conn in pairs:
            with pytest.raises(BlockingIOError):
                if how == "recv_into":
                    conn.recv_into(target, timeout=0)
                else:
                    getattr(conn, how)(timeout=0)
        assert tracemalloc.get_traced_memory()[0] - base <= 50 * (64 * KiB + 600) + 8 * KiB
    finally:
        tracemalloc.stop()
        for left, conn in pairs:
            left.close()
            conn.close()
