"""FrameSelector: frames from many connections, with one call that waits for all of them."""

from __future__ import annotations

import errno
import os
import select as system
import threading
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from selectors import EVENT_READ, EVENT_WRITE
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any

from . import errors
from ._wing import receive_ready
from .polling import LOOK, POLLIN, POLLOUT, poll
from .transport import FrameKey, is_own_error, socket_pending

if TYPE_CHECKING:
    from typing_extensions import Self

Result = tuple[FrameKey, list[bytes] | Exception]


class FrameSelector:
    """Waits for many connections at once and receives their frames.

    `select` returns a list of (key, frames) for all connections that brought some. A connection that
    ended (`EndOfStream`), failed (`FramingError`, `OSError`) or was closed while it was registered comes as
    (key, exception), once, behind its last frames, and is no longer registered. One whose peer does not
    read (`unsent` is not 0) is flushed as the peer reads on, and not received from until then. Of each
    connection at most 64 KiB are taken at a time. What a signal handler, or a framing of your own, raises
    comes out of `select`, and nothing is lost. With `progress` a connection that got on without bringing a
    frame comes too, as (key, []): part of a frame has arrived, or all that was unsent is sent. To be used by
    one thread, of the process that made it; its connections may be used and closed by others too. A registered
    connection costs it 16 bytes.
    """

    _receive = staticmethod(receive_ready)

    def __init__(self, *, progress: bool = False) -> None:
        self._epoll: Any = system.epoll() if hasattr(system, "epoll") else None
        self._poller: Any = self._epoll if self._epoll is not None else poll()
        self._conns: list[Any] = []              # by descriptor; None where there is none
        self._data: list[Any] = []               # what the user gave with each
        self._count = 0
        self._others: dict[int, FrameKey] = {}   # what is watched and is no connection, by descriptor
        self._progress = progress
        self._waiting: list[Result] = []         # what the next select() returns first
        self._unseen: dict[int, Any] = {}        # connections that hold bytes which no poll can see, by descriptor
        self._hiding: dict[int, int] = {}        # sockets that may hide bytes (TLS): what is polled for, by descriptor
        self._closed = False
        self._process = os.getpid()
        self._lock = threading.RLock()           # held while a connection comes or goes, not while any is waited for

    def register(self, conn: Any, data: Any = None) -> FrameKey:
        """Watch a connection; return its key. Bytes that it holds already count as received."""
        self._check_open()
        with self._lock:
            if self._find(conn) >= 0:
                raise KeyError(f"{conn!r} is already registered")
            if conn.closed:
                raise errors.closed_error()
            number, held, events = conn.fileno(), conn.pending(), wanted(conn)
            key = FrameKey(conn, data)
            other = conn._watch(self)
            if other is not None:
                conn._watch(other)
                raise ValueError(f"{conn!r} is registered with another selector")
            try:
                self._poller.register(number, events)
            except BaseException:
                conn._watch(None)
                raise
            try:
                for table in (self._data, self._conns):
                    if number >= len(table):
                        table += [None] * (number + number // 8 + 16 - len(table))
                if self._conns[number] is not None:  # its socket was closed, which nobody told
                    self._end(self._conns[number], errors.closed_error(), polled=False)
                if conn._methods is not None:
                    self._hiding[number] = events
                if held or conn._methods is not None:
                    self._unseen[number] = conn
            except BaseException:
                conn._watch(None)
                self._erase(number)
                raise
            self._conns[number] = conn
            self._data[number] = data
            self._count += 1
            return key

    def unregister(self, conn: Any) -> FrameKey:
        """Stop watching a connection; return its key."""
        self._check_open()
        with self._lock:
            number = self._find(conn)
            if number < 0:
                raise KeyError(f"{conn!r} is not registered")
            key = self._key(number)
            self._erase(number)
            conn._watch(None)
            return key

    def watch(self, file: Any, data: Any = None) -> FrameKey:
        """Watch what is no connection, such as a listening socket: it comes as (key, []) while it can be read."""
        self._check_open()
        number = file.fileno()
        self._poller.register(number, POLLIN)
        key = self._others[number] = FrameKey(file, data)
        return key

    def unwatch(self, file: Any) -> FrameKey:
        """Stop watching what is no connection, before it is closed; return its key."""
        self._check_open()
        key = self._others.pop(file.fileno())
        self._poller.unregister(file.fileno())
        return key

    def select(self, timeout: float | None = None) -> list[Result]:
        """Wait until connections bring frames, end or fail, at most `timeout` seconds; None waits for ever.

        Returns [(key, frames or exception), ...], empty when the time is up.
        """
        self._check_open()
        if timeout is not None and not timeout >= 0:
            raise ValueError(f"timeout must be None, or seconds from 0 on, not {timeout}")
        deadline = None if timeout is None else monotonic() + timeout
        while True:
            self._look(deadline)
            if self._waiting:
                results = self._waiting[:]  # in the list itself other threads say what they have closed
                del self._waiting[:len(results)]
                return results
            if deadline is not None and monotonic() >= deadline:
                return []

    def get_map(self) -> dict[int, FrameKey]:
        """Return the keys of all registered connections, by descriptor."""
        with self._changing():
            return {number: self._key(number) for number, conn in enumerate(self._conns) if conn is not None}

    def close(self) -> None:
        """Stop watching all connections; they stay open."""
        with self._changing():
            if not self._closed:
                for number, conn in enumerate(self._conns):
                    if conn is not None:
                        self._erase(number)
                        conn._watch(None)
                self._closed = True
                if self._epoll is not None:
                    self._epoll.close()

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[FrameKey]:
        return iter(self.get_map().values())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    # ---- what connections tell ----

    def want_write(self, conn: Any) -> None:
        """A connection has kept a tail: flush it before anything more is received."""
        if not self._is_forked():
            with self._lock:
                self._poll_for(self._find(conn), conn)

    def upgraded(self, conn: Any) -> None:
        """A connection is under TLS: no poll sees all of its bytes, and it may have to begin a handshake."""
        if not self._is_forked():
            with self._lock:
                number = self._find(conn)
                if number >= 0:
                    self._hiding[number] = 0
                    self._unseen[number] = conn
                    self._poll_for(number, conn)

    def forget(self, conn: Any) -> None:
        """A connection is about to be closed: say so at the next select()."""
        self._end(conn, errors.closed_error())

    # ---- what select() is made of ----

    def _check_open(self) -> None:
        if self._closed:
            raise OSError(errno.EBADF, "the selector is closed")
        if self._is_forked():
            raise OSError(errno.EBADF, "the selector belongs to the process that this one was forked from")

    def _is_forked(self) -> bool:
        """Say whether the kernel's list (epoll(7)) is another process's, which has it in common with this one."""
        return os.getpid() != self._process

    def _changing(self) -> Any:
        """Return the lock, which a thread may have that stayed behind at a fork."""
        return nullcontext() if self._is_forked() else self._lock

    def _find(self, conn: Any) -> int:
        """Return the descriptor under which a connection is registered, or -1."""
        if conn._watcher is not self:
            return -1
        number: int = conn.sock.fileno()
        if 0 <= number < len(self._conns) and self._conns[number] is conn:
            return number
        # Its socket was closed, which nobody told, or it is registered no more.
        return next((number for number, other in enumerate(self._conns) if other is conn), -1)

    def _key(self, number: int) -> FrameKey:
        """Return the key of the connection with this descriptor."""
        return FrameKey(self._conns[number], self._data[number])

    def _is_registered(self, number: int) -> bool:
        """Say whether a descriptor is that of a connection."""
        return number < len(self._conns) and self._conns[number] is not None

    def _registered(self, number: int) -> FrameKey | None:
        """Return the key of the connection with this descriptor; None where it is none, or another thread closed it."""
        with self._lock:
            return self._key(number) if self._is_registered(number) else None

    def _end(self, conn: Any, error: Exception, polled: bool = True) -> None:
        """A connection has ended: it is registered no more, which the next select() tells."""
        with self._changing():
            number = self._find(conn)
            if number < 0:
                return
            result = self._key(number), error
            self._waiting.append(result)
            try:
                self._erase(number, polled)
            except BaseException:
                self._waiting.remove(result)
                raise
            conn._watch(None)

    def _erase(self, number: int, polled: bool = True) -> None:
        """Know nothing of a connection; what fails can be done again."""
        if polled and not self._is_forked():
            with suppress(OSError, KeyError):  # its descriptor may be gone already
                self._poller.unregister(number)
        self._unseen.pop(number, None)
        self._hiding.pop(number, None)
        if self._is_registered(number):
            self._count -= 1
            self._conns[number] = self._data[number] = None

    def _look(self, deadline: float | None) -> None:
        """Poll once and receive from all that are ready."""
        left: float | None = None if deadline is None else max(0.0, deadline - monotonic())
        unseen = self._look_inside() if self._unseen else {}
        if self._waiting or unseen:
            left = 0.0
        if self._epoll is not None:
            events = self._epoll.poll(-1 if left is None else left)  # PyPy takes no None
        else:  # what another thread changes, a call at work does not see
            events = self._poller.poll(1000 * (LOOK if left is None else min(left, LOOK)))
        if unseen:
            events = [event for event in events if event[0] not in unseen]
        try:
            for number in unseen:
                key = self._registered(number)  # still: a framing of the user's may have seen to another one
                if key is not None:
                    self._deliver(key)
            rest = self._receive(events, self._conns, self._data, self._progress, self._waiting, self._end)
        except BaseException:
            # A signal handler, or a framing of the user's: what has arrived is held, and no poll sees it.
            with self._lock:
                self._unseen.update((at, self._conns[at]) for at, _ in events if self._is_registered(at))
            raise
        for number in rest:
            if number in self._others:
                self._waiting.append((self._others[number], []))
                continue
            key = self._registered(number)
            if key is not None:
                self._flush(number, key)
        for number in unseen:
            self._unseen.pop(number, None)
        if self._hiding:
            with self._lock:
                for number in (*unseen, *(number for number, _ in events)):
                    if number in self._hiding:
                        conn = self._conns[number]
                        self._poll_for(number, conn)
                        if socket_pending(conn.sock):
                            self._unseen[number] = conn

    def _look_inside(self) -> dict[int, Any]:
        """Return the connections that hold bytes and wait for nothing else, by descriptor."""
        with self._lock:
            return {number: conn for number, conn in self._unseen.items() if not conn.unsent}

    def _poll_for(self, number: int, conn: Any) -> None:
        """Poll for what the connection waits for now, if it is registered still."""
        with self._lock:
            if number < 0 or not self._is_registered(number) or self._conns[number] is not conn:
                return
            events = wanted(conn)
            if self._hiding.get(number) != events:
                self._poller.modify(number, events)
                if number in self._hiding:
                    self._hiding[number] = events

    def _deliver(self, key: FrameKey) -> None:
        """Deliver the whole frames that a connection holds, in itself or in its TLS."""
        conn = key.conn
        try:
            held = conn.pending() if self._progress else 0
            try:
                self._waiting.append((key, conn.recv_many(timeout=0)))
            except BlockingIOError:
                if self._progress and conn.pending() > held:
                    self._waiting.append((key, []))
        except Exception as error:
            if not is_own_error(error):
                raise
            self._end(conn, error)

    def _flush(self, number: int, key: FrameKey) -> None:
        """Send more of a connection's tail."""
        try:
            key.conn.flush(timeout=0)
        except BlockingIOError:
            self._poll_for(number, key.conn)
            return
        except Exception as error:
            if not is_own_error(error):
                raise
            self._end(key.conn, error)
            return
        self._poll_for(number, key.conn)
        if self._progress:
            self._waiting.append((key, []))


def wanted(conn: Any) -> int:
    """Return what to poll for: what a tail waits for, while there is one, or the next receive."""
    event = conn.send_event if conn.unsent else conn.recv_event
    return (POLLIN if event & EVENT_READ else 0) | (POLLOUT if event & EVENT_WRITE else 0)
