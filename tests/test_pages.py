"""The documentation is whole: every public name is described, every picture shows what is sent, every test that is
named exists. What Sphinx finds (links within the site, names that lead nowhere) it finds when `.ci/run` builds it."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import sys
import xml.etree.ElementTree as xml
from pathlib import Path
from typing import Any

import click
import pages
import pytest
from test_hostile_map import sources

import sockframe
from sockframe import Cobs, Decoder, Encoder, Slip

sys.path.insert(0, str(pages.DOCS))
import pictures

API = "".join(path.read_text() for path in sorted((pages.DOCS / "api").glob("*.md")))
WIRE = re.compile(r"^(?:```|:::)\{wire\} (.*)\n((?:b\".*\n)+)(?:```|:::)$", re.MULTILINE)
WIRES = [match for path in pages.PAGES for match in WIRE.findall(path.read_text())]
MODULES = ["sockframe", "sockframe.aio", "sockframe.server", "sockframe.drop_in.asyncio_streams",
           "sockframe.drop_in.multiprocessing"]
if importlib.util.find_spec("twisted") is not None:
    MODULES.append("sockframe.drop_in.twisted")


def test_every_picture_is_seen_here() -> None:
    assert len(WIRES) == sum(path.read_text().count("{wire}") for path in pages.PAGES) > 15


@pytest.mark.parametrize(("source", "lines"), WIRES)
def test_a_picture_shows_what_is_sent(source: str, lines: str) -> None:
    framing = eval(source, vars(sockframe).copy())
    payloads = [ast.literal_eval(line) for line in lines.splitlines()]
    for payload in payloads:
        cells = pictures.cells(framing, payload)
        frame = bytes(byte for byte, _ in cells)
        assert frame == Encoder(framing).encode(payload)
        decoder = Decoder(framing)
        (delivered,) = decoder.decode(frame) or decoder.finish()
        if not isinstance(framing, (Cobs, Slip)):
            assert sum(part in ("payload", "length", "tag", "header") for _, part in cells) >= len(delivered)
    root = xml.fromstring(pictures.draw(framing, payloads))
    assert repr(framing) in root.attrib["aria-label"]
    assert set(root.attrib) >= {"role", "viewBox", "width", "height"}
    assert float(root.attrib["width"]) < 360, "wider than a phone"


@pytest.mark.parametrize(("framing", "payload", "parts"), [
    (sockframe.LengthPrefix(2), b"hi", "length length payload payload"),
    (sockframe.Lines("crlf"), b"hi", "payload payload line-end line-end"),
    (sockframe.LengthField(1, offset=1, strip=2, end=b"!"), b"hi", "header length payload payload end"),
    (sockframe.LengthField(1, offset=1), b"A\0hi", "payload length payload payload"),
    (sockframe.Tagged({b"A": sockframe.LengthField(1, offset=1)}), b"A\0hi", "tag length payload payload"),
    (Cobs(), b"\1\0\2", "stuffing payload stuffing payload delimiter"),
    (Slip(), b"\1\xc0", "payload stuffing stuffing delimiter"),
], ids=repr)
def test_each_byte_has_its_part(framing: sockframe.Framing, payload: bytes, parts: str) -> None:
    assert [part.replace(" ", "-") for _, part in pictures.cells(framing, payload)] == parts.split()


def public(module: str) -> list[str]:
    """Return the names of a module that are sockframe's own."""
    loaded: Any = importlib.import_module(module)
    return [name for name in loaded.__all__
            if str(getattr(getattr(loaded, name), "__module__", "sockframe")).startswith("sockframe")
            and not isinstance(getattr(loaded, name), type(sys))]


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_is_described(module: str) -> None:
    directive = rf"^\.\. (?:auto(?:class|data|exception|function)|py:data):: {re.escape(module)}\.(\w+)(?:\(.*\))?$"
    described = re.findall(directive, API, re.MULTILINE)
    assert sorted(described) == sorted(public(module))


def test_every_method_of_a_connection_is_described() -> None:
    listed = re.findall(r"^   \.\. auto(?:method|property):: (\w+)$", API, re.MULTILINE)
    own = {name for name in dir(sockframe.FramedSocket) if not name.startswith("_")}
    assert sorted(listed) == sorted(own - {"sock"})


def test_every_command_tells_its_options() -> None:
    from sockframe.cli import command

    told = re.findall(r"^```\{help\} (\w+)$", (pages.DOCS / "command.md").read_text(), re.MULTILINE)
    assert sorted(told) == sorted(command.list_commands(click.Context(command)))


def test_every_promise_has_its_tests() -> None:
    numbers = re.findall(r"^(\d+)\. \*\*", (pages.ROOT / "README.md").read_text(), re.MULTILINE)
    rows = re.findall(r"^\| (\d+) \|.*\| (.*) \|$", (pages.DOCS / "laws.md").read_text(), re.MULTILINE)
    assert [number for number, _ in rows] == numbers
    for number, shown in rows:
        tests = re.findall(r"`(\w+\.py)::(test_\w+)`", shown)
        assert tests, number
        for file, function in tests:
            assert function in sources(Path(__file__).parent / file), f"{file}::{function} does not exist"


def test_every_page_is_in_the_contents() -> None:
    listed = {(path.parent / f"{name}.md").resolve() for path in pages.PAGES
              for text in re.findall(r"^```\{toctree\}\n(.*?)^```$", path.read_text(), re.MULTILINE | re.DOTALL)
              for name in text.split() if not name.startswith(":")}
    assert {path for path in pages.PAGES if path != pages.DOCS / "index.md"} <= listed
