"""G6, law 4: whichever step of a codec's call fails, the same call made again gives what it would have given.

On the core every allocation in turn fails, once, by CPython's own `_testcapi`. In the pure wing,
where that would be the interpreter's test, a MemoryError is raised in turn at each call that it makes.
"""

import sys
from collections.abc import Callable
from typing import Any

import pytest
from conftest import FREE
from generate import Counted, Parted

from sockframe.framings import (
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

pytestmark = [
    pytest.mark.usefixtures("alone", "no_collector"),
    # The interpreter says aloud that it had no memory to clear an object's attributes with.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

#: A call is swept until so many steps in a row fail without being missed.
ENOUGH = 6


#: How the interpreter says that it lost an exception, in a class of errors.py or a framing of generate.py.
INTERPRETER = ("error return without exception set", "<function Counted.", "<function Parted.")


class NoMemory:
    """Makes one allocation fail."""

    @staticmethod
    def begin(step: int) -> None:
        import _testcapi
        _testcapi.set_nomemory(step, step + 1)

    @staticmethod
    def end() -> None:
        import _testcapi
        _testcapi.remove_mem_hooks()


class NoCall:
    """Raises a MemoryError at one call that the package makes, of a function or of a built-in one."""

    @staticmethod
    def begin(step: int) -> None:
        left = step

        def profile(frame: Any, event: str, argument: Any) -> None:
            nonlocal left
            if event in ("call", "c_call") and frame.f_globals.get("__name__", "").startswith("sockframe."):
                left -= 1
                if left == -1:
                    raise MemoryError
        sys.setprofile(profile)

    @staticmethod
    def end() -> None:
        sys.setprofile(None)


FAILURES = {"core": NoMemory, "pure": NoCall}


def result(call: Callable[[], Any], how: Any = None, step: int = 0) -> Any:
    """What a call gives or raises; with `how`, its step of that number fails."""
    value: Any = None
    error: Any = None
    if how is not None:
        how.begin(step)
    try:
        value = call()
    except Exception as caught:
        error = caught
    finally:
        if how is not None:
            how.end()
    # A SystemError is what the interpreter itself makes of some allocations that fail in code in Python.
    if isinstance(error, MemoryError) or (isinstance(error, SystemError) and str(error).startswith(INTERPRETER)):
        return MemoryError
    if error is not None:
        return type(error), str(error), vars(error)
    if type(value).__name__ == "FrameBatch":
        return value.tolist()
    return len(value) if isinstance(value, memoryview) else value


def state(decoder: Any) -> Any:
    """All that can be seen of a decoder."""
    return decoder.buffered, decoder.position, decoder.skipped, decoder.need


def sweep(wing: Any, make: Callable[[], Any], call: Callable[[Any], Any], look: Callable[[Any], Any]) -> int:
    """Fail each step of a call on what `make` returns; return how many times it raised."""
    if wing.name == "core" and FREE:
        pytest.skip("without the GIL the interpreter itself crashes where an allocation fails (3.13)")
    model = make()
    expected = result(lambda: call(model)), look(model)
    raised = fine = step = 0
    while fine < ENOUGH:
        one = make()
        first = result(lambda one=one: call(one), FAILURES[wing.name], step)
        if first is MemoryError:
            raised, fine = raised + 1, 0
            first = result(lambda one=one: call(one))
        else:
            fine += 1
        assert (first, look(one)) == expected, step
        step += 1
        assert step < 2000
    return raised


LIMIT: Any = {"max_length": 4}
FRAMED: "list[tuple[Framing, bytes, bytes]]" = [
    # framing, what is held, what comes
    (LengthPrefix(1), b"", b"\1a\2bc\3de"), (LengthPrefix(1), b"\3d", b"ef\1a\5x"),
    (LengthPrefix(2), b"\0\xff", b"x" * 300), (LengthPrefix(1), b"\xff" + b"x" * 200, b"x" * 55 + b"\1y"),
    (Lines(), b"ab", b"c\r\n\nd"), (Lines("lf"), b"", b"a\nb"), (Lines("crlf"), b"ab\r", b"\nc\nd"),
    (Lines("crlf"), b"", b"a\n"), (Delimiter(b"ab", b"ba"), b"xa", b"bybaz"),
    (LengthField(1, offset=1, strip=2, end=b"!"), b"a", b"\2xy!b\1x?"), (Varint(), b"\x81", b"\x01" + b"x" * 200),
    (AsciiLength(separator=b":", end=b","), b"3:a", b"bc,1:x;"), (AsciiLength(2), b"", b"02ab0x"),
    (HeaderBlock("N"), b"N: 3\r\n\r", b"\nabcN: x\r\n\r\n"), (Cobs(), b"\3a", b"b\0\5x\0"),
    (Slip(), b"a\xdb", b"\xdc\xc0b\xc0"), (FixedLength(3), b"ab", b"cdefg"), (UntilClose(), b"ab", b"cd"),
    (UntilClose(**LIMIT), b"ab", b"cdefg"), (Tagged({1: Lines(), 2: 3}), b"\1a", b"b\n\2xy\3"),
    (Counted(), b"\1\3a", b"bc\1\1x\xff"), (Counted(), b"", b"\1\2ab\1\1c\1\5"), (Parted(), b"[a", b"b][]x"),
    (Tagged({1: Counted(), b"[": Parted()}), b"[", b"a]\1\1x["),
    *((framing, held, data) for overlong in ("error", "skip", "truncate") for framing, held, data in (
        (LengthPrefix(1, overlong=overlong, **LIMIT), b"", b"\1a\5bcdef\2g"),
        (LengthPrefix(1, overlong=overlong, **LIMIT), b"\x09abcde", b"fghi\1x"),
        (Lines(overlong=overlong, **LIMIT), b"abcdefgh", b"ij\nk\n"),
        (Counted(overlong=overlong, **LIMIT), b"\1\6a", b"bcdef"),
    )),
]


@pytest.mark.parametrize(("framing", "held", "data"), FRAMED, ids=repr)
def test_a_decoder_whose_call_fails(wing: Any, framing: Framing, held: bytes, data: bytes) -> None:
    """G6."""
    def holding(data: bytes = b"") -> Callable[[], Any]:
        def make() -> Any:
            decoder = wing.Decoder(framing)
            result(lambda: decoder.decode(held))
            result(lambda: decoder.feed(data))
            return decoder
        return make

    def lent() -> Any:
        decoder = holding()()
        room = result(decoder.get_buffer)
        if isinstance(room, int):
            decoder.get_buffer(room)[:len(data)] = data
        return decoder

    assert sweep(wing, holding(), lambda decoder: decoder.decode(data), state)
    assert sweep(wing, holding(), lambda decoder: decoder.decode_batch(data), state)
    assert sweep(wing, holding(), lambda decoder: decoder.decode_batch(bytearray(data)), state)
    assert sweep(wing, holding(data), lambda decoder: decoder.next_batch(), state)
    sweep(wing, holding(), lambda decoder: decoder.feed(data), state)
    sweep(wing, holding(data), lambda decoder: decoder.next_frame(), state)
    sweep(wing, holding(data), lambda decoder: decoder.need, state)
    sweep(wing, holding(data), lambda decoder: next(decoder, None), state)
    sweep(wing, holding(data), lambda decoder: decoder.finish(), state)
    sweep(wing, holding(), lambda decoder: decoder.finish(), state)
    sweep(wing, holding(data), lambda decoder: decoder.take_buffered(), state)
    sweep(wing, holding(), lambda decoder: decoder.get_buffer(100_000), state)
    sweep(wing, lent, lambda decoder: decoder.buffer_updated(len(data)), lambda decoder: (
        state(decoder), result(decoder.next_frame)))


@pytest.mark.parametrize("size", [10, 1000, 100_000])
def test_growth_that_fails(wing: Any, size: int) -> None:
    """G6: an unfinished frame, what was lent for it, and what is behind it."""
    def make() -> Any:
        decoder = wing.Decoder(LengthPrefix(4))
        decoder.feed((2 * size).to_bytes(4, "big") + b"x" * size)
        return decoder
    rest = b"x" * size + b"\0\0\0\1y"
    for call in (lambda decoder: decoder.feed(rest), lambda decoder: decoder.decode(rest),
                 lambda decoder: decoder.decode(rest[:-7]), lambda decoder: decoder.decode_batch(rest),
                 lambda decoder: decoder.decode_batch(rest[:-7]), lambda decoder: decoder.get_buffer(size)):
        assert sweep(wing, make, call, lambda decoder: (state(decoder), result(decoder.next_frame)))




@pytest.mark.parametrize("framing", [
    LengthPrefix(2), LengthField(2, offset=1, strip=0, end=b"!"), Lines(), Cobs(), Slip(), AsciiLength(separator=b":"),
    Varint(), HeaderBlock(), Delimiter(b"ab", b"ba"), FixedLength(6), Tagged({0: LengthField(1, strip=0)}), Counted(),
    Parted(), LengthPrefix(1, max_length=2)], ids=repr)
def test_an_encoder_whose_call_fails(wing: Any, framing: Framing) -> None:
    payload = bytes(3) + b"abc" if isinstance(framing, (LengthField, Tagged)) else b"abcxyz"
    encoder = wing.Encoder(framing)
    for call in (lambda one: one.encode(payload), lambda one: one.encode_many([payload, bytearray(payload)] * 3),
                 lambda one: one.encode_many([payload] * 3 + [None])):
        assert sweep(wing, lambda: encoder, call, lambda one: one.framing)
    for size in (60, 4):
        sweep(wing, lambda size=size: bytearray(size), lambda target: encoder.encode_into(payload, target, 1), bytes)


@pytest.mark.parametrize(("make", "stream"), [
    (lambda: LengthField(1, offset=1, end=b"x", strip=2), b"\1\2ax"), (Lines, b"\1a\n\2b\r\n"),
    (lambda: Delimiter(b"ab", b"ba", keep=True), b"xabyba"), (lambda: HeaderBlock("N"), b"N: 1\r\n\r\nx"),
    (Counted, b"\1\1x")])
def test_making_that_fails(wing: Any, make: Any, stream: bytes) -> None:
    """A framing that could not be compiled can be the next time; nor is one half set."""
    assert wing.Decoder(make()).decode(stream)
    for kind in (wing.Decoder, wing.Encoder):
        assert sweep(wing, make, lambda framing, kind=kind: kind(framing).framing is framing,
                     lambda framing: wing.Decoder(framing).decode(stream))

    def switch(pair: Any) -> None:
        pair[0].framing = pair[1]
    assert sweep(wing, lambda: (wing.Decoder(Lines()), make()), switch, lambda pair: (
        pair[0].framing is pair[1], pair[0].decode(stream)))
