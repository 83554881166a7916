"""Law 9: time is linear in the bytes, however small the chunks; by counting steps, never by the clock (group H)."""

import sys
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from generate import Parted

from sockframe.framings import (
    UNLIMITED,
    AsciiLength,
    Cobs,
    Delimiter,
    Framing,
    HeaderBlock,
    LengthField,
    LengthPrefix,
    Lines,
    Slip,
    Tagged,
    UntilClose,
    Varint,
)

FREE: Any = {"max_length": UNLIMITED}

#: Framings, each with how a frame of 100 000 bytes begins, what it is full of, and how it ends.
UNFINISHED: "list[tuple[Framing, bytes, bytes, bytes]]" = [
    (Lines(**FREE), b"", b"x", b"\n"), (Lines("crlf", **FREE), b"", b"x", b"\r\n"),
    (UntilClose(**FREE), b"", b"x", b""), (Delimiter(b"a" * 63 + b"b", **FREE), b"", b"a", b"a" * 63 + b"b"),
    (Delimiter(b"aab", b"ba", **FREE), b"", b"a", b"aab"),
    (LengthPrefix(), b"\0\1\x86\xa0", b"x", b""), (LengthField(4, strip=4, end=b"!"), b"\0\1\x86\xa1", b"x", b"!"),
    (Varint(), b"\xa0\x8d\x06", b"x", b""), (AsciiLength(separator=b":", end=b","), b"100000:", b"x", b","),
    (HeaderBlock(), b"Content-Length: 100000\r\n\r\n", b"x", b""), (Cobs(**FREE), b"", b"\1", b"\0"),
    (Slip(**FREE), b"", b"x", b"\xc0"), (Tagged({b"x": Lines(**FREE)}, **FREE), b"", b"x", b"\n"),
]


class Steps:
    """Counts the bytes that the pure wing's searches go over: its own calls, and what each looks at."""

    def __init__(self) -> None:
        self.calls = 0

    def __enter__(self) -> "Steps":
        def profile(frame: Any, event: str, argument: Any) -> None:
            self.calls += event in ("call", "c_call")
        sys.setprofile(profile)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)


def calls_of(work: Callable[[], Any]) -> int:
    """Return how many calls of functions some work makes, of built-in ones too."""
    with Steps() as steps:
        work()
    return steps.calls


@pytest.mark.parametrize(("framing", "start", "fill", "end"), UNFINISHED, ids=repr)
def test_the_pure_wing_makes_as_many_calls_for_each_byte(wings: "list[Any]", framing: Framing, start: bytes,
                                                         fill: bytes, end: bytes) -> None:
    """H1, A2: a byte at a time, the last thousand bytes cost no more calls than the first."""
    decoder = wings[-1].Decoder(framing)

    def feed_thousand() -> None:
        for _ in range(1000):
            decoder.decode(fill)
    decoder.decode(start)
    first = calls_of(feed_thousand)
    for _ in range(95):
        decoder.decode(fill * 1000)
    assert calls_of(feed_thousand) <= 1.1 * first + 50
    assert len(decoder.decode(fill * (100_000 - 97_000) + end) + decoder.finish()) == 1


class Watched(bytearray):
    """A store that counts the bytes it is searched in."""

    searched = 0

    def find(self, what: Any, begin: int = 0, end: "int | None" = None) -> int:  # type: ignore[override]
        Watched.searched += (len(self) if end is None else end) - begin
        return super().find(what, begin, len(self) if end is None else end)


@pytest.mark.parametrize("framing", [
    Lines(**FREE), Lines("crlf", **FREE), Delimiter(b"a" * 63 + b"b", **FREE), HeaderBlock(max_header=10**6),
    Cobs(**FREE), Slip(**FREE)], ids=repr)
def test_the_pure_wing_searches_no_byte_twice(wings: "list[Any]", monkeypatch: pytest.MonkeyPatch,
                                              framing: Framing) -> None:
    """But as many before it as the delimiter has; nor when it is asked how many are missing."""
    from sockframe._pure import codec

    monkeypatch.setattr(codec, "bytearray", Watched, raising=False)
    decoder = wings[-1].Decoder(framing)
    Watched.searched, size = 0, 5000
    for _ in range(size):
        assert decoder.decode(b"\1") == []
        assert decoder.need > 0
    if isinstance(framing, Lines) and framing.ending == "any":
        assert Watched.searched == 0  # searched by a pattern, from `resume` on: the count of calls is above
    assert Watched.searched <= (64 + 2) * 3 * size


@pytest.mark.parametrize("way", ["decode", "feed", "update", "batch"])
def test_growth_takes_few_copies(wing: Any, way: str) -> None:
    """G5, H2: 1 byte at a time, the store moves to a larger block as often as the size doubles."""
    for framing in (LengthPrefix(8, **FREE), Lines(**FREE)):
        decoder = wing.Decoder(framing)
        decoder.decode(b"\0\0\0\0\7\0\0\0" if isinstance(framing, LengthPrefix) else b"")
        sizes = set()
        piece = b"x" * 64
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            for _ in range(8192):
                if way == "decode":
                    decoder.decode(piece)
                elif way == "batch":
                    decoder.decode_batch(piece)
                elif way == "feed":
                    decoder.feed(piece)
                    decoder.next_frame()
                else:
                    decoder.get_buffer(64)[:64] = piece
                    decoder.buffer_updated(64)
                    decoder.next_frame()
                held = tracemalloc.get_traced_memory()[0] - before
                sizes.add(held // 2048)
        finally:
            tracemalloc.stop()
        assert decoder.buffered >= 1 << 19
        # A bytearray grows by an eighth, the core's store by half or more: log(2**19 / 64) to that base, and noise.
        assert len(sizes) <= 160, len(sizes)


def test_frames_are_taken_off_by_moving_a_place(wings: "list[Any]") -> None:
    """H3: of many frames in one store, each costs as many calls, first or last, fed or decoded."""
    decoder = wings[-1].Decoder(LengthPrefix(1))
    decoder.feed(b"\1x" * 20_000)
    costs = [calls_of(lambda: [decoder.next_frame() for _ in range(1000)]) for _ in range(20)]
    assert max(costs) <= 1.1 * min(costs)
    assert calls_of(lambda: decoder.decode(b"\1x" * 40_000)) <= 2.5 * calls_of(lambda: decoder.decode(b"\1x" * 20_000))


def test_a_payload_is_searched_once_to_be_sent(wings: "list[Any]") -> None:
    """H5."""
    for framing in (Delimiter(b"a" * 63 + b"b"), Lines("crlf"), Cobs(), Slip()):
        encoder = wings[-1].Encoder(framing)
        small = calls_of(lambda encoder=encoder: encoder.encode(b"a" * 1000))
        assert calls_of(lambda encoder=encoder: encoder.encode(b"a" * 1_000_000)) <= small + (
            3 * 1_000_000 // 254 if isinstance(framing, Cobs) else 10)


def test_a_list_of_frames_grows_by_appending(wings: "list[Any]") -> None:
    """H6: each frame that recv_many() returns costs as many calls, however many there are."""
    def cost(count: int) -> int:
        left, right = wings[-1].pair(Lines("crlf"))
        with left, right:
            left.sock.sendall(b"x\r\n" * count)
            got: list[bytes] = []
            calls = calls_of(lambda: got.extend(right.recv_many(count, timeout=20)))
            assert got == [b"x"] * count
        return calls
    assert cost(8000) <= 8.5 * cost(1000)


def test_a_framing_of_a_users_own_sees_each_byte_as_often_as_it_asks(wing: Any) -> None:
    """One call for each piece that it asks for, whatever is held."""
    calls = 0

    class Counting(Parted):
        def measure(self, view: memoryview) -> Any:
            nonlocal calls
            calls += 1
            return super().measure(view)
    decoder = wing.Decoder(Counting())
    for byte in b"[" + b"x" * 500 + b"]":
        decoder.decode(bytes([byte]))
    assert calls == 502
