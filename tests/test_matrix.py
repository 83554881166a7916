"""The matrix's own logic: what it reads from outputs, how it merges, what its table says, and what it does where
something is missing. No leg of its own runs here."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from matrix import __main__ as command
from matrix import races, report, runner
from matrix.legs import HEART, LEGS, Leg, Need

ROOT = Path(__file__).parent.parent
needs_git = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="an unpacked sdist has no commits to copy")

OUTPUT = """\
test_vectors: 2154 passed, 0 failed
test_search, no vectors: 49364 passed, 2 failed
........s
=========================== short test summary info ============================
SKIPPED [3] tests/test_batch_arrow.py:296: needs nanoarrow, which the tests' dependencies have up to Python 3.14
SKIPPED [2] tests/test_batch_arrow.py:164: needs 2 GiB of addresses
FAILED tests/test_codec.py::test_one[core] - assert 1 == 2
ERROR tests/test_send.py - ImportError
1 failed, 40 passed, 5 skipped, 1 error in 3.21s
==================== 7 passed, 1 xfailed in 61.04s (0:01:01) ===================
"""


def leg(*lines: str, **fields: Any) -> Leg:
    return Leg("one", "a leg", "some tests", lines, **{"version": "echo version 7", **fields})


def row(**fields: Any) -> dict[str, Any]:
    return {"on": "version 7", "passed": 1, "failed": 0, "skipped": 0, "reasons": {}, "wrong": [],
            "seconds": 1, **fields}


def test_all_that_an_output_counts_is_added_up() -> None:
    found = runner.read(OUTPUT)
    assert (found["passed"], found["failed"], found["skipped"]) == (2154 + 49364 + 40 + 7, 2 + 1 + 1, 5)
    assert found["reasons"] == {"needs 2 GiB of addresses": 2,
                                "needs nanoarrow, which the tests' dependencies have up to Python 3.14": 3}
    assert found["wrong"] == ["tests/test_codec.py::test_one[core]", "tests/test_send.py"]


def test_a_line_that_only_looks_like_a_count_counts_nothing() -> None:
    found = runner.read("this says that 3 passed in 2 s\n12 things in 1.00s of time: 4 passed\n")
    assert (found["passed"], found["failed"], found["skipped"]) == (0, 0, 0)


@needs_git
def test_a_leg_runs_in_a_copy_of_the_last_commit(tmp_path: Path) -> None:
    done = runner.run(leg(f"pwd > {tmp_path}/place; ls > {tmp_path}/files; ls -d .git > {tmp_path}/git || true",
                          "echo 'test_it: 3 passed, 0 failed'"))
    assert (done["passed"], done["on"]) == (3, "version 7")
    assert runner.fine(done)
    place = Path((tmp_path / "place").read_text().strip())
    assert place != ROOT and not place.exists(), "it is gone afterwards"
    committed = subprocess.check_output(["git", "ls-tree", "--name-only", "HEAD"], cwd=ROOT, text=True).split()
    assert set((tmp_path / "files").read_text().split()) - {"matrix.log"} == {n for n in committed if n[0] != "."}
    assert (tmp_path / "git").read_text() == ""


@needs_git
def test_a_command_that_fails_ends_its_leg_and_keeps_the_copy(capsys: pytest.CaptureFixture[str]) -> None:
    done = runner.run(leg("echo 'test_it: 3 passed, 0 failed'", "echo out of order; false", "echo later"))
    printed = capsys.readouterr().out
    assert done["stopped at"] == "echo out of order; false"
    assert not runner.fine(done) and "stopped at" in report.outcome(done)
    assert "out of order\n" in printed and "later" not in printed
    kept = Path(re.findall(r"it is all in (\S+)", printed)[0])
    assert (kept / "setup.py").exists()
    subprocess.run(["rm", "-r", kept], check=True)


@needs_git
def test_a_leg_that_counted_no_test_has_not_passed() -> None:
    done = runner.run(leg("true"))
    assert done["passed"] == 0
    assert not runner.fine(done)
    assert report.outcome(done) == "0 passed, **no test**"


def test_what_is_missing_is_said_with_what_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    lacking = leg("exit 1", needs=(Need("sh", "command -v sh", "-"), Need("a thing", "false", "apt-get install thing")))
    assert runner.run(lacking) == {"not run": "a thing is not there; to have it: apt-get install thing"}
    monkeypatch.delenv(runner.PYTHONS, raising=False)
    assert runner.run(leg("exit 1", python="python2.99", get="wait for it")) == {
        "not run": "there is no python2.99 in SOCKFRAME_PYTHONS or PATH; to have it: wait for it"}
    monkeypatch.delenv(runner.ROOTS, raising=False)
    rooted = leg("exit 1", root="sid", get="debootstrap sid sid")
    assert "SOCKFRAME_ROOTS names no directory with the tree 'sid'" in runner.run(rooted)["not run"]
    monkeypatch.setenv(runner.ROOTS, "/nowhere")
    assert "there is no tree 'sid' in SOCKFRAME_ROOTS; to make it: debootstrap" in runner.run(rooted)["not run"]


@needs_git
def test_an_interpreter_is_found_among_the_pythons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "python2.99").symlink_to(sys.executable)
    monkeypatch.setenv(runner.PYTHONS, os.pathsep.join(["/nowhere", str(tmp_path)]))
    done = runner.run(leg(f'test "$PYTHON" = {tmp_path / "python2.99"}',
                          'echo "heart: $(echo $HEART | wc -w) passed, 0 failed"', python="python2.99"))
    assert done["passed"] == len(HEART)


@needs_git
def test_a_line_can_run_outside_a_tree(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(runner, "root_of", lambda leg: str(tmp_path))
    monkeypatch.setattr(runner, "ENTER", ("sh", "-c", 'echo "entered: 1 passed, 0 failed"'))
    here = f"outside: test $ROOT = {tmp_path}"
    done = runner.run(leg("exit 1", f"{here}; test -d csrc; echo 'test_it: 3 passed, 0 failed'", root="a tree",
                          needs=(Need("the tree", here, "-"),)))
    assert (done["passed"], done["on"]) == (4, "entered: 1 passed, 0 failed")


def test_results_are_merged_in_the_order_of_the_legs(tmp_path: Path) -> None:
    first, second, *_ = LEGS
    path = tmp_path / "rows.json"
    report.store(path, report.merged(report.load(path), {second: row(passed=1), "a leg that is gone": row()}))
    report.store(path, report.merged(report.load(path), {first: row(passed=2)}))
    report.store(path, report.merged(report.load(path), {second: row(passed=3)}))
    assert [(name, each["passed"]) for name, each in json.loads(path.read_text()).items()] == [(first, 2), (second, 3)]


def test_the_table_has_every_leg_and_every_reason() -> None:
    legs = [Leg(name, f"what {name} is", "heart", ()) for name in ("a", "b", "c", "d", "e")]
    rows = {"a": row(passed=1234, skipped=2, reasons={"needs x": 2}),
            "b": row(failed=3, skipped=1, reasons={"needs x": 1}),
            "c": {"not run": "y is not there; to have it: z"}, "d": row(**{"stopped at": "make test"})}
    assert report.markdown(rows, legs).splitlines() == [
        "| leg | what | tests | on | result |",
        "|---|---|---|---|---|",
        "| `a` | what a is | heart | version 7 | 1,234 passed, 2 skipped |",
        "| `b` | what b is | heart | version 7 | 1 passed, **3 failed**, 1 skipped |",
        "| `c` | what c is | heart |  | not run: y is not there; to have it: z |",
        "| `d` | what d is | heart | version 7 | 1 passed, **stopped at** `make test` |",
        "| `e` | what e is | heart |  | not run yet |",
        "",
        "Skipped, and why:",
        "",
        "- needs x: 2 in `a`, 1 in `b`",
    ]


def test_the_table_goes_between_its_marks(tmp_path: Path) -> None:
    path = tmp_path / "support.md"
    path.write_text(f"before\n{report.BEGIN} (by it) -->\nold\n{report.END}\nbehind\n")
    report.put_into(path, "new\nlines")
    assert path.read_text() == f"before\n{report.BEGIN} (by it) -->\nnew\nlines\n{report.END}\nbehind\n"
    path.write_text("no marks")
    with pytest.raises(ValueError, match="no place marked"):
        report.put_into(path, "new")


@pytest.mark.parametrize(("rows", "options", "code", "said"), [
    ([row(), row()], [], 0, ""),
    ([row(), row(failed=1)], [], 1, "failed: "),
    ([row(), row(passed=0)], [], 1, "failed: "),
    ([row(), {"not run": "no"}], [], 1, "not run: "),
    ([row(), {"not run": "no"}], ["--allow-missing"], 0, "not run: "),
    ([row(failed=1), {"not run": "no"}], ["--allow-missing"], 1, "failed: "),
])
def test_all_fails_where_a_leg_failed_or_could_not_run(
        rows: list[Any], options: list[str], code: int, said: str, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    names = list(LEGS)
    results = {name: rows[min(at, len(rows) - 1)] for at, name in enumerate(names)}
    monkeypatch.setattr(command, "run", lambda leg, keep: results[leg.name])
    assert command.main(["--all", "--json", str(tmp_path / "rows.json"), *options]) == code
    assert said in capsys.readouterr().out
    assert json.loads((tmp_path / "rows.json").read_text()) == results


def test_what_is_asked_for_must_be_there(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, said in (["nothing like it"], "there is no leg nothing like it"), ([], "name legs, or"):
        with pytest.raises(SystemExit):
            command.main(arguments)
        assert said in capsys.readouterr().err


def test_the_list_tells_what_is_missing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    legs = {"a": leg("true"), "b": leg("true", needs=(Need("a thing", "false", "build it"),))}
    monkeypatch.setattr(command, "LEGS", legs)
    assert command.main(["--list"]) == 0
    assert [line.strip() for line in capsys.readouterr().out.splitlines() if "ready" in line or "missing" in line] == [
        "ready", "missing: a thing is not there; to have it: build it"]


def test_the_heart_is_there() -> None:
    assert [name for name in HEART if not (ROOT / name).exists()] == []


def test_the_documents_table_is_that_of_the_results() -> None:
    rows = report.load(report.RESULTS)
    assert list(rows) == [name for name in LEGS if name in rows], "legs that there are, in their order"
    text = report.DOCUMENT.read_text()
    table = text.partition(report.BEGIN)[2].partition("\n")[2].partition(f"\n{report.END}")[0]
    assert table == report.markdown(rows, LEGS.values()), "python -m tests.matrix --table makes it"


# ---- what ThreadSanitizer reports ----

def race(first: str, second: str) -> str:
    """Return a report of two accesses, each by way of memcpy()."""
    return "\n".join((
        "=" * 18, "WARNING: ThreadSanitizer: data race (pid=1)", "  Read of size 8 at 0x7b70 by thread T1:",
        "    #0 memcpy ../src/libsanitizer/common.inc:827 (libtsan.so+0x5)", f"    #1 {first} (x.so+0x1)", "",
        "  Previous write of size 8 at 0x7b70 by main thread:", f"    #0 {second} (x.so+0x2)", "",
        "SUMMARY: ThreadSanitizer: data race", "=" * 18, ""))


@pytest.mark.parametrize(("first", "second", "total"), [
    ("take build/src/sockframe/_core/codec.c:1", "sf_find csrc/crlf.c:7", "0 are meant and 1 are faults"),
    ("take build/src/sockframe/_core/codec.c:1", "resize Objects/listobject.c:165", "0 are meant and 0 are faults"),
    ("__pyx_pf_Connection_28pending src/sockframe/_core/c.c:1", "take src/sockframe/_core/codec.c:2",
     "1 are meant and 0 are faults"),
])
def test_a_race_of_the_cores_own_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str], first: str, second: str,
                                         total: str) -> None:
    (tmp_path / "races.1").write_text(race(first, second) + race("malloc x.c:1", second))
    assert races.main([str(tmp_path / "races.1")]) == int("1 are faults" in total)
    printed = capsys.readouterr().out
    assert printed.splitlines()[-1] == f"ThreadSanitizer: 2 reports, of which {total} of the core's"
    assert ("sf_find and take" in printed) == ("1 are faults" in total)
