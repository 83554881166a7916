"""One select loop for all connections of a server."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any

from ..errors import FramingError
from ..transport import FrameKey
from .replies import LOG, TURN, Replies, part, tell

if TYPE_CHECKING:
    from ..framings import Framing
    from . import Server

ACCEPT = 64       # clients accepted before others are served
MANY = 1000       # connections of which epoll tells at once, about: where there are so many there may be more


def class_of_clients(framed_socket: Any) -> Any:
    """Return the class of a loop's connections, which takes little more memory than what it derives from."""
    class Client(framed_socket):  # type: ignore[misc]
        __slots__ = ("clock", "end", "peer", "replies")

        def __init__(self, sock: Any, framing: Framing, peer: str) -> None:
            super().__init__(sock, framing)
            self.peer = peer
            self.replies: Replies | None = None    # those that were not sent at once
            self.end: Exception | None = None      # what the stream ended with: no more frames will come
            self.clock: dict[Any, float] | None = None  # that it is on

    return Client


class SelectLoop:
    """Waits for all connections at once, answers the frames that came, and sends each one's replies together."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.handler = server.handler
        self.count = 0                   # connections: those that are registered with the selector, and
        self.busy: dict[Any, None] = {}  # with frames to answer and nothing unsent: not received from meanwhile
        self.over: dict[Any, None] = {}  # whose stream has ended, and what that makes of them is not yet seen
        self.puzzled = False             # the last select() raised, and no connection was to blame
        limits = server.limits
        # Who has been waiting for what, and since when. All wait equally long, so the first is over first.
        self.idle: dict[Any, float] = {}
        self.partial: dict[Any, float] = {}
        self.unsent: dict[Any, float] = {}
        self.shaking: dict[Any, float] = {}
        self.clocks = [
            (self.idle, limits.idle, "no frame has come for {} s"),
            (self.partial, limits.frame, "a frame was not whole {} s after its first byte"),
            (self.unsent, limits.send, "replies were not taken for {} s"),
            (self.shaking, limits.handshake, "no TLS handshake after {} s"),
        ]
        self.timed = any((limits.idle, limits.frame, limits.send, server.tls))

    def __len__(self) -> int:
        return self.count

    def run(self) -> None:
        """Serve until the server is to stop, then until its connections are done, or the grace is over."""
        server = self.server
        self.Client = class_of_clients(server.FramedSocket)
        with server.FrameSelector(progress=True) as self.selector:
            try:
                self.serve(server)
                self.finish(server)
            finally:
                for client in self.clients():
                    self.drop(client)

    def clients(self) -> list[Any]:
        """Return all connections."""
        return list(dict.fromkeys((*(key.conn for key in self.selector), *self.busy, *self.over)))

    def serve(self, server: Server) -> None:
        """Serve until the server is to stop."""
        selector = self.selector
        selector.watch(server.bell, server.wake_up)
        selector.watch(server.alarm, server.wake_up)
        selector.watch(server.listener, self.accept)
        accepting = True
        while server.stopping() is None:
            if accepting != (server.accept_at() <= monotonic()):
                accepting = not accepting
                if accepting:
                    selector.watch(server.listener, self.accept)
                else:
                    selector.unwatch(server.listener)
            results = self.round(self.patience(None if accepting else server.accept_at()))
            if self.timed and len(results) < MANY:
                self.expire()
        selector.unwatch(server.bell)
        selector.unwatch(server.alarm)
        if accepting:
            selector.unwatch(server.listener)
        server.close_listener()

    def round(self, timeout: float | None) -> list[Any]:
        """Wait once, and answer what came, which is returned."""
        results = self.select(timeout)
        self.now = monotonic()
        handler, timed, turn = self.handler, self.timed, int(TURN * 1e9)
        for key, got in results:
            if key.data is not None:
                key.data()
                continue
            client = key.conn
            if type(got) is not list or client.replies is not None or client.end is not None:
                self.take(client, got)
                continue
            try:
                rest = client._answer(got, handler, turn)
            except Exception as error:  # whatever it is (no memory), it is of this one
                self.fail(client, error)
                continue
            if rest is not None:
                client.replies = Replies(handler)
                client.replies.resume(got, *rest)
                self.answer(client)
            if timed:
                self.time(client, bool(got))
        self.go_on()
        return results

    def finish(self, server: Server) -> None:
        """Answer what has arrived, and close connections as they get to a frame boundary."""
        wait = 0.0
        while self.count:
            left = (server.stopping() or 0.0) - monotonic()
            if left <= 0:
                LOG.warning("%d connections are closed, for the grace is over", self.count)
                return
            served = {key.conn for key, _ in self.round(0.0 if self.busy else min(wait, left))}
            wait = 0.0 if served else 0.1
            if len(served) < MANY:
                for client in self.clients():
                    if client not in served and (client.clock is self.shaking or (
                            client.replies is None and not client.unsent and not client.pending())):
                        self.drop(client)

    # ---- connections ----

    def accept(self) -> None:
        """Accept the clients that are there."""
        server = self.server
        for _ in range(ACCEPT):
            accepted = server.accept()
            if accepted is None:
                return
            sock: Any = accepted[0]
            try:
                sock.setblocking(False)
                if server.tls is not None:
                    sock = server.tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
                client = self.Client(sock, server.framing, accepted[1])
                self.selector.register(client)
            except OSError as error:  # it is gone already
                tell(accepted[1], error)
                sock.close()
                continue
            self.count += 1
            if self.timed:
                self.start(client, self.shaking if server.tls is not None else self.idle)

    def take(self, client: Any, got: list[bytes] | Exception) -> None:
        """Take what a connection brought that is not as usual, and answer as much as fits into a turn."""
        if client.closed:
            return
        if isinstance(got, Exception):
            if client in self.busy:
                return  # its turn comes again
            if isinstance(got, OSError) and client.unsent:  # nobody will take the rest
                self.fail(client, got)
                return
        elif got:
            if client.replies is None:
                client.replies = Replies(self.handler)
            client.replies.add(got)
        elif client.clock is self.unsent and not client.unsent:
            self.start(client, None)
        self.answer(client)
        if self.timed:
            self.time(client, bool(got))

    def answer(self, client: Any) -> None:
        """Answer a connection's frames for a turn, until it has no more or takes no more replies."""
        replies = client.replies
        try:
            if replies is not None:
                end = monotonic() + TURN
                while not replies.done and not client.unsent:
                    replies.send(client, replies.take(), 0)
                    if monotonic() >= end:
                        break
            if not client.unsent:
                if replies is not None:
                    if not replies.done:
                        if client._watcher is not None:
                            self.selector.unregister(client)
                        self.busy[client] = None
                        return
                    if replies.fault is not None:
                        tell(client.peer, replies.fault, of_handler=True)
                        self.drop(client)
                        return
                    client.replies = None
                if client.end is not None:
                    self.fail(client, client.end)
                    return
            if client._watcher is None:
                self.selector.register(client)
                self.busy.pop(client, None)
                self.over.pop(client, None)
        except (FramingError, OSError) as error:
            self.fail(client, error)

    def go_on(self) -> None:
        """Give those that are busy another turn."""
        for client in list(self.busy):
            if not client.closed:
                self.answer(client)
                if self.timed:
                    self.time(client, True)

    def fail(self, client: Any, error: Exception) -> None:
        """Close a connection that has ended, or failed."""
        if not client.closed:
            tell(client.peer, error)
        self.drop(client)

    def drop(self, client: Any) -> None:
        """Close a connection, unless it is."""
        if client.closed:
            return
        self.start(client, None)
        self.count -= 1
        self.busy.pop(client, None)
        self.over.pop(client, None)
        if client._watcher is not None:
            self.selector.unregister(client)
        part(client.sock)
        client.close()
        client.end = client.replies = None  # of which a traceback holds the client, and all that it holds

    def select(self, timeout: float | None) -> list[Any]:
        """Wait for connections; one whose framing raises is closed, which hurts no other.

        Raises what is no connection's fault: at once where none holds a byte that could be (a signal handler raised),
        else the second time in a row.
        """
        try:
            results: list[Any] = self.selector.select(timeout)
        except Exception as error:
            count, again = self.count, self.puzzled
            holding = [key for key in self.selector if key.conn.pending()]
            results = [result for key in holding for result in self.probe(key)]
            self.puzzled = not results and self.count == count
            if self.puzzled and (again or not (holding or isinstance(error, MemoryError))):
                raise
            return results
        self.puzzled = False
        for key, got in results:
            if type(got) is not list:  # also where frames of it are in front
                key.conn.end = got
                self.over[key.conn] = None
        return results

    def probe(self, key: FrameKey) -> list[Any]:
        """Return what a connection holds already, if that was not what made select() raise."""
        client = key.conn
        try:
            return [(key, client.recv_many(timeout=0))]
        except (BlockingIOError, FramingError, OSError):
            pass  # the next select() tells
        except Exception as error:
            tell(client.peer, error, of_handler=True)
            self.drop(client)
        return []

    # ---- deadlines ----

    def start(self, client: Any, clock: dict[Any, float] | None) -> None:
        """Have a connection wait, from now on, for what this clock is for."""
        if client.clock is not None:
            del client.clock[client]
        client.clock = clock
        if clock is not None:
            clock[client] = monotonic()

    def time(self, client: Any, got: bool) -> None:
        """Have a connection wait for what comes next; what it waits for already goes on, where it got nothing."""
        clock: dict[Any, float] | None
        if client.closed or (client.clock is self.shaking and not got and client.sock.version() is None):
            return
        if client.unsent:
            clock = self.unsent
            got = False
        elif client.replies is not None:
            clock = None
        else:
            clock = self.partial if client.pending() else self.idle
        if got or clock is not client.clock:
            self.start(client, clock)

    def patience(self, until: float | None) -> float | None:
        """Return the seconds until a deadline passes; None where there is none."""
        if self.busy:
            return 0.0
        ends = [next(iter(clock.values())) + limit for clock, limit, _ in self.clocks if clock and limit is not None]
        if until is not None:
            ends.append(until)
        return max(0.0, min(ends) - monotonic()) if ends else None

    def expire(self) -> None:
        """Close the connections whose time was up when select() had found nothing of theirs."""
        for clock, limit, what in self.clocks:
            while limit is not None and clock:
                client, since = next(iter(clock.items()))
                if self.now < since + limit:
                    break
                tell(client.peer, TimeoutError(what.format(limit)))
                self.drop(client)
