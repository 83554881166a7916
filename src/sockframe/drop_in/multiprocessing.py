"""multiprocessing's connections, over sockframe: the same names, wire and errors, with fewer calls and copies.

`Connection` derives from multiprocessing's own, speaks with it in both directions, and never reads a byte behind a
message: it can be waited for, shared with and sent to other processes as before. To have `Pool`, `Queue`, `Manager` and
all else of multiprocessing use it, put it in the original's place before they are made::

    import multiprocessing.connection
    from sockframe.drop_in.multiprocessing import Connection

    multiprocessing.connection.Connection = Connection

On Windows, where multiprocessing's pipes are of another kind, the names are the original's themselves.
"""

from __future__ import annotations

import select
from multiprocessing import connection, reduction
from multiprocessing.connection import answer_challenge, deliver_challenge, wait
from multiprocessing.reduction import ForkingPickler
from pickle import PicklingError
from typing import TYPE_CHECKING, Any

from .._wing import MessageConnection

__all__ = ["Client", "Connection", "Listener", "Pipe", "wait"]

# Kept here, as the names of this module may be put into their place.
_Original = connection.Connection
_original_client = connection.Client
_original_pipe = connection.Pipe


class Connection(MessageConnection, _Original):
    """One end of a pipe or socket that carries messages: `Connection(handle, readable=True, writable=True)`.

    It owns the descriptor `handle`. What an exception (of a signal handler, or `BlockingIOError`) interrupts goes on
    with the next call. A message that is cut off is an `OSError`, also behind its header, and so is a length that none
    can have; memory follows what arrived, not what a header announces. `send_bytes`, `recv_bytes` and
    `recv_bytes_into` are those of `MessageConnection`.
    """

    if TYPE_CHECKING:
        def _check_closed(self) -> None: ...
        def _check_writable(self) -> None: ...

    def send(self, obj: Any) -> None:
        """Pickle an object and send it as a message; raises what send_bytes() raises."""
        self._check_closed()
        self._check_writable()
        self.send_bytes(ForkingPickler.dumps(obj))

    def recv(self) -> Any:
        """Receive a message and return the object that is pickled in it; raises what recv_bytes() raises.

        Unpickling can run any code: see the warnings of `pickle`.
        """
        return ForkingPickler.loads(self.recv_bytes())

    def _send_bytes(self, buf: Any) -> None:
        self.send_bytes(buf)

    def _poll(self, timeout: float | None) -> bool:
        waiting = select.poll()
        waiting.register(self._handle, select.POLLIN)
        return bool(waiting.poll(None if timeout is None else max(0.0, timeout * 1000)))


class Listener(connection.Listener):
    """A bound socket that listens: `accept` returns a `Connection`. All else is the original's."""

    if TYPE_CHECKING:
        _listener: Any
        _authkey: bytes | None

    def accept(self) -> Connection:
        """Wait for a client, authenticate it where there is an authkey, and return the connection to it.

        Raises `OSError`, `EOFError`, and `multiprocessing.AuthenticationError`.
        """
        if self._listener is None:
            raise OSError("listener is closed")
        conn = _adopt(self._listener.accept())
        if self._authkey is not None:
            try:
                deliver_challenge(conn, self._authkey)
                answer_challenge(conn, self._authkey)
            except BaseException:
                conn.close()
                raise
        return conn


def Client(address: Any, family: str | None = None, authkey: bytes | None = None) -> Connection:
    """Connect to the `Listener` at `address`, authenticate where there is an authkey, and return the connection.

    Raises `OSError`, `EOFError`, and `multiprocessing.AuthenticationError`.
    """
    if authkey is not None and not isinstance(authkey, bytes):
        raise TypeError(f"authkey must be bytes, not {type(authkey).__name__}")
    conn = _adopt(_original_client(address, family))
    if authkey is not None:
        try:
            answer_challenge(conn, authkey)
            deliver_challenge(conn, authkey)
        except BaseException:
            conn.close()
            raise
    return conn


def Pipe(duplex: bool = True) -> tuple[Connection, Connection]:
    """Return two connections: to both ends of a socket pair, or a reader and a writer to those of a pipe."""
    one, other = _original_pipe(duplex)
    return _adopt(one), _adopt(other)


def _adopt(given: Any) -> Connection:
    """Return a connection that has the descriptor of one of the original's."""
    if isinstance(given, Connection):  # it stands in the original's place
        return given
    conn = Connection(given.fileno(), given.readable, given.writable)
    given._handle = None
    return conn


def _reduce(conn: Connection) -> tuple[Any, ...]:
    """Say how a connection is sent to another process: with a copy of its descriptor."""
    if conn._midway():
        raise PicklingError("the connection has sent or received a part of a message")
    return _rebuild, (reduction.DupFd(conn.fileno()), conn.readable, conn.writable)


def _rebuild(copy: Any, readable: bool, writable: bool) -> Connection:
    """Make the connection again."""
    return Connection(copy.detach(), readable, writable)


if hasattr(reduction, "DupFd"):
    ForkingPickler.register(Connection, _reduce)
else:  # as on Windows: what there is to take is no descriptor
    globals().update((name, getattr(connection, name)) for name in __all__)
