"""Framings are checked when they are made: each number, flag, word and text, and what does not go together."""

from typing import Any

import pytest

from sockframe.framings import (
    DEFAULT_MAX_LENGTH,
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


class Index:
    """An int by `__index__` alone, or the error that it raises."""

    def __init__(self, value: "int | Exception") -> None:
        self.value = value

    def __index__(self) -> int:
        if isinstance(self.value, Exception):
            raise self.value
        return self.value


#: Every number that a framing takes: how to make the framing with it, its least and its largest value.
NUMBERS: "list[tuple[str, Any, int, int]]" = [
    ("max_length", lambda n: UntilClose(max_length=n), 0, UNLIMITED),
    ("length", lambda n: FixedLength(n, max_length=UNLIMITED), 1, UNLIMITED),
    ("size", LengthPrefix, 1, 8),
    ("size", LengthField, 1, 8),
    ("offset", lambda n: LengthField(2, offset=n), 0, 240),
    ("mask", lambda n: LengthField(2, mask=n), 1, 2**16 - 1),
    ("mask", lambda n: LengthField(8, mask=n), 1, 2**64 - 1),
    ("shift", lambda n: LengthField(2, shift=n), 0, 15),
    ("scale", lambda n: LengthField(2, scale=n), 1, 2**32 - 1),
    ("add", lambda n: LengthField(2, add=n), -(2**32 - 1), 2**32 - 1),
    ("align", lambda n: LengthField(2, align=n), 1, 256),
    ("strip", lambda n: LengthField(2, offset=240, strip=n), 0, 240),
    ("offset", lambda n: Varint(offset=n), 0, 240),
    ("max_bytes", lambda n: Varint(max_bytes=n), 1, 10),
    ("strip", lambda n: Varint(offset=7, strip=n), 0, 7),
    ("width", AsciiLength, 1, 20),
    ("base", lambda n: AsciiLength(5, base=n), 2, 16),
    ("offset", lambda n: Tagged({1: LengthPrefix()}, offset=n), 0, 240),
    ("mask", lambda n: Tagged({}, default=LengthPrefix(), mask=n), 1, 255),
    ("tag", lambda n: Tagged({n: LengthPrefix()}), 0, 255),
    ("max_header", lambda n: HeaderBlock("Size", max_header=n), 7, 2**31 - 1),
    ("frame size", lambda n: Tagged({1: n}, offset=3, max_length=50), 4, 50),
    ("frame size", lambda n: Tagged({}, default=n, offset=3, max_length=50), 4, 50),
]

#: The numbers for which None means something.
MAY_BE_NONE = ("mask", "add", "strip", "width", "frame size")

#: Every flag and every choice of words.
FLAGS: "list[tuple[str, Any]]" = [
    ("keep", lambda flag: Delimiter(b"\n", keep=flag)),
    ("inclusive", lambda flag: LengthPrefix(inclusive=flag)),
    ("signed", lambda flag: LengthField(4, signed=flag)),
    ("strip", lambda flag: HeaderBlock(strip=flag)),
    ("canonical", lambda flag: Varint(canonical=flag)),
]
WORDS: "list[tuple[str, Any, tuple[str, ...]]]" = [
    ("overlong", lambda word: UntilClose(overlong=word), ("error", "skip", "truncate")),
    ("overlong", lambda word: Tagged({1: 3}, overlong=word), ("error", "skip", "truncate")),
    ("overlong", lambda word: Delimiter(b"\n", overlong=word), ("error", "skip", "truncate")),
    ("tail", lambda word: Delimiter(b"\n", tail=word), ("error", "deliver")),
    ("ending", Lines, ("any", "lf", "crlf")),
    ("byteorder", lambda word: LengthPrefix(4, word), ("big", "little", "native")),
    ("byteorder", lambda word: LengthField(4, byteorder=word), ("big", "little", "native")),
]

#: Every byte string: how to make the framing with it, and its least size.
TEXTS: "list[tuple[str, Any, int]]" = [
    ("delimiter", Delimiter, 1),
    ("delimiter", lambda text: Delimiter(b"\n", text), 1),
    ("end", lambda text: LengthField(4, end=text), 0),
    ("separator", lambda text: AsciiLength(separator=text), 1),
    ("separator", lambda text: AsciiLength(5, separator=text), 0),
    ("end", lambda text: AsciiLength(5, end=text), 0),
    ("separator", lambda text: HeaderBlock("a", separator=text), 1),
]


# ---- checks ----

@pytest.mark.parametrize(("name", "make", "least", "most"), NUMBERS)
def test_a_number_is_whole_and_within_its_bounds(name: str, make: Any, least: int, most: int) -> None:
    """B8, B9."""
    assert make(least) is not None
    assert make(Index(most)) == make(most)
    for number in (least - 1, most + 1, -1, -2**63, 2**64, -10**30, 10**30):
        if not least <= number <= most:
            with pytest.raises(ValueError, match=f"^{name} must be from {least} to {most}, not {number}$"):
                make(number)
    for value in (True, False, 1.0, "1", b"1234", None, 1j, (1,)):
        if value is not None or name not in MAY_BE_NONE:
            with pytest.raises(TypeError, match=f"^{name} must be an int, not {type(value).__name__}$"):
                make(value)
    with pytest.raises(ZeroDivisionError, match=r"^mine$"):
        make(Index(ZeroDivisionError("mine")))


def test_a_limit_must_be_said() -> None:
    """R1: the default is 8 MiB, 0 allows empty payloads only, and None is no way to say `no limit`."""
    assert DEFAULT_MAX_LENGTH == 8 * 1024 * 1024
    assert LengthPrefix().max_length == DEFAULT_MAX_LENGTH
    with pytest.raises(TypeError, match=r"^max_length must be an int, not NoneType$"):
        LengthPrefix(max_length=None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^length 6 is above max_length 5$"):
        FixedLength(6, max_length=5)
    with pytest.raises(ValueError, match=f"^length {DEFAULT_MAX_LENGTH + 1} is above max_length {DEFAULT_MAX_LENGTH}$"):
        FixedLength(DEFAULT_MAX_LENGTH + 1)


@pytest.mark.parametrize(("name", "make"), FLAGS)
def test_a_flag_is_true_or_false(name: str, make: Any) -> None:
    assert getattr(make(True), name) is True
    assert getattr(make(False), name) is False
    for value in (1, 0, None, "yes", b""):
        with pytest.raises(TypeError, match=f"^{name} must be True or False, not {type(value).__name__}$"):
            make(value)


@pytest.mark.parametrize(("name", "make", "words"), WORDS)
def test_a_word_is_one_of_those_allowed(name: str, make: Any, words: "tuple[str, ...]") -> None:
    for word in words:
        assert getattr(make(word), name) == word
    for value in ("", "Any", "drop", "none", b"big", None, 1, True, ["any"]):
        with pytest.raises(ValueError, match=f"^{name} must be one of '{words[0]}'.*, not "):
            make(value)


@pytest.mark.parametrize(("name", "make", "least"), TEXTS)
def test_a_text_is_bytes_of_a_bounded_size(name: str, make: Any, least: int) -> None:
    """A9."""
    for text in (b"-" * max(least, 1), b"-" * 64):
        assert make(text) == make(bytearray(text)) == make(memoryview(text))
    for text in (b"", b"-" * 65, b"-" * 1000)[bool(not least):]:
        with pytest.raises(ValueError, match=f"^{name} must have from {least} to 64 bytes, not {len(text)}$"):
            make(text)
    for value in ("-", 45, None, [45], True):
        with pytest.raises(TypeError, match=f"^{name} must be bytes, not {type(value).__name__}$"):
            make(value)


def test_a_delimiter_may_not_be_the_start_of_another() -> None:
    """A10: neither would `a` ever be taken off where `ab` follows, nor could anyone tell which was meant."""
    for delimiters in ([b"\r", b"\r\n"], [b"\r\n", b"\r"], [b"x", b"ab", b"abc"], [b"a", b"a"]):
        with pytest.raises(ValueError, match=r"^delimiter b'.*' is the start of delimiter b'.*'$"):
            Delimiter(*delimiters)
    assert Delimiter(b"\n", b"\r\n").delimiters == (b"\n", b"\r\n")
    with pytest.raises(TypeError):
        Delimiter()  # type: ignore[call-arg]


def test_options_that_contradict_each_other() -> None:
    for strip in (4, 5, 6):
        with pytest.raises(ValueError, match=f"^strip {strip} cuts the length field at offset 3$"):
            LengthField(4, offset=3, strip=strip)
    for separator in (b"7", b"f:", b"F"):
        with pytest.raises(ValueError, match=r"begins with a digit$"):
            AsciiLength(base=16, separator=separator)
    assert AsciiLength(separator=b"f").spec().texts == (b"f", b"")
    with pytest.raises(ValueError, match=r"^separator must have from 1 to 64 bytes, not 0$"):
        AsciiLength()
    for frames in ({}, [], ()):
        with pytest.raises(ValueError, match=r"^frames must list at least one tag$"):
            Tagged(frames)
    with pytest.raises(ValueError, match=r"^tag 128 can never be read under mask 0x7f$"):
        Tagged({128: 3}, mask=127)
    with pytest.raises(ValueError, match=r"^tag 97 is listed twice$"):
        Tagged({b"a": 3, 97: 4})
    for tag in (b"", b"ab", "a"):
        with pytest.raises(TypeError, match=f"^tag must be an int, not {type(tag).__name__}$"):
            Tagged({tag: 3})
    with pytest.raises(TypeError, match=r"^frame size must be an int, not str$"):
        Tagged({1: "framing"})


def test_the_base_class_is_no_framing(wing: Any) -> None:
    for make in (lambda: wing.Decoder(Framing()), lambda: wing.Encoder(Framing()), lambda: Tagged({1: Framing()})):
        with pytest.raises(TypeError, match=r"^Framing must define measure\(\) and wrap\(\)$"):
            make()
    for value in (None, b"\n", 4, "lines", LengthPrefix):
        for make in (wing.Decoder, wing.Encoder):
            with pytest.raises(TypeError, match=f"^framing must be a Framing, not {type(value).__name__}$"):
                make(value)


@pytest.mark.parametrize("missing", ["measure", "wrap"])
def test_a_framing_of_your_own_has_both_methods(wing: Any, missing: str) -> None:
    half = type("Half", (Framing,), {name: lambda self, data: None for name in {"measure", "wrap"} - {missing}})
    for make in (lambda: wing.Decoder(half()), lambda: wing.Encoder(half()), lambda: Tagged({1: half()})):
        with pytest.raises(TypeError, match=r"^Half must define measure\(\) and wrap\(\)$"):
            make()
    with pytest.raises(TypeError, match=r"^Half must define measure\(\) and wrap\(\)$"):
        getattr(half(), missing)(b"")


def test_how_deep_one_lies_in_the_other(wing: Any) -> None:
    """However often one is shared, it is checked but once a level: 256 to the power of 8 checks would never end."""
    framing: Framing = Lines("lf")
    for _ in range(8):
        framing = Tagged(dict.fromkeys(range(256), framing), default=framing)
    assert wing.Decoder(framing).decode(b"a\nb") == [b"a"]
    with pytest.raises(ValueError, match=r"^Tagged framings may lie 8 deep in each other, not 9$"):
        Tagged({1: 3, 2: framing})
    with pytest.raises(ValueError, match=r"^Tagged framings may lie 8 deep in each other, not 9$"):
        Tagged({}, default=framing)
    shallow: Framing = Tagged({1: Slip()}, default=3)
    for _ in range(7):
        shallow = Tagged(dict.fromkeys(range(256), shallow))
    with pytest.raises(ValueError, match=r"^Slip can't truncate an overlong frame, only skip it$"):
        Tagged(dict(shallow.frames), overlong="truncate")


def test_a_header_block_can_be_read_back() -> None:
    """A field's name and a separator that would make a header end, or begin, elsewhere are refused."""
    for field in ("", "a" * 65, "a b", "a:", "ä", "a\n", "\x7f"):
        with pytest.raises(ValueError, match=r"^field must have 1 to 64 visible ASCII letters and no colon, not "):
            HeaderBlock(field)
    for value in (b"a", None, 1, ["a"]):
        with pytest.raises(TypeError, match=f"^field must be a str, not {type(value).__name__}$"):
            HeaderBlock(value)  # type: ignore[arg-type]
    for separator in (b"n", b": ", b" ", b"\t", b"0", b"9\n"):
        with pytest.raises(ValueError, match=r"^separator b'.*' begins with a byte that the header holds$"):
            HeaderBlock(separator=separator)
    assert HeaderBlock("a" * 64, separator=b"n").separator == b"n"


@pytest.mark.parametrize("kind", [Cobs, Slip])
def test_what_is_stuffed_can_not_be_truncated(kind: Any) -> None:
    """Its first bytes on the wire are not the first bytes of its payload; nor inside another framing."""
    text = f"^{kind.__name__} can't truncate an overlong frame, only skip it$"
    for make in (lambda: kind(overlong="truncate"), lambda: Tagged({1: kind()}, overlong="truncate"),
                 lambda: Tagged({1: 3}, default=kind(), overlong="truncate"),
                 lambda: Tagged({1: Tagged({1: Lines(), 2: kind(overlong="skip")})}, overlong="truncate")):
        with pytest.raises(ValueError, match=text):
            make()
    assert Tagged({1: kind(overlong="skip")}, overlong="skip").overlong == "skip"
