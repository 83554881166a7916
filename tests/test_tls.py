"""Frames over TLS (group N of the cases): through the methods of an `ssl.SSLSocket`, and by start_tls()."""

from __future__ import annotations

import errno
import select
import selectors
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from scripted import LIMIT, OwnMethods, Scripted, Task, Timed, noise, over_tcp, tls_contexts
from test_broken_laws import Interrupt, Interrupted

from sockframe import (
    Delimiter,
    EndOfStream,
    FramingError,
    IncompleteFrameError,
    LengthPrefix,
    Lines,
    UntilClose,
    connect,
    transport,
)
from sockframe.tls import TLSSocket

Pair = tuple[Any, Any]
Maker = Callable[..., Pair]
READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
KINDS = ["ssl", "start_tls"]
VERSIONS = {"": ssl.TLSVersion.MAXIMUM_SUPPORTED, "TLS 1.2": ssl.TLSVersion.TLSv1_2}
FRAMING = LengthPrefix()


@pytest.fixture(scope="session")
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return the TLS contexts of a client and of a server that it trusts."""
    return tls_contexts()


@pytest.fixture
def tls(contexts: Any, wing: Any, request: pytest.FixtureRequest) -> Any:
    """Return what makes a connected pair, client and server, of the kind that the test is run for; both are closed."""
    kind, _, version = getattr(request, "param", "start_tls").partition(", ")
    contexts[0].maximum_version = VERSIONS[version]
    made: list[Any] = []

    def connected(framing: Any = FRAMING, sockets: Any = None, **how: Any) -> Pair:
        left, right = sockets or over_tcp()
        for sock in (left, right):
            sock.settimeout(LIMIT)
        if kind == "ssl":
            task = Task(contexts[1].wrap_socket, right, server_side=True, **how)
            left = contexts[0].wrap_socket(left, server_hostname="localhost", **how)
            pair = wing.FramedSocket(left, framing), wing.FramedSocket(task.result(), framing)
        else:
            pair = wing.FramedSocket(left, framing), wing.FramedSocket(right, framing)
            upgrade(*pair, contexts)
        made.extend(pair)
        if version:
            assert (left if kind == "ssl" else pair[0].sock.ssl_object).version() == "TLSv1.2"
        return pair

    yield connected
    contexts[0].maximum_version = VERSIONS[""]
    for conn in made:
        conn.close()


both_kinds = pytest.mark.parametrize("tls", KINDS, indirect=True)
each_version = pytest.mark.parametrize("tls", [*KINDS, *(f"{kind}, TLS 1.2" for kind in KINDS)], indirect=True)


def upgrade(client: Any, server: Any, contexts: Any, **how: Any) -> None:
    """Begin TLS on both sides."""
    task = Task(server.start_tls, contexts[1], server_side=True, timeout=LIMIT)
    client.start_tls(contexts[0], server_hostname="localhost", timeout=LIMIT, **how)
    task.result()


@each_version
def test_frames_of_all_sizes_pass(tls: Maker) -> None:
    """N5, N6: no ciphertext is taken for frames, and no sendmsg() is called, which an SSLSocket refuses."""
    one, two = tls()
    assert not transport.is_plain(one.sock)
    payloads = [noise(size) for size in (0, 1, 100, 2049, 16_384, 16_385, 70_000, 1_000_000)]
    for how in ("list", "iterator"):
        task = Task(one.send_many, payloads if how == "list" else iter(payloads))
        assert [two.recv() for _ in payloads] == payloads
        task.result()
    task = Task(lambda: [two.send(item) for item in payloads])
    buffer, received = bytearray(1_000_000), []
    for _ in payloads:
        size = one.recv_into(buffer)
        received.append(bytes(buffer[:size]))
    assert received == payloads
    task.result()
    if isinstance(one.sock, ssl.SSLSocket):
        with pytest.raises(NotImplementedError):
            one.sock.sendmsg([b"x"])


@each_version
def test_deadlines_keep_what_is_here(tls: Maker) -> None:
    """N4: what TLS raises where it would have to wait is a BlockingIOError."""
    one, two = tls()
    for timeout, error in ((0, BlockingIOError), (0.01, TimeoutError)):
        with pytest.raises(error):
            two.recv(timeout=timeout)
    one.sock.send(b"\0\0")
    with pytest.raises(TimeoutError):
        two.recv(timeout=0.01)
    one.sock.send(b"\0\3one")
    assert two.recv() == b"one"
    assert one.gettimeout() == two.gettimeout() == LIMIT


@both_kinds
def test_a_deadline_is_kept_and_never_early(tls: Maker) -> None:
    one, two = tls()
    for timeout in (0.001, 0.0301, 1e-9):
        for call in (two.recv, two.recv_many):
            begun = time.monotonic_ns()
            with pytest.raises(TimeoutError, match=r"^timed out$"):
                call(timeout=timeout)
            assert time.monotonic_ns() - begun >= timeout * 1e9
    while True:
        begun = time.monotonic_ns()
        try:
            one.send(bytes(1 << 20), timeout=0.02)
        except TimeoutError:
            break
    assert time.monotonic_ns() - begun >= 0.02e9
    assert one.send_event == WRITE


@both_kinds
@pytest.mark.parametrize("timeout", [0, 0.02])
@pytest.mark.parametrize("how", ["send", "list"])
def test_a_full_socket_finishes_the_frame_it_has_begun(tls: Maker, timeout: float, how: str) -> None:
    one, two = tls()
    sent: list[bytes] = []
    kept = 0
    for number in range(1000):
        payload = noise((100, 30_000, 3)[number % 3], number)
        with suppress(TimeoutError, BlockingIOError):
            one.flush(timeout=timeout)
            sent.append(payload)
            try:
                one.send(payload, timeout=timeout) if how == "send" else one.send_many([payload], timeout=timeout)
            except BlockingIOError:
                sent.pop()
            except TimeoutError:
                if not one.unsent:
                    sent.pop()
        kept += one.unsent > 0
        if kept == 9:
            break
    assert kept == 9
    task = Task(one.send, b"another")
    assert [two.recv() for _ in sent] == sent
    assert two.recv() == b"another"
    task.result()
    assert one.unsent == 0


# ---- what select() can't see, and what to wait for ----

@each_version
def test_what_select_can_not_see_is_pending(tls: Maker, wing: Any) -> None:
    """N1, N2: select() says idle, pending() knows better, and a receive that does not wait takes all."""
    one, two = tls()
    payloads = [noise(1000, number) for number in range(10)]
    one.sock.send(wing.Encoder(LengthPrefix()).encode_many(payloads))
    assert two.recv() == payloads[0]
    assert select.select([two], [], [], 0)[0] == []
    assert two.pending() == 9 * 1004
    frames: list[bytes] = []
    with pytest.raises(BlockingIOError):
        while True:
            frames += two.recv_many(timeout=0)
    assert frames == payloads[1:]
    assert two.pending() == 0


def test_the_event_to_wait_for_is_told(wing: Any) -> None:
    """N3: TLS may want to write before it can receive, and to read before it can send."""
    for timeout in (0.0, None):
        sock = Timed(b"\0\0\0\1x", events={0: [ssl.SSLWantWriteError(), ssl.SSLWantReadError()]},
                     takes=[ssl.SSLWantReadError(), 2, ssl.SSLWantWriteError(), ssl.SSLWantReadError()],
                     timeout=timeout)
        sock.pending = lambda: 0  # type: ignore[attr-defined]
        conn = wing.FramedSocket(sock, LengthPrefix())
        assert (conn.recv_event, conn.send_event) == (READ, WRITE)
        for event in (WRITE, READ):
            with pytest.raises(BlockingIOError):
                conn.recv()
            assert (conn.recv_event, conn.send_event) == (event, WRITE)
        assert conn.recv() == b"x"
        assert conn.recv_event == READ
        conn.send(b"y")  # TLS has it, and must be given it again
        assert (conn.unsent, conn.send_event) == (5, READ)
        for event in (WRITE, READ):
            with pytest.raises(BlockingIOError):
                conn.flush()
            assert (conn.unsent, conn.send_event) == (3, event)
        conn.flush()
        assert (conn.unsent, conn.send_event) == (0, WRITE)
        assert sock.sent == b"\0\0\0\1y"
        assert sock.timeouts[-1] == timeout
    left, right = wing.pair(LengthPrefix())
    with left, right:
        assert (left.recv_event, left.send_event) == (READ, WRITE)


def handshake_by_hand(client: Any, server: Any, buffers: int | None) -> set[tuple[int, int]]:
    """Drive two connections that do not block by what they say that they wait for; return what it was."""
    seen = set()
    got: list[bytes] = []
    for sock in (client.sock, server.sock):
        if buffers is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffers)
    client.send(b"hello")  # taken, and kept until it can be sent
    assert client.unsent
    end = time.monotonic() + LIMIT
    while client.unsent or not got:
        assert time.monotonic() < end
        for conn in (client, server):
            event = conn.send_event if conn.unsent else conn.recv_event
            seen.add((conn is client, event))
            readable, writable, _ = select.select([conn] * bool(event & READ), [conn] * bool(event & WRITE), [], 0.01)
            if not readable and not writable:
                continue
            with suppress(BlockingIOError):
                if conn.unsent:
                    conn.flush()
                else:
                    got += conn.recv_many()
    assert got == [b"hello"]
    return seen


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("buffers", [None, 1])
def test_a_handshake_goes_on_in_calls_that_do_not_block(wing: Any, contexts: Any, kind: str, buffers: Any) -> None:
    """N3, N4: a send waits until the socket can be read; with the socket full, a receive until it can be written."""
    left, right = socket.socketpair()
    left.setblocking(False)
    right.setblocking(False)
    if kind == "ssl":
        left = contexts[0].wrap_socket(left, server_hostname="localhost", do_handshake_on_connect=False)
        right = contexts[1].wrap_socket(right, server_side=True, do_handshake_on_connect=False)
    with wing.FramedSocket(left, LengthPrefix()) as client, wing.FramedSocket(right, LengthPrefix()) as server:
        if kind == "start_tls":
            server.start_tls(contexts[1], server_side=True)
            client.start_tls(contexts[0], server_hostname="localhost")
        seen = handshake_by_hand(client, server, buffers)
        assert (True, READ) in seen, "the client's send has not waited for the server's part of the handshake"
        if kind == "start_tls" and buffers:
            assert client.sock.ssl_object.version() == server.sock.ssl_object.version() == "TLSv1.3"


def test_a_receive_waits_until_a_full_socket_can_be_written(wing: Any, contexts: Any) -> None:
    """N3: the handshake's answer does not fit into the socket."""
    left, right = socket.socketpair()
    right.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    right.setblocking(False)
    filled = 0
    with suppress(BlockingIOError):
        while True:
            filled += right.send(bytes(512))
    with left, wing.FramedSocket(right, LengthPrefix()) as server:
        hand = ByHand(left, contexts[0])
        with pytest.raises(ssl.SSLWantReadError):
            hand.tls.do_handshake()
        left.sendall(hand.output.read())
        server.start_tls(contexts[1], server_side=True)
        with pytest.raises(BlockingIOError):
            server.recv()
        assert server.recv_event == WRITE
        begun = time.monotonic_ns()
        with pytest.raises(TimeoutError):
            server.recv(timeout=0.03)
        assert time.monotonic_ns() - begun >= 0.03e9
        assert server.recv_event == WRITE
        left.settimeout(LIMIT)
        while filled:  # what is not TLS's
            filled -= len(left.recv(filled))
        task = Task(server.recv, timeout=LIMIT)
        hand.do(hand.tls.do_handshake)
        hand.do(hand.tls.write, b"\0\0\0\1x")
        assert task.result() == b"x"
        assert server.recv_event == READ


@pytest.mark.parametrize("kind", KINDS)
def test_a_selector_completes_handshakes(wing: Any, contexts: Any, kind: str) -> None:
    """N2, N3: also of a connection that has something to send before it."""
    names = range(5)
    frames: dict[Any, list[bytes]] = {}
    made: list[Any] = []
    try:
        with wing.FrameSelector() as selector:
            for number in names:
                left, right = over_tcp()
                pair = []
                for side, sock, how in ((0, left, {"server_hostname": "localhost"}), (1, right, {"server_side": True})):
                    sock.setblocking(False)
                    if kind == "ssl":
                        sock = contexts[side].wrap_socket(sock, do_handshake_on_connect=False, **how)
                    conn = wing.FramedSocket(sock, LengthPrefix())
                    made.append(conn)
                    pair.append(conn)
                    if kind == "start_tls" and number % 2:
                        conn.start_tls(contexts[side], **how)
                    selector.register(conn, (number, side))
                    if kind == "start_tls" and not number % 2:
                        conn.start_tls(contexts[side], **how)
                pair[0].send(b"from the client")
                assert pair[0].unsent or kind == "start_tls"
            end = time.monotonic() + LIMIT
            while len(frames) < 10 or any(len(frames[number, 0]) < 2 for number in names):
                assert time.monotonic() < end, list(frames)
                for key, got in selector.select(1):
                    assert not isinstance(got, Exception), (key, got)
                    frames.setdefault(key.data, []).extend(got)
                    if key.data[1] == 1:
                        key.conn.send_many([b"back", noise(300_000, key.data[0])])
            for number in names:
                assert frames[number, 1] == [b"from the client"]
                assert frames[number, 0] == [b"back", noise(300_000, number)]
            assert selector.select(0) == []
    finally:
        for conn in made:
            conn.close()


# ---- STARTTLS ----

def plain_pair(wing: Any, framing: Any = FRAMING, kind: str = "plain") -> Pair:
    """Return two connections in the clear."""
    pair = over_tcp()
    if kind == "own":
        pair = tuple(OwnMethods(fileno=sock.detach()) for sock in pair)  # type: ignore[assignment]
    for sock in pair:
        sock.settimeout(LIMIT)
    left, right = (wing.FramedSocket(sock, framing) for sock in pair)
    return left, right


@pytest.mark.parametrize("kind", ["plain", "own"])
def test_tls_begins_in_the_midst_of_a_stream(wing: Any, contexts: Any, kind: str) -> None:
    """N5, N8: nothing but TLS is read and sent from then on, whatever serves the socket."""
    client, server = plain_pair(wing, Lines(), kind)
    with client, server:
        client.send(b"STARTTLS")
        assert server.recv() == b"STARTTLS"
        server.send(b"go ahead")
        assert client.recv() == b"go ahead"
        upgrade(client, server, contexts)
        assert client.gettimeout() == LIMIT
        assert isinstance(client.sock, TLSSocket)
        assert client.sock.ssl_object.getpeercert()["subjectAltName"]
        assert client.fileno() == client.sock.sock.fileno()
        assert client.getpeername() == server.getsockname()
        payloads = [noise(size) for size in (5, 40_000, 200_000)]
        task = Task(client.send_many, payloads)
        assert [server.recv() for _ in payloads] == payloads
        task.result()
        server.framing = LengthPrefix()
        client.framing = LengthPrefix()
        server.send(b"\n")
        assert client.recv() == b"\n"
        for conn in (client, server):
            with pytest.raises(ValueError, match="under TLS already"):
                conn.start_tls(contexts[0], server_hostname="localhost")
        sock, rest = client.detach()
        assert rest == b""
        with wing.FramedSocket(sock, LengthPrefix()) as again:
            server.send(b"go on")
            assert again.recv() == b"go on"


def test_bytes_from_before_tls_are_refused_or_discarded(wing: Any, contexts: Any) -> None:
    """N8: what was put in front of the handshake is never taken for what came under TLS."""
    client, server = plain_pair(wing, Lines())
    with client, server:
        server.sock.sendall(b"go ahead\nDELETE everything\nand")
        assert client.recv() == b"go ahead"
        with pytest.raises(FramingError, match=r"^21 bytes of the peer's are here already, from before TLS"):
            client.start_tls(contexts[0], server_hostname="localhost")
        assert client.pending() == 21
        server.sock.sendall(b" more\n")
        assert [client.recv(), client.recv()] == [b"DELETE everything", b"and more"]
        server.sock.sendall(b"x\ny\nz")
        assert client.recv() == b"x"
        task = Task(server.start_tls, contexts[1], server_side=True)
        assert client.start_tls(contexts[0], "discard", server_hostname="localhost") == 3
        assert task.result() == 0
        server.send(b"under TLS")
        assert client.recv() == b"under TLS"
        server.close()
        with pytest.raises(EndOfStream) as caught:
            client.recv()
        place = len(b"go ahead\nDELETE everything\nand more\nx\ny\nzunder TLS\n")
        assert str(caught.value) == f"stream ended at position {place}"


def test_an_overlong_frame_that_is_passed_over_is_no_place_to_begin(wing: Any, contexts: Any) -> None:
    """N8: no byte of it is held, and yet it is not at its end."""
    client, server = plain_pair(wing, LengthPrefix(max_length=5, overlong="skip"))
    with client, server:
        server.sock.sendall(b"\0\0\0\x09six")
        with pytest.raises(TimeoutError):
            client.recv(timeout=0.05)
        with pytest.raises(FramingError, match=r"^\d bytes of the peer's"):
            client.start_tls(contexts[0], server_hostname="localhost")


class ByHand:
    """A TLS client whose bytes the test sends and receives by itself."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        self.sock = sock
        self.input, self.output = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.input, self.output, server_hostname="localhost")

    def do(self, call: Any, *arguments: Any) -> Any:
        """Do a call of TLS to its end."""
        while True:
            with suppress(ssl.SSLWantReadError):
                answer = call(*arguments)
                self.sock.sendall(self.output.read())
                return answer
            self.sock.sendall(self.output.read())
            self.input.write(self.sock.recv(65536))


def test_the_beginning_of_tls_is_carried_into_it(wing: Any, contexts: Any) -> None:
    """N8: a client that does not wait for an answer: its hello has come together with its last frame."""
    left, right = over_tcp()
    with left, wing.FramedSocket(right, LengthPrefix()) as server:
        left.settimeout(LIMIT)
        server.settimeout(LIMIT)
        hand = ByHand(left, contexts[0])
        with pytest.raises(ssl.SSLWantReadError):
            hand.tls.do_handshake()
        hello = hand.output.read()
        left.sendall(b"\0\0\0\x08STARTTLS" + hello)
        assert server.recv() == b"STARTTLS"
        assert server.pending() == len(hello) > 200
        task = Task(server.start_tls, contexts[1], "carry", server_side=True)
        hand.do(hand.tls.do_handshake)
        assert task.result() == len(hello)
        hand.do(hand.tls.write, b"\0\0\0\5hello\0")
        assert server.recv() == b"hello"
        server.send(b"back")
        assert hand.do(hand.tls.read, 100) == b"\0\0\0\4back"
        left.close()
        with pytest.raises(IncompleteFrameError) as caught:
            server.recv()
        assert caught.value.position == 12 + 9, "bytes that TLS took are no part of the frames' stream"


def test_what_can_not_be_upgraded_stays_as_it_is(wing: Any, contexts: Any) -> None:
    client, server = plain_pair(wing)
    with client, server:
        for bad, error, text in (
                (lambda: client.start_tls(None), TypeError, "an ssl.SSLContext is needed, not NoneType"),
                (lambda: client.start_tls(contexts[0], "keep"), ValueError, 'leftover must be "error", "carry" or'),
                (lambda: client.start_tls(contexts[0]), ValueError, "server_hostname"),
                (lambda: client.start_tls(contexts[0], server_hostname="localhost", timeout=-1), ValueError,
                 "timeout")):
            with pytest.raises(error, match=text):
                bad()
        server.send(b"x")
        assert client.recv() == b"x"
        server.sock.shutdown(socket.SHUT_WR)
        with pytest.raises(EndOfStream):
            client.recv()
        with pytest.raises(EndOfStream):
            client.start_tls(contexts[0], server_hostname="localhost")
    with pytest.raises(OSError, match="Bad file descriptor"):
        client.start_tls(contexts[0], server_hostname="localhost")


def test_a_handshake_that_fails_closes_the_connection(wing: Any, contexts: Any) -> None:
    """The server's name is wrong, its time is up, it ends, or speaks no TLS."""
    client, server = plain_pair(wing)
    with client, server:
        task = Task(server.start_tls, contexts[1], server_side=True)
        with pytest.raises(ssl.SSLCertVerificationError):
            client.start_tls(contexts[0], server_hostname="elsewhere")
        assert client.closed
        with pytest.raises(OSError) as caught:  # the alert, or that the client has gone
            task.result()
            server.recv()
        assert isinstance(caught.value, (ssl.SSLError, ConnectionError))
        with pytest.raises(OSError, match="Bad file descriptor"):
            client.recv()
    client, server = plain_pair(wing)
    with client, server:
        begun = time.monotonic_ns()
        with pytest.raises(TimeoutError, match=r"^timed out$"):
            client.start_tls(contexts[0], server_hostname="localhost", timeout=0.03)
        assert time.monotonic_ns() - begun >= 0.03e9
        assert client.closed
        with pytest.raises(ssl.SSLError, match=r"(?i)\beof\b"):  # it has the client's hello, and then the end
            server.start_tls(contexts[1], server_side=True)
        assert server.closed
    client, server = plain_pair(wing)
    with client, server:
        server.send(noise(100))
        with pytest.raises(ssl.SSLError, match=r"(?i)wrong.version"):
            client.start_tls(contexts[0], server_hostname="localhost")
        assert client.closed


def test_close_wakes_a_handshake(wing: Any, contexts: Any) -> None:
    client, server = plain_pair(wing)
    with client, server:
        task = Task(client.start_tls, contexts[0], server_hostname="localhost", timeout=None)
        assert server.sock.recv(1, socket.MSG_PEEK)  # the hello is there
        client.close()
        with pytest.raises(OSError, match="Bad file descriptor"):
            task.result()


def test_an_upgrade_waits_for_its_turn(wing: Any, contexts: Any) -> None:
    client, server = plain_pair(wing)
    with client, server:
        task = Task(client.recv)
        while not client_is_reading(client):
            time.sleep(0.001)
        with pytest.raises(TimeoutError):
            client.start_tls(contexts[0], server_hostname="localhost", timeout=0.02)
        assert not client.closed
        server.send(b"x")
        assert task.result() == b"x"
        upgrade(client, server, contexts)


def test_an_upgrade_from_inside_a_call_is_refused(wing: Any, contexts: Any) -> None:
    client, server = plain_pair(wing)
    with client, server:
        def payloads() -> Any:
            yield b"one"
            with pytest.raises(RuntimeError, match="already at work"):
                client.start_tls(contexts[0], server_hostname="localhost")
            yield b"two"

        client.send_many(payloads())
        assert [server.recv(), server.recv()] == [b"one", b"two"]


def client_is_reading(conn: Any) -> bool:
    """Say whether another thread has the turn to read."""
    try:
        conn.recv(timeout=0)
    except BlockingIOError as error:
        return "another thread" in str(error)
    raise AssertionError


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_selector_serves_what_is_upgraded_while_registered(wing: Any, contexts: Any, when: str) -> None:
    """N2, N8: from then on its bytes may be where no poll sees them."""
    client, server = plain_pair(wing)
    with client, server, wing.FrameSelector() as selector:
        client.setblocking(False)
        if when == "before":
            selector.register(client)
        upgrade(client, server, contexts)
        if when == "after":
            selector.register(client)
        payloads = [noise(3000, number) for number in range(30)]
        server.sock.send(wing.Encoder(LengthPrefix()).encode_many(payloads[:10]))
        task = Task(server.send_many, payloads[10:])
        frames: list[bytes] = []
        end = time.monotonic() + LIMIT
        while len(frames) < 30:
            assert time.monotonic() < end, len(frames)
            for _, got in selector.select(LIMIT):
                assert isinstance(got, list), got
                frames += got
        assert frames == payloads
        task.result()
        assert selector.select(0) == []
        server.close()
        ((_, error),) = selector.select(LIMIT)
        assert isinstance(error, EndOfStream)
        assert len(selector) == 0


# ---- connect(tls=) ----

def test_connect_with_tls(contexts: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        def serve() -> bytes:
            with contexts[1].wrap_socket(listener.accept()[0], server_side=True) as sock:
                sock.sendall(b"\0\0\0\2hi")
                data: bytes = sock.recv(100)
                return data

        address = listener.getsockname()
        for how in ({}, {"server_hostname": "localhost"}):
            task = Task(serve)
            with connect(address, LengthPrefix(), timeout=LIMIT, tls=contexts[0], **how) as conn:
                assert conn.recv() == b"hi"
                assert conn.gettimeout() == LIMIT
                conn.send(b"x")
                assert task.result() == b"\0\0\0\1x"
        for tls, name in ((contexts[0], "elsewhere"), (True, None)):  # True: the system's authorities, not ours
            task = Task(serve)
            with pytest.raises(ssl.SSLCertVerificationError):
                connect(address, LengthPrefix(), timeout=LIMIT, tls=tls, server_hostname=name)
            with pytest.raises(OSError):
                task.result()
        begun = time.monotonic_ns()
        with pytest.raises(TimeoutError):
            connect(address, LengthPrefix(), timeout=0.05, tls=contexts[0])
        assert time.monotonic_ns() - begun >= 0.05e9
        for how, error, text in (({"tls": "yes"}, TypeError, "an ssl.SSLContext is needed, not str"),
                                 ({"server_hostname": "x"}, ValueError, "server_hostname is for TLS")):
            with pytest.raises(error, match=text):
                connect(address, LengthPrefix(), **how)  # type: ignore[arg-type]


def test_the_deadline_is_for_all_addresses_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Law 13: a host with several addresses is not given the time of each."""
    lent: list[float] = []

    class Silent(socket.socket):
        """It can't connect, for as long as it is let."""

        def connect(self, address: Any) -> None:
            lent.append(self.gettimeout() or 0.0)
            time.sleep(0.03)
            raise TimeoutError("timed out")

    place = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 9))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: [place] * 3)
    monkeypatch.setattr(socket, "socket", Silent)
    with pytest.raises(TimeoutError):
        connect(("several", 9), FRAMING, timeout=LIMIT)
    assert LIMIT >= lent[0] >= lent[1] + 0.03 >= lent[2] + 0.06


def test_connect_with_tls_over_a_unix_socket(contexts: Any, tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        listener.listen()
        with pytest.raises(ValueError, match="a path names no host for TLS: give server_hostname"):
            connect(path, LengthPrefix(), tls=contexts[0])
        task = Task(lambda: contexts[1].wrap_socket(listener.accept()[0], server_side=True))
        with connect(path, LengthPrefix(), timeout=LIMIT, tls=contexts[0], server_hostname="localhost") as conn, \
                task.result() as sock:
            sock.sendall(b"\0\0\0\1x")
            assert conn.recv() == b"x"


# ---- the end ----

def end_raggedly(conn: Any) -> None:
    """End the stream below TLS, which does not say so."""
    sock = conn.sock if isinstance(conn.sock, ssl.SSLSocket) else conn.sock.sock
    socket.socket.shutdown(sock, socket.SHUT_WR)


@each_version
@pytest.mark.parametrize("how", ["close_notify", "ragged", "ragged, and told"])
def test_an_end_is_told_by_its_place(tls: Maker, how: str) -> None:
    """E8, N7: TLS ends with or without saying so (close_notify); what counts is whether a frame is cut."""
    for tail, error, need in ((b"", EndOfStream, 0), (b"\0\0", IncompleteFrameError, 2),
                              (b"\0\0\0\2x", IncompleteFrameError, 1)):
        one, two = tls()
        if isinstance(two.sock, ssl.SSLSocket):
            two.sock.suppress_ragged_eofs = how == "ragged"
        one.sock.send(b"\0\0\0\1x" + tail)
        if how != "close_notify":
            end_raggedly(one)
        elif isinstance(one.sock, ssl.SSLSocket):
            task = Task(one.sock.unwrap)
        else:
            one.close()
        assert two.recv() == b"x"
        for _ in range(3):
            with pytest.raises(error) as caught:
                two.recv()
            assert getattr(caught.value, "need", 0) == need
        if how == "close_notify" and isinstance(one.sock, ssl.SSLSocket):
            two.sock.unwrap().close()
            task.result().close()


@each_version
@pytest.mark.parametrize(("framing", "frame"), [
    (UntilClose(), b"pay nobod"), (UntilClose(max_length=3, overlong="truncate"), b"pay"),
    (Delimiter(b"\n", tail="deliver"), b"pay nobod")], ids=repr)
def test_a_frame_that_only_the_end_makes_needs_its_word(tls: Maker, framing: Any, frame: bytes) -> None:
    """E8, N7: who cuts the connection must not make a frame of what came so far."""
    for ragged in (False, True):
        one, two = tls(framing)
        if isinstance(two.sock, ssl.SSLSocket):
            two.sock.suppress_ragged_eofs = False
        one.sock.send(b"pay nobod")
        if ragged:
            end_raggedly(one)
            for _ in range(2):
                with pytest.raises(IncompleteFrameError) as caught:
                    two.recv()
                assert (caught.value.partial, caught.value.need) == (b"pay nobod", 1)
            continue
        if isinstance(one.sock, ssl.SSLSocket):
            task = Task(one.sock.unwrap)
        else:
            one.close()
        assert two.recv() == frame
        with pytest.raises(EndOfStream):
            two.recv()
        if isinstance(one.sock, ssl.SSLSocket):
            two.sock.unwrap().close()
            task.result().close()


def test_a_cut_is_one_by_whichever_error_openssl_tells_of_it(wing: Any) -> None:
    """E8, N7: before Python 3.10.11 and 3.11.3 it has no class of its own."""
    unnamed = ssl.SSLError(ssl.SSL_ERROR_SSL, "unexpected eof while reading")
    unnamed.reason = "UNEXPECTED_EOF_WHILE_READING"
    other = ssl.SSLError(ssl.SSL_ERROR_SSL, "bad record mac")
    other.reason = "BAD_RECORD_MAC"
    for error in (ssl.SSLEOFError(ssl.SSL_ERROR_EOF, "EOF occurred in violation of protocol"), unnamed):
        conn = wing.FramedSocket(Scripted(b"pay nobod", events={9: [error]}), UntilClose())
        with pytest.raises(IncompleteFrameError) as caught:
            conn.recv()
        assert caught.value.partial == b"pay nobod"
    conn = wing.FramedSocket(Scripted(b"pay nobod", events={9: [other]}), UntilClose())
    with pytest.raises(ssl.SSLError, match="bad record"):
        conn.recv()


@each_version
def test_a_broken_record_is_final_and_never_an_end(tls: Maker) -> None:
    """N7: what OpenSSL says afterwards is that the stream has ended, which it has not."""
    for how in ("recv", "recv_many"):
        one, two = tls()
        one.send(b"whole")
        raw = socket.socket.send if isinstance(one.sock, ssl.SSLSocket) else type(one.sock.sock).send
        raw(getattr(one.sock, "sock", one.sock), b"\x17\3\3\0\x20" + bytes(32))
        if how == "recv" and isinstance(two.sock, TLSSocket):
            deadline = transport.deadline_after(LIMIT)
            while two.sock._failed is None:  # until there is what a receive that is interrupted leaves behind
                two.sock._hear(two.sock._fed, deadline, "recv_event")
                two.sock._do(two.sock._decrypt)
            with pytest.raises(ssl.SSLError):
                two.send(b"x")
        assert two.recv() == b"whole"
        for _ in range(3):
            with pytest.raises(ssl.SSLError, match=r"(?i)bad.record|record.layer.failure"):  # OpenSSL 3.6
                getattr(two, how)()
        with pytest.raises(OSError):
            two.send(b"x")
        with pytest.raises((ssl.SSLError, ConnectionError)):  # the alert
            one.recv()


@pytest.mark.parametrize("tls", ["start_tls", "start_tls, TLS 1.2"], indirect=True)
def test_one_half_can_be_closed(tls: Maker) -> None:
    """E9, N7: also while what the peer has sent is not received yet."""
    one, two = tls()
    two.send(b"in flight")
    one.send(b"last")
    one.shutdown(socket.SHUT_WR)
    with pytest.raises(BrokenPipeError):
        one.send(b"too late")
    assert list(two) == [b"last"]
    payloads = [noise(size) for size in (3, 50_000, 300_000)]
    task = Task(lambda: [two.send_many(payloads), two.shutdown(socket.SHUT_WR)])
    assert list(one) == [b"in flight", *payloads]
    task.result()


@pytest.mark.parametrize("tls", ["start_tls", "start_tls, TLS 1.2"], indirect=True)
def test_a_half_that_another_thread_closes_loses_nothing_that_arrives(tls: Maker) -> None:
    """N7: closing reads what is there, too, and the one who receives gets it."""
    payloads = [noise(size, size) for size in (3, 20_000, 1, 70_000)] * 5
    for _ in range(15):
        one, two = tls()
        reader = Task(list, one)
        writer = Task(lambda two=two: [two.send_many(payloads), two.shutdown(socket.SHUT_WR)])
        one.shutdown(socket.SHUT_WR)
        assert reader.result() == payloads
        writer.result()
        with pytest.raises(EndOfStream):
            two.recv()


@pytest.mark.parametrize("tls", ["ssl"], indirect=True)
def test_an_ssl_socket_is_not_shut_down_into_the_clear(tls: Maker) -> None:
    """N5, N7: its own shutdown() gives up TLS; what is sent after it, and received, is in the clear."""
    one, two = tls()
    with pytest.raises(OSError, match=r"SSLSocket can't shut down for writing alone and keep TLS") as caught:
        one.shutdown(socket.SHUT_WR)
    assert caught.value.errno == errno.EOPNOTSUPP
    one.send(b"still here")
    assert two.recv() == b"still here"
    one.shutdown(socket.SHUT_RD)
    one.send(b"under TLS")
    assert two.recv() == b"under TLS"
    one.shutdown(socket.SHUT_RDWR)
    with pytest.raises(EndOfStream):
        two.recv()


@each_version
def test_close_wakes_a_call_that_waits(tls: Maker) -> None:
    _, two = tls()
    two.settimeout(None)
    sock = two.sock
    task = Task(two.recv)
    while not client_is_reading(two):
        time.sleep(0.001)
    two.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        task.result()
    assert sock.fileno() == -1


# ---- in the midst of the stream ----

def expand(secret: bytes, label: str, size: int) -> bytes:
    """HKDF-Expand-Label (RFC 8446, section 7.1)."""
    name = b"tls13 " + label.encode()
    info = size.to_bytes(2, "big") + bytes((len(name),)) + name + b"\0"
    return HKDFExpand(SHA384(), size, info).derive(secret)


def record(secret: bytes, number: int, kind: int, data: bytes) -> bytes:
    """Encrypt a record as TLS_AES_256_GCM_SHA384 does (RFC 8446, section 5.2)."""
    iv = int.from_bytes(expand(secret, "iv", 12), "big")
    header = b"\x17\3\3" + (len(data) + 17).to_bytes(2, "big")
    nonce = (iv ^ number).to_bytes(12, "big")
    return header + AESGCM(expand(secret, "key", 32)).encrypt(nonce, data + bytes((kind,)), header)


@pytest.mark.parametrize("kind", KINDS)
def test_new_keys_in_the_midst_of_a_frame(wing: Any, contexts: Any, tmp_path: Path, kind: str) -> None:
    """N7: KeyUpdate (RFC 8446, section 4.6.3), which Python's ssl can't ask for."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.keylog_filename = str(tmp_path / "keys")
    left, right = over_tcp()
    with left, right:
        left.settimeout(LIMIT)
        hand = ByHand(left, context)
        task = Task(served, wing, right, contexts[1], kind)
        hand.do(hand.tls.do_handshake)
        assert (hand.tls.cipher() or "")[0] == "TLS_AES_256_GCM_SHA384"
        server = task.result()
        with server:
            (secret,) = (bytes.fromhex(line.split()[2]) for line in (tmp_path / "keys").read_text().splitlines()
                         if line.startswith("CLIENT_TRAFFIC_SECRET_0"))
            data = b""
            for turn in range(4):
                data += record(secret, 0, 23, b"\0\0\0\7be" + b"%d" % turn)
                data += record(secret, 1, 22, b"\x18\0\0\1" + bytes((turn & 1,)))  # 1 asks for an answer
                secret = expand(secret, "traffic upd", 48)
                data += record(secret, 0, 23, b"hind\0\0\0\0")
                # The next turn goes on with this key.
                data += record(secret, 1, 22, b"\x18\0\0\1\0")
                secret = expand(secret, "traffic upd", 48)
            left.sendall(data)
            frames = [server.recv() for _ in range(8)]
            assert frames == [item for turn in range(4) for item in (b"be%dhind" % turn, b"")]
            server.send(b"answer")
            assert hand.do(hand.tls.read, 100) == b"\0\0\0\6answer"


def served(wing: Any, sock: socket.socket, context: ssl.SSLContext, kind: str) -> Any:
    """Return a connection that is a TLS server."""
    sock.settimeout(LIMIT)
    if kind == "ssl":
        return wing.FramedSocket(context.wrap_socket(sock, server_side=True), LengthPrefix())
    conn = wing.FramedSocket(sock, LengthPrefix())
    conn.start_tls(context, server_side=True)
    return conn


def test_one_reads_while_the_other_writes(tls: Maker) -> None:
    one, two = tls()
    there = [noise(size, size) for size in (3, 400_000, 0, 5000)] * 4
    back = [noise(size, size) for size in (300_000, 1, 60_000, 0)] * 4
    tasks = [Task(one.send_many, there), Task(two.send_many, iter(back))]
    readers = [Task(lambda: [two.recv() for _ in there]), Task(lambda: [one.recv() for _ in back])]
    assert [task.result() for task in readers] == [there, back]
    for task in tasks:
        task.result()


class Interrupting:
    """An `ssl.SSLObject` of which a signal handler interrupts a call that is done, and keeps its answer."""

    def __init__(self, tls: Any, name: str) -> None:
        self.tls, self.name, self.done = tls, name, False

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.tls, name)
        if name != self.name or self.done:
            return method

        def interrupted(*arguments: Any) -> None:
            method(*arguments)
            self.done = True
            raise ArithmeticError("the handler")

        return interrupted


def test_a_handler_that_raises_inside_tls_loses_nothing_in_silence(tls: Maker) -> None:
    """N7: what was encrypted is known, and sent once; what was decrypted is not, so it is an error ever after."""
    one, two = tls()
    one.sock.ssl_object = Interrupting(one.sock.ssl_object, "write")
    with pytest.raises(ArithmeticError):
        one.send(b"once")
    assert one.unsent == 8
    one.send(b"twice")
    assert [two.recv(), two.recv()] == [b"once", b"twice"]
    two.sock.ssl_object = Interrupting(two.sock.ssl_object, "read")
    one.send(b"lost")
    with pytest.raises(ArithmeticError):
        two.recv()
    for _ in range(2):
        with pytest.raises(OSError, match="TLS was interrupted in the midst of a record") as caught:
            two.recv()
        assert caught.value.errno == errno.ECONNABORTED


def test_an_exception_at_any_place_in_a_receive_loses_nothing(tls: Maker) -> None:
    """N7: between the system call, TLS and the store."""
    number = 0
    one, two = tls()
    while True:
        one.sock.send(b"\0\0\0\3o")
        assert select.select([two], [], [], LIMIT)[0]
        with pytest.raises((Interrupted, BlockingIOError)), Interrupt("profile", number) as interrupt:
            two.recv(timeout=0)
        one.sock.send(b"ne\0\0\0\3two")
        assert [two.recv(), two.recv()] == [b"one", b"two"], interrupt.place
        if not interrupt.place:
            return
        number += 1
