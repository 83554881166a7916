"""What one side sends, the other receives: every framing, size, kind of payload and kind of socket."""

from __future__ import annotations

import array
import ctypes
import dataclasses
import gc
import mmap
import socket
from collections.abc import Callable
from typing import Any

import pytest
from scripted import KINDS, LIMIT, Bracketed, Task, noise

from sockframe import (
    AsciiLength,
    BufferTooSmallError,
    Cobs,
    Delimiter,
    EndOfStream,
    FixedLength,
    FrameTooLongError,
    HeaderBlock,
    LengthField,
    LengthPrefix,
    Lines,
    Slip,
    Tagged,
    UntilClose,
    Varint,
)

MiB = 1 << 20

#: Around every limit of the wings: frames gathered, sent alone, sent in place, received straight into place.
SIZES = (0, 1, 2, 3, 127, 128, 255, 256, 2043, 2044, 2045, 2049, 16383, 16384, 16385, 65531, 65532, 65536, 65537,
         131071, 131073, 200_000, MiB)


def blocks(*fixed: int) -> Callable[[int], bytes]:
    return lambda size: noise(max(least for least in fixed if least <= max(size, fixed[0])))


FRAMINGS: dict[str, tuple[Any, Callable[[int], bytes]]] = {
    "prefix": (LengthPrefix(), noise),
    "inclusive": (LengthPrefix(8, "little", inclusive=True), noise),
    "small prefix": (LengthPrefix(3, "little"), noise),
    "lines": (Lines(), noise),
    "crlf": (Lines("crlf"), noise),
    "delimiter": (Delimiter(b"|\r\n.|", b"\0"), noise),
    "keep": (Delimiter(b"\n", keep=True), lambda size: noise(max(0, size - 1)) + b"\n"),
    "varint": (Varint(), noise),
    "varint at 1": (Varint(offset=1, strip=0), lambda size: b"\x30\0" + noise(size)),
    "digits": (AsciiLength(9), noise),
    "netstring": (AsciiLength(separator=b":", end=b","), noise),
    "field": (LengthField(4, offset=3, strip=7, align=8, end=b"\xce"), noise),
    "field inside": (LengthField(4, offset=2, byteorder="little"), lambda size: b"ab\0\0\0\0" + noise(size)),
    "tagged": (Tagged({b"A": 8, b"B": LengthField(4, offset=1)}),
               lambda size: b"A1234567" if size < 8 else b"B\0\0\0\0" + noise(size)),
    "header block": (HeaderBlock(), noise),
    "whole header block": (HeaderBlock("Size", separator=b"\n\n", strip=False),
                           lambda size: b"Size: %d\n\n" % size + noise(size)),
    "cobs": (Cobs(), lambda size: noise(size).replace(b"7", b"\0")),
    "slip": (Slip(), lambda size: noise(max(1, size)).replace(b"7", b"\xc0").replace(b"8", b"\xdb")),
    "own": (Bracketed(), noise),
    "fixed 1": (FixedLength(1), blocks(1)),
    "fixed 3000": (FixedLength(3000), blocks(3000)),
    "fixed 300,000": (FixedLength(300_000), blocks(300_000)),
}


def filled(framing: Any, payload: bytes) -> bytes:
    """Return the payload as it is delivered: with its length written into it, where that is a part of it."""
    if isinstance(framing, (LengthField, Tagged, Varint)):
        from sockframe import Decoder, Encoder
        return b"".join(Decoder(framing).decode(Encoder(framing).encode(payload)))
    return payload


def all_received(conn: Any, how: str) -> list[bytes]:
    """Receive until the end in one of the ways there are."""
    if how == "recv":
        return list(iter(lambda: received(conn), None))
    if how == "iterate":
        return list(conn)
    frames: list[bytes] = []
    if how == "recv_many":
        while more := many(conn):
            frames += more
        return frames
    buffer = bytearray(2 * MiB)
    while True:
        try:
            size = conn.recv_into(buffer, timeout=LIMIT)
        except EndOfStream:
            return frames
        frames.append(bytes(buffer[:size]))


def received(conn: Any) -> bytes | None:
    try:
        payload: bytes = conn.recv(timeout=LIMIT)
    except EndOfStream:
        return None
    return payload


def many(conn: Any) -> list[bytes]:
    try:
        frames: list[bytes] = conn.recv_many(7, timeout=LIMIT)
    except EndOfStream:
        return []
    assert 1 <= len(frames) <= 7
    return frames


def send_all(conn: Any, payloads: list[bytes], how: str) -> None:
    """Send in one of the ways there are, and end the stream."""
    if how == "send":
        for payload in payloads:
            conn.send(payload)
    elif how == "list":
        conn.send_many(payloads)
    else:
        conn.send_many(iter(payloads))
    assert conn.unsent == 0
    conn.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("name", FRAMINGS)
def test_every_framing_carries_every_size(wing: Any, name: str) -> None:
    framing, payload = FRAMINGS[name]
    payloads = [payload(size) for size in SIZES]
    expected = [filled(framing, item) for item in payloads]
    for send, receive in (("send", "recv"), ("list", "recv_many"), ("iterator", "recv_into"), ("list", "iterate")):
        left, right = wing.pair(framing)
        with left, right:
            task = Task(send_all, left, payloads, send)
            assert all_received(right, receive) == expected
            task.result()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("timeout", [None, LIMIT])
def test_every_kind_of_socket_carries_frames_both_ways(wing: Any, kind: str, timeout: float | None) -> None:
    """O2."""
    left, right = (wing.FramedSocket(sock, LengthPrefix()) for sock in KINDS[kind]())
    with left, right:
        for conn in (left, right):
            conn.settimeout(timeout)
            assert conn.gettimeout() == timeout
        payloads = [noise(size) for size in SIZES]
        task = Task(send_all, left, payloads, "send")
        assert all_received(right, "recv") == payloads
        task.result()
        task = Task(send_all, right, payloads, "iterator")
        assert all_received(left, "recv_into") == payloads
        task.result()


@pytest.mark.parametrize("how", ["recv", "recv_into", "recv_many"])
def test_the_largest_payload_passes_and_one_byte_more_is_refused(wing: Any, how: str) -> None:
    """B7, R2."""
    left, right = wing.pair(LengthPrefix())
    with left, right:
        largest = bytes(8 * MiB - 4) + b"last"
        for size in (8 * MiB + 1, 9 * MiB):
            with pytest.raises(FrameTooLongError, match="payload is too long"):
                left.send(bytes(size))
        task = Task(left.send, largest, timeout=LIMIT)
        if how == "recv_into":
            buffer = bytearray(8 * MiB)
            assert right.recv_into(buffer, timeout=LIMIT) == 8 * MiB
            assert buffer == largest
        else:
            payload = right.recv(timeout=LIMIT) if how == "recv" else right.recv_many(timeout=LIMIT)[0]
            assert payload == largest
        task.result()
        right.sock.send((8 * MiB + 1).to_bytes(4, "big"))
        with pytest.raises(FrameTooLongError) as caught:
            left.recv(timeout=LIMIT)
        assert (caught.value.length, caught.value.limit, caught.value.position) == (8 * MiB + 1, 8 * MiB, 0)


@pytest.mark.parametrize("overlong", ["skip", "truncate"])
@pytest.mark.parametrize("how", ["recv", "recv_many", "recv_into", "iterate"])
def test_overlong_frames_are_passed_over(wing: Any, overlong: str, how: str) -> None:
    payloads = [noise(size) for size in SIZES]
    for sent, limits in ((LengthPrefix(), (0, 2000, 100_000)), (Lines(), (0, 2000, 100_000)), (Cobs(), (2000,)),
                         (Bracketed(), (2000,))):
        for limit in limits if overlong == "skip" or sent != Cobs() else ():
            left, right = wing.pair(sent)
            right.framing = dataclasses.replace(sent, max_length=limit, overlong=overlong)
            with left, right:
                task = Task(send_all, left, payloads, "list")
                assert all_received(right, how) == [
                    item[:limit] for item in payloads if len(item) <= limit or overlong == "truncate"]
                task.result()


def test_a_whole_stream_is_one_payload(wing: Any) -> None:
    for payload in (b"", b"x", noise(300_000), noise(8 * MiB)):
        left, right = wing.pair(UntilClose())
        with left, right:
            task = Task(send_all, left, [payload], "send")
            assert right.recv(timeout=LIMIT) == payload
            for _ in range(2):
                with pytest.raises(EndOfStream):
                    right.recv(timeout=LIMIT)
            task.result()


class Int(ctypes.Structure):
    _fields_ = [("number", ctypes.c_uint32), ("text", ctypes.c_char * 4)]


def mapped(size: int) -> mmap.mmap:
    memory = mmap.mmap(-1, size)
    memory[:] = noise(size)
    return memory


#: Bytes-like objects, and how many bytes they hold.
BUFFERS: dict[str, Callable[[], Any]] = {
    "bytearray": lambda: bytearray(noise(5000)),
    "memoryview": lambda: memoryview(bytearray(noise(5000)))[7:4001],
    "empty": bytearray,
    "array": lambda: array.array("q", range(40_000)),
    "empty array": lambda: array.array("i"),
    "mmap": lambda: mapped(70_000),
    "chars": lambda: ctypes.create_string_buffer(noise(99), 99),
    "ints": lambda: (ctypes.c_uint16 * 700)(*range(700)),
    "structure": lambda: Int(1, b"two"),
    "two dimensions": lambda: memoryview(bytearray(noise(600))).cast("B", [20, 30]),
    "no dimension": lambda: memoryview(bytearray(b"12345678")).cast("d", []),
}


@pytest.mark.parametrize("name", BUFFERS)
def test_any_bytes_like_object_is_sent_and_received_into(wing: Any, name: str) -> None:
    source = BUFFERS[name]()
    expected = memoryview(source).tobytes()
    left, right = wing.pair(LengthPrefix())
    with left, right:
        target = BUFFERS[name]()
        ctypes.memset(address(target), 0, len(expected))
        task = Task(send_in_every_way, left, source)
        assert [right.recv(timeout=LIMIT) for _ in range(4)] == [expected] * 4
        assert right.recv_into(target, timeout=LIMIT) == len(expected)
        assert memoryview(target).tobytes() == expected
        if expected:
            assert right.recv_into(target, timeout=LIMIT) == 1
            assert memoryview(target).tobytes() == b"!" + expected[1:], "more than the payload was written"
        else:
            with pytest.raises(BufferTooSmallError, match=r"^buffer has 0 bytes, 1 are needed$"):
                right.recv_into(target, timeout=LIMIT)
        task.result()
    if isinstance(target, bytearray):
        gc.collect()  # PyPy holds this test's own views till then
        target.append(0)  # nobody holds it


def send_in_every_way(conn: Any, source: Any) -> None:
    conn.send(source)
    conn.send_many([source, source])
    conn.send_many(iter([source]))
    conn.send(source)
    conn.send(b"!")


def address(target: Any) -> Any:
    """Return where a buffer lies."""
    size = memoryview(target).nbytes
    return (ctypes.c_char * size).from_buffer(target) if size else None


def test_what_is_no_buffer_for_it_is_refused_and_nothing_consumed(wing: Any) -> None:
    """J6, J7, J8, J12, J13."""
    left, right = wing.pair(LengthPrefix())
    closed = mmap.mmap(-1, 10)
    closed.close()
    released = memoryview(bytearray(9))
    released.release()
    gaps = memoryview(bytearray(9))[::2]
    with left, right:
        left.send(b"kept")
        for bad, error, text in (
                (b"read only", TypeError, "must be writable"), (memoryview(b"too"), TypeError, "must be writable"),
                (mmap.mmap(-1, 10, access=mmap.ACCESS_READ), TypeError, "must be writable"),
                ("text", TypeError, "must be a bytes-like object, not str"), (9, TypeError, "not int"),
                (None, TypeError, "not NoneType"), (gaps, BufferError, "must be C-contiguous"),
                (closed, ValueError, "mmap closed"), (released, ValueError, "released")):
            with pytest.raises(error, match=text):
                right.recv_into(bad, timeout=LIMIT)
        for bad, error, text in (
                ("text", TypeError, "payload must be a bytes-like object, not str"), (5, TypeError, "not int"),
                ([1], TypeError, "not list"), (None, TypeError, "not NoneType"), (gaps, BufferError, "C-contiguous"),
                (closed, ValueError, "mmap closed"), (released, ValueError, "released")):
            with pytest.raises(error, match=text):
                right.send(bad)
            with pytest.raises(error, match=text):
                right.send_many([b"", bad])
        assert right.unsent == 0
        assert right.recv(timeout=LIMIT) == b"kept"
        right.send(b"first")
        assert left.recv(timeout=LIMIT) == b"first"
