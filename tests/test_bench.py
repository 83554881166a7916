"""`python -m bench`: every contender does its work right on both wings, and the figures are put together right."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from peers.programs import lacking

ROOT = Path(__file__).parent.parent
WITHOUT_CORE = os.environ.get("SOCKFRAME_CORE") == "0"

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(str(ROOT))
    from bench import command, floor, report, runner, scale, targets
    from bench.command import main

#: Does a work by every contender of a kind on a wing, once to be checked and twice for the time, in one process.
EVERY = """
import json, sys
sys.path.insert(0, sys.argv[1])
from bench import echo, memory, runner, streams
kind, wing = sys.argv[2:]
works = {
    "echo": [echo.Work("tiny", 3, 2, 64, 2, idle=2)],
    "memory": [memory.Work("tiny", 64, 20)],
    "roundtrip": [streams.Work("length, tiny", False, 16, 30)],
}.get(kind, [streams.Work(f"{name}, tiny", name == "CRLF", 16, 300) for name in streams.FORMATS])
for work in works:
    for name, make in runner.kind_of(kind).CONTENDERS.items():
        if (name.partition(",")[0] == "pure") == (wing == "pure"):
            try:
                run = make(work)
            except (ImportError, streams.UnfitError) as error:
                print(json.dumps([work.name, name, str(error) and runner.reason(error)]))
                continue
            arrived = runner.digest(payload for part in run.check() for payload in part)
            if run.figure:
                assert run.figure() > -1000
            else:
                figures = runner.timed(run, work.count, 1, 0)
                assert figures["ns"] >= 0 and figures["wall"] > 0  # a tick of the clock can be more than the work
            print(json.dumps([work.name, name, arrived == runner.digest(work.payloads())]))
"""

#: Why a contender may be left out: what it can't do, or a peer that is not here.
UNFIT = {"msgpack has a format of its own, with lengths", "multiprocessing has a format of its own, with lengths"}


@pytest.mark.parametrize("wing", ["core", "pure"])
@pytest.mark.parametrize("kind", [kind for kind in runner.KINDS if kind != "scale"])
def test_every_contender_does_the_work(kind: str, wing: str) -> None:
    environment = {**os.environ, "SOCKFRAME_CORE": runner.WINGS[wing]}
    done = subprocess.run([sys.executable, "-c", EVERY, ROOT, kind, wing], env=environment, capture_output=True,
                          text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    names = [name for name in runner.kind_of(kind).CONTENDERS if (name.partition(",")[0] == "pure") == (wing == "pure")]
    assert [name for _, name, _ in rows] == names * (len(rows) // len(names))
    here = {peer for peer in runner.PEERS if importlib.util.find_spec(peer)}
    allowed = UNFIT | {f"it {runner.needs(peer)}" for peer in runner.PEERS if peer not in here}
    if WITHOUT_CORE:
        rows = [row for row in rows if row[1].partition(",")[0] != "core"]
    assert [row for row in rows if row[2] is not True and row[2] not in allowed] == []
    assert any(row[2] is True for row in rows)


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="the peers have no builds for every new Python")
@pytest.mark.parametrize("peer", runner.PEERS)
def test_every_peer_is_there(peer: str) -> None:
    if not importlib.util.find_spec(peer):
        lacking(peer, "pip install 'sockframe[bench]'")


def test_the_floor_has_no_warnings(tmp_path: Path) -> None:
    compilation = ["cc", "-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Werror",
                   "-fsyntax-only", f"-I{floor.CSRC}", *map(str, sorted(floor.FOLDER.glob("*.c")))]
    done = subprocess.run(compilation, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_without_a_compiler_there_is_no_floor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(ImportError, match=r"the C floor needs a C compiler: .*no-such-compiler"):
        floor.compiled()
    monkeypatch.setenv("CC", "false")
    with pytest.raises(ImportError, match="the C floor does not compile"):
        floor.compiled()


def test_a_peer_that_is_missing_says_what_to_install() -> None:
    assert runner.reason(ModuleNotFoundError("No module named 'uvloop'", name="uvloop")) == (
        "it needs uvloop: pip install 'sockframe[bench]'")
    assert runner.reason(ImportError("no C compiler")) == "no C compiler"


def test_the_command_says_what_it_needs(tmp_path: Path) -> None:
    source = "import sys; sys.modules['rich'] = None; from bench.__main__ import run; run()"
    done = subprocess.run([sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); {source}"],
                          capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "the benchmark needs rich: pip install 'sockframe[bench]'\n")


# ---- figures ----

def row(contender: str, ns: "list[float]", work: str = "length 64 B", **more: Any) -> "dict[str, Any]":
    """Return a row as runner.run makes it."""
    return {"work": work, "contender": contender, "python": "python", "ns": ns, "wall": [2 * each for each in ns],
            "wrong": False, "unavailable": None, "unfit": False, **more}


def record(kinds: "dict[str, list[dict[str, Any]]]") -> "dict[str, Any]":
    """Return a record as the command stores it."""
    return {"processor": "a processor", "cores": 2, "platform": "a system", "pythons": {"python": "3.13.0"},
            "rounds": 3, "kinds": kinds}


@pytest.mark.parametrize(("how", "limit", "measured", "reached"), [
    ("times", 1.5, [0.5, 2.0, 1.5], True),
    ("times", 1.4, [0.5, 2.0, 1.5], False),
    ("share", 0.6, [2.0, 0.5, 2 / 3], True),
    ("share", 0.7, [2.0, 0.5, 2 / 3], False),
    ("above", 10, [-10, 20, 10], True),
    ("above", 9, [-10, 20, 10], False),
    ("most", 30, [10, 40, 30], True),
    ("most", 29, [10, 40, 30], False),
])
def test_a_target_compares_round_by_round(how: str, limit: float, measured: "list[float]", reached: bool) -> None:
    """With its own contender's worst round in the base's best, a ratio of medians would be another."""
    target = targets.Target("decode", "length 64 B", "core", how, limit, "C")
    found = target.measured([10, 40, 30], [20, 20, 20])
    assert found == pytest.approx(measured)
    assert target.reached(found) == reached


def test_every_target_names_what_there_is() -> None:
    for target in targets.TARGETS:
        module = runner.kind_of(target.kind)
        assert target.work in module.WORKS
        assert {target.contender, target.base or target.contender} <= set(module.CONTENDERS)


def test_every_quick_work_is_a_work() -> None:
    for kind in runner.KINDS:
        module = runner.kind_of(kind)
        assert set(module.QUICK) <= set(module.WORKS)


def test_results_are_of_what_was_measured_on_one_python() -> None:
    rows = [row("core", [3.0, 2.0]), row("C, copied out", [2.0, 2.0]), row("pure", [9.0, 9.0]),
            row("core", [9.0, 9.0], python="other"), row("C, copied out", [], "length 16 B"),
            row("core", [1.0], "length 16 B")]
    (result,) = targets.results({"decode": rows})
    assert (result.target.work, result.python, result.measured, result.wall) == (
        "length 64 B", "python", [1.5, 1.0], [1.5, 1.0])
    assert report.figures(result) == ("1.25", "1.00 to 1.50", "reached")


def test_ratio_and_spread() -> None:
    assert report.ratio(row("core", [4.0, 9.0, 5.0]), row("C", [2.0, 3.0, 1.0])) == 3.0
    assert report.spread([10.0, 12.0, 9.0]) == 0.3


def test_growth_divides_by_the_size_where_frames_grow() -> None:
    sizes = [row("core", [160.0, 320.0], scale.SIZES[16].name), row("core", [256.0], scale.SIZES[256].name)]
    assert scale.growth("bytes a frame", sizes) == {"core": {16: [10.0, 20.0], 256: [1.0]}}
    assert scale.growth("frames", [row("core", [5.0], scale.FRAMES[100].name)]) == {"core": {100: [5.0]}}


def test_a_page_takes_the_figures_between_its_marks(tmp_path: Path) -> None:
    kinds = {"decode": [row("core", [3.0, 2.0]), row("C, copied out", [2.0, 2.0])]}
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- bench: begin (how) -->\nold\n<!-- bench: end -->\nbehind\n")
    report.put_into(page, report.markdown(record(kinds), ["charts/decode.svg"]))
    text = page.read_text()
    assert text.startswith("before\n<!-- bench: begin (how) -->\n| work |")
    assert text.endswith("\n\n![decode](charts/decode.svg)\n<!-- bench: end -->\nbehind\n")
    assert "| decode, length 64 B | core | at most 1.4 x C, copied out | 1.25 | 1.00 to 1.50 | reached |" in text
    assert "2 cores, a processor, a system; Python 3.13.0." in text
    (tmp_path / "bare.md").write_text("nothing\n")
    with pytest.raises(ValueError, match="has no place marked by"):
        report.put_into(tmp_path / "bare.md", "")


def test_the_documentation_has_their_place() -> None:
    text = (ROOT / "docs" / "performance.md").read_text()
    assert text.index(report.BEGIN) < text.index(report.END)


def test_charts_of_every_kind(tmp_path: Path) -> None:
    try:
        from bench import charts

        importlib.import_module("matplotlib")
    except ImportError:
        lacking("matplotlib", "pip install 'sockframe[bench]'")
    kinds: dict[str, Any] = {kind: [row(name, [3.0, 2.0], list(runner.kind_of(kind).WORKS)[1])
                                    for name in ("core", "pure", "HOWTO")] for kind in runner.KINDS}
    kinds["send"] = [row("core", [], unavailable="it needs this and that")]
    drawn = charts.draw(record(kinds), tmp_path)
    assert [path.name for path in drawn] == [f"{kind}.svg" for kind in runner.KINDS if kind != "send"]
    for path in drawn:
        text = path.read_text()
        assert "<svg" in text
        assert charts.INKS in text and "currentColor" in text
        assert charts.INK not in text and "#ffffff" not in text, "its ground is the reader's"
    for kind, works in charts.SHOWN.items():
        assert set(works) <= set(runner.kind_of(kind).WORKS)


def test_the_command_measures_shows_and_stores(tmp_path: Path) -> None:
    from click.testing import CliRunner

    arguments = ["--kind", "decode", "--work", "length 1 MiB", "--contender", "by hand", "--contender", "HOWTO",
                 "--rounds", "2", "--json", str(tmp_path / "figures.json")]
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    (first, second) = json.loads((tmp_path / "figures.json").read_text())["kinds"]["decode"]
    assert (first["contender"], second["contender"]) == ("by hand", "HOWTO")
    assert all(len(each["ns"]) == 2 and min(each["ns"]) > 0 and not each["wrong"] for each in (first, second))
    again = CliRunner().invoke(main, ["--from", str(tmp_path / "figures.json")], catch_exceptions=False)
    assert again.output == result.output
    wrong = json.loads((tmp_path / "figures.json").read_text())
    wrong["kinds"]["decode"][1]["wrong"] = True
    (tmp_path / "wrong.json").write_text(json.dumps(wrong))
    refused = CliRunner().invoke(main, ["--from", str(tmp_path / "wrong.json")])
    assert refused.exit_code == 1
    assert "not the payloads that were encoded: decode: length 1 MiB, HOWTO" in refused.output


def test_what_was_measured_is_stored_before_the_next_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from click.testing import CliRunner

    def run(kind: str, *rest: Any) -> "list[dict[str, Any]]":
        if kind == "receive":
            raise subprocess.CalledProcessError(1, "receive")
        return []

    monkeypatch.setattr(command, "run", run)
    path = tmp_path / "figures.json"
    arguments = ["--kind", "decode", "--kind", "receive", "--json", str(path)]
    assert isinstance(CliRunner().invoke(main, arguments).exception, subprocess.CalledProcessError)
    assert json.loads(path.read_text())["kinds"] == {"decode": []}
    refused = CliRunner().invoke(main, ["--from", str(path), "--json", str(path)])
    assert refused.exit_code == 2
    assert "stored already" in refused.output
    assert json.loads(path.read_text())["kinds"] == {"decode": []}


def test_other_pythons_and_works_that_are_not_there_are_refused() -> None:
    from click.testing import CliRunner

    for arguments, text in ((["--python", "no-such-python"], "no-such-python is no Python"),
                            (["--work", "length 3 B"], "decode has the works 'length 16 B'")):
        result = CliRunner().invoke(main, ["--kind", "decode", *arguments])
        assert result.exit_code == 2
        assert text in result.output.replace("\n", " ")
