"""FrameProtocol: frames as callbacks, for who writes protocols of asyncio."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..errors import FramingError
from ..framings import Framing
from .link import WRITE_LIMIT, Link, batches, connection_error

if TYPE_CHECKING:
    from typing_extensions import Buffer


class FrameProtocol(Link):
    """An `asyncio.BufferedProtocol` that is called with whole frames: `FrameProtocol(framing)`.

    Override `frames_received`, and where the defaults won't do `end_received`, `fault_received`, `connection_made`
    and `connection_lost` (these two call `super()`), `pause_writing` and `resume_writing` (likewise). It is made by
    the factory given to `loop.create_connection`, `loop.create_server` and the like. What a callback raises closes
    this connection alone, and is told to the loop's exception handler; nothing is called after that but
    `connection_lost`.
    """

    def __init__(self, framing: Framing, *, write_limit: int = WRITE_LIMIT) -> None:
        super().__init__(framing, write_limit=write_limit)
        self._framing = framing
        self._closed = False
        self._paused = False     # by pause_reading(), which keeps what is held
        self._delivering = False
        self._over = False       # the end, or a fault, was told

    # ---- to be overridden ----

    def frames_received(self, frames: list[bytes]) -> None:
        """Called with the payloads of all frames that have arrived; there is at least one."""

    def end_received(self) -> None:
        """Called at a clean end of the peer's half of the stream, behind its last frame; closes the connection."""
        self.close()

    def fault_received(self, error: FramingError) -> None:
        """Called with what is wrong with the stream, behind the last good frame; closes the connection.

        That is a `MalformedFrameError`, a `FrameTooLongError`, or an `IncompleteFrameError` where the stream has
        ended inside a frame.
        """
        self.close()

    # ---- to be called ----

    @property
    def framing(self) -> Framing:
        """The framing. Setting it reads all bytes not yet delivered as frames by the new one: for a switch in the
        midst of a stream, `FramedStream` is the better tool, since `frames_received` gets all that are here."""
        return self._framing

    @framing.setter
    def framing(self, framing: Framing) -> None:
        self.decoder.framing = framing
        self._write_framing(framing)
        self._framing = framing

    def send(self, payload: Buffer) -> None:
        """Send one payload as a frame, as FramedStream.send does, but without waiting: look at pause_writing()."""
        self._check_sending()
        self.put(self.encode(payload))

    def send_many(self, payloads: Iterable[Buffer]) -> None:
        """Send the payloads of an iterable; of a list or tuple, where one is bad none is sent."""
        self._check_sending()
        for batch in (payloads,) if isinstance(payloads, (list, tuple)) else batches(payloads):
            self.put(self.encode_many(batch))

    def pause_reading(self) -> None:
        """Let no frame arrive until resume_reading(); the peer has to wait."""
        self._paused = True
        self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Let frames arrive again: those that are here by this very call, unless it comes from a callback."""
        self._paused = False
        self._deliver()
        if not self._paused and not self.deaf and not self.lost:
            self.transport.resume_reading()

    def close(self) -> None:
        """Close the connection, once what was sent is the kernel's; no frame arrives any more."""
        if self._closed or self.transport is None:
            return
        self._closed = True
        self.part()

    def _check_sending(self) -> None:
        """Refuse to send to nobody."""
        if self.wary or self.transport is None:
            raise connection_error(self.failure)

    # ---- what a transport calls ----

    def buffer_updated(self, nbytes: int) -> None:
        """Called by the transport when bytes have arrived."""
        if self.took(nbytes):
            self._deliver()

    def eof_received(self) -> bool:
        """Called by the transport at the peer's end."""
        stays = super().eof_received()
        self._deliver()
        return stays

    def connection_lost(self, exc: Exception | None) -> None:
        """Called when the connection is gone: `exc` is None, or what broke it."""
        gone = self.lost
        super().connection_lost(exc)
        if not gone:
            self._deliver()
            self.deaf = True

    def _deliver(self) -> None:
        """Call back with what has arrived."""
        if self._delivering:
            return
        self._delivering = True
        try:
            while not self._over and not self._paused and not self._closed and self._deliver_once():
                pass
        except Exception as error:
            self._closed = self.deaf = self.wary = True
            self.loop.call_exception_handler({
                "message": f"{type(self).__name__}: a callback, or the framing, has failed: the connection is closed",
                "exception": error, "transport": self.transport, "protocol": self})
            self.transport.abort()
        finally:
            self._delivering = False

    def _deliver_once(self) -> bool:
        """Call back once, if there is something."""
        try:
            frames = self.decoder.decode(b"")
            if not frames and self.ended:
                frames = self.finish()
        except FramingError as error:
            self._over = True
            self.fault_received(error)
            return False
        if frames:
            self.frames_received(frames)
            return True
        if self.ended:
            self._over = True
            self.end_received()
        return False
