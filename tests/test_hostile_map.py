"""hostile.txt, the map from hostile cases to the tests that show them, is whole and true."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
MAP = TESTS / "hostile.txt"


def cases() -> "dict[str, list[str]]":
    """Return the tests of each case; a case is listed once."""
    found: dict[str, list[str]] = {}
    for number, line in enumerate(MAP.read_text().splitlines(), 1):
        name, *tests = line.partition("#")[0].split() or [""]
        if name:
            assert re.fullmatch(r"[A-Z]\d+", name), f"line {number}: {name} is no case"
            assert name not in found, f"line {number}: {name} is here twice"
            assert tests, f"line {number}: {name} has no test"
            assert "#" in line, f"line {number} does not say what {name} is"
            found[name] = tests
    return found


def named(text: str) -> "set[str]":
    """Return the cases that a text names, one by one or as a range ("E1 to E6")."""
    names = set(re.findall(r"\b[A-Z]\d+\b", text))
    for group, first, last in re.findall(r"\b([A-Z])(\d+) to \1(\d+)\b", text):
        names.update(f"{group}{number}" for number in range(int(first), int(last) + 1))
    return names


@cache
def sources(path: Path) -> "dict[str, str]":
    """Return the text of each function of a file that is no method, with its decorators."""
    lines = path.read_text().splitlines()
    found = {}
    nodes = ast.parse(path.read_text()).body
    for node in [*nodes, *(item for branch in nodes if isinstance(branch, ast.If) for item in branch.body)]:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            first = min([node.lineno, *(line.lineno for line in node.decorator_list)])
            found[node.name] = "\n".join(lines[first - 1:node.end_lineno])
    return found


@pytest.mark.parametrize("case", cases())
def test_the_tests_of_a_case_exist_and_name_it(case: str) -> None:
    for test in cases()[case]:
        file, _, function = test.partition("::")
        functions = sources(TESTS.parent / file)
        assert function.startswith("test_") and function in functions, f"{test} does not exist"
        assert case in named(functions[function]), f"{test} does not say that it shows {case}"


def test_no_case_of_a_group_is_left_out() -> None:
    groups: dict[str, list[int]] = {}
    for case in cases():
        groups.setdefault(case[0], []).append(int(case[1:]))
    assert groups
    for group, numbers in groups.items():
        assert numbers == list(range(1, len(numbers) + 1)), f"group {group} has a gap, or is not in order"
