"""Opening, closing, giving up and dropping connections."""

from __future__ import annotations

import copy
import errno
import gc
import pickle
import socket
import tracemalloc
import warnings
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scripted import LIMIT, Scripted, has_ipv6

import sockframe
from sockframe import EndOfStream, FramedSocket, FramingError, LengthPrefix, Lines, connect


def refused(conn: Any) -> None:
    """Check that every method says that the connection is closed."""
    assert conn.closed
    assert "closed" in repr(conn)
    assert conn.fileno() == -1
    for call in (conn.recv, conn.recv_many, conn.recv_batch, lambda: conn.recv_into(bytearray(1)),
                 lambda: conn.send(b""), lambda: conn.send_many([]), conn.flush, conn.detach, conn.gettimeout,
                 conn.getpeername, conn.getsockname, lambda: conn.settimeout(1), lambda: conn.setblocking(True),
                 lambda: conn.shutdown(socket.SHUT_RD), lambda: next(conn), lambda: list(conn),
                 lambda: setattr(conn, "framing", Lines())):
        with pytest.raises(OSError, match="Bad file descriptor") as caught:
            call()
        assert caught.value.errno == errno.EBADF


@pytest.mark.parametrize("end", ["close", "detach", "exit"])
def test_every_method_of_a_closed_connection_is_refused(wing: Any, end: str) -> None:
    """K1, K2."""
    left, right = wing.pair(LengthPrefix())
    with right:
        left.send(b"x")
        raw = left.sock
        if end == "detach":
            assert left.detach() == (raw, b"")
        elif end == "exit":
            with pytest.raises(ZeroDivisionError), left:
                raise ZeroDivisionError
        for _ in range(2):
            left.close()
        assert (raw.fileno() == -1) == (end != "detach")
        refused(left)
        assert right.recv(timeout=LIMIT) == b"x"
        raw.close()


def test_detach_gives_what_is_left(wing: Any) -> None:
    """K15."""
    left, right = wing.pair(LengthPrefix())
    with left:
        left.send_many([b"one", b"two"])
        left.sock.send(b"rest")
        assert right.recv(timeout=LIMIT) == b"one"
        sock, leftover = right.detach()
        with sock:
            assert leftover == b"\0\0\0\3tworest"
            left.sock.send(b"more")
            assert sock.recv(9) == b"more"


@pytest.mark.parametrize("overlong", ["skip", "truncate"])
def test_a_frame_that_is_passed_over_is_no_place_to_detach(wing: Any, overlong: str) -> None:
    """K15: the rest of it would be taken for frames by who goes on."""
    left, right = wing.pair(LengthPrefix(max_length=3, overlong=overlong))
    with left, right:
        left.send(b"it")
        left.sock.sendall(b"\0\0\0\x09from")
        assert right.recv(timeout=LIMIT) == b"it"
        with pytest.raises(TimeoutError):
            right.recv(timeout=0.05)
        for _ in range(2):
            with pytest.raises(FramingError, match=r"^the overlong frame at position 6 is being passed over, and its"):
                right.detach()
        assert not right.closed
        left.sock.sendall(b" here\0\0\0\3onto")
        assert [right.recv(timeout=LIMIT) for _ in range(1 + (overlong == "truncate"))][-1] == b"ont"
        sock, leftover = right.detach()
        with sock:
            assert leftover == b"o"


def test_what_was_received_before_comes_first(wing: Any) -> None:
    left, right = wing.pair(Lines())
    with left:
        left.send_many([b"one", b"two"])
        assert right.recv() == b"one"
        sock, leftover = right.detach()
        with pytest.raises(TypeError):
            wing.FramedSocket(sock, Lines(), received="text")
        with wing.FramedSocket(sock, Lines(), received=leftover + b"thr") as again:
            assert again.pending() == 7
            left.send(b"ee")
            assert [again.recv(), again.recv()] == [b"two", b"three"]



def test_one_connection_can_not_be_made_twice_or_copied(wing: Any) -> None:
    """I7."""
    left, right = wing.pair(LengthPrefix())
    with left, right:
        for _ in range(2):
            with pytest.raises(RuntimeError, match="FramedSocket is already at work in this call"):
                left.__init__(right.sock, Lines())
        for double in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError, match="FramedSocket can't be pickled or copied: it belongs to one stream"):
                double(left)
        assert left.framing == LengthPrefix()
        left.send(b"x")
        assert right.recv(timeout=LIMIT) == b"x"
        with pytest.raises(AttributeError):
            left.unsent = 1


def test_one_that_was_never_made_is_closed(wing: Any) -> None:
    conn = wing.FramedSocket.__new__(wing.FramedSocket)
    assert conn.closed
    assert conn.unsent == 0
    assert "closed" in repr(conn)
    for call in (conn.recv, lambda: conn.send(b""), conn.flush, conn.detach, lambda: next(conn), lambda: conn.framing):
        with pytest.raises(OSError, match="Bad file descriptor"):
            call()
    conn.close()
    with pytest.raises(TypeError):
        conn.__init__(None, Lines())
    assert conn.closed
    conn.__init__(Scripted(b"x\n"), Lines())
    assert list(conn) == [b"x"]


def test_subclasses_are_made_in_their_own_way(wing: Any) -> None:
    """I12."""
    class Client(wing.FramedSocket):  # type: ignore[misc]
        def __init__(self, stream: bytes, *, upper: bool) -> None:
            super().__init__(Scripted(stream), Lines())
            self.upper = upper

        def recv(self, *args: Any, **keywords: Any) -> bytes:
            payload: bytes = super().recv(*args, **keywords)
            return payload.upper() if self.upper else payload

        def close(self) -> None:
            self.upper = False
            super().close()

    with Client(b"one\ntwo\n", upper=True) as client:
        assert client.recv() == b"ONE"
        assert client.upper
    assert (client.upper, client.sock.closed, client.closed) == (False, 1, True)


def test_cycles_are_collected(wing: Any) -> None:
    """K12."""
    class Linked(wing.FramedSocket):  # type: ignore[misc]
        pass

    left, right = socket.socketpair()
    with right:
        conn = Linked(Scripted(b"x\n"), Lines())
        conn.sock.owner = conn
        conn.me = conn
        conn.send_many(iter([b"a"]))
        gone = weakref.ref(conn)
        del conn
        gc.collect()
        assert gone() is None
        left.close()


def test_one_dropped_without_close_warns_once_and_closes(wing: Any) -> None:
    """K13."""
    left, right = socket.socketpair()
    with right:
        conn = wing.FramedSocket(left, LengthPrefix())
        conn.send(b"x")
        del left
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            del conn
            gc.collect()
        assert [warning.category for warning in caught] == [ResourceWarning]
        assert right.recv(9) == b"\0\0\0\1x"
        assert right.recv(9) == b""


def test_a_drained_connection_holds_nothing(wing: Any) -> None:
    count = 1000
    sockets = [Scripted(b"\0\0\0\1x", cuts=[3]) for _ in range(count)]
    framing = LengthPrefix()

    def drain(conn: Any) -> None:
        assert conn.recv() == b"x"
        conn.send(b"x")
        with pytest.raises(EndOfStream):
            conn.recv()

    drain(wing.FramedSocket(Scripted(b"\0\0\0\1x"), framing))
    pairs = [socket.socketpair() for _ in range(count // 50)]
    for plain in (False, True):
        tracemalloc.start()
        try:
            base = tracemalloc.get_traced_memory()[0]
            if plain:
                conns = [wing.FramedSocket(left, framing) for left, _ in pairs for _ in range(50)]
                for conn, (_, right) in zip(conns[::50], pairs, strict=True):
                    right.send(b"\0\0\0\1x\0\0\0\2yz")
                    assert conn.recv_many(1) == [b"x"]
                    assert conn.recv() == b"yz"
                    conn.send(b"x")
            else:
                conns = [wing.FramedSocket(sock, framing) for sock in sockets]
                for conn in conns:
                    assert conn.recv() == b"x"
                    conn.send(b"x")
            used = (tracemalloc.get_traced_memory()[0] - base) / count
        finally:
            tracemalloc.stop()
        # The list itself takes 8 bytes for each; what is lent to a socket's own methods takes 400 more.
        assert used - 8 <= (512 if plain else 1000), f"{used - 8} bytes a connection"
        del conns
    for left, right in pairs:
        left.close()
        right.close()


# ---- connect ----

@pytest.fixture
def listeners(tmp_path: Path) -> Iterator[list[socket.socket]]:
    """Yield sockets that listen: of each family there is."""
    made = [socket.create_server(("127.0.0.1", 0)), socket.socket(socket.AF_UNIX)]
    made[1].bind(str(tmp_path / "s"))
    made[1].listen()
    if has_ipv6():
        made.append(socket.create_server(("::1", 0), family=socket.AF_INET6))
    yield made
    for sock in made:
        sock.close()


def test_connect_to_every_kind_of_address(listeners: list[socket.socket], tmp_path: Path) -> None:
    for listener in listeners:
        address = listener.getsockname()
        for where in (address[:2],) if listener.family != socket.AF_UNIX else (
                address, address.encode(), tmp_path / "s"):
            for timeout in (None, 5):
                with (connect(where, LengthPrefix(), timeout=timeout) as conn,
                      FramedSocket(listener.accept()[0], LengthPrefix()) as peer):
                    assert type(conn) is FramedSocket
                    assert conn.gettimeout() == timeout
                    if listener.family != socket.AF_UNIX:
                        assert conn.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                        assert conn.getpeername() == address
                        assert conn.getsockname() == peer.getpeername()
                    conn.send(b"hello")
                    assert peer.recv(timeout=LIMIT) == b"hello"
                    assert (conn.fileno(), conn.closed) == (conn.sock.fileno(), False)


def test_connect_refused_leaves_nothing_open(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
    for where, error in ((address, ConnectionRefusedError), (str(tmp_path / "none"), FileNotFoundError)):
        with pytest.raises(error):
            connect(where, LengthPrefix(), timeout=5)
    for framing in (None, LengthPrefix, "lines"):
        with pytest.raises(TypeError, match="framing must be a Framing"):
            connect(address, framing)  # type: ignore[arg-type]
    for where in (None, 5, ("127.0.0.1",)):
        with pytest.raises((TypeError, ValueError)):
            connect(where, LengthPrefix(), timeout=5)
    gc.collect()  # what was left open would warn


def test_what_is_exported_is_of_the_wing_in_use() -> None:
    assert FramedSocket.__mro__[2].__module__ == f"sockframe._{sockframe.wing}.connection"


class Closing(socket.socket):
    """A socket that is closed only when nothing is raised any more."""

    raises: list[BaseException]

    def close(self) -> None:
        if self.raises:
            raise self.raises.pop(0)
        super().close()


@pytest.mark.parametrize(("error", "closed"), [(OSError(5, "Input/output error"), True), (KeyboardInterrupt(), False),
                                               (MemoryError(), False)], ids=repr)
def test_what_closing_raises(wing: Any, error: BaseException, closed: bool) -> None:
    """An error of the descriptor's is reported once; what interrupted the call leaves all to be done again."""
    left, right = socket.socketpair()
    with right, Closing(fileno=left.detach()) as sock:
        sock.raises = [error]
        conn = wing.FramedSocket(sock, LengthPrefix(1))
        with pytest.raises(type(error)):
            conn.close()
        assert conn.closed is closed
        if not closed:
            conn.send(b"a", timeout=LIMIT)
            assert right.recv(10) == b"\1a"
        conn.close()
        assert conn.closed
        assert (sock.fileno() == -1) is not closed
