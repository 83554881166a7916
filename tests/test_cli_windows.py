"""The command as on Windows: without the names of POSIX, and with a select() that takes sockets alone, whatever the
system. So what it reads is read by a thread; its output is the same."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from commands import CHOICES
from scripted import LIMIT, Task
from test_windows import BEFORE

import sockframe
from sockframe import FramedSocket

COMMAND = f"""
{BEFORE}
import stat

def for_sockets_alone(readers, writers, *others, select=select.select):
    for each in (*readers, *writers):
        number = each if type(each) is int else each.fileno()
        if sys.platform != "win32" and not stat.S_ISSOCK(os.fstat(number).st_mode):
            raise OSError(10038, "an operation was attempted on something that is not a socket")
    return select(readers, writers, *others)

select.select = for_sockets_alone
from sockframe.__main__ import main
main()
"""


def start(wing: Any, *arguments: object) -> subprocess.Popen[bytes]:
    """Start the command, its three streams unbuffered pipes."""
    return subprocess.Popen([sys.executable, "-W", "error", "-c", COMMAND, *map(str, arguments)], bufsize=0,
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            env={**os.environ, "SOCKFRAME_CORE": CHOICES[wing.name]})


def run(wing: Any, *arguments: object, data: bytes = b"", code: int = 0) -> tuple[bytes, str]:
    """Run the command; return what it wrote to stdout and to stderr."""
    with start(wing, *arguments) as process:
        try:
            output, messages = process.communicate(data, timeout=6 * LIMIT)
        finally:
            process.kill()
    assert process.returncode == code, (output[-1000:], messages)
    return output.replace(b"\r\n", b"\n"), messages.decode().replace("\r\n", "\n")


@contextmanager
def serving(wing: Any, *arguments: object) -> Iterator[str]:
    """Run `sockframe serve`; gives its address."""
    with start(wing, "serve", "127.0.0.1:0", *arguments) as process:
        try:
            said = Task(process.stderr.readline).result(6 * LIMIT)  # type: ignore[union-attr]
            yield said.decode().split()[-1]
        finally:
            process.kill()


@pytest.mark.parametrize("data", [b"", b"one\ntwo\r\n\nthree", b"x" * 3_000_000 + b"\n" + b"one\n" * 100_000],
                         ids=["nothing", "lines", "much"])
def test_what_is_sent_comes_back(wing: Any, data: bytes) -> None:
    with serving(wing, "-f", "u32be") as address:
        output, messages = run(wing, "send", address, "-f", "u32be", data=data)
    assert (output, messages) == (b"".join(line + b"\n" for line in data.splitlines()), "")


def test_a_reply_is_there_before_the_input_ends(wing: Any) -> None:
    with serving(wing, "-f", "lines", "--mode", "select") as address, \
            start(wing, "send", address, "-f", "lines") as process:
        try:
            for word in (b"one", b"two"):
                process.stdin.write(word + b"\n")  # type: ignore[union-attr]
                assert Task(process.stdout.readline).result(6 * LIMIT).split() == [word]  # type: ignore[union-attr]
            process.stdin.close()  # type: ignore[union-attr]
            assert process.wait(6 * LIMIT) == 0
        finally:
            process.kill()


@pytest.mark.parametrize(("begun", "code", "message"), [
    (b"", 0, b""), (b"and", 1, b"Error: the peer ended the connection, 3 bytes of the input were not yet sent"),
], ids=["between payloads", "within one"])
def test_a_peer_that_ends_while_the_input_is_open(wing: Any, begun: bytes, code: int, message: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        with start(wing, "send", address, "-f", "u8") as process:
            try:
                process.stdin.write(b"quit\n" + begun)  # type: ignore[union-attr]
                listener.settimeout(6 * LIMIT)
                with FramedSocket(listener.accept()[0], sockframe.LengthPrefix(1)) as conn:
                    conn.settimeout(LIMIT)
                    conn.send(conn.recv())
                assert process.wait(LIMIT) == code  # though its input is still open
                assert process.stdout.read().split() == [b"quit"]  # type: ignore[union-attr]
                assert process.stderr.read().strip() == message  # type: ignore[union-attr]
            finally:
                process.kill()


def test_silence_is_an_error_after_the_timeout(wing: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:  # nobody accepts, but the kernel
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        _, messages = run(wing, "send", address, "-f", "u8", "--timeout", 0.2, data=b"one\n", code=1)
    assert messages == f"Error: {address}: the peer neither took nor sent anything for 0.2 s\n"


def test_a_dump_reads_as_it_comes(wing: Any) -> None:
    with start(wing, "dump", "-f", "u8", "--json") as process:
        try:
            process.stdin.write(b"\3one")  # type: ignore[union-attr]
            first = Task(process.stdout.readline).result(6 * LIMIT)  # type: ignore[union-attr]
            output, messages = process.communicate(b"\3tw", timeout=6 * LIMIT)
        finally:
            process.kill()
    assert b'"hex": "6f6e65"' in first
    assert (process.returncode, output) == (1, b"") and messages.startswith(b"Error: stream ended 3 bytes into a frame")


def test_no_command_can_be_run_for_each_frame(wing: Any) -> None:
    _, messages = run(wing, "serve", "127.0.0.1:0", "-f", "u8", "--exec", "cat", code=2)
    assert "--exec needs pipes that can be waited for" in messages
