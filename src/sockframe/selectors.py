"""FrameSelector: frames from many connections, with one call that waits for all of them."""

from __future__ import annotations

import errno
import os
import select as system
from collections.abc import Iterator
from contextlib import suppress
from selectors import EVENT_READ, EVENT_WRITE
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

from . import errors
from ._wing import receive_ready
from .transport import POLLIN, POLLOUT, is_own_error, socket_pending

if TYPE_CHECKING:
    from typing_extensions import Self

Result = tuple["FrameKey", list[bytes] | Exception]


class FrameKey(NamedTuple):
    """A registered connection, and what the user gave with it."""

    conn: Any
    data: Any = None


class FrameSelector:
    """Waits for many connections at once and receives their frames.

    `select` returns a list of (key, frames) for all connections that brought some. A connection that
    ended (`EndOfStream`), failed (`FramingError`, `OSError`) or was closed while it was registered comes as
    (key, exception), once, behind its last frames, and is no longer registered. One whose peer does not
    read (`unsent` is not 0) is flushed as the peer reads on, and not received from until then. Of each
    connection at most 64 KiB are taken at a time. What a signal handler, or a framing of your own, raises
    comes out of `select`, and nothing is lost. With `progress` a connection that got on without bringing a
    frame comes too, as (key, []): part of a frame has arrived, or all that was unsent is sent. To be used by
    one thread, of the process that made it.
    """

    _receive = staticmethod(receive_ready)

    def __init__(self, *, progress: bool = False) -> None:
        self._epoll: Any = system.epoll() if hasattr(system, "epoll") else None
        self._poller: Any = self._epoll if self._epoll is not None else system.poll()
        self._keys: dict[int, FrameKey] = {}     # by descriptor
        self._numbers: dict[int, int] = {}       # descriptors, by the connection's id()
        self._others: dict[int, FrameKey] = {}   # what is watched and is no connection, by descriptor
        self._progress = progress
        self._waiting: list[Result] = []         # what the next select() returns first
        self._unseen: dict[int, FrameKey] = {}   # connections that hold bytes which no poll can see
        self._hiding: dict[int, int] = {}        # sockets that may hide bytes (TLS): what is polled for, by descriptor
        self._closed = False
        self._process = os.getpid()

    def register(self, conn: Any, data: Any = None) -> FrameKey:
        """Watch a connection; return its key. Bytes that it holds already count as received."""
        self._check_open()
        if id(conn) in self._numbers:
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
            self._keys[number] = key
            self._numbers[id(conn)] = number
            if conn._methods is not None:
                self._hiding[number] = events
            if held or conn._methods is not None:
                self._unseen[number] = key
        except BaseException:
            conn._watch(None)
            self._erase(conn, number)
            raise
        return key

    def unregister(self, conn: Any) -> FrameKey:
        """Stop watching a connection; return its key."""
        self._check_open()
        if id(conn) not in self._numbers:
            raise KeyError(f"{conn!r} is not registered")
        conn._watch(None)
        return self._drop(conn)

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
                for key, frames in self._waiting:
                    if isinstance(frames, Exception) and id(key.conn) in self._numbers:
                        key.conn._watch(None)
                        self._drop(key.conn)
                results, self._waiting = self._waiting, []
                return results
            if deadline is not None and monotonic() >= deadline:
                return []

    def get_map(self) -> dict[int, FrameKey]:
        """Return the keys of all registered connections, by descriptor."""
        return dict(self._keys)

    def close(self) -> None:
        """Stop watching all connections; they stay open."""
        if not self._closed:
            for key in list(self._keys.values()):
                key.conn._watch(None)
                self._drop(key.conn)
            self._closed = True
            if self._epoll is not None:
                self._epoll.close()

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[FrameKey]:
        return iter(list(self._keys.values()))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    # ---- what connections tell ----

    def want_write(self, conn: Any) -> None:
        """A connection has kept a tail: flush it before anything more is received."""
        number = self._numbers.get(id(conn))
        if number is not None and not self._is_forked():
            self._poll_for(number, conn)

    def upgraded(self, conn: Any) -> None:
        """A connection is under TLS: no poll sees all of its bytes, and it may have to begin a handshake."""
        number = self._numbers.get(id(conn))
        if number is not None and not self._is_forked():
            self._hiding[number] = 0
            self._unseen[number] = self._keys[number]
            self._poll_for(number, conn)

    def forget(self, conn: Any) -> None:
        """A connection is about to be closed: say so at the next select()."""
        if id(conn) in self._numbers:
            self._waiting.append((self._keys[self._numbers[id(conn)]], errors.closed_error()))
            try:
                self._drop(conn)
            except BaseException:
                self._waiting.pop()
                raise

    # ---- what select() is made of ----

    def _check_open(self) -> None:
        if self._closed:
            raise OSError(errno.EBADF, "the selector is closed")
        if self._is_forked():
            raise OSError(errno.EBADF, "the selector belongs to the process that this one was forked from")

    def _is_forked(self) -> bool:
        """Say whether the kernel's list (epoll(7)) is another process's, which has it in common with this one."""
        return os.getpid() != self._process

    def _drop(self, conn: Any) -> FrameKey:
        """Forget a connection."""
        number = self._numbers[id(conn)]
        key = self._keys[number]
        self._erase(conn, number)
        return key

    def _erase(self, conn: Any, number: int) -> None:
        """Know nothing of a connection; what fails can be done again."""
        me = id(conn)
        if not self._is_forked():
            with suppress(OSError, KeyError):  # its descriptor may be gone already
                self._poller.unregister(number)
        self._unseen.pop(number, None)
        self._hiding.pop(number, None)
        self._keys.pop(number, None)
        self._numbers.pop(me, None)

    def _look(self, deadline: float | None) -> None:
        """Poll once and receive from all that are ready."""
        left: float | None = None if deadline is None else max(0.0, deadline - monotonic())
        unseen = [key for key in self._unseen.values() if not key.conn.unsent]
        if self._waiting or unseen:
            left = 0.0
        if self._epoll is not None:
            events = self._epoll.poll(left)
        else:
            events = self._poller.poll(None if left is None else left * 1000)
        keys = self._keys
        ready = []
        for number, _ in events:
            key = keys.get(number)
            if key is None:
                if number in self._others:
                    self._waiting.append((self._others[number], []))
                continue
            if key.conn.unsent:
                self._flush(number, key)
            elif number not in self._unseen:
                ready.append(key)
        try:
            for key in unseen:
                self._deliver(key)
            self._receive(ready, self._waiting)
        except BaseException:
            # A signal handler, or a framing of the user's: what has arrived is held, and no poll sees it.
            self._unseen.update((self._numbers[id(key.conn)], key) for key in ready if id(key.conn) in self._numbers)
            raise
        if self._progress:
            brought = {id(key.conn) for key, _ in self._waiting}
            self._waiting += [(key, []) for key in ready if id(key.conn) not in brought]
        for key in unseen:
            self._unseen.pop(self._numbers.get(id(key.conn), -1), None)
        if self._hiding:
            for key in ready + unseen:
                number = self._numbers.get(id(key.conn), -1)
                if number in self._hiding:
                    self._poll_for(number, key.conn)
                    if socket_pending(key.conn.sock):
                        self._unseen[number] = key

    def _poll_for(self, number: int, conn: Any) -> None:
        """Poll for what the connection waits for now."""
        events = wanted(conn)
        if self._hiding.get(number) != events:
            self._poller.modify(number, events)
            if number in self._hiding:
                self._hiding[number] = events

    def _deliver(self, key: FrameKey) -> None:
        """Deliver the whole frames that a connection holds, in itself or in its TLS."""
        try:
            self._waiting.append((key, key.conn.recv_many(timeout=0)))
        except BlockingIOError:
            pass
        except Exception as error:
            if not is_own_error(error):
                raise
            self._waiting.append((key, error))

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
            self._waiting.append((key, error))
            return
        self._poll_for(number, key.conn)
        if self._progress:
            self._waiting.append((key, []))


def wanted(conn: Any) -> int:
    """Return what to poll for: what a tail waits for, while there is one, or the next receive."""
    event = conn.send_event if conn.unsent else conn.recv_event
    return (POLLIN if event & EVENT_READ else 0) | (POLLOUT if event & EVENT_WRITE else 0)
