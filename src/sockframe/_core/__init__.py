"""The C wing: Cython over csrc/. The same rooms, classes and methods as `sockframe._pure`."""

from .batch import FrameBatch
from .codec import Decoder, Encoder
from .connection import Connection
from .iteration import AsyncFrames
from .message import MessageConnection
from .selector import receive_ready
from .stream import StreamBuffer

__all__ = ["AsyncFrames", "Connection", "Decoder", "Encoder", "FrameBatch", "MessageConnection", "StreamBuffer",
           "receive_ready"]
