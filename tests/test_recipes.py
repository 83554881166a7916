"""The programs of docs/recipes.md and docs/start.md do what the pages say. Those of Redis and of a language server are
run by tests/peers."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import signal
import socket
import subprocess
import sys
import time
import tty
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pages
import pytest
from commands import CHOICES

from sockframe import Cobs, Decoder, Encoder, LengthPrefix

LIMIT = 60


@contextlib.contextmanager
def chat(wing: Any, folder: Path) -> Iterator[Any]:
    """Run the chat server; what it gives lets a user of that name in."""
    pages.save(folder, "chat.py")
    with pages.start(wing, folder, "chat.py", 0) as server, contextlib.ExitStack() as users:
        try:
            port = int(server.stdout.readline().split()[-1])  # type: ignore[union-attr]

            def enter(name: bytes) -> tuple[Any, Any]:
                sock = users.enter_context(socket.create_connection(("127.0.0.1", port), LIMIT))
                sock.sendall(name + b"\n")
                return sock, users.enter_context(sock.makefile("rb"))

            yield enter
        finally:
            server.send_signal(signal.SIGTERM)
            output = server.communicate(timeout=LIMIT)[0]
    assert output == ""


def test_a_chat(wing: Any, tmp_path: Path) -> None:
    with chat(wing, tmp_path) as enter:
        ann, to_ann = enter(b"ann")
        ann.sendall(b"is anybody here?\n")  # not even ann hears it
        bob, to_bob = enter(b"bob")
        assert to_ann.readline() == b"bob has come\n"
        ann.sendall(b"hello\n")
        assert to_bob.readline() == b"ann: hello\n"
        bob.sendall(b"x" * 5000 + b"\r\n")
        assert to_ann.readline() == b"bob: " + b"x" * 995 + b"\n"
        bob.shutdown(socket.SHUT_RDWR)
        assert to_ann.readline() == b"bob has left\n"


def test_a_chat_waits_for_nobody_who_does_not_read(wing: Any, tmp_path: Path) -> None:
    with chat(wing, tmp_path) as enter:
        ann, to_ann = enter(b"ann")
        enter(b"bob")
        assert to_ann.readline() == b"bob has come\n"
        line = b"y" * 900 + b"\n"
        for _ in range(1000):  # bob reads none of it: at last the kernel takes no more, and he is cut off
            ann.sendall(line * 100)
            if readable(ann):
                break
        assert to_ann.readline() == b"bob has left\n"


def readable(sock: socket.socket) -> bool:
    """Say whether something has come."""
    sock.setblocking(False)
    try:
        return bool(sock.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return False
    finally:
        sock.settimeout(LIMIT)


@pytest.mark.parametrize("end", [b"", b"\n"], ids=["unended", "ended"])
def test_rows_of_a_file(wing: Any, tmp_path: Path, end: bytes) -> None:
    assert importlib.util.find_spec("polars"), "polars belongs to the tests' dependencies"
    rows = b'{"user": "ann", "bytes": 5}\n{"user": "bob", "bytes": 7}\n' * 100_000  # more than one piece
    (tmp_path / "rows.ndjson").write_bytes(rows + b'{"user": "ann", "bytes": 10}' + end)
    printed = pages.run(wing, tmp_path, "ndjson.py", "rows.ndjson")
    assert printed == "[('ann', 100001, 500010), ('bob', 100000, 700000)]\n"


def test_a_parent_and_its_child(wing: Any, tmp_path: Path) -> None:
    pages.save(tmp_path, "child.py")
    printed = pages.run(wing, tmp_path, "parent.py")
    assert printed == "log squares begins\nresult [0, 1, 4]\nexit code 0\n"


@pytest.mark.parametrize(("taken", "told"), [(4096, "stream ended 7 bytes into a frame"), (0, "[Errno 104]")],
                         ids=["in the midst of a message", "before it has read one"])
def test_a_parent_is_told_of_a_child_that_is_killed(wing: Any, tmp_path: Path, taken: int, told: str) -> None:
    begun = Encoder(LengthPrefix()).encode(b"a message")[:7]
    (tmp_path / "child.py").write_text(f"import os, sys\nsocket = int(sys.argv[1])\nos.read(socket, {taken})\n"
                                       f"os.write(socket, {begun!r})\nos.kill(os.getpid(), 9)\n")
    printed = pages.run(wing, tmp_path, "parent.py").splitlines()
    assert printed[0].startswith(f"gone in the midst of it: {told}")
    assert printed[1] == "exit code -9"


def test_a_serial_device(wing: Any, tmp_path: Path) -> None:
    pages.save(tmp_path, "device.py")
    pack = Encoder(Cobs()).encode

    def reading(number: int) -> bytes:
        value = number.to_bytes(2, "little")
        return pack(value + zlib.crc32(value).to_bytes(4, "little"))

    device, port = os.openpty()
    try:
        tty.setraw(port)
        with pages.start(wing, tmp_path, "device.py", os.ttyname(port)) as program:
            decoder, said = Decoder(Cobs()), []
            while not said:
                said = decoder.decode(os.read(device, 100))
            assert said == [b"start\0"]
            changed = bytearray(reading(7))
            changed[1] ^= 1
            os.write(device, reading(5)[3:] + reading(5) + b"noise\0\5\0" + changed)
            os.write(device, b"y" * 1000 + b"\0\0" + reading(256) + reading(0))
            printed = program.communicate(timeout=LIMIT)[0]
        assert (program.returncode, printed) == (0, "5\n256\n0\n")
    finally:
        os.close(device)
        os.close(port)


def test_the_first_page_from_top_to_bottom(wing: Any, tmp_path: Path) -> None:
    consoles = pages.blocks(pages.DOCS / "start.md", "console")
    commands = re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", "".join(consoles), re.MULTILINE)
    assert len(commands) == 4
    pages.save(tmp_path, "server.py", "client.py")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    for name in ("server.py", "client.py"):
        text = (tmp_path / name).read_text()
        assert "7000" in text
        (tmp_path / name).write_text(text.replace("7000", port))
    environment = {**os.environ, "SOCKFRAME_CORE": CHOICES[wing.name]}
    server = None
    try:
        for command, output in commands:
            line = (command.replace("7000", port).replace(".venv/bin/python", sys.executable)
                    .replace(".venv/bin/sockframe", f"{sys.executable} -m sockframe"))
            if line.endswith(" &"):
                server = subprocess.Popen(["bash", "-c", "exec " + line[:-2]], cwd=tmp_path, env=environment)
                await_listener(int(port))
            else:
                done = subprocess.run(["bash", "-c", line], cwd=tmp_path, env=environment, timeout=LIMIT, text=True,
                                      stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
                assert done.stdout == output, command
    finally:
        assert server is not None
        server.kill()
        server.wait()


def await_listener(port: int) -> None:
    """Wait until somebody listens."""
    for _ in range(LIMIT * 20):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError("nobody listens")
