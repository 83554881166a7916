"""`sockframe send`: what goes to the peer and what comes back, on both wings, whatever either side does."""

import json
import os
import pty
import select
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from commands import invoke, run, start
from scripted import LIMIT, Task, reset_when_closed

import sockframe
from sockframe import EndOfStream, FramedSocket


@contextmanager
def peer(act: "Callable[[FramedSocket], None]", framing: str = "u8") -> "Iterator[str]":
    """Let `act` serve the first that connects; gives the address, and waits for it at the end."""
    def serve() -> None:
        sock = listener.accept()[0]
        sock.settimeout(LIMIT)
        with FramedSocket(sock, sockframe.framing(framing)) as conn:
            act(conn)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(LIMIT)
        task = Task(serve)
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        task.result()


def replies(*payloads: bytes) -> "Callable[[FramedSocket], None]":
    """Return what takes all frames to their end, then sends these replies."""
    def act(conn: FramedSocket) -> None:
        list(conn)
        conn.send_many(payloads)

    return act


def collect(frames: "list[bytes]") -> "Callable[[FramedSocket], None]":
    """Return what takes all frames to their end, into a list."""
    return frames.extend


def echo(conn: FramedSocket) -> None:
    """Answer each frame by itself, to the end or until the connection breaks."""
    with pytest.raises((EndOfStream, ConnectionError)):
        while True:
            conn.send(conn.recv())


def send(wing: Any, address: str, *arguments: object, **keywords: Any) -> Any:
    """Run the command with frames of one byte of length."""
    return invoke(wing, "send", address, "-f", "u8", *arguments, **keywords)


# ---- the input ----

@pytest.mark.parametrize(("arguments", "data", "frames"), [
    ([], b"one\ntwo\r\n\nthree", [b"one", b"two", b"", b"three"]),
    ([], b"", []),
    ([], b"\n", [b""]),
    (["--input-framing", "until-close"], b"one\ntwo\n", [b"one\ntwo\n"]),
    (["--input-framing", "u16be"], b"\0\2\n\0\0\0", [b"\n\0", b""]),
    (["--input-framing", "fixed:2"], b"abcd", [b"ab", b"cd"]),
])
def test_how_the_input_is_cut(wing: Any, arguments: "list[str]", data: bytes, frames: "list[bytes]") -> None:
    came: list[bytes] = []
    with peer(collect(came)) as address:
        result = send(wing, address, *arguments, data=data)
    assert (came, result.stdout, result.stderr) == (frames, "", "")


def test_a_file_as_input(wing: Any, tmp_path: Path) -> None:
    path = tmp_path / "input"
    path.write_bytes(b"one\n" * 20_000)
    came: list[bytes] = []
    with peer(collect(came)) as address:
        run(wing, "send", address, path, "-f", "u8")
    assert came == [b"one"] * 20_000
    assert send(wing, "127.0.0.1:1", tmp_path / "nowhere", code=1).stderr == (
        f"Error: {tmp_path / 'nowhere'}: No such file or directory\n")


@pytest.mark.parametrize(("arguments", "data", "message"), [
    ([], b"one\ntwo\n" + b"x" * 256 + b"\nthree\n",
     "frame 3: length does not fit its field (256, at most 255)"),
    (["--max-length", 10], b"one\ntwo\n" + b"x" * 11 + b"\n",
     "frame 3: frame is too long: more than 10 bytes of payload, max_length is 10 (frame at stream position 8)"),
    (["--input-framing", "crlf"], b"one\r\ntwo\r\nthree\n",
     "frame 3: line has a bare CR or LF (0x0a): byte 5 of the frame at stream position 10"),
    (["--input-framing", "lines"], b"one\ntwo\nthree",
     "frame 3: stream ended 5 bytes into a frame, at least 1 more were needed (frame at stream position 8)"),
])
def test_an_input_that_cant_be_sent_fails_behind_what_can(wing: Any, arguments: "list[Any]", data: bytes,
                                                         message: str) -> None:
    came: list[bytes] = []
    with peer(collect(came)) as address:
        result = send(wing, address, *arguments, data=data, code=1)
    assert came == [b"one", b"two"]
    assert result.stderr == f"Error: standard input, {message}\n"


# ---- the replies ----

@pytest.mark.parametrize(("arguments", "output"), [
    ([], b"one\n\ntwo\n"),
    (["--output-framing", "u16le"], b"\3\0one\0\0\3\0two"),
    (["--output-framing", "delimiter:0x00"], b"one\0\0two\0"),
    (["--hex"], b"6f6e65\n\n74776f\n"),
    (["--json"], b'{"length": 3, "hex": "6f6e65", "text": "one"}\n{"length": 0, "hex": "", "text": ""}\n'
                 b'{"length": 3, "hex": "74776f", "text": "two"}\n'),
])
def test_how_the_replies_are_written(wing: Any, arguments: "list[str]", output: bytes) -> None:
    with peer(replies(b"one", b"", b"two")) as address:
        assert send(wing, address, *arguments).stdout_bytes == output


def test_json_holds_any_reply_whole(wing: Any) -> None:
    with peer(replies(bytes(range(255)))) as address:
        row = json.loads(send(wing, address, "--json").stdout)
    assert (bytes.fromhex(row["hex"]), row["length"]) == (bytes(range(255)), 255)


@pytest.mark.parametrize(("arguments", "output", "reason"), [
    ([], b"one\n", "reply 2 can't be written as Lines(): payload holds a delimiter (at byte 1)"),
    (["--output-framing", "until-close"], b"one", "reply 2 can't be written as UntilClose(): it follows another"),
])
def test_a_reply_that_cant_be_written_is_an_error(wing: Any, arguments: "list[str]", output: bytes,
                                                  reason: str) -> None:
    with peer(replies(b"one", b"t\no", b"three")) as address:
        result = send(wing, address, *arguments, code=1)
    assert result.stdout_bytes == output
    assert reason in result.stderr and "--hex or --json" in result.stderr


@pytest.mark.parametrize(("wire", "message"), [
    (b"\3one\3tw", "stream ended 3 bytes into a frame, at least 1 more were needed (frame at stream position 4)"),
    (b"\3one\5three", "frame is too long: 5 bytes of payload, max_length is 3 (frame at stream position 4)"),
])
def test_bad_replies_fail_behind_the_good_ones(wing: Any, wire: bytes, message: str) -> None:
    def act(conn: FramedSocket) -> None:
        list(conn)
        conn.sock.sendall(wire)

    with peer(act) as address:
        result = send(wing, address, "--max-length", 3, data=b"in\n", code=1)
    assert (result.stdout, result.stderr) == ("one\n", f"Error: {message}\n")


# ---- the end ----

def test_the_half_is_closed_once_all_is_sent(wing: Any) -> None:
    with peer(replies(b"after")) as address:  # which waits for the end
        assert send(wing, address, data=b"one\n").stdout == "after\n"


def test_with_replies_to_wait_for_no_half_is_closed_before(wing: Any) -> None:
    def act(conn: FramedSocket) -> None:
        assert [conn.recv(), conn.recv()] == [b"one", b"two"]
        with pytest.raises(TimeoutError):
            conn.recv(timeout=0.2)
        conn.send_many([b"1", b"2", b"3"])
        with pytest.raises((EndOfStream, ConnectionError)):
            conn.recv()

    with peer(act) as address:
        assert send(wing, address, "--replies", 2, data=b"one\ntwo\n").stdout == "1\n2\n"


def test_all_is_sent_though_enough_replies_have_come(wing: Any) -> None:
    came: list[bytes] = []

    def act(conn: FramedSocket) -> None:
        conn.send(b"early")
        came.extend(conn)

    with peer(act) as address:
        assert run(wing, "send", address, "-f", "u8", "--replies", 1, data=b"one\n" * 100_000)[0] == b"early\n"
    assert came == [b"one"] * 100_000


def test_fewer_replies_than_asked_for_are_an_error(wing: Any) -> None:
    def act(conn: FramedSocket) -> None:
        conn.recv()
        conn.send(b"1")

    with peer(act) as address:
        result = send(wing, address, "--replies", 2, data=b"one\n", code=1)
    assert result.stdout == "1\n"
    assert result.stderr == "Error: the peer ended the connection after 1 of 2 replies\n"


def test_silence_is_an_error_after_the_timeout(wing: Any) -> None:
    def act(conn: FramedSocket) -> None:
        assert list(conn) == [b"one"]
        with pytest.raises((EndOfStream, ConnectionError)):
            conn.recv()

    with peer(act) as address:
        result = send(wing, address, "--timeout", 0.2, "--replies", 1, data=b"one\n", code=1)
    assert result.stderr == f"Error: {address}: the peer neither took nor sent anything for 0.2 s\n"


def test_what_a_peer_sent_before_it_broke_the_connection_is_printed(wing: Any) -> None:
    """It takes no more, but its reply says why (hostile case S5)."""
    def act(conn: FramedSocket) -> None:
        conn.recv()
        conn.send(b"go away")
        select.select([go], [], [], LIMIT)
        reset_when_closed(conn.sock)

    go, ready = socket.socketpair()
    with go, ready, peer(act) as address, start(wing, "send", address, "-f", "u8") as process:
        process.stdin.write(b"one\n")
        assert Task(process.stdout.readline).result() == b"go away\n"
        ready.send(b"!")
        with pytest.raises(BrokenPipeError):
            while True:
                process.stdin.write(b"more\n" * 10_000)
        assert process.wait(LIMIT) == 1
        assert process.stderr.read().decode() in (f"Error: {address}: Connection reset by peer\n",
                                                  f"Error: {address}: Broken pipe\n")


def test_a_peer_that_ends_while_nothing_is_to_be_sent_is_no_error(wing: Any) -> None:
    def act(conn: FramedSocket) -> None:
        conn.send(conn.recv())

    with peer(act) as address, start(wing, "send", address, "-f", "u8") as process:
        process.stdin.write(b"quit\n")
        assert process.wait(LIMIT) == 0
        assert (process.stdout.read(), process.stderr.read()) == (b"quit\n", b"")


def test_a_peer_that_ends_while_a_part_of_a_payload_was_read_is_one(wing: Any) -> None:
    def act(conn: FramedSocket) -> None:
        conn.send(conn.recv())

    with peer(act) as address, start(wing, "send", address, "-f", "u8") as process:
        process.stdin.write(b"quit\nand")
        assert process.wait(LIMIT) == 1
        assert process.stdout.read() == b"quit\n"
        assert process.stderr.read() == (b"Error: the peer ended the connection, 3 bytes of the input were not yet "
                                         b"sent\n")


def test_ctrl_c_ends_it_quietly(wing: Any) -> None:
    with peer(echo) as address, start(wing, "send", address, "-f", "u8") as process:
        process.stdin.write(b"one\n")
        assert Task(process.stdout.readline).result() == b"one\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(LIMIT) == 130
        assert process.stderr.read() == b""


def test_a_reader_that_has_gone_is_no_noise(wing: Any) -> None:
    with peer(echo) as address, start(wing, "send", address, "-f", "u8") as process:
        process.stdin.write(b"one\n")
        assert Task(process.stdout.readline).result() == b"one\n"
        process.stdout.close()
        process.stdin.write(b"two\n")
        assert process.wait(LIMIT) == 1
        assert process.stderr.read() == b""


# ---- back-pressure ----

MOST = 64 << 20  # far more than all the buffers on the way hold


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that opens and can't be read")
def test_an_input_that_can_not_be_read_is_an_error(wing: Any) -> None:
    """S17: of the file, not of the peer, who gets a clean end."""
    frames: list[bytes] = []
    with peer(collect(frames)) as address:
        result = invoke(wing, "send", address, "/proc/self/mem", "-f", "u8", code=1)
    assert (result.stdout, result.stderr, frames) == ("", "Error: /proc/self/mem: Input/output error\n", [])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("count", [1, 100_000])
def test_replies_that_find_the_disk_full_are_an_error(wing: Any, count: int) -> None:
    """S17."""
    with peer(echo) as address, open("/dev/full", "wb") as full, \
            start(wing, "send", address, "-f", "u8", stdout=full) as process:
        _, messages = process.communicate(b"one\n" * count, timeout=LIMIT)
        assert (process.returncode, messages) == (1, b"Error: standard output: No space left on device\n")


def test_an_input_is_not_read_faster_than_the_peer_takes_it(wing: Any) -> None:
    go, ready = socket.socketpair()

    def act(conn: FramedSocket) -> None:
        conn.send(conn.recv())
        select.select([go], [], [], 3 * LIMIT)

    with go, ready, peer(act) as address, start(wing, "send", address, "-f", "u8") as process:
        process.stdin.write(b"one\n")
        assert Task(process.stdout.readline).result() == b"one\n"
        os.set_blocking(process.stdin.fileno(), False)
        written = 0
        while written < MOST and select.select([], [process.stdin], [], 2)[1]:
            written += os.write(process.stdin.fileno(), (b"x" * 199 + b"\n") * 20)
        assert written < MOST
        process.kill()
        ready.send(b"!")


def test_replies_are_not_taken_faster_than_the_output_is_read(wing: Any) -> None:
    stalled = threading.Event()

    def act(conn: FramedSocket) -> None:
        sent = 0
        with pytest.raises(TimeoutError):
            while sent < MOST:
                conn.send(b"x" * 65536, timeout=2)
                sent += 65536
        stalled.set()

    with peer(act, "u32be") as address, start(wing, "send", address, "-f", "u32be") as process:
        assert stalled.wait(2 * LIMIT)
        process.kill()


# ---- terminals ----

def test_progress_is_shown_on_a_terminal_alone(wing: Any, tmp_path: Path) -> None:
    (tmp_path / "input").write_bytes(b"one\n" * 1000)
    came: list[bytes] = []
    master, slave = pty.openpty()
    try:
        with peer(collect(came)) as address, start(wing, "send", address, tmp_path / "input", "-f", "u8",
                                                   stderr=slave) as process:
            os.close(slave)
            shown = b""
            try:
                while piece := os.read(master, 65536):
                    shown += piece
            except OSError:  # how the end of a terminal reads
                pass
            assert (process.wait(LIMIT), process.stdout.read()) == (0, b"")
    finally:
        os.close(master)
    assert b"sent" in shown and came == [b"one"] * 1000


# ---- wrong usage ----

@pytest.mark.parametrize(("arguments", "words"), [
    ([":70"], "Missing option '-f'"),
    (["-f", "lines"], "Missing argument 'ADDRESS'"),
    ([":0", "-f", "lines"], "port 0 can't be connected to"),
    ([":70", "-f", "lines", "--hex", "--json"], "--hex and --json exclude each other"),
    ([":70", "-f", "lines", "--replies", "-1"], "-1 is not in the range"),
    ([":70", "-f", "lines", "--timeout", "nan"], "nan is not in the range"),
    ([":70", "-f", "lines", "--timeout", "inf"], "inf is not in the range"),
    ([":70", "-f", "lines", "--input-framing", "Lines(1)"], "Invalid value for '--input-framing'"),
])
def test_wrong_usage(wing: Any, arguments: "list[str]", words: str) -> None:
    assert words in " ".join(invoke(wing, "send", *arguments, code=2).stderr.split())
