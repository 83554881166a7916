"""The budgets of instructions: what is counted of callgrind's output, and when a count is over its budget."""

import json

import pytest

from bench import budgets

#: As callgrind writes it: costs behind a line number, or one that is relative; what is called costs elsewhere.
WRITTEN = """version: 1
events: Ir

ob=/usr/lib/libpython3.so
fn=_PyEval_EvalFrameDefault
10 1000
cob=/site/sockframe/_core/codec.so
cfn=decode
calls=1 5
11 700

ob=/site/sockframe/_core/codec.so
fn=decode
5 100
+2 20
cob=/usr/lib/libc.so
cfn=memcpy
calls=3 0
+1 9000
* 3
fi=other.c
-4 7

ob=/usr/lib/libc.so
fn=memcpy
0 9000
totals: 10130
"""


def test_own_instructions_are_those_of_our_objects_alone() -> None:
    assert budgets.own_instructions(WRITTEN, "/sockframe/_core/") == 100 + 20 + 3 + 7
    assert budgets.own_instructions(WRITTEN, "libc") == 9000
    assert budgets.own_instructions(WRITTEN, "elsewhere") == 0


@pytest.mark.parametrize(("cost", "fine"), [(50, True), (100, True), (110, True), (110.2, False), (400, False)])
def test_a_budget_is_passed_by_the_tolerance_and_no_more(cost: float, fine: bool) -> None:
    wrong = budgets.judge({"scan": cost, "other": 1}, {"scan": 100, "other": 1}, 0.1)
    assert len(wrong) == (not fine)
    assert fine or wrong[0].startswith(f"scan: {cost:,.1f} instructions a frame")


def test_every_work_has_a_budget_and_every_budget_a_work() -> None:
    assert budgets.judge({"scan": 1, "new": 1}, {"scan": 1}, 0.1) == ["new: no budget"]
    assert budgets.judge({"scan": 1}, {"scan": 1, "gone": 1}, 0.1) == ["gone: a budget of no work"]
    table = json.loads(budgets.TABLE.read_text())
    assert list(table["core"]) == list(budgets.WORKS)
    assert all(cost > 0 for part in ("csrc", "core") for cost in table[part].values())
