"""What the commands have in common: their arguments and options, and how they end."""

from __future__ import annotations

import dataclasses
import math
import os
import ssl
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import click

from ..framings import OVERLONG, UNLIMITED, Framing
from ..server.replies import describe
from .expression import read_framing
from .streams import OutputError

Function = Callable[..., Any]
Address = tuple[str, int] | str


class Commands(click.Group):
    """The group: Ctrl-C ends a command with 130, a reader of the output that has gone with 1, both quietly."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            sys.exit(130)
        except OutputError as failed:
            # What is still in the buffer must not fail once more when Python ends.
            if sys.stdout is not None:
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            if not isinstance(failed.error, BrokenPipeError):
                click.echo(f"Error: standard output: {failed.error.strerror}", err=True)
            sys.exit(1)


def fail(error: object, place: str = "") -> NoReturn:
    """End the command with exit code 1 and a message: of a system's error also at which file or `place`."""
    if isinstance(error, OSError):
        place = os.fsdecode(error.filename) if error.filename else place
        words = str(error) if isinstance(error, ssl.SSLError) else error.strerror or error
        error = f"{place}: {words}" if place else words
    raise click.ClickException(str(error)) from None


# ---- kinds of arguments ----

class FramingType(click.ParamType):  # type: ignore[type-arg]
    """A framing, by name or as the call that makes it."""

    name = "framing"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Framing:
        """Return the framing."""
        if isinstance(value, Framing):
            return value
        try:
            return read_framing(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class AddressType(click.ParamType):  # type: ignore[type-arg]
    """host:port, [v6]:port, :port, or a path with a slash: of a Unix socket."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Address:
        """Return a (host, port) pair or a path."""
        if not isinstance(value, str):
            return value  # type: ignore[no-any-return]
        if "/" in value:
            return value
        host, colon, digits = value.rpartition(":")
        if not colon:
            self.fail(f"{value!r} has no port: say host:port, or a path with a slash for a Unix socket", param, ctx)
        if not (1 <= len(digits) <= 5 and digits.isascii() and digits.isdigit() and int(digits) < 65536):
            self.fail(f"the port of {value!r} must be a number from 0 to 65535", param, ctx)
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            self.fail(f"an IPv6 address goes in brackets: [{host}]:{digits}", param, ctx)
        return host, int(digits)


class LengthType(click.ParamType):  # type: ignore[type-arg]
    """A number of bytes, or "unlimited"."""

    name = "bytes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number."""
        if value == "unlimited":
            return UNLIMITED
        return click.IntRange(0, UNLIMITED).convert(value, param, ctx)


class SecondsType(click.FloatRange):
    """A number of seconds above 0."""

    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number."""
        number: float = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{number} is not in the range: it must be a number", param, ctx)
        return number


FRAMING = FramingType()
ADDRESS = AddressType()
LENGTH = LengthType()
SECONDS = SecondsType(0, 2_000_000, min_open=True)  # in milliseconds an int of C


def to_connect(address: Address) -> Address:
    """Return an address to connect to: without a host it is this one."""
    if isinstance(address, tuple):
        if not address[1]:
            raise click.UsageError("port 0 can't be connected to")
        return address[0] or "localhost", address[1]
    return address


def show_address(address: Any) -> str:
    """Return an address as it is written on the command line."""
    return describe(address) if isinstance(address, tuple) else os.fsdecode(address)


# ---- options ----

def options(*given: Function) -> Function:
    """Give a command several options, in this order."""
    def decorate(function: Function) -> Function:
        for option in reversed(given):
            function = option(function)
        return function

    return decorate


framing_options = options(
    click.option("-f", "--framing", type=FRAMING, required=True,
                 help="""How frames lie on the wire: a name (u32be, lines, delimiter:0x00, postgres, ...) or the call
                 that makes the framing, such as "LengthPrefix(2, 'little')"."""),
    click.option("--max-length", type=LENGTH, help="The largest payload, in bytes, or unlimited (8 MiB)."))


def limited(framing: Framing, max_length: int | None, overlong: str | None = None) -> Framing:
    """Return the framing with another limit, and another way to take what is longer."""
    changes: dict[str, Any] = {}
    if max_length is not None:
        changes["max_length"] = max_length
    if overlong is not None:
        changes["overlong"] = overlong
    try:
        return dataclasses.replace(framing, **changes)
    except ValueError as error:
        raise click.UsageError(f"{framing!r}: {error}") from None


overlong_option = click.option("--overlong", type=click.Choice(OVERLONG), help="What becomes of a longer payload.")

tls_options = options(
    click.option("--tls", is_flag=True, help="Speak TLS, and check the certificate."),
    click.option("--tls-ca", type=click.Path(exists=True, dir_okay=False),
                 help="Check it by the authorities in this PEM file; implies --tls."),
    click.option("--tls-insecure", is_flag=True, help="Speak TLS, and take any certificate."))


def client_context(tls: bool, tls_ca: str | None, tls_insecure: bool) -> ssl.SSLContext | None:
    """Return what the options of TLS ask for: None is no TLS."""
    if tls_ca and tls_insecure:
        raise click.UsageError("--tls-ca and --tls-insecure exclude each other")
    if not (tls or tls_ca or tls_insecure):
        return None
    try:
        context = ssl.create_default_context(cafile=tls_ca)
    except OSError as error:  # SSLError is one
        fail(f"{tls_ca}: {error.strerror}")
    if tls_insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
