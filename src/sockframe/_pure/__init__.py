"""The Python wing: the same rooms, classes and methods as `sockframe._core`, slower."""

from .codec import Decoder, Encoder
from .connection import Connection
from .selector import receive_ready

__all__ = ["Connection", "Decoder", "Encoder", "receive_ready"]
