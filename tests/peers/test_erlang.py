"""Erlang's {packet, 1 | 2 | 4 | line | tpkt | sunrm | asn1 | fcgi}, its server and its client: see peer.escript."""

from __future__ import annotations

import contextlib
import queue
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from programs import dial, echo, find, folder, served, stop, surroundings
from scripted import LIMIT, Task

from sockframe import Lines, framing

MiB = 1 << 20
NOISE = bytes(range(11, 251))

#: How a framing is called there, what it is here, and sizes up to its limit.
FRAMINGS: dict[str, tuple[Any, list[int]]] = {
    "1": (framing("erlang-packet-1"), [*range(256)]),
    "2": (framing("erlang-packet-2"), [0, 1, 255, 256, 16383, 16384, 65534, 65535]),
    "4": (framing("erlang-packet-4"), [0, 1, 255, 65535, 65536, 300_000, 8 * MiB]),
    "line": (Lines("lf"), [0, 1, 2, 255, 4096, 65536, 300_000]),
    "tpkt": (framing("tpkt"), [3, 4, 255, 65531]),
    "sunrm": (framing("onc-rpc"), [0, 1, 255, 65536, 300_000]),
    "asn1": (framing("ldap"), [0, 1, 127, 128, 65536, 300_000]),
    "fcgi": (framing("fastcgi"), [0, 1, 255, 256, 65535]),
}

#: The header of a packet of so many bytes, for those that are delivered with it; "fcgi" has 3 bytes of padding.
HEADERS: dict[str, Callable[[int], bytes]] = {
    "tpkt": lambda size: b"\x03\0" + (size + 4).to_bytes(2, "big"),
    "sunrm": lambda size: (size | 1 << 31).to_bytes(4, "big"),
    "asn1": lambda size: bytes([0x30, size]) if size < 128 else b"\x30\x84" + size.to_bytes(4, "big"),
    "fcgi": lambda size: b"\x01\x06\0\x01" + size.to_bytes(2, "big") + b"\x03\0",
}


@dataclass
class Erlang:
    """A node that serves each framing at a port, and takes commands."""

    ports: dict[str, int]
    process: subprocess.Popen[bytes]
    lines: queue.SimpleQueue[str]

    def connect(self, name: str, port: int, sizes: list[int]) -> str:
        """Have it connect and exchange packets of these sizes; return what it has to say."""
        assert self.process.stdin
        self.process.stdin.write(" ".join(map(str, [name, port, *sizes])).encode() + b"\n")
        self.process.stdin.flush()
        return self.lines.get(timeout=LIMIT)


@pytest.fixture(scope="module")
def erlang() -> Iterator[Erlang]:
    program = find("escript", "erlang-base")
    with folder() as where:
        process = subprocess.Popen([program, str(Path(__file__).with_name("peer.escript"))], cwd=where, bufsize=0,
                                   env=surroundings(where), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT)
        assert process.stdin and process.stdout
        with process.stdin, process.stdout:
            try:
                lines: queue.SimpleQueue[str] = queue.SimpleQueue()
                reader = threading.Thread(target=lambda: [lines.put(line.decode().strip()) for line in process.stdout])
                reader.start()
                ports = dict(lines.get(timeout=LIMIT).split() for _ in FRAMINGS)
                yield Erlang({name: int(port) for name, port in ports.items()}, process, lines)
            finally:
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.close()
                stop(process)
                reader.join(LIMIT)


def payload(name: str, size: int) -> bytes:
    """Return a payload that holds `size` bytes of content: with the header where it is delivered."""
    content = (NOISE * (size // len(NOISE) + 1))[:size]
    return HEADERS[name](size) + content + bytes(3 * (name == "fcgi")) if name in HEADERS else content


@pytest.mark.parametrize("name", FRAMINGS)
def test_its_server(wing: Any, erlang: Erlang, name: str) -> None:
    description, sizes = FRAMINGS[name]
    payloads = [payload(name, size) for size in sizes]
    expected = [b"%d " % (len(one) + 1) + one if name == "line" else one for one in payloads]
    with dial(wing, erlang.ports[name], description) as conn:
        for sent, answer in zip(payloads, expected, strict=True):
            conn.send(sent)
            assert conn.recv() == answer
        task = Task(conn.send_many, payloads)
        assert [conn.recv() for _ in payloads] == expected
        task.result()


@pytest.mark.parametrize("name", FRAMINGS)
def test_its_client(wing: Any, erlang: Erlang, name: str) -> None:
    description, sizes = FRAMINGS[name]
    with served(wing, description, echo) as (port, task):
        assert erlang.connect(name, port, sizes) == "ok"
        assert task.result() == 2 * len(sizes)


@pytest.mark.parametrize("name", ["1", "2"])
def test_nothing_longer_than_the_field_tells_is_sent(wing: Any, erlang: Erlang, name: str) -> None:
    with dial(wing, erlang.ports[name], FRAMINGS[name][0]) as conn:
        for size in (256 ** int(name), 256 ** int(name) + 1):
            with pytest.raises(ValueError):
                conn.send(bytes(size))
        conn.send(b"still in step")
        assert conn.recv() == b"still in step"
