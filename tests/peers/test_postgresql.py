"""PostgreSQL: start-up by one framing, messages by another, queries, rows, errors, copying and cancelling."""

from __future__ import annotations

import signal
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from programs import HOST, dial, find, folder, run, running, wait_for
from scripted import LIMIT

from sockframe import EndOfStream, FixedLength, framing

STARTUP = framing("postgres-startup")
MESSAGES = framing("postgres")

PROTOCOL = struct.pack("!HH", 3, 0)
SSL_REQUEST = struct.pack("!HH", 1234, 5679)
CANCEL = struct.pack("!HH", 1234, 5678)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[int]:
    """The port of a server with an empty database."""
    bins = sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True)
    initdb, postgres = (find(program, "postgresql", *bins) for program in ("initdb", "postgres"))
    with folder() as where:
        run([initdb, "-D", "data", "-U", "tester", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"], where)
        settings = [f"listen_addresses={HOST}", f"unix_socket_directories={where}", "fsync=off"]
        options = [word for setting in settings for word in ("-c", setting)]
        with running(lambda port: [postgres, "-D", "data", "-p", str(port), *options], where,
                     end=signal.SIGINT) as port:
            assert wait_for(lambda: "ready" in (where / "data" / "postmaster.pid").read_text())  # it listens before
            yield port


def message(tag: bytes, body: bytes = b"") -> bytes:
    """Return a message to send, its length left to the framing."""
    return tag + bytes(4) + body


def startup(database: bytes = b"postgres") -> bytes:
    """Return the first payload."""
    words = [b"user", b"tester", b"database", database, b"application_name", b"sockframe", b"", b""]
    return PROTOCOL + b"\0".join(words)


def until_ready(conn: Any) -> list[tuple[bytes, bytes]]:
    """Return type and body of each message, up to ReadyForQuery."""
    messages = []
    while not messages or messages[-1][0] != b"Z":
        for frame in conn.recv_many():
            assert int.from_bytes(frame[1:5], "big") == len(frame) - 1
            messages.append((frame[:1], frame[5:]))
    return messages


@contextmanager
def logged_in(wing: Any, port: int) -> Iterator[Any]:
    """Give a connection that is ready for a query."""
    with dial(wing, port, STARTUP) as conn:
        log_in(conn)
        yield conn


def log_in(conn: Any) -> tuple[dict[bytes, bytes], bytes]:
    """Start up, and return the server's parameters and the key to cancel a query."""
    conn.send(startup())
    conn.framing = MESSAGES
    (authentication, *messages) = until_ready(conn)
    assert authentication == (b"R", bytes(4))
    (key,) = (body for tag, body in messages if tag == b"K")
    assert messages[-1] == (b"Z", b"I")
    return dict(body.split(b"\0")[:2] for tag, body in messages if tag == b"S"), key


def query(conn: Any, text: str) -> list[tuple[bytes, bytes]]:
    conn.send(message(b"Q", text.encode() + b"\0"))
    return until_ready(conn)


def columns(row: bytes) -> list[bytes | None]:
    """Return the values of a DataRow."""
    (count,), at, values = struct.unpack_from("!H", row), 2, []
    for _ in range(count):
        (size,) = struct.unpack_from("!i", row, at)
        at += 4
        values.append(None if size < 0 else row[at:at + size])
        at += max(0, size)
    assert at == len(row)
    return values


def fields(report: bytes) -> dict[str, str]:
    """Return the fields of an ErrorResponse."""
    return {field[:1]: field[1:] for field in report.decode().split("\0") if field}


def test_start_up_and_a_query(wing: Any, postgresql: int) -> None:
    with dial(wing, postgresql, STARTUP) as conn:
        parameters, _ = log_in(conn)
        assert parameters[b"server_encoding"] == b"UTF8"
        assert parameters[b"application_name"] == b"sockframe"
        text = "SELECT n, repeat('x', n * n), NULL FROM generate_series(0, 600) n"
        (described, *rows, done, ready) = query(conn, text)
        assert described[0] == b"T" and struct.unpack_from("!H", described[1]) == (3,) and b"repeat\0" in described[1]
        assert [columns(row) for tag, row in rows] == [[b"%d" % n, b"x" * n * n, None] for n in range(601)]
        assert (done, ready) == ((b"C", b"SELECT 601\0"), (b"Z", b"I"))


def test_a_framing_for_one_byte_before_the_start_up(wing: Any, postgresql: int) -> None:
    with dial(wing, postgresql, STARTUP) as conn:
        conn.send(SSL_REQUEST)
        assert conn.recv(FixedLength(1)) == b"N"
        log_in(conn)


def test_an_error_leaves_the_connection_in_step(wing: Any, postgresql: int) -> None:
    with logged_in(wing, postgresql) as conn:
        for _ in range(3):
            (error, ready) = query(conn, "SELECT nothing FROM nowhere")
            assert error[0] == b"E" and fields(error[1])["C"] == "42P01"
            assert "nowhere" in fields(error[1])["M"]
            assert ready == (b"Z", b"I")
            messages = query(conn, "SELECT 1 / (2 - n) FROM generate_series(1, 3) n")
            assert [tag for tag, _ in messages] == [b"T", b"D", b"E", b"Z"]
            assert [tag for tag, _ in query(conn, "")] == [b"I", b"Z"]


def test_terminate(wing: Any, postgresql: int) -> None:
    with logged_in(wing, postgresql) as conn:
        conn.send(message(b"X"))
        with pytest.raises(EndOfStream):
            conn.recv()


def test_a_start_up_that_is_refused(wing: Any, postgresql: int) -> None:
    with dial(wing, postgresql, STARTUP) as conn:
        conn.send(startup(b"no such database"))
        conn.framing = MESSAGES
        frames = list(conn)
        assert [frame[:1] for frame in frames] == [b"R", b"E"]
        assert fields(frames[-1][5:])["C"] == "3D000"


def test_pipelined_statements_come_back_in_order(wing: Any, postgresql: int) -> None:
    with logged_in(wing, postgresql) as conn:
        conn.send(message(b"P", b"double\0SELECT $1::int * 2\0" + bytes(2)))
        batch = []
        for n in range(500):
            text = b"%d" % n
            batch.append(message(b"B", b"\0double\0" + struct.pack("!HHi", 0, 1, len(text)) + text + bytes(2)))
            batch.append(message(b"E", b"\0" + bytes(4)))
        conn.send_many([*batch, message(b"S")])
        messages = until_ready(conn)
        assert [columns(body) for tag, body in messages if tag == b"D"] == [[b"%d" % (2 * n)] for n in range(500)]


def test_copy_in_and_out(wing: Any, postgresql: int) -> None:
    lines = [b"%d\t%s\n" % (n, b"y" * (n % 700)) for n in range(5000)]
    with logged_in(wing, postgresql) as conn:
        query(conn, "CREATE TEMPORARY TABLE t (n int, text text)")
        conn.send(message(b"Q", b"COPY t FROM STDIN\0"))
        assert conn.recv()[:1] == b"G"
        conn.send_many(message(b"d", line) for line in lines)
        conn.send(message(b"c"))
        assert until_ready(conn) == [(b"C", b"COPY 5000\0"), (b"Z", b"I")]
        messages = query(conn, "COPY (SELECT * FROM t ORDER BY n) TO STDOUT")
        assert [body for tag, body in messages if tag == b"d"] == lines


def test_cancel(wing: Any, postgresql: int) -> None:
    with dial(wing, postgresql, STARTUP) as conn:
        _, key = log_in(conn)
        conn.send(message(b"Q", b"SELECT pg_sleep(30)\0"))
        frames: list[bytes] = []
        for _ in range(50):  # a query that has not begun is not cancelled
            with dial(wing, postgresql, STARTUP) as other:
                other.send(CANCEL + key)
                with pytest.raises(EndOfStream):
                    other.recv()
            try:
                while frames[-1:] != [b"Z\0\0\0\x05I"]:
                    frames.append(conn.recv(timeout=0.2))
                break
            except TimeoutError:
                pass
        assert fields(frames[-2][5:])["C"] == "57014"


def test_over_a_unix_socket(wing: Any, postgresql: int) -> None:
    with logged_in(wing, postgresql) as conn:
        ((_, row),) = [found for found in query(conn, "SHOW unix_socket_directories") if found[0] == b"D"]
    (path,) = columns(row)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(LIMIT)
        sock.connect(f"{path.decode()}/.s.PGSQL.{postgresql}")
        with wing.FramedSocket(sock, STARTUP) as conn:
            log_in(conn)
            (_, (_, row), *_) = query(conn, "SELECT repeat('z', 3000000)")
            assert columns(row) == [b"z" * 3_000_000]
