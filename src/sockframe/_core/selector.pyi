"""The types of selector.pyx."""

from collections.abc import Callable
from typing import Any

def receive_ready(events: list[tuple[int, int]], conns: list[Any], data: list[Any], progress: bool,
                  results: list[tuple[Any, list[bytes] | Exception]],
                  end: Callable[[Any, Exception], None]) -> list[int]: ...
