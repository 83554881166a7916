"""`sockframe dump`: every frame with its place, on both wings; cut, malformed, endless and hostile streams."""

import json
import os
import random
import resource
import shlex
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme
from commands import CHOICES, COMMAND, invoke, run, start
from scripted import LIMIT, Task
from test_protocols import FAULTS, NAMES, SAMPLES

import sockframe
from sockframe import Cobs, Delimiter, FixedLength, HeaderBlock, LengthField, LengthPrefix, Lines, Slip, Tagged, Varint
from sockframe.cli import params, records
from sockframe.cli.records import Records, as_text
from sockframe.framings import UNLIMITED, Framing


def rows(output: str) -> "list[dict[str, Any]]":
    """Return the lines of JSON."""
    return [json.loads(line) for line in output.splitlines()]


def places(wires: "list[bytes]") -> "list[tuple[int, int]]":
    """Return the offset and the size of each of these pieces of a stream."""
    return [(sum(map(len, wires[:i])), len(wire)) for i, wire in enumerate(wires)]


# ---- every protocol ----

@pytest.mark.parametrize("name", NAMES)
def test_each_frame_has_its_line(wing: Any, name: str) -> None:
    frames = SAMPLES[name].frames
    result = invoke(wing, "dump", "-f", name, "--json", "--bytes", 10**6, data=SAMPLES[name].wire)
    found = rows(result.stdout)
    assert [(row["offset"], row["size"]) for row in found] == places([wire for wire, _ in frames])
    assert [(row["length"], bytes.fromhex(row["hex"])) for row in found] == [(len(each), each) for _, each in frames]
    assert result.stderr == ""


@pytest.mark.parametrize("name", NAMES)
def test_a_cut_stream_says_where(wing: Any, name: str) -> None:
    wires = [wire for wire, _ in SAMPLES[name].frames]
    while len(wires[-1]) == 1:
        wires.pop()
    stream = b"".join(wires)[:-1]
    decoder = wing.Decoder(sockframe.framing(name))
    assert len(decoder.decode(stream)) == len(wires) - 1
    with pytest.raises(sockframe.IncompleteFrameError) as caught:
        decoder.finish()
    result = invoke(wing, "dump", "-f", name, "--json", data=stream, code=1)
    assert len(rows(result.stdout)) == len(wires) - 1
    assert result.stderr == f"Error: {caught.value}\n"
    assert caught.value.position == sum(map(len, wires[:-1]))


@pytest.mark.parametrize(("name", "data", "kind"), FAULTS)
def test_a_bad_stream_says_where_and_why(wing: Any, name: str, data: bytes, kind: "type[Exception]") -> None:
    stream = SAMPLES[name].wire + data
    decoder = wing.Decoder(sockframe.framing(name))
    assert decoder.decode(stream) == SAMPLES[name].payloads
    with pytest.raises(kind) as caught:
        decoder.next_frame()
    result = invoke(wing, "dump", "-f", name, "--json", data=stream, code=1)
    assert len(rows(result.stdout)) == len(SAMPLES[name].frames)
    assert result.stderr == f"Error: {caught.value}\n"


# ---- lines ----

def test_lines_for_people(wing: Any) -> None:
    data = b"hello\n\n" + "w\u00f6rld \\".encode() + b"\xff\x1b[2J\n" + b"x" * 20 + b"\n"
    result = invoke(wing, "dump", "-f", "lines", "--bytes", 12, data=data)
    assert result.stdout.splitlines() == [
        "         0        5  68 65 6c 6c 6f                          |hello|",
        "         6        0                                          ||",
        "         7       13  77 c3 b6 72 6c 64 20 5c ff 1b 5b 32...  |w\u00f6rld \\\\\\xff\\x1b[2|...",
        "        21       20  78 78 78 78 78 78 78 78 78 78 78 78...  |xxxxxxxxxxxx|...",
    ]


@pytest.mark.parametrize("most", [0, 1, 300])
def test_no_more_bytes_are_shown_than_asked_for(wing: Any, most: int) -> None:
    payload = bytes(range(256))
    (row,) = rows(invoke(wing, "dump", "-f", "u16be", "--json", "--bytes", most, data=b"\1\0" + payload).stdout)
    assert (row["length"], row["hex"]) == (256, payload[:most].hex())
    line = invoke(wing, "dump", "-f", "u16be", "--bytes", most, data=b"\1\0" + payload).stdout
    assert ("..." in line) == (most < 256)


HOSTILE = [b"\x1b]0;title\x07", b"\x9b31m", "\u202egnp.exe".encode(), "\x85\u2028\u2029".encode(), b"\r\n\t\b\0\x7f",
           "\ue000\U000e0041\ufeff\u00ad".encode(), b"\xed\xa0\x80\xf8\xc0\xaf", bytes(range(256))]


@pytest.mark.parametrize("payload", HOSTILE)
@pytest.mark.parametrize("how", [[], ["--json"]])
def test_no_payload_reaches_the_terminal_as_it_is(wing: Any, payload: bytes, how: "list[str]") -> None:
    frame = len(payload).to_bytes(2, "big") + payload
    output = invoke(wing, "dump", "-f", "u16be", "--bytes", 1000, *how, data=frame).stdout
    assert output.endswith("\n") and output[:-1].isprintable()
    if how:
        assert output.isascii()


def test_different_bytes_read_differently() -> None:
    texts = {as_text(bytes([one, other])) for one in range(256) for other in range(256)}
    assert len(texts) == 65536
    assert as_text("\u00e9\u20ac\U0001f600".encode()) == "\u00e9\u20ac\U0001f600"


def test_letters_that_the_terminal_lacks_are_escaped(wing: Any) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONIOENCODING", "ascii")
        output, messages = run(wing, "dump", "-f", "lines", data="\u00e9\n".encode())
    assert (output.rstrip().endswith(rb"|\xe9|"), messages) == (True, "")


# ---- overlong frames ----

KINDS: "dict[str, Framing]" = {
    "lines": Lines(), "two": Delimiter(b"\0\0", b"end"), "keep": Delimiter(b"\r\n", keep=True),
    "u16": LengthPrefix(2), "field": LengthField(2, offset=1, align=4, strip=3, end=b"!"), "varint": Varint(),
    "netstring": sockframe.framing("netstring"), "header": HeaderBlock(), "cobs": Cobs(), "slip": Slip(),
    "tagged": Tagged({b"a": LengthField(2, offset=1), b"b": Lines()}),
    "inside": Tagged({b"a": LengthField(2, offset=1), b"b": Lines()}),
}


def stream(name: str, chance: random.Random) -> "tuple[list[bytes], list[bytes]]":
    """Return payloads of up to 60 bytes, and their frames."""
    encoder = sockframe.Encoder(KINDS[name])
    payloads = []
    for _ in range(40):
        body = bytes(chance.choices(b"xyz", k=chance.choice([0, 1, 5, 18, 19, 20, 21, 22, 30, 60])))
        if name in ("tagged", "inside"):
            body = chance.choice([b"a\0\0", b"b"]) + body
        elif name == "keep":
            body += b"\r\n"
        elif name == "slip":
            body += b"."
        payloads.append(body)
    wires = [encoder.encode(payload) for payload in payloads]
    if name in ("tagged", "inside"):  # what is delivered has the length filled in, or no line ending
        payloads = [wire if wire[:1] == b"a" else wire[:-1] for wire in wires]
    return payloads, wires


def limit(name: str, overlong: str) -> Framing:
    """Return the framing with a limit of 20 bytes."""
    if name == "inside":
        return Tagged({b"a": LengthField(2, offset=1, max_length=20, overlong=overlong),
                       b"b": Lines(max_length=20, overlong=overlong)})
    return params.limited(KINDS[name], 20, overlong)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("overlong", ["skip", "truncate"])
def test_places_are_right_behind_overlong_frames(wing: Any, monkeypatch: pytest.MonkeyPatch, name: str,
                                                 overlong: str) -> None:
    if overlong == "truncate" and name in ("cobs", "slip"):
        return  # they refuse it, which test_framing_values.py shows
    monkeypatch.setattr(records, "Decoder", wing.Decoder)
    chance = random.Random(len(name))
    payloads, wires = stream(name, chance)
    assert any(len(payload) > 20 for payload in payloads) and any(len(payload) <= 20 for payload in payloads)
    kept = [payload if len(payload) <= 20 else payload[:20] if overlong == "truncate" else None
            for payload in payloads]
    data = b"".join(wires)
    for pieces in [data], [data[i:i + 1] for i in range(len(data))], [data[i:i + 7] for i in range(0, len(data), 7)]:
        found = Records(limit(name, overlong))
        listed = [record for piece in pieces for record in found.feed(piece)]
        listed += found.finish()
        assert [(record.offset, record.size) for record in listed] == places(wires)
        assert [record.payload for record in listed] == kept
        assert found.skipped == kept.count(None)


def test_skipped_frames_are_listed_and_counted(wing: Any) -> None:
    data = b"one\n" + b"x" * 100_000 + b"\ntwo\n"
    arguments = ["dump", "-f", "lines", "--max-length", 10, "--overlong", "skip"]
    result = invoke(wing, *arguments, data=data)
    assert result.stdout.splitlines()[1] == "         4        -  overlong, skipped: 100001 bytes with its header"
    assert result.stderr == "1 overlong frame skipped\n"
    assert rows(invoke(wing, *arguments, "--json", data=data).stdout)[1:] == [
        {"offset": 4, "size": 100_001, "skipped": True},
        {"offset": 100_005, "size": 4, "length": 3, "hex": b"two".hex(), "text": "two"}]


def test_a_tail_and_an_end_that_make_frames(wing: Any) -> None:
    for framing, size in (("Delimiter(b'\\n', tail='deliver')", 3), ("until-close", 7)):
        row = rows(invoke(wing, "dump", "-f", framing, "--json", data=b"one\ntwo").stdout)[-1]
        assert (row["offset"], row["size"], row["length"]) == (7 - size, size, size)


def test_the_limit_is_an_option(wing: Any) -> None:
    data = b"x" * (8 * 1024 * 1024 + 1) + b"\n"
    for framing in ("lines", "delimiter:0x0a"):
        result = invoke(wing, "dump", "-f", framing, data=data, code=1)
        assert "max_length is 8388608" in result.stderr
        result = invoke(wing, "dump", "-f", framing, "--max-length", "unlimited", data=data)
        assert result.stdout.split()[1] == "8388609"
    assert params.limited(KINDS["lines"], UNLIMITED).max_length == UNLIMITED


# ---- files, pipes ----

@contextmanager
def running(wing: Any, *arguments: object, **pipes: Any) -> "Iterator[Any]":
    """Run the command while the block lasts, which ends it."""
    with start(wing, *arguments, **pipes) as process:
        try:
            yield process
        finally:
            process.kill()


def interrupt(process: Any) -> None:
    """End a command by Ctrl-C: with 130, and without a word."""
    process.send_signal(signal.SIGINT)
    output, messages = process.communicate(timeout=LIMIT)
    assert (process.returncode, messages) == (130, b""), output


def test_a_file(wing: Any, tmp_path: Path) -> None:
    path = tmp_path / "capture"
    path.write_bytes(b"\0\1a" * 50_000)
    output, messages = run(wing, "dump", "-f", "u16be", "--json", path)
    found = rows(output.decode())
    assert ([row["offset"] for row in found], messages) == ([*range(0, 150_000, 3)], "")


def test_a_file_that_is_not_there(wing: Any, tmp_path: Path) -> None:
    result = invoke(wing, "dump", "-f", "lines", tmp_path / "nowhere", code=1)
    assert result.stderr == f"Error: {tmp_path / 'nowhere'}: No such file or directory\n"


def test_frames_of_a_pipe_come_as_they_arrive(wing: Any) -> None:
    with running(wing, "dump", "-f", "u8", "--json") as process:
        for number in range(3):
            process.stdin.write(b"\2o")
            process.stdin.write(b"%d" % number)
            row = json.loads(Task(process.stdout.readline).result())
            assert (row["offset"], row["text"]) == (3 * number, f"o{number}")
        interrupt(process)


def test_a_file_is_followed_as_it_grows(wing: Any, tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"one\ntw")
    with running(wing, "dump", "-f", "lines", "--follow", "--json", path) as process, path.open("ab", 0) as file:
        assert json.loads(Task(process.stdout.readline).result())["text"] == "one"
        file.write(b"o\n")
        assert json.loads(Task(process.stdout.readline).result())["text"] == "two"
        file.write(b"three\nfo")
        row = json.loads(Task(process.stdout.readline).result())
        assert (row["offset"], row["text"]) == (8, "three")
        interrupt(process)


def test_a_followed_file_that_is_cut_is_an_error(wing: Any, tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"one\n")
    with running(wing, "dump", "-f", "lines", "--follow", path) as process:
        assert b"one" in Task(process.stdout.readline).result()
        path.write_bytes(b"o\n")
        _, messages = process.communicate(timeout=LIMIT)
    assert (process.returncode, messages.decode()) == (1, f"Error: {path} was cut to 2 bytes, 4 had been read\n")


def test_a_reader_that_has_gone_is_no_noise(wing: Any) -> None:
    with running(wing, "dump", "-f", "lines") as process:
        process.stdin.write(b"one\n")
        assert b"one" in Task(process.stdout.readline).result()
        process.stdout.close()
        process.stdin.write(b"two\n")
        assert process.wait(LIMIT) == 1
        assert process.stderr.read() == b""


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that opens and can't be read")
def test_a_file_that_can_not_be_read_is_an_error(wing: Any) -> None:
    """S17."""
    result = invoke(wing, "dump", "-f", "lines", "/proc/self/mem", code=1)
    assert (result.stdout, result.stderr) == ("", "Error: /proc/self/mem: Input/output error\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("data", [b"one\n", b"one\n" * 100_000, b"one\ntw"], ids=["one", "many", "cut"])
def test_a_full_disk_is_an_error(wing: Any, data: bytes) -> None:
    """S17: and the only one that is told, though the stream may be cut off too."""
    with open("/dev/full", "wb") as full, running(wing, "dump", "-f", "lines", stdout=full) as process:
        _, messages = process.communicate(data, timeout=LIMIT)  # of which it need not read all
    assert (process.returncode, messages) == (1, b"Error: standard output: No space left on device\n")


def test_a_disk_that_gets_full_in_the_midst_is_an_error(wing: Any, tmp_path: Path) -> None:
    """S17: what is on it by then is whole."""
    with (tmp_path / "output").open("wb") as file, running(
            wing, "dump", "-f", "lines", "--json", stdout=file,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))) as process:
        _, messages = process.communicate(b"one\n" * 10_000, timeout=LIMIT)
    assert (process.returncode, messages) == (1, b"Error: standard output: File too large\n")
    found = rows("\n".join((tmp_path / "output").read_text().splitlines()[:-1]))
    assert [row["offset"] for row in found] == [4 * number for number in range(len(found))]
    assert len(found) > 500


@pytest.mark.parametrize(("closed", "name"), [("<&-", "input"), ("</dev/null >&-", "output")])
def test_a_stream_that_was_closed_before_is_an_error(wing: Any, closed: str, name: str) -> None:
    result = subprocess.run(f"{shlex.join(COMMAND)} dump -f lines {closed}", shell=True, capture_output=True,
                            timeout=120, env={**os.environ, "SOCKFRAME_CORE": CHOICES[wing.name]})
    assert (result.returncode, result.stderr.decode()) == (1, f"Error: standard {name}: it is closed\n")


#: Runs the command, then tells the most memory that it has taken, in KiB.
MEASURED = """
import resource, sys, sockframe.cli
sockframe.cli.command(sys.argv[1:], standalone_mode=False)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
"""


def peak(wing: Any, path: Path, size: int) -> int:
    """Return the most memory, in KiB, that a dump of `size` bytes in frames of 1 MiB takes."""
    with path.open("wb") as file:
        for _ in range(size >> 20):
            file.write(b"\0\x0f\xff\xfc" + bytes((1 << 20) - 4))
    result = subprocess.run([sys.executable, "-c", MEASURED, "dump", "-f", "u32be", path], capture_output=True,
                            timeout=120, check=True, env={**os.environ, "SOCKFRAME_CORE": CHOICES[wing.name]})
    assert result.stdout.count(b"\n") == size >> 20
    return int(result.stderr)


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux only")
def test_memory_does_not_follow_the_files_size(wing: Any, tmp_path: Path) -> None:
    small = peak(wing, tmp_path / "capture", 2 << 20)
    assert peak(wing, tmp_path / "capture", 64 << 20) - small < 8 * 1024


# ---- connections ----

def serve_once(data: bytes, listener: socket.socket, context: Any = None) -> Task:
    """Send `data` to the first that connects, over TLS where there is a context, then close."""
    def serve() -> None:
        sock = listener.accept()[0]
        if context is not None:
            sock = context.wrap_socket(sock, server_side=True)
        with sock:
            sock.sendall(data)

    return Task(serve)


@pytest.mark.parametrize("unix", [False, True])
def test_a_connection(wing: Any, tmp_path: Path, unix: bool) -> None:
    with socket.socket(socket.AF_UNIX if unix else socket.AF_INET) as listener:
        listener.bind(str(tmp_path / "s") if unix else ("127.0.0.1", 0))
        listener.listen()
        address = tmp_path / "s" if unix else f"127.0.0.1:{listener.getsockname()[1]}"
        task = serve_once(b"one\ntwo\nthr", listener)
        result = invoke(wing, "dump", "-f", "lines", "--json", "--connect", address, code=1)
        task.result()
    assert [row["text"] for row in rows(result.stdout)] == ["one", "two"]
    assert result.stderr.startswith("Error: stream ended 3 bytes into a frame")


def test_a_connection_over_tls(wing: Any, tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    for option, code in ([["--tls-ca", tmp_path / "ca"], 0], [["--tls-insecure"], 0], [["--tls"], 1]):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            address = f"127.0.0.1:{listener.getsockname()[1]}"
            task = serve_once(b"one\n", listener, context)
            result = invoke(wing, "dump", "-f", "lines", "--json", "--connect", address, *option, code=code)
        if code:
            assert "certificate verify failed" in result.stderr
            with pytest.raises(OSError):
                task.result()
        else:
            task.result()
            assert [row["text"] for row in rows(result.stdout)] == ["one"]


@pytest.mark.parametrize("unix", [False, True])
def test_a_client(wing: Any, tmp_path: Path, unix: bool) -> None:
    with running(wing, "dump", "-f", "u8", "--listen", tmp_path / "s" if unix else "127.0.0.1:0") as process:
        told = Task(process.stderr.readline).result().decode()
        assert told.startswith("listening at ")
        address: Any = told.split()[-1]
        if not unix:
            address = ("127.0.0.1", int(address.rpartition(":")[2]))
        with sockframe.connect(address, LengthPrefix(1), timeout=LIMIT) as conn:
            conn.send(b"one")
            assert b"|one|" in Task(process.stdout.readline).result()
        assert process.wait(LIMIT) == 0
        assert process.stderr.read().endswith(b" has connected\n")
    assert not (tmp_path / "s").exists()


def test_nobody_to_connect_to(wing: Any, tmp_path: Path) -> None:
    result = invoke(wing, "dump", "-f", "lines", "--connect", tmp_path / "s", code=1)
    assert result.stderr == f"Error: {tmp_path / 's'}: No such file or directory\n"


def test_silence_is_an_error_after_the_timeout(wing: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        result = invoke(wing, "dump", "-f", "lines", "--connect", address, "--timeout", "0.1", code=1)
    assert result.stderr == f"Error: {address}: timed out\n"


# ---- wrong usage ----

@pytest.mark.parametrize(("arguments", "words"), [
    ([], "Missing option '-f' / '--framing'"),
    (["-f", "lines", "--connect", ":70", "file"], "a file, --connect and --listen exclude each other"),
    (["-f", "lines", "--listen", ":70", "--follow"], "a file, --connect and --listen exclude each other"),
    (["-f", "lines", "--listen", ":70", "--connect", ":70"], "a file, --connect and --listen exclude each other"),
    (["-f", "lines", "--listen", ":70", "--timeout", "1"], "--timeout and TLS need --connect"),
    (["-f", "lines", "--connect", ":0"], "port 0 can't be connected to"),
    (["-f", "lines", "--connect", "localhost"], "'localhost' has no port: say host:port, or a path with a slash"),
    (["-f", "lines", "--connect", "::1:70"], "an IPv6 address goes in brackets: [::1]:70"),
    (["-f", "lines", "--connect", "a:http"], "the port of 'a:http' must be a number from 0 to 65535"),
    (["-f", "lines", "--connect", ":65536"], "must be a number from 0 to 65535"),
    (["-f", "lines", "--connect", ":\u0663"], "must be a number from 0 to 65535"),
    (["-f", "lines", "--connect", ":70", "--tls-ca", __file__, "--tls-insecure"], "exclude each other"),
    (["-f", "lines", "--tls"], "--timeout and TLS need --connect"),
    (["-f", "lines", "--timeout", "1"], "--timeout and TLS need --connect"),
    (["-f", "lines", "--follow"], "--follow needs a file that can grow, not standard input"),
    (["-f", "lines", "--bytes", "-1"], "-1 is not in the range x>=0"),
    (["-f", "lines", "--max-length", "-1"], "-1 is not in the range"),
    (["-f", "fixed:16", "--max-length", "8"], "length 16 is above max_length 8"),
    (["-f", "cobs", "--overlong", "truncate"], "can't truncate an overlong frame"),
])
def test_wrong_usage(wing: Any, arguments: "list[str]", words: str) -> None:
    result = invoke(wing, "dump", *arguments, code=2)
    assert words in " ".join(result.stderr.split())
    assert result.stdout == ""


@pytest.mark.parametrize(("text", "address"), [
    ("host:70", ("host", 70)), ("[::1]:70", ("::1", 70)), (":70", ("", 70)), ("./s", "./s"), ("/a:70", "/a:70"),
])
def test_addresses(text: str, address: object) -> None:
    assert params.ADDRESS.convert(text, None, None) == address


def test_fixed_lengths_are_never_overlong(wing: Any) -> None:
    output = invoke(wing, "dump", "-f", repr(FixedLength(2)), "--overlong", "skip", "--json", data=b"abcd").stdout
    assert [row["text"] for row in rows(output)] == ["ab", "cd"]
