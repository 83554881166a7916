"""Servers of frames: a thread or a process for each connection, or one select loop for all of them.

The three ways of Python's Socket Programming HOWTO, over `FramedSocket` and `FrameSelector`. What goes on is
logged as "sockframe.server": what a handler raises as an error with its traceback, what peers do wrong as one
line.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import stat
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .. import errors
from ..framings import Framing
from ..selectors import FrameSelector
from ..sockets import FramedSocket
from ..transport import unix_socket
from .loop import SelectLoop
from .replies import LOG, Limits, describe
from .workers import Forks, Threads

if TYPE_CHECKING:
    import ssl

    from typing_extensions import Buffer, Self

__all__ = ["Server", "serve"]

Handler = Callable[[bytes], "Buffer | Iterable[Buffer] | None"]

MODES: dict[str, Any] = {"threads": Threads, "processes": Forks, "select": SelectLoop}

#: accept(2) fails so where there is no room, or no memory, for another descriptor.
_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_PAUSE = 0.2  # seconds until the next try then


class Server:
    """Answers the frames of many clients: `Server(handler, address, framing)`; `serve_forever()` runs it.

    `handler(payload)` gets each payload as bytes and returns None (no reply), one bytes-like object (one reply)
    or an iterable of them (many, pulled as the peer takes them). What it raises, or returns besides, closes
    that connection alone, behind the replies to earlier frames. It is called by many threads at once (mode
    "threads", a thread a connection), in a process of its own for each connection ("processes", by fork: it
    need not be pickled, and shares nothing with the others), or by one loop ("select", where a handler
    that waits keeps everybody waiting).

    `address` is a (host, port) pair for TCP, or the path of a Unix socket, whose file is removed at the end; one
    that a dead server left is replaced. `tls` is an `ssl.SSLContext` of the server's side. Times are in seconds,
    and None is no limit: a connection is closed `idle_timeout` after its last frame, where no byte of another has
    come; `frame_timeout` after the first byte of a frame that is not yet whole; `send_timeout` after
    replies were ready that the peer has still not taken (up to 64 KiB of them, or one large one). A TLS
    handshake has `frame_timeout`, or 30 seconds. Beyond `max_connections`, clients are accepted and closed at
    once, so that they know; `refused` counts them. `backlog` is that of listen(2).

    `stop()` ends it: no more clients are accepted, each whole frame that has arrived is answered, a frame of
    which a part has arrived may be finished, and connections are closed on a frame boundary; after `grace`
    seconds they are closed wherever they are.
    """

    FramedSocket: Any = FramedSocket
    FrameSelector: Any = FrameSelector

    def __init__(self, handler: Handler, address: Any, framing: Framing, *, mode: str = "threads",
                 tls: ssl.SSLContext | None = None, max_connections: int = 1000, idle_timeout: float | None = None,
                 frame_timeout: float | None = None, send_timeout: float | None = None, backlog: int = 128,
                 grace: float = 5.0) -> None:
        if not callable(handler):
            raise TypeError(f"handler must be callable, not {type(handler).__name__}")
        if not isinstance(framing, Framing):
            raise errors.not_framing_error(framing)
        if mode not in MODES:
            raise ValueError(f"mode must be {', '.join(map(repr, MODES))}, not {mode!r}")
        if mode == "processes" and not hasattr(os, "fork"):
            raise ValueError("mode 'processes' needs os.fork, which this platform has not")
        if max_connections < 1:
            raise ValueError(f"max_connections must be 1 or more, not {max_connections}")
        if not grace >= 0:
            raise ValueError(f"grace must be seconds from 0 on, not {grace}")
        self.handler = handler
        self.framing = framing
        self.mode = mode
        self.tls = tls
        self.max_connections = max_connections
        self.limits = Limits(idle_timeout, frame_timeout, send_timeout)
        self.grace = grace
        self.refused = 0                        # clients that were closed at once
        self._full = self._starved = False      # told in the log already
        self._resume = 0.0                      # the time at which to accept again
        self._deadline: float | None = None     # of a graceful stop
        self._state = threading.Lock()
        self._ended = threading.Event()
        self._running = False
        self.listener = open_listener(address, backlog)
        self._name = self.listener.getsockname()
        self._file = file_of(self._name)
        self.bell, self._rope = socket.socketpair()  # readable once the server is to stop
        self.alarm, self._signal = socket.socketpair()  # readable once a signal has come, whichever thread got it
        for sock in (self.listener, self.bell, self._rope, self.alarm, self._signal):
            sock.setblocking(False)
        self._engine = MODES[mode](self)

    @property
    def address(self) -> Any:
        """The address that it is bound to: (host, port), or a path."""
        name = self._name
        return name if isinstance(name, (str, bytes)) else name[:2]

    @property
    def connections(self) -> int:
        """The number of connections that are open."""
        return len(self._engine)

    def serve_forever(self) -> None:
        """Serve until stop() is called, then stop gracefully, and close."""
        with self._state:
            if self._running or self._ended.is_set():
                raise RuntimeError("the server is running, or has ended")
            self._running = True
        try:
            self._engine.run()
        finally:
            self._close()

    def stop(self, grace: float | None = None) -> None:
        """Have the server stop, within `grace` seconds, and return at once: from any thread, a signal handler
        or the server's own handler, and as often as one likes."""
        deadline = monotonic() + (self.grace if grace is None else grace)
        if self._deadline is None or deadline < self._deadline:
            self._deadline = deadline
        with suppress(OSError):  # the bell is full, or closed
            self._rope.send(b"!")

    def close(self) -> None:
        """Stop the server, wait until it has ended, and close its listener."""
        self.stop()
        with self._state:
            running = self._running
            self._running = True
        if running:
            self._ended.wait()
        else:
            self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    # ---- what the three ways share ----

    def stopping(self) -> float | None:
        """Return the time of time.monotonic() at which a graceful stop is over, or None: no stop was asked for."""
        if self._deadline is None:
            with suppress(BlockingIOError):  # a handler in a process of its own rings the bell alone
                self.bell.recv(1, socket.MSG_PEEK)
                self._deadline = monotonic() + self.grace
        return self._deadline

    def wake_up(self) -> None:
        """Let the handlers of signals run, for which the alarm went off."""
        with suppress(BlockingIOError):
            self.alarm.recv(4096)

    def accept_at(self) -> float:
        """Return the time from which on clients can be accepted, where there was no descriptor for one."""
        return self._resume

    def accept(self) -> tuple[socket.socket, str] | None:
        """Accept a client: return its socket and what to call it, or None."""
        try:
            sock, address = self.listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return None
        except OSError as error:
            if not self._starved:
                LOG.error("can't accept: %s%s", error, " (trying again)" if error.errno in _NO_ROOM else "")
            self._starved = True
            self._resume = monotonic() + _PAUSE
            return None
        self._starved = False
        peer = describe(address)
        if self.connections >= self.max_connections:
            self.refused += 1
            if not self._full:
                LOG.warning("refused %s and who comes after: %d connections are open", peer, self.max_connections)
            self._full = True
            sock.close()
            return None
        self._full = False
        if sock.family != getattr(socket, "AF_UNIX", None):
            with suppress(OSError):  # it is gone already
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock, peer

    def close_listener(self) -> None:
        """Accept no more clients."""
        self.listener.close()
        if self._file is not None:
            path, identity = self._file
            with suppress(OSError):
                if identify(path) == identity:
                    os.unlink(path)
            self._file = None

    def _close(self) -> None:
        self.close_listener()
        for sock in (self.bell, self._rope, self.alarm, self._signal):
            sock.close()
        self._ended.set()


def serve(handler: Handler, address: Any, framing: Framing, *, mode: str = "threads",
          tls: ssl.SSLContext | None = None, max_connections: int = 1000, idle_timeout: float | None = None,
          frame_timeout: float | None = None, send_timeout: float | None = None, backlog: int = 128,
          grace: float = 5.0) -> None:
    """Serve until SIGTERM or SIGINT, stop gracefully, and return; all arguments are those of `Server`.

    A second signal cuts the grace short. The signals are handled where the main thread serves; from
    another one only `Server.stop()` ends it.
    """
    with Server(handler, address, framing, mode=mode, tls=tls, max_connections=max_connections,
                idle_timeout=idle_timeout, frame_timeout=frame_timeout, send_timeout=send_timeout, backlog=backlog,
                grace=grace) as server, signals(server):
        server.serve_forever()


@contextmanager
def signals(server: Server) -> Iterator[None]:
    """Let SIGTERM and SIGINT stop a server that the main thread runs."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        server.stop(0.0 if server.stopping() is not None else None)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    # The kernel may give a signal to another thread, which does not wake this one, where its handler runs.
    wakeup = signal.set_wakeup_fd(server._signal.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def open_listener(address: Any, backlog: int) -> socket.socket:
    """Listen at a (host, port) pair over TCP, or at the path of a Unix socket."""
    if isinstance(address, (str, bytes, os.PathLike)):
        path = os.fspath(address)
        remove_stale(path)
        sock = unix_socket()
        name: Any = path
    else:
        host, port = address
        family, _, _, _, name = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM,
                                                   flags=socket.AI_PASSIVE)[0]
        sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        # On Windows it would let others listen at the same port.
        if os.name == "posix" and sock.family != getattr(socket, "AF_UNIX", None):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(name)
        sock.listen(backlog)
    except OSError as error:
        sock.close()
        raise OSError(error.errno, f"{error.strerror}: can't listen at {describe(name)}") from None
    except BaseException:
        sock.close()
        raise
    return sock


def remove_stale(path: str | bytes) -> None:
    """Remove the file of a Unix socket that nobody listens at any more."""
    identity = identify(path)
    if identity is None:
        return
    with unix_socket() as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            if identify(path) == identity:
                os.unlink(path)
        except OSError:
            pass  # what is wrong with it, bind() tells


def identify(path: str | bytes) -> tuple[int, int] | None:
    """Return what tells one socket file from another at the same path; None where there is no socket."""
    try:
        status = os.stat(path, follow_symlinks=False)
    except (OSError, ValueError):
        return None
    return (status.st_dev, status.st_ino) if stat.S_ISSOCK(status.st_mode) else None


def file_of(name: Any) -> tuple[str | bytes, tuple[int, int]] | None:
    """Return the path of a listener's socket file and what identifies it; None where it has none."""
    if not isinstance(name, (str, bytes)):
        return None
    path = os.path.abspath(name) if name[:1] not in ("\0", b"\0", "", b"") else ""
    identity = identify(path)
    return None if identity is None else (path, identity)
