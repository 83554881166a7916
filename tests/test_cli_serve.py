"""`sockframe serve`, and `send` to it: processes on both wings, in each mode, over TCP, Unix sockets and TLS."""

import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme
from commands import invoke, run, start
from scripted import LIMIT, Task, noise

import sockframe
from sockframe.cli.shell import Shell, ShellError

MODES = ["threads", "processes", "select"]


class Served:
    """A server that runs: its process and the address that it told."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self.process = process
        self.address = self.said(" at ").rpartition(" at ")[2]

    def said(self, words: str) -> str:
        """Return the next line of its messages, which must hold these words."""
        line: str = Task(self.process.stderr.readline).result().decode()  # type: ignore[union-attr]
        assert words in line
        return line.rstrip("\n")

    def connect(self, framing: str) -> sockframe.FramedSocket:
        """Connect to it."""
        host, _, port = self.address.rpartition(":")
        target = self.address if "/" in self.address else (host.strip("[]"), int(port))
        return sockframe.connect(target, sockframe.framing(framing), timeout=LIMIT)

    def end(self, number: int = signal.SIGTERM) -> str:
        """Stop it by a signal: with 0. Return what it said besides."""
        self.process.send_signal(number)
        output, messages = self.process.communicate(timeout=LIMIT)
        assert (self.process.returncode, output) == (0, b""), messages
        return messages.decode()


@contextmanager
def serving(wing: Any, *arguments: object, address: object = "127.0.0.1:0") -> "Iterator[Served]":
    """Run a server while the block lasts."""
    with start(wing, "serve", address, *arguments) as process:
        try:
            yield Served(process)
        finally:
            process.kill()


# ---- round trips ----

@pytest.mark.parametrize("mode", MODES)
def test_what_is_sent_comes_back(wing: Any, mode: str) -> None:
    with serving(wing, "-f", "u32be", "--mode", mode) as server:
        output, messages = run(wing, "send", server.address, "-f", "u32be", data=b"one\r\ntwo\n\nthree")
        assert (output, messages) == (b"one\ntwo\n\nthree\n", "")
        assert server.end() == ""


@pytest.mark.parametrize("framing", ["u8", "netstring", "varint", "cobs", "header-block", "delimiter:0x00", "postgres",
                                     "Tagged({b'x': LengthField(2, offset=1)})"])
def test_any_framing_on_the_wire(wing: Any, framing: str) -> None:
    payload = b"x\0\0\0\x07abc" if framing == "postgres" else b"x" + b"\0\0" * framing.startswith("T") + b"abc"
    lines = b"\n".join([payload] * 3) + b"\n"
    with serving(wing, "-f", framing) as server:
        output, _ = run(wing, "send", server.address, "-f", framing, data=lines)
    assert output.count(b"abc") == 3
    assert output == lines.replace(b"x\0\0abc", b"x\0\x03abc")


def test_a_unix_socket(wing: Any, tmp_path: Path) -> None:
    with serving(wing, "-f", "lines", address=tmp_path / "s") as server:
        assert server.address == str(tmp_path / "s")
        assert run(wing, "send", tmp_path / "s", "-f", "lines", data=b"one\n")[0] == b"one\n"
        server.end(signal.SIGINT)
    assert not (tmp_path / "s").exists()


def test_tls(wing: Any, tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca"))
    own = authority.issue_cert("localhost", "127.0.0.1")
    own.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "own"))
    with serving(wing, "-f", "u16be", "--tls-cert", tmp_path / "own") as server:
        data = b"".join(b"%d %s\n" % (i, noise(2000, i)) for i in range(500))
        output, _ = run(wing, "send", server.address, "-f", "u16be", "--tls-ca", tmp_path / "ca", data=data)
        assert output == data  # all of it, though the sending half was closed
        output, _ = run(wing, "send", server.address, "-f", "u16be", "--tls-insecure", "--replies", 1, data=b"one\n")
        assert output == b"one\n"
        _, messages = run(wing, "send", server.address, "-f", "u16be", "--tls", data=b"one\n", code=1)
        assert messages.startswith(f"Error: {server.address}: ") and "certificate verify failed" in messages
        server.process.terminate()
    for arguments, words in ([["--tls-key", tmp_path / "own"], "--tls-key needs --tls-cert"],
                             [["--tls-cert", tmp_path / "ca"], f"Error: {tmp_path / 'ca'}: "]):
        code = 2 if words.startswith("--") else 1
        assert words in invoke(wing, "serve", ":0", "-f", "lines", *arguments, code=code).stderr


def test_input_larger_than_every_buffer_goes_out_while_replies_come_in(wing: Any, tmp_path: Path) -> None:
    """The echo stops reading where its replies are not read: who sends all first waits for ever (hostile case P5)."""
    chance = random.Random(5)
    payloads = [noise(chance.choice([0, 10, 1000, 100_000, 3_000_000]), number) for number in range(40)]
    encoder = sockframe.Encoder(sockframe.framing("u32le"))
    (tmp_path / "input").write_bytes(encoder.encode_many(payloads))
    with serving(wing, "-f", "netstring", "--mode", "threads") as server:
        output, _ = run(wing, "send", server.address, tmp_path / "input", "-f", "netstring", "--input-framing",
                        "u32le", "--output-framing", "u32le")
    assert sum(map(len, payloads)) > 15_000_000
    assert output == encoder.encode_many(payloads)


# ---- serve ----

def test_the_reply_is_what_the_command_prints(wing: Any) -> None:
    for mode in MODES:
        with serving(wing, "-f", "u32be", "--mode", mode, "--exec", "tr a-z A-Z; printf '\\0\\n'") as server:
            output, _ = run(wing, "send", server.address, "-f", "u32be", "--hex", data=b"one\ntwo\n")
            assert output.decode().split() == [b"ONE\0\n".hex(), b"TWO\0\n".hex()]
            assert server.end() == ""


def test_a_newline_can_be_taken_off(wing: Any) -> None:
    with serving(wing, "-f", "lines", "--exec", "cat; echo", "--strip-newline") as server:
        assert run(wing, "send", server.address, "-f", "lines", data=b"one\n\n")[0] == b"one\n\n"


@pytest.mark.parametrize(("command", "options", "words"), [
    ("cat; exit 3", [], "ended with 3"),
    ("kill -9 $$", [], "was ended by signal 9"),
    ("sleep 1000 & sleep 1000", ["--exec-timeout", "0.2"], "took longer than 0.2 s"),
    ("exec >&-; sleep 1000", ["--exec-timeout", "0.2"], "took longer than 0.2 s"),
    ("yes", ["--max-length", "100000"], "printed more than 100000 bytes"),
    ("echo", [], "payload holds a delimiter"),
])
def test_a_command_that_gives_no_reply_closes_its_connection(wing: Any, command: str, options: "list[str]",
                                                            words: str) -> None:
    script = f'read -r word; case $word in good) printf reply;; *) {command};; esac'
    with serving(wing, "-f", "lines", "--exec", script, *options) as server:
        with server.connect("lines") as other, server.connect("lines") as conn:
            conn.send_many([b"good", b"bad", b"good"])
            assert conn.recv() == b"reply"
            with pytest.raises((sockframe.EndOfStream, ConnectionError)):
                conn.recv()
            assert words in server.said("the handler failed; the connection is closed: ")
            other.send(b"good")
            assert other.recv() == b"reply"
        assert "Traceback" not in server.end()


def test_frames_that_arrived_are_answered_before_the_end(wing: Any) -> None:
    for mode in MODES:
        with serving(wing, "-f", "lines", "--mode", mode, "--exec", "cat; sleep 0.3") as server:
            with server.connect("lines") as conn:
                conn.send(b"first")
                assert conn.recv() == b"first"
                conn.send_many([b"one", b"two"])
                time.sleep(0.1)  # on its way; where it has not arrived, there is one reply or none
                server.process.send_signal(signal.SIGTERM)
                replies = []
                with pytest.raises((sockframe.EndOfStream, ConnectionError)):
                    while True:
                        replies.append(conn.recv())
                assert replies == [b"one", b"two"][:len(replies)]
            assert server.process.wait(LIMIT) == 0


def test_a_command_that_goes_on_is_killed_when_the_grace_is_cut_short(wing: Any, tmp_path: Path) -> None:
    for mode in ("threads", "select"):
        note = tmp_path / mode
        command = f"echo $$ >{note}.new; mv {note}.new {note}; sleep 1000"
        with serving(wing, "-f", "lines", "--mode", mode, "--exec", command) as server:
            with server.connect("lines") as conn:
                conn.send(b"one")
                until(note.exists)
                server.process.send_signal(signal.SIGTERM)
                server.process.send_signal(signal.SIGINT)
                assert server.process.wait(LIMIT) == 0
            assert "Traceback" not in server.process.stderr.read().decode()  # type: ignore[union-attr]
            until(lambda: not alive(int(note.read_text())))  # noqa: B023


def until(happened: "Callable[[], bool]") -> None:
    """Wait until something has happened."""
    deadline = time.monotonic() + LIMIT
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def alive(number: int) -> bool:
    """Say whether there is a process of this number."""
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(("options", "wire", "words"), [
    (["--idle-timeout", 0.2], b"", "closed: TimeoutError"),
    (["--frame-timeout", 0.2], b"\3ab", "closed: TimeoutError"),
    (["--max-length", 3], b"\4four",
     "frame is too long: 4 bytes of payload, max_length is 3 (frame at stream position 4)"),
    ([], b"\3ab", "stream ended 3 bytes into a frame, at least 1 more were needed"),
])
def test_a_connection_that_breaks_a_rule_is_closed(wing: Any, options: "list[Any]", wire: bytes, words: str) -> None:
    with serving(wing, "-f", "u8", *options) as server, server.connect("u8") as conn:
        conn.send(b"one")
        assert conn.recv() == b"one"
        conn.sock.sendall(wire)
        if not options:
            conn.shutdown(socket.SHUT_WR)
        with pytest.raises((sockframe.EndOfStream, ConnectionError)):
            conn.recv()
        server.said(words)


def test_who_comes_when_all_connections_are_taken_is_refused(wing: Any) -> None:
    with serving(wing, "-f", "u8", "--max-connections", 1) as server, server.connect("u8") as conn:
        conn.send(b"one")
        assert conn.recv() == b"one"
        with server.connect("u8") as other, pytest.raises((sockframe.EndOfStream, ConnectionError)):
            other.recv()
        server.said("refused 127.0.0.1:")
        conn.send(b"two")
        assert conn.recv() == b"two"


def test_an_address_that_is_taken(wing: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        result = invoke(wing, "serve", f"127.0.0.1:{listener.getsockname()[1]}", "-f", "lines", code=1)
    assert result.stderr.startswith("Error: Address already in use")


@pytest.mark.parametrize(("arguments", "words"), [
    ([":0"], "Missing option '-f'"),
    ([":0", "-f", "lines", "--mode", "fibers"], "'fibers' is not one of"),
    ([":0", "-f", "lines", "--exec-timeout", "1"], "need --exec"),
    ([":0", "-f", "lines", "--strip-newline"], "need --exec"),
    ([":0", "-f", "lines", "--idle-timeout", "0"], "0.0 is not in the range"),
    ([":0", "-f", "lines", "--max-connections", "0"], "0 is not in the range"),
    (["nowhere", "-f", "lines"], "has no port"),
])
def test_wrong_usage_of_serve(wing: Any, arguments: "list[str]", words: str) -> None:
    assert words in " ".join(invoke(wing, "serve", *arguments, code=2).stderr.split())


# ---- the shell ----

def test_a_command_may_take_little_of_its_input_and_print_much() -> None:
    payload = noise(3_000_000)
    assert Shell("cat", 4_000_000, LIMIT, False)(payload) == payload
    assert Shell("head -c 10", 100, LIMIT, False)(payload) == payload[:10]
    assert Shell("true", 100, None, False)(payload) == b""
    assert Shell("echo; echo", 1, None, True)(b"") == b"\n"
    with pytest.raises(ShellError, match="'yes' printed more than 70000 bytes"):
        Shell("yes", 70_000, None, False)(payload)


def test_commands_that_run_can_be_killed() -> None:
    shell = Shell("echo; sleep 1000", 100, None, False)
    task = Task(shell, b"")
    deadline = time.monotonic() + LIMIT
    while task.thread.is_alive() and time.monotonic() < deadline:
        shell.kill()
    with pytest.raises(ShellError, match="was ended by signal 9"):
        task.result()
