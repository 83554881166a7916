"""Exceptions as values: pickled whole, bounded, and saying whose protocol the bytes read as."""

import copy
import pickle
from typing import Any

import pytest

from sockframe import errors
from sockframe.errors import (
    BufferTooSmallError,
    EndOfStream,
    Fault,
    FrameTooLongError,
    FramingError,
    IncompleteFrameError,
    MalformedFrameError,
)
from sockframe.framings import AsciiLength, Framing, LengthPrefix, Lines

EXAMPLES: "list[Exception]" = [
    FramingError("base"), MalformedFrameError("bad", position=7, header=b"head"), MalformedFrameError(),
    FrameTooLongError("long", length=9, limit=8, position=2**40, header=b"\xff"), FrameTooLongError(),
    IncompleteFrameError("cut", partial=b"par", need=4, position=5), IncompleteFrameError(), EndOfStream("end"),
    BufferTooSmallError("small", need=10), BufferTooSmallError(),
    *(errors.scan_error(fault, 5, 4, 3, 2, b"header") for fault in Fault if 0 < fault < Fault.WRAP_TOO_LONG),
    *(errors.wrap_error(fault, 5, 4, index) for fault in Fault if fault >= Fault.WRAP_TOO_LONG for index in (None, 3)),
    errors.incomplete_error(b"abc", 3, 2, 1), errors.end_of_stream(9), errors.too_small_error(3, 2),
]


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: f"{type(error).__name__}: {error}")
def test_an_exception_is_pickled_and_copied_whole(error: Exception) -> None:
    copies = [copy.copy(error), copy.deepcopy(error),
              *(pickle.loads(pickle.dumps(error, protocol)) for protocol in range(pickle.HIGHEST_PROTOCOL + 1))]
    for one in copies:
        assert (type(one), str(one), one.args, vars(one)) == (type(error), str(error), error.args, vars(error))


def test_what_an_exception_is() -> None:
    """Those of a stream or a payload are ValueErrors, those of an end EOFErrors."""
    for kind, others in ((MalformedFrameError, ValueError), (FrameTooLongError, ValueError),
                         (BufferTooSmallError, ValueError), (IncompleteFrameError, EOFError), (EndOfStream, EOFError)):
        assert issubclass(kind, (FramingError,)) and issubclass(kind, others) and not issubclass(kind, OSError)


@pytest.mark.parametrize(("framing", "stream", "hint"), [
    (LengthPrefix(), b"HTTP/1.1 400 Bad Request\r\n", "HTTP"), (LengthPrefix(), b"GET / HTTP/1.1\r\n", "HTTP"),
    (LengthPrefix(), b"POST /x HTTP/1.1\r\n", "HTTP"),
    (LengthPrefix(2, max_length=9), b"\x16\x03\x01\x02\x00\x01", "TLS"),
    (LengthPrefix(), b"\x15\x03\x03\x00\x02\x02\x28", "TLS"), (LengthPrefix(), b"PRI * HTTP/2.0\r\n", "HTTP"),
    (LengthPrefix(), b"\xff\xff\xff\xff", ""), (LengthPrefix(), b"\x16\x02\x01\x02", ""), (Lines("crlf"), b"ab\n", ""),
    (AsciiLength(5), b"hello", ""), (AsciiLength(5), b"get /", ""),
])
def test_another_protocol_is_recognised(wing: Any, framing: Framing, stream: bytes, hint: str) -> None:
    """By the bytes that are in the error alone, so in every cut alike."""
    texts = set()
    for cut in range(len(stream)):
        decoder = wing.Decoder(framing)
        with pytest.raises(FramingError) as caught:
            decoder.decode(stream[:cut])
            decoder.decode(stream[cut:])
        texts.add(str(caught.value))
    assert len(texts) == 1
    text = texts.pop()
    assert ("the bytes read as" in text) == bool(hint)
    assert hint in text


def test_an_exception_holds_a_bounded_part_of_the_stream(wing: Any) -> None:
    """G9."""
    for framing, stream in ((Lines("crlf"), b"x" * 5000 + b"\n"), (Lines(max_length=3000), b"y" * 5000),
                            (LengthPrefix(2, max_length=9), b"\xff" * 5000)):
        with pytest.raises(FramingError) as caught:
            wing.Decoder(framing).decode(stream)
        assert stream.startswith(caught.value.header)
        assert 0 < len(caught.value.header) <= 100
        assert len(str(caught.value)) < 200
    decoder = wing.Decoder(LengthPrefix(2))
    decoder.decode(b"\x80" * 5000)
    with pytest.raises(IncompleteFrameError) as end:
        decoder.finish()
    assert (end.value.partial, end.value.need) == (b"\x80" * 100, 0x8080 + 2 - 5000)


def test_an_error_says_the_limit_the_number_and_the_place(wing: Any) -> None:
    decoder = wing.Decoder(LengthPrefix(4, max_length=100))
    assert decoder.decode(b"\0\0\0\1x\0\0\1\0") == [b"x"]
    with pytest.raises(FrameTooLongError) as caught:
        decoder.next_frame()
    assert str(caught.value) == ("frame is too long: 256 bytes of payload, max_length is 100 "
                                 "(frame at stream position 5)")
    assert vars(caught.value) == {"length": 256, "limit": 100, "position": 5, "header": b"\0\0\1\0"}
    with pytest.raises(FrameTooLongError, match=r"^payload 2: payload is too long \(101 bytes, max_length is 100\)$"):
        wing.Encoder(LengthPrefix(max_length=100)).encode_many([b"", b"x", bytes(101), bytes(102)])


def test_a_raised_error_is_a_new_one_each_time(wing: Any) -> None:
    """So none gathers the tracebacks, and with them the frames, of all that met it."""
    decoder = wing.Decoder(Lines("crlf"))
    raised = []
    for _ in range(3):
        with pytest.raises(MalformedFrameError) as caught:
            decoder.decode(b"\n")
        raised.append(caught.value)
    assert len({id(error) for error in raised}) == 3
    assert all(error.__context__ is None and error.__cause__ is None for error in raised)
