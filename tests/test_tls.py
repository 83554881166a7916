"""Frames over TLS (group N of the cases): through the methods of an `ssl.SSLSocket`, and by start_tls()."""

from __future__ import annotations

import errno
import select
import socket
import ssl
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from scripted import LIMIT, Task, Timed, noise, over_tcp
from test_broken_laws import Interrupt, Interrupted
from tls_pairs import FRAMING, KINDS, READ, WRITE, ByHand, Maker, both_kinds, contexts, each_version, tls

from sockframe import LengthPrefix, connect, transport

__all__ = ["contexts", "tls"]  # fixtures


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
