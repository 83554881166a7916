"""What the documents say is so: their examples run, their tables, paths and commands are real."""

import os
import re
import socket
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import pages
import pytest

import sockframe

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
PYTHON = [text for language, text in BLOCKS if language == "python"]
SERVER, CLIENT = (next(text for text in PYTHON if mark in text) for mark in ("create_server(", "connect("))
COMMANDS = [line for language, text in BLOCKS if language == "sh" for line in text.splitlines()]
# What begins with a file's name is run by test_recipes.py.
GUIDE = [text for path in pages.PAGES for text in pages.blocks(path, "python") if not pages.name_of(text)]
WINGS = ["0"] if os.environ.get("SOCKFRAME_CORE") == "0" else ["1", "0"]


def start(source: str, wing: str) -> "subprocess.Popen[str]":
    """Start Python on `source`, on one wing."""
    return subprocess.Popen([sys.executable, "-W", "error", "-c", source], text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, env={**os.environ, "SOCKFRAME_CORE": wing})


def run(source: str, wing: str) -> str:
    """Run `source` to its end and return what it printed."""
    with start(source, wing) as process:
        output, _ = process.communicate(timeout=30)
    assert process.returncode == 0, output
    return output


@pytest.mark.parametrize("wing", WINGS)
def test_the_client_talks_to_the_server(wing: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    assert "7000" in SERVER and "7000" in CLIENT
    with start(SERVER.replace("7000", port), wing) as server:
        try:
            for _ in range(200):
                with socket.socket() as probe:
                    if server.poll() is not None or probe.connect_ex(("127.0.0.1", int(port))) == 0:
                        break
                time.sleep(0.05)
            printed = run(CLIENT.replace("7000", port), wing)
        finally:
            server.kill()
            output = server.communicate()[0]
    promised = [comment for line in CLIENT.splitlines() if line.lstrip().startswith("print(")
                for comment in [line.partition("# ")[2]]]
    assert printed.splitlines() == promised
    assert output == ""


@pytest.mark.parametrize("wing", WINGS)
@pytest.mark.parametrize("source", [text for text in PYTHON if text not in (SERVER, CLIENT)] + GUIDE)
def test_the_other_examples_run(source: str, wing: str) -> None:
    run(source, wing)


def console() -> "list[tuple[str, str]]":
    """Return the commands of the command's page, each with what it prints."""
    (text,) = pages.blocks(pages.DOCS / "command.md", "console")
    found = re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", text, re.MULTILINE)
    assert sum(len(output.splitlines()) + 1 for _, output in found) == len(text.splitlines())
    return found


@pytest.mark.parametrize("wing", WINGS)
def test_the_console_prints_what_it_says(wing: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    environment = {**os.environ, "SOCKFRAME_CORE": wing,
                   "PATH": f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}"}
    servers = []
    try:
        for command, output in console():
            line = command.replace("7000", port)
            expected = output.replace("7000", port)
            if line.endswith(" &"):
                servers.append(subprocess.Popen(["bash", "-c", "exec " + line[:-2]], text=True, env=environment,
                                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT))
                assert servers[-1].stdout.readline() == expected  # type: ignore[union-attr]
            else:
                result = subprocess.run(["bash", "-c", line], text=True, env=environment, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, timeout=60)
                assert result.stdout == expected
    finally:
        for server in servers:
            server.terminate()
            assert server.communicate(timeout=60)[0] == ""
    assert [server.returncode for server in servers] == [0]


def table() -> "list[list[str]]":
    """Return the cells of the table of framings."""
    text = (pages.DOCS / "framings.md").read_text().partition("## All of them")[2]
    rows = re.findall(r"^\| (`.*) \|$", text, re.MULTILINE)
    return [row.split(" | ") for row in rows]


@pytest.mark.parametrize("row", table(), ids=lambda row: row[0])
def test_the_framings_of_the_table_can_be_made(row: "list[str]") -> None:
    for source in re.findall(r"`(\w+\(.*?\))`", row[0] + row[1]):
        assert isinstance(eval(source, vars(sockframe).copy()), sockframe.Framing)
    for name in re.findall(r'`"(.+?)"`', row[-1]):
        assert isinstance(sockframe.framing(name), sockframe.Framing)


def test_the_table_lists_every_framing() -> None:
    listed = {name for row in table() for name in re.findall(r"`([A-Z]\w+)", row[0] + row[1])}
    exported = [getattr(sockframe, name) for name in sockframe.__all__]
    assert listed == {item.__name__ for item in exported
                      if isinstance(item, type) and issubclass(item, sockframe.Framing)}


def test_each_command_is_one_line() -> None:
    assert len(COMMANDS) == len([text for language, text in BLOCKS if language == "sh"])
    assert sum("sockframe bench --quick" in line for line in COMMANDS) == 1
    assert sum("python -m pytest" in line for line in README.splitlines()) == 1, "it is found by this text"


@pytest.mark.parametrize("path", [".ci/run", ".github/workflows/tests.yml"])
def test_the_checks_run_the_readmes_test_command(path: str) -> None:
    assert "command=$(grep -m1 'python -m pytest' README.md)" in (ROOT / path).read_text()


def test_the_checks_install_the_wheel_as_the_first_page_does() -> None:
    assert r"first=$(grep -m1 'sockframe-\*.whl' docs/start.md)" in (ROOT / ".ci/run").read_text()
    assert sum("sockframe-*.whl" in line for line in (ROOT / "docs/start.md").read_text().splitlines()) == 1


DOCUMENTS = [*sorted(ROOT.glob("*.md")), *pages.PAGES]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text()):
        assert target.startswith("https://") or (path.parent / target).exists(), target


def test_every_path_of_contributing_exists() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    paths = re.findall(r"`((?:csrc|src|tests|bench|\.ci|\.github)/[\w./-]*)`", text)
    assert paths
    for path in paths:
        assert (ROOT / path).exists(), path


def test_contributing_tells_of_every_module_of_the_package() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    for path in (ROOT / "src" / "sockframe").iterdir():
        if path.suffix in ("", ".py") and not path.stem.startswith("__"):
            assert f"`src/sockframe/{path.name}{'/' * path.is_dir()}`" in text, path.name


def test_the_changelog_has_unreleased_on_top() -> None:
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "Unreleased"
