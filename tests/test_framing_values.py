"""Framings are values: equal by what they say, frozen, written as the call that makes them; some have names."""

import copy
import dataclasses
import pickle
import re
from typing import Any

import pytest
from generate import FRAMINGS, Counted, Parted
from hypothesis import given, settings

import sockframe
from sockframe import framings
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
    framing,
)

NAMES = {name: getattr(framings, name) for name in dir(framings)} | {"Counted": Counted, "Parted": Parted}

EXAMPLES: "list[tuple[str, Framing]]" = [
    ("FixedLength(16)", FixedLength(16)),
    ("Delimiter(b'\\r\\n')", Delimiter(b"\r\n")),
    ("Delimiter(b'a', b'b', keep=True, tail='deliver')", Delimiter(b"a", b"b", keep=True, tail="deliver")),
    ("Lines()", Lines()),
    ("Lines('crlf', max_length=0)", Lines("crlf", max_length=0)),
    ("LengthPrefix()", LengthPrefix(4, "big")),
    ("LengthPrefix(4, 'little')", LengthPrefix(byteorder="little")),
    ("LengthPrefix(2, inclusive=True, max_length=UNLIMITED)",
     LengthPrefix(2, inclusive=True, max_length=UNLIMITED)),
    ("LengthField(4, offset=3, strip=7, end=b'\\xce')", LengthField(4, offset=3, strip=7, end=b"\xce")),
    ("LengthField(1, mask=15, shift=1, scale=4, add=-2, align=4, signed=True)",
     LengthField(1, mask=15, shift=1, scale=4, add=-2, align=4, signed=True)),
    ("Varint(offset=1, max_bytes=4, canonical=False, strip=0)",
     Varint(offset=1, max_bytes=4, canonical=False, strip=0)),
    ("AsciiLength(5)", AsciiLength(5)),
    ("AsciiLength(base=16, separator=b';')", AsciiLength(base=16, separator=b";")),
    ("Tagged({97: FixedLength(3), 98: 32}, offset=1, mask=127, default=Lines())",
     Tagged({b"b": 32, b"a": FixedLength(3)}, offset=1, mask=127, default=Lines())),
    ("HeaderBlock()", HeaderBlock("Content-Length", separator=b"\r\n\r\n")),
    ("HeaderBlock('Length', separator=b'\\n\\n', max_header=99, strip=False)",
     HeaderBlock("Length", separator=b"\n\n", max_header=99, strip=False)),
    ("Cobs(max_length=9, overlong='skip')", Cobs(max_length=9, overlong="skip")),
    ("Slip()", Slip()),
    ("UntilClose(overlong='truncate')", UntilClose(overlong="truncate")),
    ("UntilClose()", UntilClose()),
]


# ---- values ----

@pytest.mark.parametrize(("source", "one"), EXAMPLES)
def test_repr_is_the_call(source: str, one: Framing) -> None:
    assert repr(one) == source
    assert eval(source, dict(vars(sockframe))) == one


@given(FRAMINGS)
@settings(max_examples=150)
def test_a_framing_is_a_value(one: Framing) -> None:
    copies = [eval(repr(one), NAMES), copy.copy(one), copy.deepcopy(one)]
    copies += [pickle.loads(pickle.dumps(one, protocol)) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]
    for other in copies:
        assert other == one
        assert hash(other) == hash(one)
        assert repr(other) == repr(one)
        assert other.spec() == one.spec()
    own = isinstance(one, (Counted, Parted))
    for name in ("max_length", dataclasses.fields(one)[-1].name, *(() if own else ("_core", "_pure", "new"))):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(one, name, 1)


def test_framings_differ_where_one_option_does() -> None:
    framings = [one for _, one in EXAMPLES] + [
        Lines("lf"), Delimiter(b"\n"), Delimiter(b"a", b"b"), Delimiter(b"b", b"a"), LengthPrefix(2),
        LengthPrefix(2, inclusive=True), LengthPrefix(max_length=1), AsciiLength(base=16, separator=b":"), Varint(),
        Tagged({1: 3}), Tagged({2: 3}), Tagged({1: FixedLength(3)}),
        Counted(), Parted(), Counted(max_length=5), Lines(overlong="skip"), Cobs(), HeaderBlock(strip=False)]
    for i, one in enumerate(framings):
        for j, other in enumerate(framings):
            assert (one == other) is (i == j)
    assert len(set(framings)) == len(framings)


def test_what_a_wing_compiles_is_no_part_of_the_value(wing: Any) -> None:
    """A framing in use still is equal to one that is not, and is pickled and copied without what was compiled."""
    fresh, used = Tagged({1: Lines()}), Tagged({1: Lines()})
    wing.Decoder(used).decode(b"\x01\n")
    assert used == fresh
    assert pickle.dumps(used) == pickle.dumps(fresh)
    assert vars(copy.copy(used)) == vars(fresh)
    assert wing.Decoder(copy.copy(used)).decode(b"\x01\n") == [b"\x01"]


REPLACE = [dataclasses.replace, *([copy.replace] if hasattr(copy, "replace") else [])]


@pytest.mark.parametrize("replace", REPLACE)
@given(one=FRAMINGS)
@settings(max_examples=50)
def test_one_option_can_be_replaced(replace: Any, one: Framing) -> None:
    assert replace(one) == one
    other = replace(one, max_length=UNLIMITED)
    assert (type(other), other.max_length) == (type(one), UNLIMITED)
    assert replace(other, max_length=one.max_length) == one


@pytest.mark.parametrize("replace", REPLACE)
def test_delimiters_are_replaced_together(replace: Any) -> None:
    one = Delimiter(b"a", b"b", keep=True, tail="deliver", max_length=5)
    assert replace(one, delimiters=[b"c"], keep=False) == Delimiter(b"c", tail="deliver", max_length=5)
    assert Delimiter(delimiters=(b"a", b"b")) == Delimiter(b"a", delimiters=[b"b"]) == Delimiter(b"a", b"b")
    with pytest.raises(ValueError, match="is the start of delimiter"):
        replace(one, delimiters=(b"a", b"ab"))
    with pytest.raises(TypeError, match=r"^at least one delimiter is needed$"):
        replace(one, delimiters=())


# ---- names ----

@pytest.mark.parametrize(("name", "expected"), [
    ("u8", LengthPrefix(1)),
    *((f"u{8 * size}{order[0]}e", LengthPrefix(size, order)) for size in range(2, 9) for order in ("big", "little")),
    ("varint", Varint()), ("lines", Lines()), ("lf", Lines("lf")), ("crlf", Lines("crlf")),
    ("cobs", Cobs()), ("slip", Slip()), ("header-block", HeaderBlock()),
    ("netstring", AsciiLength(separator=b":", end=b",")), ("octet-counting", AsciiLength(separator=b" ")),
    ("until-close", UntilClose()), ("fixed:16", FixedLength(16)), ("fixed:00000000000000000016", FixedLength(16)),
    ("ascii:5", AsciiLength(5)), ("delimiter:0x00", Delimiter(b"\0")), ("delimiter:0x0D0a", Delimiter(b"\r\n")),
])
def test_a_framing_has_a_name(name: str, expected: Framing) -> None:
    assert framing(name) == expected


@pytest.mark.parametrize(("name", "text"), [
    *((f"fixed:{digit}5", f"has {digit!r} where a digit is expected") for digit in "+- _\u0665x\xb2\t\n\x0b."),
    ("fixed:5 ", "has ' ' where"), ("fixed:5_0", "has '_' where"), ("fixed:\u0665", "has '\u0665' where"),
    ("fixed:0x5", "has 'x' where"), ("fixed:", "needs a number of 1 to 20 digits"),
    ("fixed:" + "1" * 21, "needs a number of 1 to 20 digits"), ("fixed:0", "length must be from 1 to"),
    ("fixed:99999999999999999999", "length must be from 1 to"), ("fixed:8388609", "is above max_length"),
    ("ascii:", "needs a number of 1 to 20 digits"), ("ascii:0", "width must be from 1 to 20, not 0"),
    ("ascii:21", "width must be from 1 to 20, not 21"), ("ascii:-1", "has '-' where"),
    ("delimiter:0x", "delimiter must have from 1 to 64 bytes, not 0"), ("delimiter:0x0", "framing name"),
    ("delimiter:0xzz", "framing name"), ("delimiter:0x" + "00" * 65, "not 65"), ("delimiter:00", "no framing is named"),
    ("delimiter:", "no framing is named"), ("fixed", "no framing is named"), ("", "no framing is named"),
    ("u16", "no framing is named"), ("u8be", "no framing is named"), ("u12be", "no framing is named"),
    ("LINES", "no framing is named"), ("lines ", "no framing is named"), ("lines:", "no framing is named"),
    (":", "no framing is named"), ("u72be", "no framing is named"),
])
def test_a_wrong_name_says_what_is_wrong(name: str, text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(text)):
        framing(name)


def test_a_name_is_a_str() -> None:
    for value in (b"lines", None, 4, ["lines"], Lines()):
        with pytest.raises(TypeError, match=f"^framing name must be a str, not {type(value).__name__}$"):
            framing(value)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"known are .*lines.*u16be.*fixed:N, ascii:N, delimiter:0xHEX"):
        framing("nothing")
