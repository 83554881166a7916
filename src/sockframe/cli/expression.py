"""A framing from text: a name ("u32be"), or the call that makes it ("LengthPrefix(2, 'little')"), never run."""

from __future__ import annotations

import ast
import difflib
import warnings
from collections.abc import Callable
from typing import Any

from .. import framings
from ..framings import PROTOCOL_FRAMINGS, UNLIMITED, Framing

#: The longest text that is read, in letters.
MOST = 4096

CALLS: dict[str, Callable[..., Framing]] = {
    kind.__name__: kind for kind in (
        framings.AsciiLength, framings.Cobs, framings.Delimiter, framings.FixedLength, framings.HeaderBlock,
        framings.LengthField, framings.LengthPrefix, framings.Lines, framings.Slip, framings.Tagged,
        framings.UntilClose, framings.Varint)}
CALLS["framing"] = framings.framing


class ExpressionError(ValueError):
    """A text is no framing: its message says why, and points at the place."""

    def __init__(self, message: str, text: str, line: int = 1, column: int = 0) -> None:
        lines = text.splitlines() or [""]
        shown = lines[min(max(line, 1), len(lines)) - 1]
        start = max(0, column - 60)
        shown = "".join(letter if letter.isprintable() else "?" for letter in shown[start:start + 100])
        super().__init__(f"{message}\n  {shown}\n  {' ' * (column - start)}^")


def read_framing(text: str) -> Framing:
    """Return the framing that `text` names, as `sockframe.framing` does, or describes.

    A description is what a framing's `repr` is: a call of a public framing with numbers, words, bytes,
    `UNLIMITED`, a table of tags, and other framings, those too of `framing('name')`. It is read, not run.
    Raises `ExpressionError`.
    """
    text = text.strip()
    if len(text) > MOST:
        raise ExpressionError(f"a framing has at most {MOST} letters, not {len(text)}", text)
    if "(" in text:
        return _Reader(text).read()
    try:
        return framings.framing(text)
    except ValueError as error:
        names = [*(f"{name}()" for name in CALLS), *framings._NAMED, *PROTOCOL_FRAMINGS]
        near = [] if ":" in text else difflib.get_close_matches(text, names, 3)
        reason = f"no framing is named {text!r}; did you mean {' or '.join(near)}?" if near else str(error)
        raise ExpressionError(reason, text) from None


class _Reader:
    """Reads one description, from its syntax tree."""

    def __init__(self, text: str) -> None:
        self.text = text

    def read(self) -> Framing:
        """Return the framing that the whole text describes."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of an odd escape
                tree = ast.parse(self.text, mode="eval").body
        except SyntaxError as error:
            raise ExpressionError(error.msg, self.text, error.lineno or 1, max(0, (error.offset or 1) - 1)) from None
        except (ValueError, RecursionError, MemoryError):
            raise ExpressionError("this can't be read", self.text) from None
        if not isinstance(tree, ast.Call):
            raise self.error(tree, "this is no framing")
        return self.call(tree)

    def error(self, node: ast.expr, message: str) -> ExpressionError:
        """Make the error that points at a node."""
        line = self.text.splitlines()[node.lineno - 1]
        column = len(line.encode()[:node.col_offset].decode())
        return ExpressionError(message, self.text, node.lineno, column)

    def call(self, node: ast.Call) -> Framing:
        """Return what the call of a public framing makes."""
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name not in CALLS:
            raise self.error(node, f"{ast.unparse(node.func)[:40]} is no framing; there are {', '.join(CALLS)}")
        words: dict[str, Any] = {}
        for keyword in node.keywords:
            if keyword.arg is None:
                raise self.error(keyword.value, "arguments must be given one by one")
            words[keyword.arg] = self.value(keyword.value)
        items = [self.value(item) for item in node.args]
        try:
            return CALLS[name](*items, **words)
        except (TypeError, ValueError) as error:
            raise self.error(node, str(error).replace(".__init__()", "()")) from None

    def value(self, node: ast.expr) -> Any:
        """Return an argument: a literal, UNLIMITED, a table of tags, or another framing."""
        if isinstance(node, ast.Call):
            return self.call(node)
        if isinstance(node, ast.Name) and node.id == "UNLIMITED":
            return UNLIMITED
        if isinstance(node, ast.Dict):
            pairs = zip(node.keys, node.values, strict=True)
            return [(self.tag(key, value), self.value(value)) for key, value in pairs]
        return self.literal(node)

    def tag(self, node: ast.expr | None, value: ast.expr) -> Any:
        """Return a tag of a table."""
        if node is None:
            raise self.error(value, "tags must be given one by one")
        return self.literal(node)

    def literal(self, node: ast.expr) -> Any:
        """Return a number, a word, bytes, True, False or None."""
        if isinstance(node, ast.Constant) and node.value is not ...:
            return node.value
        if (isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub)
                and isinstance(node.operand, ast.Constant) and type(node.operand.value) is int):
            return -node.operand.value
        raise self.error(node, "a number, a word, bytes, UNLIMITED or a framing is needed here")
