"""`--framing`: names and descriptions become framings, nothing is run, and a mistake is pointed at."""

import warnings
from typing import Any

import pytest
from commands import invoke

import sockframe
from sockframe import Delimiter, FixedLength, LengthField, LengthPrefix, Lines, Tagged
from sockframe.cli.expression import CALLS, ExpressionError, read_framing
from sockframe.protocols import PROTOCOLS


@pytest.mark.parametrize(("text", "framing"), [
    ("u16le", LengthPrefix(2, "little")),
    (" lines ", Lines()),
    ("delimiter:0x00", Delimiter(b"\0")),
    ("LengthPrefix(2, 'little')", LengthPrefix(2, "little")),
    ("LengthPrefix(2, byteorder='little', inclusive=True)", LengthPrefix(2, "little", inclusive=True)),
    ("Tagged({0x01: LengthPrefix(1), b'x': 7}, default=4)", Tagged({1: LengthPrefix(1), b"x": 7}, default=4)),
    ("Tagged({1: framing('netstring')})", Tagged({1: sockframe.framing("netstring")})),
    ("Delimiter(b'\\r\\n', b'\\0', keep=True)", Delimiter(b"\r\n", b"\0", keep=True)),
    ("LengthField(2, add=-3, mask=None)", LengthField(2, add=-3)),
    ("Lines(max_length=UNLIMITED, overlong='skip')", Lines(max_length=sockframe.UNLIMITED, overlong="skip")),
    ("Tagged(\n  {1: 3,\n   2: FixedLength(16)})", Tagged({1: 3, 2: FixedLength(16)})),
])
def test_names_and_descriptions(text: str, framing: Any) -> None:
    assert read_framing(text) == framing


def test_every_public_framing_can_be_described() -> None:
    exported = {name for name in sockframe.__all__ if isinstance(getattr(sockframe, name), type)
                and issubclass(getattr(sockframe, name), sockframe.Framing)}
    assert set(CALLS) == exported - {"Framing"} | {"framing"}


@pytest.mark.parametrize("name", [each.name for each in PROTOCOLS.values()])
def test_what_a_protocols_framing_looks_like_can_be_read_again(name: str) -> None:
    framing = sockframe.framing(name)
    assert read_framing(name) == framing
    if all(call in CALLS for call in calls(repr(framing))):
        assert read_framing(repr(framing)) == framing


def calls(text: str) -> "list[str]":
    """Return the names of what is called in a description."""
    return [piece.split()[-1].strip("{[(,") for piece in text.split("(")[:-1]]


@pytest.mark.parametrize(("text", "message"), [
    ("u32b", "no framing is named 'u32b'; did you mean u32be or u32le or u24be?\n  u32b\n  ^"),
    ("LengthPrefix", "no framing is named 'LengthPrefix'; did you mean LengthPrefix()?\n  LengthPrefix\n  ^"),
    ("Tagged({1: 5, 2: LengthPrefix(9)})",
     "size must be from 1 to 8, not 9\n  Tagged({1: 5, 2: LengthPrefix(9)})\n                   ^"),
    ("Tagged({1: 2, 1: 3})", "tag 1 is listed twice\n  Tagged({1: 2, 1: 3})\n  ^"),
    ("Tagged({'\u00e9': 1, 2: Nix()})",
     f"Nix is no framing; there are {', '.join(CALLS)}\n  Tagged({{'\u00e9': 1, 2: Nix()}})\n                     ^"),
    ("Tagged(\n{1: 3,\n 4: Nix()})", f"Nix is no framing; there are {', '.join(CALLS)}\n   4: Nix()}})\n      ^"),
    ("FixedLength()", "FixedLength() missing 1 required positional argument: 'length'\n  FixedLength()\n  ^"),
    ("Lines(1, 2)(3)", f"Lines(1, 2) is no framing; there are {', '.join(CALLS)}\n  Lines(1, 2)(3)\n  ^"),
])
def test_a_mistake_is_pointed_at(text: str, message: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        read_framing(text)
    assert str(caught.value) == message


@pytest.mark.parametrize("text", [
    "__import__('os').system('false')", "Lines(__import__('os'))", "Lines((1).__class__)", "Lines(print())",
    "(lambda: Lines())()", "[Lines()][0]", "Lines(*[1])", "Lines(**{'ending': 'lf'})", "Tagged({**{1: 2}})",
    "Lines(...)", "Lines(f'{1}')", "Lines(ending)", "FixedLength(10**9)", "FixedLength(not 1)", "Lines(), 1",
    "Lines() if 1 else Lines()", "Tagged({x: 1 for x in (1, 2)})", "sockframe.Lines()", "Framing()", "Lines(",
    "Lines(\0)", "Lines(\ud800)", "Lines('\x1b[2J'", "(" * 1000, "-" * 4000 + "(", "Lines(" * 100 + ")" * 100,
    "x" * 5000, "", "()", "fixed:", "fixed:x", "delimiter:0x", "delimiter:0xzz", "Delimiter('\\d')",
])
def test_all_else_is_refused_in_one_readable_message(text: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ExpressionError) as caught:
            read_framing(text)
    message = str(caught.value)
    assert all(line.isprintable() for line in message.split("\n"))
    assert len(message) < 600
    reason, shown, pointer = message.split("\n")
    assert reason and shown.startswith("  ") and set(pointer) <= {" ", "^"} and pointer.endswith("^")


def test_a_mistake_is_a_usage_error(wing: Any) -> None:
    result = invoke(wing, "dump", "-f", "Tagged({1: Lines('xx')})", code=2)
    assert result.stderr.endswith("Error: Invalid value for '-f' / '--framing': ending must be one of 'any', 'lf', "
                                  "'crlf', not 'xx'\n  Tagged({1: Lines('xx')})\n             ^\n")
    assert result.stdout == ""
