"""SECURITY.md: each threat has a number and tests that exist."""

import re
from pathlib import Path

import pytest
from test_hostile_map import sources

TESTS = Path(__file__).parent
ROWS = [line for line in (TESTS.parent / "SECURITY.md").read_text().splitlines() if re.match(r"\| T\d+ \|", line)]


def test_no_number_is_left_out() -> None:
    assert len(ROWS) > 20
    assert [row.split("|")[1].strip() for row in ROWS] == [f"T{number}" for number in range(1, len(ROWS) + 1)]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip())
def test_what_stops_a_threat_is_shown_by_tests_that_exist(row: str) -> None:
    *_, threat, stop, shown, _ = row.split("|")
    tests = re.findall(r"`(\w+\.py)::(test_\w+)`", shown)
    assert threat.strip() and stop.strip() and tests
    assert re.sub(r"`\w+\.py::test_\w+`", "", shown).strip() == "", "only tests are listed there"
    for file, function in tests:
        assert function in sources(TESTS / file), f"{file}::{function} does not exist"
