"""Servers with a worker for each connection, over the standard library's socketserver."""

from __future__ import annotations

import os
import select
import signal
import socket
import socketserver
import sys
import threading
from contextlib import suppress
from math import ceil
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

from .. import transport
from ..errors import FramingError
from ..polling import POLLIN, POLLOUT, poll
from .replies import LOG, Replies, part, tell

if TYPE_CHECKING:
    from . import Server

ACCEPT = 64    # clients accepted at once
COLLECT = 0.2  # seconds after which children that have ended are collected
LAST = 2.0     # seconds for threads to end that were woken
PAUSE = 0.2    # seconds until the next try, where there is no memory to wait

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Workers(socketserver.BaseServer):
    """What both have in common: accepting, and a connection's conversation from its first byte to its last."""

    def __init__(self, server: Server) -> None:
        super().__init__(server.address, None)  # type: ignore[arg-type]
        self.server = server
        self.open: dict[Any, Any] = {}  # sockets accepted, and the one to wake each by

    def __len__(self) -> int:
        return len(self.open)

    def run(self) -> None:
        """Accept clients until the server is to stop, then wait for their workers."""
        server = self.server
        poller = poll()
        poller.register(server.bell, POLLIN)
        poller.register(server.alarm, POLLIN)
        accepting = False
        while server.stopping() is None:
            pause = server.accept_at() - monotonic()
            if accepting != (pause <= 0):
                accepting = pause <= 0
                if accepting:
                    poller.register(server.listener, POLLIN)
                else:
                    poller.unregister(server.listener)
            left = [seconds for seconds in (pause, self.idle()) if seconds is not None and seconds > 0]
            try:
                poller.poll(ceil(min(left) * 1000) if left else None)
            except OSError as error:  # the kernel has no memory
                LOG.error("can't wait for clients: %s (trying again)", error)
                sleep(PAUSE)
            server.wake_up()
            if accepting:
                self.accept()
            self.service_actions()
        server.close_listener()
        self.finish(server.stopping() or 0.0)

    def accept(self) -> None:
        """Accept the clients that are there, and have a worker for each."""
        for _ in range(ACCEPT):
            accepted = self.server.accept()
            if accepted is None:
                return
            try:
                self.process_request(*accepted)
            except Exception:
                LOG.exception("%s: no worker; the connection is closed", accepted[1])
                self.shutdown_request(accepted[0])

    def idle(self) -> float | None:
        """Return the seconds after which service_actions() is due."""
        return None

    def finish(self, deadline: float) -> None:
        """Wait until the deadline for all workers to end, then end them."""
        raise NotImplementedError

    # ---- what socketserver asks for ----

    def close_request(self, request: Any) -> None:
        request.close()

    def shutdown_request(self, request: Any) -> None:
        self.close_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        LOG.exception("%s: the worker failed; the connection is closed", client_address)

    # ---- a connection ----

    def converse(self, sock: socket.socket, peer: str, bell: socket.socket) -> None:
        """Answer a connection's frames until it ends, fails, or the bell has rung."""
        server = self.server
        current: Any = sock
        conn = None
        try:
            sock.settimeout(None)
            if server.tls is not None:
                current = server.tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
                self.open[sock] = current
                shake_hands(current, bell, server.limits.handshake)
            conn = server.FramedSocket(current, server.framing)
            Conversation(server, conn, bell).run(peer)
        except (FramingError, OSError) as error:
            tell(peer, error)
        finally:
            part(current)
            if conn is not None:
                conn.close()
            current.close()


def shake_hands(sock: Any, bell: socket.socket, limit: float) -> None:
    """Do the TLS handshake of a new connection, for so many seconds at most, or until the bell rings."""
    import ssl

    end = monotonic() + limit
    sock.settimeout(0)
    while True:
        events = POLLIN
        with suppress(ssl.SSLWantReadError):
            try:
                sock.do_handshake()
                sock.settimeout(None)
                return
            except ssl.SSLWantWriteError:
                events = POLLOUT
        ready = poll()
        ready.register(sock, events)
        ready.register(bell, POLLIN)
        found = ready.poll(max(0, ceil((end - monotonic()) * 1000)))
        if not found:
            raise TimeoutError(f"no TLS handshake after {limit} s")
        if any(number == bell.fileno() for number, _ in found):
            raise ConnectionAbortedError("the server stops")


class Conversation:
    """A connection that a worker has for itself."""

    def __init__(self, server: Server, conn: Any, bell: socket.socket) -> None:
        self.conn = conn
        self.limits = server.limits
        self.replies = Replies(server.handler)
        self.ready = poll()
        self.ready.register(conn, POLLIN)
        self.bell = bell.fileno()
        self.ready.register(bell, POLLIN)
        self.stopping = False

    def run(self, peer: str) -> None:
        """Answer frames until there are no more to come."""
        while self.answer():
            pass
        if self.replies.fault is not None:
            tell(peer, self.replies.fault, of_handler=True)

    def answer(self) -> bool:
        """Wait for frames and answer them; False where there will be no more. What is answered is not held."""
        replies = self.replies
        replies.add(self.receive())
        if replies.done:
            return False
        while not replies.done:
            replies.send(self.conn, replies.take(), self.limits.send)
        return replies.fault is None

    def receive(self) -> list[bytes]:
        """Return the frames that come next; none where the server is to stop and nothing more is here."""
        conn = self.conn
        while True:
            with suppress(BlockingIOError):
                frames: list[bytes] = conn.recv_many(timeout=0)
                return frames
            if conn.pending():
                return self.receive_rest()
            if self.stopping:
                return []
            self.wait()

    def wait(self) -> None:
        """Wait for the first byte of a frame, or for the bell."""
        idle = self.limits.idle
        events = self.ready.poll(None if idle is None else ceil(idle * 1000))
        if not events:
            raise TimeoutError(f"no frame has come for {idle} s")
        self.stopping = any(number == self.bell for number, _ in events)

    def receive_rest(self) -> list[bytes]:
        """Return the frames that come next, of which a part is here."""
        limit = self.limits.frame
        try:
            frames: list[bytes] = self.conn.recv_many(timeout=limit)
            return frames
        except TimeoutError:
            raise TimeoutError(f"a frame was not whole {limit} s after its first byte") from None


class Threads(socketserver.ThreadingMixIn, Workers):
    """A thread for each connection."""

    daemon_threads = True  # a handler that never returns must not keep the program

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        self.left = threading.Condition()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start a thread."""
        self.open[request] = request
        super().process_request(request, client_address)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in its thread."""
        self.converse(request, client_address, self.server.bell)

    def shutdown_request(self, request: Any) -> None:
        """Forget a connection."""
        super().shutdown_request(request)
        with self.left:
            self.open.pop(request, None)
            self.left.notify_all()

    def finish(self, deadline: float) -> None:
        """Wait for all threads; then wake those that wait for their peers."""
        server = self.server
        with self.left:
            while self.open and (left := (server.stopping() or 0.0) - monotonic()) > 0:
                self.left.wait(min(left, 0.1))
            if not self.open:
                return
            LOG.warning("%d connections are closed, for the grace is over", len(self.open))
            for current in self.open.values():
                transport.wake(current)
            if not self.left.wait_for(lambda: not self.open, LAST):
                LOG.error("%d handlers have not returned", len(self.open))


class Forks(getattr(socketserver, "ForkingMixIn", socketserver.ThreadingMixIn), Workers):  # type: ignore[misc]
    """A process for each connection; without os.fork nobody makes one."""

    max_children = sys.maxsize  # those of the server are counted before
    block_on_close = True

    def __len__(self) -> int:
        self.collect_children()
        return len(self.active_children or ())

    def idle(self) -> float | None:
        """Return the seconds after which children that have ended are to be collected."""
        return COLLECT if self.active_children else None

    def process_request(self, request: Any, client_address: Any) -> None:
        """Fork; the signals wait until the child has its own handlers for them."""
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):
                stream.flush()  # not to be written twice
        self.mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            super().process_request(request, client_address)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, self.mask)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in its process, which the signals stop gracefully."""
        self.active_children = None
        self.server.listener.close()
        bell, rope = socket.socketpair()
        rope.setblocking(False)

        def stop(*_: object) -> None:
            with suppress(OSError):  # it is full, or at its end
                rope.send(b"!")

        signal.set_wakeup_fd(-1)
        for number in _SIGNALS:
            signal.signal(number, stop)
        signal.pthread_sigmask(signal.SIG_SETMASK, self.mask)
        try:
            self.converse(request, client_address, bell)
        finally:
            bell.close()
            for stream in (sys.stdout, sys.stderr):
                stream.flush()

    def finish(self, deadline: float) -> None:
        """Have the children stop, wait for them, and kill those that are left."""
        server = self.server
        children: set[int] = self.active_children or set()
        for pid in children:
            os.kill(pid, signal.SIGTERM)
        while children and (left := (server.stopping() or 0.0) - monotonic()) > 0:
            self.collect_children()
            select.select([], [], [], min(left, 0.01))
        if children:
            LOG.warning("%d connections are closed, for the grace is over", len(children))
            for pid in children:
                os.kill(pid, signal.SIGKILL)
            self.collect_children(blocking=True)
