"""Python's own programs: multiprocessing's connections, logging's sockets, an HTTP server, an SMTP client."""

from __future__ import annotations

import email.message
import http.client
import http.server
import json
import logging
import logging.config
import logging.handlers
import multiprocessing.connection
import pickle
import smtplib
import socket
import socketserver
import struct
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
from programs import HOST, dial, folder, served
from scripted import LIMIT, Task, noise

from sockframe import Delimiter, EndOfStream, HeaderBlock, LengthField, MalformedFrameError, framing

# ---- multiprocessing.connection: a signed length of 32 bits; -1 says that one of 64 bits follows ----

CONNECTION = framing("multiprocessing")
SIZES = (0, 1, 16383, 16384, 16385, 300_000, 1_000_000)  # above 16 KiB, it sends the header by itself


@contextmanager
def half_framed(wing: Any) -> Iterator[tuple[Any, Any]]:
    """Give a framed socket, and the connection of multiprocessing at its other end."""
    one, other = socket.socketpair()
    one.settimeout(LIMIT)
    with multiprocessing.connection.Connection(other.detach()) as theirs, wing.FramedSocket(one, CONNECTION) as ours:
        yield ours, theirs


@pytest.mark.parametrize("size", SIZES)
def test_bytes_from_and_to_multiprocessing(wing: Any, size: int) -> None:
    with half_framed(wing) as (ours, theirs):
        task = Task(theirs.send_bytes, noise(size))
        assert ours.recv() == noise(size)
        task.result()
        task = Task(theirs.recv_bytes)
        ours.send(noise(size))
        assert task.result() == noise(size)


def test_many_objects_from_and_to_multiprocessing(wing: Any) -> None:
    objects = [{"number": number, "bytes": noise(number * 100)} for number in range(300)]
    with half_framed(wing) as (ours, theirs):
        task = Task(lambda: [theirs.send(one) for one in objects] and theirs.close())
        assert [pickle.loads(frame) for frame in ours] == objects
        task.result()
    with half_framed(wing) as (ours, theirs):
        task = Task(lambda: [theirs.recv() for _ in objects])
        ours.send_many([pickle.dumps(one) for one in objects])
        assert task.result() == objects


def test_the_long_header_of_multiprocessing(wing: Any) -> None:
    with half_framed(wing) as (ours, theirs):
        ours.framing = LengthField(8, offset=4)
        ours.send(b"\xff\xff\xff\xff" + bytes(8) + b"not so long")
        ours.framing = CONNECTION
        assert theirs.recv_bytes() == b"not so long"
        theirs.send_bytes(b"short")
        assert ours.recv() == b"short"
        with socket.socket(fileno=socket.dup(theirs.fileno())) as wire:
            wire.settimeout(LIMIT)
            task = Task(wire.sendall, struct.pack("!iQ", -1, 300_000) + noise(300_000))
            assert ours.recv() == noise(300_000)
            task.result()
            wire.sendall(struct.pack("!i", -2))
        with pytest.raises(MalformedFrameError):
            ours.recv()


class WithBytes:
    """What multiprocessing's authentication asks of a connection."""

    def __init__(self, conn: Any) -> None:
        self.conn = conn
        self.send_bytes = conn.send

    def recv_bytes(self, limit: int) -> bytes:
        return self.conn.recv()


@pytest.mark.parametrize("place", ["tcp", "unix"])
def test_a_listener_of_multiprocessing_that_wants_a_key(wing: Any, place: str) -> None:
    with folder() as where, multiprocessing.connection.Listener(
            (HOST, 0) if place == "tcp" else str(where / "s"), authkey=b"secret") as listener:
        task = Task(listener.accept)
        sock = socket.socket(socket.AF_INET if place == "tcp" else socket.AF_UNIX)
        sock.settimeout(LIMIT)
        sock.connect(listener.address)
        with wing.FramedSocket(sock, CONNECTION) as ours:
            multiprocessing.connection.answer_challenge(WithBytes(ours), b"secret")
            multiprocessing.connection.deliver_challenge(WithBytes(ours), b"secret")
            with task.result() as theirs:
                theirs.send(["an", "object"])
                assert pickle.loads(ours.recv()) == ["an", "object"]
            with pytest.raises(EndOfStream):
                ours.recv()


# ---- logging: pickled records, or a configuration, behind four bytes of length ----

def test_records_of_a_socket_handler(wing: Any) -> None:
    with served(wing, framing("logging-socket"), list) as (port, task):
        handler = logging.handlers.SocketHandler(HOST, port)
        logger = logging.Logger("peers")
        logger.addHandler(handler)
        with closing(handler):
            for number in range(500):
                logger.warning("record %d: %s", number, "m" * number * 10)
            try:
                raise KeyError("a traceback, too")
            except KeyError:
                logger.exception("caught")
        records = [logging.makeLogRecord(pickle.loads(frame)) for frame in task.result()]
    assert [record.getMessage() for record in records[:-1]] == [
        f"record {number}: {'m' * number * 10}" for number in range(500)]
    assert {record.name for record in records} == {"peers"}
    assert "a traceback, too" in records[-1].exc_text


def test_records_to_a_handler_that_waits(wing: Any) -> None:
    """The receiver of logging's cookbook, on socketserver."""
    received: list[logging.LogRecord] = []

    class Receiver(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while header := self.rfile.read(4):
                pickled = self.rfile.read(*struct.unpack(">L", header))
                received.append(logging.makeLogRecord(pickle.loads(pickled)))

    with socketserver.TCPServer((HOST, 0), Receiver) as server:
        task = Task(server.handle_request)
        with dial(wing, server.server_address[1], framing("logging-socket")) as conn:
            conn.send_many(pickle.dumps({"name": "peers", "msg": "x" * number}) for number in range(1000))
        task.result()
    assert [record.getMessage() for record in received] == ["x" * number for number in range(1000)]


def test_a_configuration_for_logging(wing: Any) -> None:
    received: list[bytes] = []
    configuration = json.dumps({"version": 1, "padding": "p" * 200_000}).encode()
    server: Any = logging.config.listen(0, verify=received.append)
    server.start()
    try:
        assert server.ready.wait(LIMIT)
        with dial(wing, server.port, framing("logging-socket")) as conn:
            conn.send(configuration)
            with pytest.raises(EndOfStream):
                conn.recv()
    finally:
        logging.config.stopListening()
        server.join(LIMIT)
    assert received == [configuration]


# ---- HTTP: header lines, then as many bytes as one of them tells ----

class Echo(http.server.BaseHTTPRequestHandler):
    """Answers with what was asked, or sent."""

    protocol_version = "HTTP/1.1"

    def respond(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.respond(self.path.encode())

    def do_POST(self) -> None:
        self.respond(self.rfile.read(int(self.headers["Content-Length"])))

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def http_server() -> Iterator[int]:
    """The port of an HTTP server."""
    with http.server.ThreadingHTTPServer((HOST, 0), Echo) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=[0.05], daemon=True)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join(LIMIT)


def test_responses_of_an_http_server(wing: Any, http_server: int) -> None:
    with dial(wing, http_server, HeaderBlock()) as conn:
        conn.framing = Delimiter(b"\r\n\r\n")
        conn.send_many([f"GET /{number} HTTP/1.1\r\nHost: here".encode() for number in range(100)])
        conn.framing = HeaderBlock()
        assert [conn.recv() for _ in range(100)] == [b"/%d" % number for number in range(100)]
        response = conn.framing = HeaderBlock(strip=False)
        for size in (0, 1, 300_000):
            conn.send(b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % size + noise(size))
            head, _, body = conn.recv().partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 OK\r\n") and b"content-length: %d" % size in head
            assert body == noise(size)
        assert response.field == "Content-Length"
        with pytest.raises(ValueError):
            conn.send(b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nfour")


def test_requests_of_an_http_client(wing: Any) -> None:
    def answer(conn: Any) -> list[bytes]:
        bodies = []
        for request in conn:
            bodies.append(request.partition(b"\r\n\r\n")[2])
            conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(bodies[-1]) + bodies[-1][::-1])
        return bodies

    with served(wing, HeaderBlock(strip=False), answer) as (port, task):
        with closing(http.client.HTTPConnection(HOST, port, timeout=LIMIT)) as client:
            for size in (0, 1, 300_000):
                client.request("POST", "/", body=noise(size))
                assert client.getresponse().read() == noise(size)[::-1]
        assert task.result() == [noise(size) for size in (0, 1, 300_000)]


# ---- SMTP: lines that end in CRLF and nothing else ----

def take_mail(conn: Any) -> list[bytes]:
    """Be an SMTP server for one connection, and return the lines of the messages."""
    conn.send(b"220 here")
    lines: list[bytes] = []
    for line in conn:
        verb = line[:4].upper()
        if verb == b"EHLO":
            conn.send_many([b"250-here", b"250-8BITMIME", b"250 SIZE 1000000"])
        elif verb == b"DATA":
            conn.send(b"354 go on")
            while (text := conn.recv()) != b".":
                lines.append(text.removeprefix(b"."))
            conn.send(b"250 taken")
        else:
            conn.send(b"221 bye" if verb == b"QUIT" else b"250 ok")
    return lines


def test_mail_of_an_smtp_client(wing: Any) -> None:
    message = email.message.EmailMessage()
    message["From"], message["To"], message["Subject"] = "a@here.test", "b@here.test", "lines"
    message.set_content("\n".join(["a line", "", ".", "..", ".dotted", *("l" * 70 for _ in range(5000))]))
    with served(wing, framing("smtp"), take_mail) as (port, task):
        with smtplib.SMTP(HOST, port, local_hostname="here.test", timeout=LIMIT) as client:
            client.send_message(message)
        lines = task.result()
    assert lines == message.as_bytes().splitlines()
