"""One select loop for all connections of a server."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any

from ..errors import FramingError
from ..selectors import FrameKey
from .replies import LOG, TURN, Replies, part, tell

if TYPE_CHECKING:
    from . import Server

ACCEPT = 64       # clients accepted before others are served
MANY = 1000       # connections of which epoll tells at once, about: where there are so many there may be more


class Client:
    """A connection of the loop."""

    __slots__ = ("clock", "conn", "end", "peer", "replies", "watched")

    def __init__(self, conn: Any, peer: str, replies: Replies) -> None:
        self.conn = conn
        self.peer = peer
        self.replies = replies
        self.end: Exception | None = None     # what the stream ended with: no more frames will come
        self.clock: dict[Client, float] | None = None  # that it is on
        self.watched = False                           # by the selector


class SelectLoop:
    """Waits for all connections at once, answers the frames that came, and sends each one's replies together."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.clients: set[Client] = set()
        self.busy: dict[Client, None] = {}  # with frames to answer and nothing unsent: not received from meanwhile
        limits = server.limits
        # Who has been waiting for what, and since when. All wait equally long, so the first is over first.
        self.idle: dict[Client, float] = {}
        self.partial: dict[Client, float] = {}
        self.unsent: dict[Client, float] = {}
        self.shaking: dict[Client, float] = {}
        self.clocks = [
            (self.idle, limits.idle, "no frame has come for {} s"),
            (self.partial, limits.frame, "a frame was not whole {} s after its first byte"),
            (self.unsent, limits.send, "replies were not taken for {} s"),
            (self.shaking, limits.handshake, "no TLS handshake after {} s"),
        ]
        self.timed = any((limits.idle, limits.frame, limits.send, server.tls))

    def __len__(self) -> int:
        return len(self.clients)

    def run(self) -> None:
        """Serve until the server is to stop, then until its connections are done, or the grace is over."""
        server = self.server
        with server.FrameSelector(progress=True) as self.selector:
            try:
                self.serve(server)
                self.finish(server)
            finally:
                for client in list(self.clients):
                    self.drop(client)

    def serve(self, server: Server) -> None:
        """Serve until the server is to stop."""
        selector = self.selector
        selector.watch(server.bell)
        selector.watch(server.alarm)
        selector.watch(server.listener)
        accepting = True
        while server.stopping() is None:
            if accepting != (server.accept_at() <= monotonic()):
                accepting = not accepting
                (selector.watch if accepting else selector.unwatch)(server.listener)
            self.round(server, self.patience(None if accepting else server.accept_at()))
        selector.unwatch(server.bell)
        selector.unwatch(server.alarm)
        if accepting:
            selector.unwatch(server.listener)
        server.close_listener()

    def round(self, server: Server, timeout: float | None) -> None:
        """Wait once, and answer what came. What is answered is not held."""
        results = self.select(timeout)
        now = monotonic()
        for key, got in results:
            if key.data is not None:
                self.take(key.data, got)
            elif key.conn is server.listener:
                self.accept(server)
            else:
                server.wake_up()
        self.go_on()
        if self.timed and len(results) < MANY:
            self.expire(now)

    def finish(self, server: Server) -> None:
        """Answer what has arrived, and close connections as they get to a frame boundary."""
        wait = 0.0
        while self.clients:
            left = (server.stopping() or 0.0) - monotonic()
            if left <= 0:
                LOG.warning("%d connections are closed, for the grace is over", len(self.clients))
                return
            results = self.select(0.0 if self.busy else min(wait, left))
            for key, got in results:
                self.take(key.data, got)
            self.go_on()
            served = {key.data for key, _ in results}
            wait = 0.0 if served else 0.1
            if len(served) < MANY:
                for client in self.clients - served:
                    if client.clock is self.shaking or (
                            client.replies.done and not client.conn.unsent and not client.conn.pending()):
                        self.drop(client)

    # ---- connections ----

    def accept(self, server: Server) -> None:
        """Accept the clients that are there."""
        for _ in range(ACCEPT):
            accepted = server.accept()
            if accepted is None:
                return
            sock: Any = accepted[0]
            try:
                sock.setblocking(False)
                if server.tls is not None:
                    sock = server.tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
                client = Client(server.FramedSocket(sock, server.framing), accepted[1], Replies(server.handler))
                self.watch(client)
            except OSError as error:  # it is gone already
                tell(accepted[1], error)
                sock.close()
                continue
            self.clients.add(client)
            if self.timed:
                self.start(client, self.shaking if server.tls is not None else self.idle)

    def take(self, client: Client, got: list[bytes] | Exception) -> None:
        """Take what a connection brought, and answer as much as fits into a turn."""
        if client not in self.clients:
            return
        if isinstance(got, Exception):
            if client in self.busy:
                return  # its turn comes again
            if isinstance(got, OSError) and client.conn.unsent:  # nobody will take the rest
                tell(client.peer, got)
                self.drop(client)
                return
        elif got:
            client.replies.add(got)
        elif client.clock is self.unsent and not client.conn.unsent:
            self.start(client, None)
        self.answer(client)
        if self.timed and client in self.clients:
            self.time(client, bool(got))

    def answer(self, client: Client) -> None:
        """Answer a connection's frames for a turn, until it has no more or takes no more replies."""
        conn, replies = client.conn, client.replies
        try:
            if not replies.done and not conn.unsent:
                replies.send(conn, replies.take(), 0)
                if not replies.done and not conn.unsent:
                    end = monotonic() + TURN
                    while not replies.done and not conn.unsent and monotonic() < end:
                        replies.send(conn, replies.take(), 0)
            if not conn.unsent:
                if not replies.done:
                    self.unwatch(client)
                    self.busy[client] = None
                    return
                if replies.fault is not None:
                    tell(client.peer, replies.fault, of_handler=True)
                    self.drop(client)
                    return
                if client.end is not None:
                    tell(client.peer, client.end)
                    self.drop(client)
                    return
            self.watch(client)
        except (FramingError, OSError) as error:
            tell(client.peer, error)
            self.drop(client)

    def go_on(self) -> None:
        """Give those that are busy another turn."""
        busy, self.busy = self.busy, {}
        for client in busy:
            if client in self.clients:
                self.answer(client)
                if self.timed and client in self.clients:
                    self.time(client, True)

    def watch(self, client: Client) -> None:
        """Receive from a connection, or flush it."""
        if not client.watched:
            self.selector.register(client.conn, client)
            client.watched = True

    def unwatch(self, client: Client) -> None:
        """Leave a connection alone."""
        if client.watched:
            self.selector.unregister(client.conn)
            client.watched = False

    def drop(self, client: Client) -> None:
        """Close a connection."""
        self.start(client, None)
        self.clients.discard(client)
        self.unwatch(client)
        part(client.conn.sock)
        client.conn.close()
        client.end = None  # whose traceback holds the client, and all that it holds

    def select(self, timeout: float | None) -> list[Any]:
        """Wait for connections; one whose framing raises is closed, which hurts no other."""
        try:
            results: list[Any] = self.selector.select(timeout)
        except Exception:
            return [result for client in list(self.clients) if client.watched for result in self.probe(client)]
        for key, got in results:
            if isinstance(got, Exception):  # also where frames of it are in front
                key.data.end = got
                key.data.watched = False
        return results

    def probe(self, client: Client) -> list[Any]:
        """Return what a connection holds already, if that was not what made select() raise."""
        conn = client.conn
        try:
            if conn.pending():
                return [(FrameKey(conn, client), conn.recv_many(timeout=0))]
        except (BlockingIOError, FramingError, OSError):
            pass  # the next select() tells
        except Exception as error:
            tell(client.peer, error, of_handler=True)
            self.drop(client)
        return []

    # ---- deadlines ----

    def start(self, client: Client, clock: dict[Client, float] | None) -> None:
        """Have a connection wait, from now on, for what this clock is for."""
        if client.clock is not None:
            del client.clock[client]
        client.clock = clock
        if clock is not None:
            clock[client] = monotonic()

    def time(self, client: Client, got: bool) -> None:
        """Have a connection wait for what comes next; what it waits for already goes on, where it got nothing."""
        conn = client.conn
        clock: dict[Client, float] | None
        if client.clock is self.shaking and not got and conn.sock.version() is None:
            return
        if conn.unsent:
            clock = self.unsent
            got = False
        elif not client.replies.done:
            clock = None
        else:
            clock = self.partial if conn.pending() else self.idle
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

    def expire(self, now: float) -> None:
        """Close the connections whose time was up when select() had found nothing of theirs."""
        for clock, limit, what in self.clocks:
            while limit is not None and clock:
                client, since = next(iter(clock.items()))
                if now < since + limit:
                    break
                tell(client.peer, TimeoutError(what.format(limit)))
                self.drop(client)
