"""The command as a user runs it: real processes, their output and their exit codes."""

import json
import os
import platform
import re
import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

import pytest

import sockframe

ROOT = Path(__file__).parent.parent
COMMAND = [sys.executable, "-m", "sockframe"]
CHECKED = "ok [0-9a-f]{8}"
CONTENDERS = ["core", "pure", "asyncio", "HOWTO"]
WITHOUT_CORE = os.environ.get("SOCKFRAME_CORE") == "0"

#: Files that are easily got wrong, and how many lines each has.
FILES = {
    "plain.py": (b"import os\n\nprint(os)\n", 4),
    "no_newline_at_the_end.py": (b"a = 1\nb = 2", 2),
    "empty.py": (b"", 1),
    "newlines.py": (b"\n\n\n", 4),
    "crlf.py": (b"a\r\nb\r\n\rc\r", 3),
    "latin_1.py": ("# caf\u00e9 \u00a7\nx".encode("latin-1"), 2),
    "every_byte.py": (bytes(range(256)), 2),
    "deep/er/long.py": (b"#" * 300_000 + b"\n" + b"x" * 65_536, 2),
    "deep/many.py": (b"".join(b"line %d\n" % number for number in range(5000)), 5001),
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder of Python files, and of others that must not be sent."""
    folder = tmp_path / "source"
    for name, (text, _) in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text)
    for name in ("notes.txt", "site-packages/other.py", "deep/__pycache__/left.py"):
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"not to be sent\n")
    return folder


def run(*arguments: object, code: int = 0, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run a command; its exit code must be `code`."""
    result = subprocess.run([*map(str, arguments)], capture_output=True, text=True, timeout=120, cwd=ROOT / "tests",
                            env={**os.environ, "COLUMNS": "100", **environment})
    assert result.returncode == code, result.stdout + result.stderr
    return result


def facts(output: str) -> "dict[str, str]":
    """Return what `info` printed, by name."""
    return {name.strip(): value for name, _, value in (line.partition("  ") for line in output.splitlines())
            for value in [value.strip()]}


# ---- info ----

def test_info_says_what_is_installed() -> None:
    found = facts(run(*COMMAND, "info").stdout)
    assert found["version"] == metadata.version("sockframe")
    assert found["wing"] == sockframe.wing
    assert found["why not the core"] == (sockframe.why_not_core or "it is in use")
    assert found["SOCKFRAME_CORE"] == (os.environ.get("SOCKFRAME_CORE") or "unset")
    assert found["pure can be imported"] == "yes"
    assert found["Python"] == f"{platform.python_version()} {platform.python_implementation()}"
    assert found["platform"] == platform.platform()


def test_info_says_why_not_the_core() -> None:
    found = facts(run(*COMMAND, "info", SOCKFRAME_CORE="0").stdout)
    assert (found["wing"], found["why not the core"]) == ("pure", "SOCKFRAME_CORE is 0")
    if not WITHOUT_CORE:
        assert found["core can be imported"] == "yes"
        assert facts(run(*COMMAND, "info", SOCKFRAME_CORE="1").stdout)["wing"] == "core"


def test_info_without_a_core(tmp_path: Path) -> None:
    found = facts(run(*COMMAND, "info", SOCKFRAME_CORE="", PYTHONPATH=without_core(tmp_path)).stdout)
    assert found["wing"] == "pure"
    assert "sockframe._core" in found["why not the core"]
    assert found["core can be imported"] == found["why not the core"]


def without_core(folder: Path) -> str:
    """Return a PYTHONPATH with which no Python finds the core."""
    (folder / "sitecustomize.py").write_text("import sys\nsys.modules['sockframe._core'] = None\n")
    return str(folder)


# ---- the command itself ----

def test_the_installed_script_is_the_module() -> None:
    script = Path(sysconfig.get_path("scripts")) / "sockframe"
    assert run(script, "info").stdout == run(*COMMAND, "info").stdout


@pytest.mark.parametrize(("arguments", "code", "words"), [
    (["--help"], 0, "bench"),
    (["--version"], 0, metadata.version("sockframe")),
    (["nonsense"], 2, "nonsense"),
    (["bench"], 2, "python -m bench"),
    (["bench", "--quick", "--source", "nowhere"], 2, "nowhere"),
    (["bench", "--quick", "--json", "nowhere/result.json"], 2, "nowhere/result.json"),
])
def test_exit_codes(arguments: "list[str]", code: int, words: str) -> None:
    result = run(*COMMAND, *arguments, code=code)
    assert words in result.stdout + result.stderr
    assert "Traceback" not in result.stderr


def test_a_command_starts_without_what_only_another_one_needs() -> None:
    """Half a command's start was asyncio, which the benchmark measures, and the look for the version."""
    script = "import sys, sockframe.cli; print(*{'asyncio', 'importlib.metadata'} & {*sys.modules})"
    assert run(sys.executable, "-c", script).stdout == "\n"


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_without_its_extra_the_command_says_what_to_install(missing: str, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nsys.modules[{missing!r}] = None\n")
    for command in (COMMAND, [Path(sysconfig.get_path("scripts")) / "sockframe"]):
        result = run(*command, "info", code=1, PYTHONPATH=str(tmp_path))
        assert result.stdout == ""
        assert result.stderr == f"the sockframe command needs {missing}: pip install 'sockframe[cli]'\n"


def test_a_module_missing_for_another_reason_is_not_hidden() -> None:
    result = run(sys.executable, "-c", "import sys; sys.modules['platform'] = None; "
                 "from sockframe.__main__ import main; main()", code=1)
    assert "ModuleNotFoundError: " in result.stderr
    assert "pip install" not in result.stderr


def test_the_library_imports_neither_click_nor_rich() -> None:
    run(sys.executable, "-c", "import sys, sockframe.stdlib_bench; assert not {'click', 'rich'} & {*sys.modules}")


# ---- bench --quick ----

def test_bench_without_a_file_to_send(tmp_path: Path) -> None:
    result = run(*COMMAND, "bench", "--quick", "--source", tmp_path, code=1)
    assert f"Error: no .py file in {tmp_path}" in result.stderr


def test_bench_carries_every_line_on_every_contender(source: Path, tmp_path: Path) -> None:
    result = run(*COMMAND, "bench", "--quick", "--source", source, "--json", tmp_path / "result.json")
    record = json.loads((tmp_path / "result.json").read_text())
    lines = sum(count for _, count in FILES.values())
    payload = sum(len(text) - text.count(b"\n") for text, _ in FILES.values())
    assert (record["source"]["files"], record["source"]["lines"]) == (len(FILES), lines)
    assert record["source"]["payload"] == payload
    assert record["not available"].pop("core") is None or WITHOUT_CORE
    assert set(record["not available"].values()) == {None}
    ran = [name for name in CONTENDERS if name != "core" or not WITHOUT_CORE]
    assert [(row["framing"], row["contender"]) for row in record["results"]] == [
        (framing, name) for framing in ("lines", "length prefix") for name in ran]
    for row in record["results"]:
        assert (row["intact"], row["frames"]) == (True, lines)
        assert row["sha256"] == record["source"]["sha256"]
        assert len(row["seconds"]) == record["rounds"]
        assert (row["ratio"] == 1.0) == (row["contender"] == "HOWTO")
    assert result.stdout.count(f"ok {record['source']['sha256'][:8]}") == 2 * len(ran)
    assert f"{lines:,} lines of {len(FILES)} files" in result.stdout
    assert result.stderr.count("round 1: ") == 2 * len(ran)


def test_bench_shows_a_wing_that_is_not_there(source: Path, tmp_path: Path) -> None:
    result = run(*COMMAND, "bench", "--quick", "--source", source, SOCKFRAME_CORE="", PYTHONPATH=without_core(tmp_path))
    assert result.stdout.count("unavailable") == 2
    assert "core is not available: import of sockframe._core halted" in result.stdout
    assert len(re.findall(CHECKED, result.stdout)) == 6


def test_a_byte_changed_on_the_way_is_a_loud_failure(source: Path, tmp_path: Path) -> None:
    """The HOWTO's receiver gets one wrong bit, from its own socket."""
    (tmp_path / "sitecustomize.py").write_text("""
import socket
import sys

class Changed(socket.socket):
    received = 0

    def recv(self, size, flags=0):
        data = super().recv(size, flags)
        Changed.received += len(data)
        if data[:4] == b"####" and Changed.received > 100_000:
            Changed.received = -1 << 60
            data = b"b" + data[1:]
        return data

if "stdlib_bench.receiver('HOWTO'" in " ".join(sys.orig_argv):
    socket.socket = Changed
""")
    result = run(*COMMAND, "bench", "--quick", "--source", source, "--json", tmp_path / "result.json", code=1,
                 PYTHONPATH=str(tmp_path))
    rows = json.loads((tmp_path / "result.json").read_text())["results"]
    assert {row["contender"] for row in rows if not row["intact"]} == {"HOWTO"}
    assert result.stdout.count("MISMATCH") == 2
    assert "SHA-256 mismatch" in result.stderr
    assert "lines, HOWTO; length prefix, HOWTO" in result.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file that reads differently in each process")
def test_files_that_change_are_a_loud_failure(tmp_path: Path) -> None:
    (tmp_path / "changing.py").symlink_to("/proc/self/stat")
    result = run(*COMMAND, "bench", "--quick", "--source", tmp_path, code=1)
    assert "SHA-256 mismatch" in result.stderr
    assert not re.search(CHECKED, result.stdout)


@pytest.mark.parametrize("role", ["sender", "receiver"])
def test_a_process_that_fails_ends_the_bench_with_its_error(role: str, source: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(f"""
import sys

if "stdlib_bench.{role}" in " ".join(sys.orig_argv):
    import sockframe.stdlib_bench

    def fail(*arguments):
        raise OSError("no more of it")

    sockframe.stdlib_bench._SEND["asyncio"] = sockframe.stdlib_bench._RECEIVE["asyncio"] = fail
""")
    result = run(*COMMAND, "bench", "--quick", "--source", source, code=1, PYTHONPATH=str(tmp_path))
    assert "Error: lines, asyncio: " in result.stderr
    assert "OSError: no more of it" in result.stderr
    assert "Traceback" not in result.stderr
