"""The one place that chooses the wing: SOCKFRAME_CORE=1 insists on the core, 0 takes the pure one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

CHOICE = os.environ.get("SOCKFRAME_CORE", "")
if CHOICE not in ("", "0", "1"):
    raise ImportError(f"SOCKFRAME_CORE must be 0, 1 or unset, not {CHOICE!r}")

#: Why the core is not in use, or None where it is.
why_not_core: str | None = None

if TYPE_CHECKING:
    from . import _core as engine

    wing: str
elif CHOICE == "0":
    from . import _pure as engine

    wing = "pure"
    why_not_core = "SOCKFRAME_CORE is 0"
else:
    try:
        from . import _core as engine
        from . import errors

        if vars(engine.codec)["errors"] is not errors:  # a module in C is loaded once in a process
            raise ImportError("the core belongs to a copy of sockframe that was loaded before this one")
        wing = "core"
    except ImportError as error:
        if CHOICE == "1":
            raise ImportError(f"SOCKFRAME_CORE is 1, but the core can't be loaded: {error}") from error
        from . import _pure as engine

        wing = "pure"
        why_not_core = str(error)

AsyncFrames = engine.AsyncFrames
Connection = engine.Connection
Decoder = engine.Decoder
Encoder = engine.Encoder
FrameBatch = engine.FrameBatch
MessageConnection = engine.MessageConnection
StreamBuffer = engine.StreamBuffer
receive_ready = engine.receive_ready

__all__ = ["AsyncFrames", "Connection", "Decoder", "Encoder", "FrameBatch", "MessageConnection", "StreamBuffer",
           "receive_ready", "why_not_core", "wing"]
