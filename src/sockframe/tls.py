"""TLSSocket: TLS over any stream socket, begun before its first byte or in the midst of the stream."""

from __future__ import annotations

import errno
import os
import ssl
import threading
from contextlib import suppress
from functools import partial
from selectors import EVENT_READ, EVENT_WRITE
from socket import SHUT_RD
from typing import Any

from . import errors
from .transport import (
    AT_ONCE,
    Direct,
    Serving,
    close,
    deadline_after,
    serving,
    socket_timeout,
    take_turn,
)

RECORD = 16384  # bytes of payload in one record (RFC 8446, section 5.1)
TURN = 32768    # bytes that are received, or encrypted, in one go


class TLSSocket(Serving):
    """A stream socket under TLS: `TLSSocket(sock, context, server_side=False, server_hostname=None, received=b"")`.

    It is what `FramedSocket.start_tls` and `connect(tls=...)` put in the place of the socket that it is over, and
    which it owns. `received` are bytes of the peer's TLS that were received from it already. `ssl_object` tells of
    certificates, ciphers and protocols (`ssl.SSLObject`). One thread may receive while another one sends.

    Whatever can't be sent or received at once goes on with the next call of the kind, also the handshake: it
    begins with the first. A send that was interrupted must be given the same bytes again. What fails in TLS (a bad
    record, an alert) raises `ssl.SSLError`, in every later call too; so does a signal handler that raises in the
    midst of decrypting, after which nobody knows what was read.
    """

    __slots__ = ("_answers", "_at", "_cipher", "_ended", "_failed", "_fed", "_inner", "_input", "_lock", "_output",
                 "_over", "_owed", "_plain", "_process", "_raw", "_receiving", "_said", "_sending", "_shaken",
                 "_timeout", "ssl_object")

    def __init__(self, sock: Any, context: ssl.SSLContext, *, server_side: bool = False,
                 server_hostname: str | bytes | None = None, received: bytes = b"") -> None:
        super().__init__(sock, True)
        if context.check_hostname and not server_side and not server_hostname:
            raise ValueError("server_hostname is needed: the context checks the server's name")
        self._input, self._output = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.ssl_object = context.wrap_bio(self._input, self._output, server_side, server_hostname)
        self._timeout: float | None = socket_timeout(sock)
        self._lock = threading.RLock()       # for ssl_object and its two buffers
        self._receiving = threading.RLock()  # for receiving ciphertext,
        self._sending = threading.RLock()    # and for sending it
        self._process = os.getpid()
        self._answers: list[bytes] = []  # what was decrypted,
        self._plain = b""                # and then joined, and is not yet given away
        self._owed: list[int] = []   # bytes that were encrypted and not yet sent, of those to be given again
        self._cipher: list[bytes] = []   # ciphertext to be sent,
        self._at = 0                     # from here on
        self._raw = received         # ciphertext received, and not yet given to ssl_object
        self._fed = 0                # how often there was some
        self._shaken = False         # the handshake is done, and what it makes us say is sent
        self._ended = False          # the socket's stream has,
        self._over = False           # and TLS's,
        self._said = False           # and we have told the peer that ours has
        self._failed: OSError | None = None
        self._inner: Serving = serving(sock) or Direct(sock)
        if isinstance(self._inner, Direct):
            sock.settimeout(0.0)

    # ---- what it has in common with a socket ----

    def recv(self, size: int) -> bytes:
        """Receive at most `size` bytes; b"" is the end of the stream."""
        return self.receive(size, deadline_after(self._timeout)) if size else b""

    def send(self, data: Any, deadline: int | None = None) -> int:
        """Send some of `data` and return how many bytes of it were taken."""
        deadline = deadline_after(self._timeout) if deadline is None else deadline
        if self._said:
            raise errors.os_error(errno.EPIPE)
        self.send_event = EVENT_WRITE
        while not self._owed:
            fed = self._fed
            self._flush(deadline)
            if not self._do(self._encrypt, memoryview(data).cast("B")[:TURN]):
                self._hear(fed, deadline, "send_event")
        self._flush(deadline)
        sent, self._owed = self._owed[0], []
        return sent

    def gettimeout(self) -> float | None:
        """Return the timeout in seconds; None is for ever."""
        return self._timeout

    def settimeout(self, timeout: float | None) -> None:
        """Set the timeout of recv(), send() and shutdown() in seconds."""
        deadline_after(timeout)
        self._timeout = timeout

    def pending(self) -> int:
        """Return the number of bytes that are decrypted and not yet given away."""
        with self._lock:
            return len(self._plain) + sum(map(len, self._answers)) + self.ssl_object.pending()

    def shutdown(self, how: int) -> None:
        """Shut down one half or both; that nothing more is sent, the peer is told (close_notify)."""
        self.end(how, deadline_after(self._timeout))

    def close(self) -> None:
        """Close the socket; the peer is told (close_notify), if that can be done at once: not by a forked process,
        which has the stream in common with another one."""
        # What has arrived is read first, such as a session ticket: unread, it would reset the connection.
        hear = partial(self._hear, self._fed, AT_ONCE, "recv_event")
        for step in (hear, self._say_end, partial(self._flush, AT_ONCE)) if os.getpid() == self._process else ():
            with suppress(OSError, RuntimeError):
                step()
        close(self.sock)

    def fileno(self) -> int:
        """Return the socket's descriptor; -1 once closed."""
        return int(self.sock.fileno())

    def getpeername(self) -> Any:
        """Return the address of the peer."""
        return self.sock.getpeername()

    def getsockname(self) -> Any:
        """Return the socket's own address."""
        return self.sock.getsockname()

    def getsockopt(self, *arguments: Any) -> Any:
        """Return an option of the socket."""
        return self.sock.getsockopt(*arguments)

    def setsockopt(self, *arguments: Any) -> None:
        """Set an option of the socket."""
        self.sock.setsockopt(*arguments)

    def __repr__(self) -> str:
        return f"<TLSSocket {self.ssl_object.version() or 'in handshake'} {self.sock!r}>"

    # ---- what serves a connection ----

    def handshake(self, deadline: int) -> None:
        """Do the handshake (RFC 8446), or begin it."""
        fed = self._fed
        while not self._do(self.ssl_object.do_handshake):
            self._hear(fed, deadline, "recv_event")
            fed = self._fed
        self._finish_handshake(deadline, "recv_event")

    def receive(self, size: int, deadline: int) -> bytes:
        """Receive at most `size` bytes; b"" is the end of the stream, also of one that TLS did not end (`ragged`)."""
        self.recv_event = EVENT_READ
        while not self._plain:
            if self._answers:
                with self._lock:  # shutdown() in another thread decrypts too
                    self._plain = b"".join(self._answers)
                    self._answers = []
            elif self._over:
                return b""
            else:
                fed = self._fed
                new = self._raw or self._input.pending or not self._shaken or self._failed is not None
                if new and (self._do(self._decrypt) or self._answers):
                    continue
                if self._ended:
                    self.ragged = self._over = True
                else:
                    self._hear(fed, deadline, "recv_event")
        data, self._plain = self._plain[:size], self._plain[size:]
        return data

    def after_fork(self) -> None:
        """Forget the calls of threads that this process doesn't have."""
        self._lock, self._receiving, self._sending = threading.RLock(), threading.RLock(), threading.RLock()
        self._inner.after_fork()

    def wake(self) -> None:
        """Have calls at work come back."""
        self._inner.wake()

    def end(self, how: int, deadline: int) -> None:
        """Shut down one half or both, once the peer is told."""
        if how != SHUT_RD:
            self._say_end()
            self._flush(deadline)
        self.sock.shutdown(how)

    # ---- what all this is made of ----

    def _do(self, step: Any, *arguments: Any) -> bool:
        """Do a step of TLS; False where it must hear of the peer first."""
        try:
            with self._lock:
                if self._failed is not None:
                    raise self._failed.with_traceback(None)
                self._settle()
                step(*arguments)
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError as error:
            self._fail(error)
            if not self._answers or step != self._decrypt:  # what was decrypted before it comes first
                raise
        return True

    def _encrypt(self, data: memoryview) -> None:
        """Encrypt all of `data`."""
        before = self._output.pending
        try:
            self._owed.extend(map(self.ssl_object.write, (data,)))
        except ssl.SSLError:
            raise
        except BaseException:
            # A signal handler's, which may have kept the answer: all or nothing.
            if not self._owed and self._output.pending > before and self.ssl_object.version() is not None:
                self._owed.append(len(data))
            raise

    def _decrypt(self) -> None:
        """Decrypt what has been received, all of it."""
        while self._input.pending or not self._shaken:
            before, count = self._input.pending, len(self._answers)
            try:
                self._answers.extend(map(self.ssl_object.read, (RECORD,)))
            except ssl.SSLZeroReturnError:  # both have ended
                self._over = True
                return
            except ssl.SSLError:
                raise
            except BaseException:
                if len(self._answers) == count and self._input.pending != before:
                    self._fail(OSError(errno.ECONNABORTED, "TLS was interrupted in the midst of a record"))
                raise
            if not self._answers[-1]:
                self._over = True
                return
        if not self._answers:
            raise ssl.SSLWantReadError

    def _fail(self, error: OSError) -> None:
        """Keep what has failed, and send the alert that tells the peer."""
        if self._failed is None:
            self._failed = error
            with suppress(OSError, RuntimeError):
                self._flush(AT_ONCE)

    def _settle(self) -> None:
        """Give the ciphertext that was received to TLS, which has read all before it: once, also where a signal
        handler's exception came in between."""
        if self._raw:
            if not self._input.pending:
                self._input.write(self._raw)
            self._raw = b""
        if self._ended and self.ssl_object.version() is None:
            self._input.write_eof()

    def _hear(self, fed: int, deadline: int, event: str) -> None:
        """Send what TLS has to say, and receive what it wants, unless another thread has since (`fed`)."""
        if not self._shaken or self.ssl_object.version() is None:
            self._finish_handshake(deadline, event)
        elif (self._cipher or self._output.pending) and not self._sending._is_owned():  # type: ignore[attr-defined]
            with suppress(OSError):
                self._flush(AT_ONCE)
        setattr(self, event, EVENT_READ)
        turn = self._enter(self._receiving, deadline)
        try:
            if self._fed == fed:
                self._raw = self._inner.receive(TURN, deadline)
                self._fed, self._ended = fed + 1, not self._raw
                with self._lock:
                    self._settle()
        finally:
            turn.release()

    def _finish_handshake(self, deadline: int, event: str) -> None:
        """Send what the handshake makes us say, without which the peer would say no more."""
        setattr(self, event, EVENT_WRITE)
        self._flush(deadline)
        self._shaken = self.ssl_object.version() is not None

    def _flush(self, deadline: int) -> None:
        """Send the ciphertext that is here."""
        if not self._owed and not self._cipher and not self._output.pending:
            return
        turn = self._enter(self._sending, deadline)
        try:
            while self._cipher or self._output.pending:
                rest = memoryview(self._cipher[0])[self._at:] if self._cipher else None
                if rest:
                    self._at += self._inner.send(rest, deadline)
                    continue
                self._cipher, self._at = [], 0
                with self._lock:
                    self._cipher.extend(map(self._output.read, (-1,) * bool(self._output.pending)))
        finally:
            turn.release()

    def _enter(self, turn: Any, deadline: int) -> Any:
        """Wait for the turn to send or to receive, which the caller releases; a call from inside another one is
        refused."""
        if turn._is_owned():
            raise errors.reentry_error("TLSSocket")
        try:
            take_turn(turn, deadline)
        except BaseException:
            if turn._is_owned():
                turn.release()
            raise
        return turn

    def _say_end(self) -> None:
        """Tell the peer, once, that nothing more is sent. What it has sent is decrypted first: TLS would take it for a
        breach of protocol."""
        with self._lock:
            if not self._said and self._failed is None and self.ssl_object.version() is not None:
                self._said = True
                with suppress(ssl.SSLError):
                    self._do(self._decrypt)
                    self.ssl_object.unwrap()
