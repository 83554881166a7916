"""The types of selector.pyx."""

from collections.abc import Iterable
from typing import Any

def receive_ready(keys: Iterable[Any], results: list[tuple[Any, list[bytes] | Exception]]) -> None: ...
