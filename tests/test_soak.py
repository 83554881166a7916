"""A short soak of each mode; the long one is `python -m tests.soak`."""

from __future__ import annotations

from typing import Any

import pytest
from serving import MODES
from soak.runner import soak


@pytest.mark.parametrize("mode", MODES)
def test_no_byte_is_lost_among_clients_that_come_and_go(wing: Any, mode: str, alone: None) -> None:
    result = soak(wing, mode, seconds=3, count=20, processes=2, seed=1)
    assert result.wrong == []
    assert result.counts["completed"] > 10
    assert result.killed
