"""What bad peers and careless callers do to framings (see hostile.txt), each case by itself."""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest
from generate import Parted, outcome
from scripted import LIMIT, Task

from sockframe import errors
from sockframe.errors import FrameTooLongError, IncompleteFrameError, MalformedFrameError
from sockframe.framings import (
    UNLIMITED,
    AsciiLength,
    Cobs,
    Delimiter,
    FixedLength,
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

TESTS = Path(__file__).parent
NETSTRING = AsciiLength(separator=b":", end=b",")


def read(wing: Any, framing: Framing, *pieces: bytes) -> tuple[list[bytes], Any]:
    """Return the frames that these pieces and the end of the stream make, and the error that comes behind."""
    decoder = wing.Decoder(framing)
    frames: list[bytes] = []
    try:
        for piece in pieces:
            frames += decoder.decode(piece)
        frames += decoder.finish()
        decoder.finish()
    except errors.FramingError as error:
        return frames, (type(error), str(error), vars(error))
    return frames, None


def singly(data: bytes) -> list[bytes]:
    """Return each byte by itself."""
    return [data[at:at + 1] for at in range(len(data))]


def bad(wing: Any, framing: Framing, stream: bytes, kind: type[Exception] = MalformedFrameError) -> dict[str, Any]:
    """Check that a stream holds no frame, cut or not; return the attributes of its error."""
    frames, error = read(wing, framing, stream)
    assert frames == []
    assert error is not None and error[0] is kind, error
    assert read(wing, framing, *singly(stream)) == (frames, error)
    attributes: dict[str, Any] = error[2]
    return attributes


# ---- A: cuts and delimiters ----

@pytest.mark.parametrize(("framing", "stream", "frames"), [
    (LengthPrefix(1), b"\2ab\0\5cdefg\1h", [b"ab", b"", b"cdefg", b"h"]),
    (Delimiter(b"\r\n.\r\n"), b"a\r\n.\r\r\n.\r\n", [b"a\r\n.\r"]),
    (Delimiter(b"aab", b"ba"), b"aaabbbaaab", [b"a", b"b", b""]),
    (Lines("crlf"), b"a\r\n\r\nbc\r\nd\n", [b"a", b"", b"bc"]),
    (Lines(), b"a\r\r\n\n\r\nb\n", [b"a\r", b"", b"", b"b"]), (Varint(), b"\0\2ab\x80\1cd", [b"", b"ab"]),
    (NETSTRING, b"2:ab,0:,1:c;", [b"ab", b""]), (Slip(), b"\xc0a\xdb\xdc\xc0\xc0b\xdb\xdd\xc0", [b"a\xc0", b"b\xdb"]),
    (Cobs(), b"\1\1\0\0\3ab\0\4a", [b"\0", b"ab"]), (HeaderBlock("N"), b"N:1\r\n\r\nxN:", [b"x"]),
    (LengthField(1, strip=1, end=b"!", align=4), b"\2a!\0\3bc!\2d?", [b"a", b"bc"]),
    (Tagged({b"a": Lines("lf"), 0: 3}), b"ab\n\0cdac\n\1", [b"ab", b"\0cd", b"ac"]),
    (Parted(), b"[ab][][c", [b"ab", b""]),
    (LengthPrefix(1, max_length=1, overlong="skip"), b"\1a\4bcde\1f\2", [b"a", b"f"]),
    (Lines("lf", max_length=1, overlong="truncate"), b"a\nbcd\n\nef\ng", [b"a", b"b", b"", b"e"]),
], ids=repr)
def test_every_partition_of_a_stream_gives_the_same(wing: Any, framing: Framing, stream: bytes,
                                                    frames: list[bytes]) -> None:
    """A3, A4: all ways to cut its last bytes, up to 2 to the power of 11; good frames come in front of what is bad."""
    expected = read(wing, framing, stream)
    assert expected[0] == frames
    head, tail = stream[:-12], stream[-12:]
    for cut in itertools.product((False, True), repeat=len(tail) - 1):
        places = [at for at, here in enumerate(cut, 1) if here]
        pieces = [tail[one:other] for one, other in zip([0, *places], [*places, len(tail)], strict=True)]
        assert read(wing, framing, head, *pieces) == expected, places


def test_a_delimiter_across_two_and_three_pieces(wing: Any) -> None:
    """A5."""
    text = b"\r\n.\r\n"
    for one, other in itertools.combinations(range(len(text) + 1), 2):
        decoder = wing.Decoder(Delimiter(text))
        assert decoder.decode(b"line" + text[:one]) == []
        assert decoder.decode(text[one:other]) == ([b"line"] if other == len(text) else [])
        assert decoder.decode(text[other:]) == ([] if other == len(text) else [b"line"])
        assert decoder.buffered == 0


def test_a_delimiter_that_overlaps_itself(wing: Any) -> None:
    """A6: the first one counts."""
    stream = b"aaab"
    for at in range(len(stream) + 1):
        assert read(wing, Delimiter(b"aab"), stream[:at], stream[at:]) == ([b"a"], None)
    assert read(wing, Delimiter(b"aab"), *singly(b"aaabaabaaaab")) == ([b"a", b"", b"aa"], None)


@pytest.mark.parametrize("framing", [Delimiter(b"\r\n"), Lines("crlf"), Lines()], ids=repr)
def test_a_cr_at_the_end_of_a_piece(wing: Any, framing: Framing) -> None:
    """A7: it is of the line's end, or of the line, by what comes next."""
    assert read(wing, framing, b"x\r", b"\n") == ([b"x"], None)
    if framing == Lines("crlf"):
        bad(wing, framing, b"\ry")
        bad(wing, framing, b"\r\r\n")
    else:
        assert read(wing, framing, b"\r", b"y\r\n") == ([b"\ry"], None)
        assert read(wing, framing, b"\r\r\n") == ([b"\r"], None)


def test_a_bare_line_feed_ends_no_line_of_crlf(wing: Any) -> None:
    """A8: or a second message could be smuggled past whoever reads it so."""
    stream = b"one\n.\ntwo\r\n"
    assert read(wing, Delimiter(b"\r\n"), stream) == ([b"one\n.\ntwo"], None)
    assert bad(wing, Lines("crlf"), stream)["position"] == 0
    assert read(wing, Lines("crlf"), b"a\r\n" + stream)[0] == [b"a"]
    assert read(wing, Lines(), stream) == ([b"one", b".", b"two"], None)
    for framing in (Delimiter(b"\r\n"), Lines("crlf"), Lines()):
        with pytest.raises(ValueError):
            wing.Encoder(framing).encode(b"one\r\ntwo")
    with pytest.raises(ValueError):
        wing.Encoder(Lines("crlf")).encode(b"one\ntwo")


@pytest.mark.parametrize(("framing", "end"), [
    (Lines(), b"\n"), (Lines(), b"\r\n"), (Lines("lf"), b"\n"), (Lines("crlf"), b"\r\n"), (Delimiter(b"aab"), b"aab"),
    (Delimiter(b"\0", b"--"), b"--")], ids=repr)
def test_delimiters_alone_are_empty_frames(wing: Any, framing: Framing, end: bytes) -> None:
    """A12: each is delivered: in front, in a row and at the end."""
    for stream, frames in ((end, [b""]), (end * 5, [b""] * 5), (end + b"x" + end * 3, [b"", b"x", b"", b""])):
        assert read(wing, framing, stream) == read(wing, framing, *singly(stream)) == (frames, None)


# ---- B: lengths ----

@pytest.mark.parametrize("order", ["big", "little"])
@pytest.mark.parametrize(("size", "length"), [
    (4, 2**31 - 1), (4, 2**31), (4, 2**32 - 1), (8, 2**31), (8, 2**40), (8, 2**63 - 1), (8, 2**63), (8, 2**64 - 1)])
def test_a_length_is_compared_before_anything_is_added(wing: Any, size: int, length: int, order: Any) -> None:
    """B1, B2: as an unsigned number of 64 bits, and told as it was announced."""
    field = length.to_bytes(size, order)
    for framing in (LengthPrefix(size, order), LengthField(size, byteorder=order, strip=size),
                    Tagged({}, default=LengthPrefix(size, order)), LengthPrefix(size, order, max_length=length - 1)
                    if length <= UNLIMITED else LengthPrefix(size, order, max_length=UNLIMITED)):
        found = bad(wing, framing, field, FrameTooLongError)
        assert (found["length"], found["limit"], found["header"]) == (length, framing.max_length, field)
    if length <= UNLIMITED:
        decoder = wing.Decoder(LengthPrefix(size, order, max_length=UNLIMITED))
        assert decoder.decode(field + b"x") == []
        assert (decoder.need, decoder.buffered) == (length - 1, size + 1)
    if length + size < 256**size:
        field = (length + size).to_bytes(size, order)
        assert bad(wing, LengthPrefix(size, order, inclusive=True), field, FrameTooLongError)["length"] == length


@pytest.mark.parametrize(("size", "number"), [
    (1, -1), (1, -128), (2, -2), (4, -1), (4, -2), (4, -2**31), (8, -1), (8, -2), (8, -2**63)])
def test_a_negative_length_is_malformed(wing: Any, size: int, number: int) -> None:
    """B3: no small number is made of it, and no large one."""
    for order in ("big", "little"):
        framing = LengthField(size, byteorder=order, signed=True, strip=size, max_length=UNLIMITED)
        field = number.to_bytes(size, order, signed=True)  # type: ignore[arg-type]
        assert bad(wing, framing, field)["header"] == field
        error = read(wing, framing, field)[1]
        assert f"length is negative ({number})" in error[1]
        assert read(wing, framing, (1).to_bytes(size, order) + b"x") == ([b"x"], None)  # type: ignore[arg-type]


def test_sums_that_do_not_fit(wing: Any) -> None:
    """B4: a length near either end of its range, and what is added to it."""
    top = b"\xff" * 8
    for add in (4, 8, 2**32 - 1):
        bad(wing, LengthField(8, add=add, max_length=UNLIMITED), top, FrameTooLongError)
    bad(wing, LengthField(8, add=-4, max_length=UNLIMITED), top, FrameTooLongError)
    for add, field in ((-4, 0), (-4, 3), (-9, 8), (0, 0), (0, 7), (-(2**32 - 1), 2**32 - 2)):
        bad(wing, LengthField(8, add=add, max_length=UNLIMITED), field.to_bytes(8, "big"))
    for size in range(1, 9):
        for length in range(size):
            bad(wing, LengthPrefix(size, inclusive=True), length.to_bytes(size, "big"))


def test_a_length_behind_other_bytes(wing: Any) -> None:
    """B5: the whole header is needed first; it counts in the limit where it is delivered, and is not lost."""
    framing = LengthField(2, offset=3, add=8, max_length=10)  # three bytes, the length, three more, the rest
    header = b"abc\0\2def"
    for at in range(len(header)):
        decoder = wing.Decoder(framing)
        assert decoder.decode(header[:at]) == []
        assert (decoder.buffered, decoder.need) == (at, 8 - at if at < 5 else 10 - at)
        assert outcome(decoder.finish)[1] is (IncompleteFrameError if at else list)
        decoder = wing.Decoder(framing)
        assert decoder.decode(header[:at]) + decoder.decode(header[at:] + b"xy") == [header + b"xy"]
    assert bad(wing, framing, b"abc\0\3def", FrameTooLongError)["length"] == 11
    stripped = LengthField(2, offset=3, add=8, strip=8, max_length=2)
    assert read(wing, stripped, *singly(header + b"xy")) == ([b"xy"], None)
    assert bad(wing, stripped, b"abc\0\3", FrameTooLongError)["length"] == 3


@pytest.mark.parametrize("order", ["big", "little", "native"])
@pytest.mark.parametrize("size", range(1, 9))
def test_lengths_of_every_size_and_order(wing: Any, size: int, order: str) -> None:
    """B6, B7: as `int.from_bytes` reads them; one more than fits is refused."""
    plain: Any = sys.byteorder if order == "native" else order
    for length in {0, 1, 127, 128, 255, min(256**size - 1, 256), min(256**size - 1, 70_000)}:
        frame = length.to_bytes(size, plain) + b"x" * length
        for framing in (LengthPrefix(size, order), LengthField(size, byteorder=order, strip=size)):
            assert wing.Encoder(framing).encode(b"x" * length) == frame
            assert read(wing, framing, frame[:1], frame[1:]) == ([b"x" * length], None)
            assert int.from_bytes(frame[:size], plain) == length
    if size <= 2:
        left, right = wing.pair(LengthPrefix(size, order))
        with left, right:
            for call in (wing.Encoder(left.framing).encode, left.send):
                with pytest.raises(FrameTooLongError) as caught:
                    call(bytes(256**size))
                assert (caught.value.length, caught.value.limit) == (256**size, 256**size - 1)
            assert left.unsent == 0
            left.send(b"next")
            assert right.recv(timeout=LIMIT) == b"next"


@pytest.mark.parametrize("scale", [2, 4, 8, 2**32 - 1])
def test_a_product_that_does_not_fit(wing: Any, scale: int) -> None:
    """B10."""
    framing = LengthField(8, scale=scale, add=0, max_length=UNLIMITED)
    for field in (2**64 - 1, 2**64 // scale + 1, 2**63):
        bad(wing, framing, field.to_bytes(8, "big"), FrameTooLongError)
    field = -(-24 // scale)
    frame = field.to_bytes(8, "big")
    if scale < 24:
        assert read(wing, framing, frame + b"x" * (field * scale - 8)) == ([frame + b"x" * (field * scale - 8)], None)


@pytest.mark.parametrize("path", sorted((TESTS.parent / "csrc").glob("*.[ch]")), ids=lambda path: path.name)
def test_no_number_has_the_size_of_a_long(path: Path) -> None:
    """B11: which has 32 bits on some machines, but for what the system defines so."""
    code = re.sub(r"/\*.*?\*/|\"[^\"]*\"|tv_nsec = \(long\)", "", path.read_text(), flags=re.DOTALL)
    assert re.findall(r"\blong\b", code) == []


# ---- C: varints ----

def leb(number: int) -> bytes:
    """Return the shortest varint of a number."""
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes((*out, number))


@pytest.mark.parametrize("length", [0, 1, 127, 128, 2**14 - 1, 2**14, 2**21 - 1, 2**21])
def test_a_varint_cut_anywhere(wing: Any, length: int) -> None:
    """C1, C7: above all behind its third and fourth byte; 0 is an empty frame."""
    varint, payload = leb(length), b"x" * length
    for at in range(len(varint) + 1):
        decoder = wing.Decoder(Varint())
        assert decoder.decode(varint[:at]) == ([b""] if not length and at else [])
        assert decoder.decode(varint[at:]) == ([b""] if not length and not at else [])
        assert decoder.decode(payload + b"\1y") == ([payload, b"y"] if length else [b"y"])


@pytest.mark.parametrize("size", range(1, 11))
def test_a_varint_of_every_size(wing: Any, size: int) -> None:
    """C1, C6: also the numbers that no frame can have: they are refused at their last byte, however they are cut."""
    for number in {2**(7 * (size - 1)), min(2**(7 * size), 2**64) - 1}:
        varint = leb(max(number, 1))
        assert len(varint) == size
        if number > 2**23:
            found = bad(wing, Varint(max_bytes=10), varint, FrameTooLongError)
            assert (found["length"], found["header"]) == (number, varint)
            decoder = wing.Decoder(Varint(max_bytes=10))
            for byte in singly(varint[:-1]):
                assert decoder.decode(byte) == []
            with pytest.raises(FrameTooLongError):
                decoder.decode(varint[-1:])
        else:
            decoder = wing.Decoder(Varint(max_bytes=10))
            assert [decoder.decode(byte) for byte in singly(varint)] == [[]] * size
            assert decoder.need == max(number, 1)


def test_a_varint_that_is_no_number_of_64_bits(wing: Any) -> None:
    """C2, C3: refused at its last possible byte, without waiting for more."""
    for framing in (Varint(max_bytes=10), Varint(max_bytes=10, canonical=False)):
        for tenth in (2, 3, 0x7F, 0x80, 0xFF):
            stream = b"\xff" * 9 + bytes([tenth])
            assert bad(wing, framing, stream)["header"] == stream
    for most in range(1, 11):
        decoder = wing.Decoder(Varint(max_bytes=most, max_length=UNLIMITED))
        assert [decoder.decode(b"\xff") for _ in range(most - 1)] == [[]] * (most - 1)
        with pytest.raises(MalformedFrameError, match=f"at most {most} bytes are read"):
            decoder.decode(b"\xff")


def test_a_varint_that_is_not_the_shortest(wing: Any) -> None:
    """C4: refused, but where it is asked for."""
    for varint, length in ((b"\x80\0", 0), (b"\xff\0", 127), (b"\x81\x80\0", 1), (b"\x80\x80\x80\x80\0", 0)):
        stream = varint + b"x" * length
        assert bad(wing, Varint(), stream)["header"] == varint
        assert read(wing, Varint(canonical=False), *singly(stream)) == ([b"x" * length], None)


# ---- D: digits ----

DIGITS: dict[str, list[bytes]] = {
    "leading zeros": [b"05:hello,", b"00:,", b"000:,"], "signs": [b"+5:hello,", b"-0:,", b"-5:hello,"],
    "blanks": [b" 5:hello,", b"5 :hello,", b"\t5:hello,", b"5\n:hello,", b"\x0b5:hello,", b"\xa05:hello,"],
    "underscores": [b"5_0:" + b"x" * 50 + b",", b"_5:hello,", b"5_:hello,"], "no digit": [b":,", b":hello,"],
    "other bases": [b"a:" + b"x" * 10 + b",", b"0x5:hello,", b"5;ext:hello,", b"5.0:hello,", b"5e0:hello,"],
    "other scripts": ["\u0665:hello,".encode(), b"\xb2:aa,", b"/:,", b";:,"], "too many": [b"1" * 21 + b":"],
    "no end": [b"5:helloX", b"0:X", b"5:hello:"],
}


@pytest.mark.parametrize("stream", [stream for streams in DIGITS.values() for stream in streams], ids=repr)
def test_only_plain_digits_are_a_length(wing: Any, stream: bytes) -> None:
    """D1, D2, D3, D4, D5, D6, D7: and nothing of the bad frame is delivered, nor of what is behind it."""
    bad(wing, NETSTRING, stream)
    frames, error = read(wing, NETSTRING, b"2:ok," + stream + b"2:ok,")
    assert frames == [b"ok"]
    assert (error[0], error[2]["position"]) == (MalformedFrameError, 5)
    digits = stream.partition(b":")[0]
    if digits != stream and not digits.isdigit():
        bad(wing, AsciiLength(len(digits) or 1), digits or b":")


def test_digits_of_another_base_where_it_is_asked_for(wing: Any) -> None:
    """D6."""
    framing = AsciiLength(base=16, separator=b"\r\n", end=b"\r\n")
    assert read(wing, framing, b"a\r\n0123456789\r\nA\r\n0123456789\r\n") == ([b"0123456789"] * 2, None)
    for stream in (b"0xa\r\n", b"g\r\n", b"5;ext\r\n", b"0a\r\n"):
        bad(wing, framing, stream)


def test_a_netstring_is_withheld_until_its_comma(wing: Any) -> None:
    """D8, D9."""
    decoder = wing.Decoder(NETSTRING)
    assert decoder.decode(b"5:hello") == []
    assert (decoder.need, decoder.next_frame()) == (1, None)
    assert decoder.decode(b",") == [b"hello"]
    assert decoder.decode(b"0:") == []
    assert decoder.decode(b",0:,") == [b"", b""]


# ---- J, G, R ----

@pytest.mark.parametrize("size", [2**31 + 5, 2**32 + 5])
@pytest.mark.parametrize("overlong", ["skip", "truncate"])
def test_sizes_beyond_32_bits(wing: Any, size: int, overlong: str) -> None:
    """J16, G8: an overlong frame of gibibytes, and the place of what comes behind it."""
    decoder = wing.Decoder(LengthPrefix(8, max_length=3, overlong=overlong))
    piece = bytes(1 << 26)
    frames = decoder.decode(size.to_bytes(8, "big"))
    for _ in range(size >> 26):
        frames += decoder.decode(piece)
    left = size & (1 << 26) - 1
    assert (decoder.need, decoder.buffered, decoder.position) == (left, 0, 0)
    assert frames == []
    frames = decoder.decode(piece[:left] + (2).to_bytes(8, "big") + b"ok")
    assert frames == ([b"ok"] if overlong == "skip" else [bytes(3), b"ok"])
    assert decoder.position == 8 + size + 8 + 2


@pytest.mark.parametrize("framing", [
    LengthPrefix(max_length=3), Lines(max_length=3), Varint(max_length=3), Cobs(max_length=3), UntilClose(max_length=3),
    HeaderBlock(max_length=3), Parted(max_length=3), AsciiLength(5, max_length=3), FixedLength(3, max_length=3),
    Tagged({}, default=LengthPrefix(), max_length=3), Tagged({}, default=Lines(max_length=3))], ids=repr)
def test_a_payload_above_the_limit_never_reaches_the_wire(wing: Any, framing: Framing) -> None:
    """R2: whichever call it is given to; what is sent next comes whole."""
    text = "payload is too long (4 bytes, max_length is 3)"
    encoder, target = wing.Encoder(framing), bytearray(99)
    left, right = wing.pair(framing)
    with left, right:
        for call, place in ((encoder.encode, ""), (lambda one: encoder.encode_into(one, target), ""), (left.send, ""),
                            (lambda one: encoder.encode_many([b"yes", one]), "payload 1: "),
                            (lambda one: left.send_many([b"yes", one]), "payload 1: ")):
            how = outcome(call, b"four")
            expected = f"{place}{text}" if framing != UntilClose(max_length=3) or not place else how[2]
            assert how == ("raises", FrameTooLongError, expected, {"length": 4, "limit": 3, "position": None,
                                                                  "header": b""})
        assert target == bytes(99)
        assert left.unsent == 0
        left.send(b"yes")
        left.close()
        assert right.recv(timeout=LIMIT) == b"yes"
        with pytest.raises(errors.EndOfStream):
            right.recv(timeout=LIMIT)


def test_a_reader_faster_than_its_consumer_is_paused(wing: Any) -> None:
    """G10: what an asyncio protocol holds is bounded by its high-water mark and one read."""
    high, frame = 100_000, wing.Encoder(LengthPrefix()).encode(bytes(3000))

    class Reader(asyncio.BufferedProtocol):
        decoder, most, pauses = wing.Decoder(LengthPrefix()), 0, 0

        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def get_buffer(self, sizehint: int) -> memoryview:
            room: memoryview = self.decoder.get_buffer(sizehint)
            return room

        def buffer_updated(self, nbytes: int) -> None:
            self.decoder.buffer_updated(nbytes)
            self.most = max(self.most, self.decoder.buffered)
            if self.decoder.buffered > high:
                self.transport.pause_reading()
                self.pauses += 1

    async def consume() -> None:
        ours, theirs = socket.socketpair()
        loop = asyncio.get_running_loop()
        task = Task(theirs.sendall, frame * 1000)
        transport, reader = await loop.create_connection(Reader, sock=ours)
        got = 0
        while got < 1000:
            await asyncio.sleep(0)
            if reader.decoder.next_frame() is not None:
                got += 1
            elif not transport.is_reading():
                transport.resume_reading()
        task.result()
        transport.close()
        theirs.close()
        await asyncio.sleep(0)
        assert reader.pauses
        assert high < reader.most <= high + 65536

    asyncio.run(asyncio.wait_for(consume(), LIMIT))


def test_a_core_that_can_not_be_loaded_is_told(tmp_path: Path) -> None:
    """R3: the pure wing takes its place, which can be seen, unless the core is insisted on."""
    package = tmp_path / "sockframe"
    shutil.copytree(Path(errors.__file__).parent, package, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    (package / "_core" / f"codec{sysconfig.get_config_var('EXT_SUFFIX')}").write_bytes(b"\x7fELF of another machine")
    script = "import sockframe; print(sockframe.wing, sockframe._wing.why_not_core is not None, sockframe.__file__)"
    for choice, code, text in (("", 0, f"pure True {package}"), ("0", 0, f"pure True {package}"),
                               ("1", 1, "SOCKFRAME_CORE is 1, but the core can't be loaded: "),
                               ("2", 1, "SOCKFRAME_CORE must be 0, 1 or unset, not '2'")):
        done = subprocess.run([sys.executable, "-c", script], env={
            **os.environ, "PYTHONPATH": str(tmp_path), "SOCKFRAME_CORE": choice}, capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        assert text in done.stdout + done.stderr


#: Ways to run an interpreter, and what must hold in each: its flags, its environment.
MODES: dict[str, tuple[list[str], dict[str, str]]] = {
    "-O": (["-O", "-W", "ignore:assertions"], {}), "-bb -X dev": (["-bb", "-X", "dev"], {"PYTHONMALLOC": "debug"}),
}

#: What is run in each of them: a part of every room, in a few seconds.
HEART = ["test_codec.py", "test_ends.py", "test_errors.py", "test_buffers.py", "test_transport.py",
         "test_framing_values.py::test_repr_is_the_call"]


@pytest.mark.parametrize("mode", MODES)
def test_the_heart_of_the_suite_passes_in_every_mode(mode: str) -> None:
    """R5: without assertions, with bytes that are no text, with the checks of developers, with guarded memory; warnings
    are errors in all."""
    flags, environment = MODES[mode]
    command = [sys.executable, "-W", "error", *flags, "-m", "pytest", "-q", "-p", "no:cacheprovider",
               *(["-W", "ignore:assertions"] if mode == "-O" else []), *HEART]
    done = subprocess.run(command, cwd=TESTS, env={**os.environ, **environment}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    assert re.search(r"\d{3,} passed", done.stdout)
