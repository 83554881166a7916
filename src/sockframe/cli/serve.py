"""`sockframe serve`: a server that echoes frames, or pipes each through a shell command."""

from __future__ import annotations

import logging
import select
import ssl
from collections.abc import Callable

import click

from ..framings import Framing
from ..server import MODES, Server, signals
from .params import ADDRESS, SECONDS, Address, fail, framing_options, limited, show_address
from .shell import Shell, ShellError


@click.command()
@click.argument("address", type=ADDRESS)
@framing_options
@click.option("--mode", type=click.Choice(list(MODES)), default="threads", show_default=True,
              help="A thread or a process for each connection, or one loop for all.")
@click.option("--exec", "command", metavar="CMD", help="Pipe each payload through this shell command.")
@click.option("--exec-timeout", type=SECONDS, help="Seconds that a command may take.")
@click.option("--strip-newline", is_flag=True, help="Take one newline off the end of what a command prints.")
@click.option("--max-connections", type=click.IntRange(1), default=1000, show_default=True,
              help="Close at once who comes when so many are there.")
@click.option("--idle-timeout", type=SECONDS, help="Close a connection so many seconds after its last frame.")
@click.option("--frame-timeout", type=SECONDS, help="Close one so many seconds after the first byte of a frame.")
@click.option("--tls-cert", type=click.Path(exists=True, dir_okay=False),
              help="Speak TLS, with this chain of certificates (PEM).")
@click.option("--tls-key", type=click.Path(exists=True, dir_okay=False),
              help="Its private key, where that is not in the same file.")
def serve(address: Address, framing: Framing, max_length: int | None, mode: str, command: str | None,
          exec_timeout: float | None, strip_newline: bool, max_connections: int, idle_timeout: float | None,
          frame_timeout: float | None, tls_cert: str | None, tls_key: str | None) -> None:
    """Answer every frame that comes to ADDRESS with its own payload, or with what a command makes of it.

    ADDRESS is host:port, [v6]:port, :port (of all of this machine's addresses), or a path with a slash in it: a
    Unix socket. Port 0 takes a free one. The address is told on stderr when all is ready.

    With --exec, each payload is the standard input of the command, and what that prints is the payload of the
    reply. A command that does not end with 0, takes too long or prints more than --max-length closes its connection,
    after the replies to earlier frames; stderr tells why. In mode select all connections wait for each command.

    SIGTERM or Ctrl-C lets the frames that have arrived be answered, for at most 5 seconds, and ends with exit code 0;
    a second one ends at once. Commands that are still at work are killed then, but for a second signal in mode
    processes, after which they only find that nobody reads or writes.
    """
    framing = limited(framing, max_length)
    if command is None and (exec_timeout is not None or strip_newline):
        raise click.UsageError("--exec-timeout and --strip-newline need --exec")
    if command is not None and not hasattr(select, "poll"):
        raise click.UsageError("--exec needs pipes that can be waited for, which this system has not")
    shell = None if command is None else Shell(command, framing.max_length, exec_timeout, strip_newline)
    handler: Callable[[bytes], bytes] = _echo if shell is None else shell
    _log_to_stderr()
    try:
        with Server(handler, address, framing, mode=mode, tls=_server_context(tls_cert, tls_key),
                    max_connections=max_connections, idle_timeout=idle_timeout,
                    frame_timeout=frame_timeout) as server, signals(server):
            if shell is not None:
                shell.stopping = server.stopping
            click.echo(f"serving {framing!r} at {show_address(server.address)}", err=True)
            server.serve_forever()
    except OSError as error:
        fail(error)
    finally:
        if shell is not None:
            shell.kill()


def _echo(payload: bytes) -> bytes:
    """Reply with the payload itself."""
    return payload


def _server_context(cert: str | None, key: str | None) -> ssl.SSLContext | None:
    """Return what the options of TLS ask for: None is no TLS."""
    if cert is None:
        if key is not None:
            raise click.UsageError("--tls-key needs --tls-cert")
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(cert, key, password=lambda: fail(f"{key or cert}: the key must not be encrypted"))
    except OSError as error:  # SSLError is one
        fail(f"{cert}: {error.strerror}")
    return context


class _Lines(logging.Formatter):
    """A line for what a command did wrong; the traceback only of what nobody expected."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the text of a record."""
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, (ShellError, ValueError)):
            return f"{record.getMessage()}: {error}"
        return super().format(record)


class _ToStderr(logging.Handler):
    """Writes what is logged to the stderr of the moment."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        click.echo(self.format(record), err=True)


def _log_to_stderr() -> None:
    """Write what the server logs to stderr, from now on."""
    logger = logging.getLogger("sockframe")
    logger.setLevel(logging.INFO)
    if not any(isinstance(handler, _ToStderr) for handler in logger.handlers):
        handler = _ToStderr()
        handler.setFormatter(_Lines())
        logger.addHandler(handler)
