"""Every command in the documents is known: what each names is there, and each that stands in a block is run by a test,
or here is why not."""

from __future__ import annotations

import functools
import itertools
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pages
import pytest

ROOT = pages.ROOT
DOCUMENTS = [*(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "SECURITY", "CHANGELOG")), *pages.PAGES]

#: Who runs the lines of these blocks, each as it stands there.
RUN = {
    "docs/command.md": "test_docs.py::test_the_console_prints_what_it_says",
    "docs/start.md": "test_recipes.py::test_the_first_page_from_top_to_bottom",
}

#: Of all other lines, what runs them, or why no test does.
OTHERWISE = {
    r"\S+ -m venv \S+ && (\w+=1 )?\S+/pip (install|wheel) .*": "an install, as .ci/run does it in many ways",
    r"\S+/pip install .*": "an install",
    r"(SOCKFRAME_CORE=1 )?\S*pip install .*\.( .*)?": "an install of this folder",
    r"SOCKFRAME_CORE=1 \S+ setup\.py -q build_ext --inplace": "it would compile the core anew",
    r".*sockframe bench --quick": "test_cli.py runs it; whole it measures for half a minute",
    r"\(export SOCKFRAME_CORE=1; .*pytest .*\)": ".ci/run runs it, and these tests with it",
    r"git clone .*": "this is a clone",
    r"SOCKFRAME_CORE=1 \S+ -m pytest .*": "so these tests are run",
    r"PYTHON_GIL=0 \S+ -m pytest .*": "the leg 3.13t of tests/matrix runs it, in part",
    r"\S+/ruff check \. && \S+/mypy": ".ci/run runs it",
    r"make -C csrc lint test": ".ci/run runs it",
    r"\S+ -m sphinx -n -W --keep-going docs build/docs": ".ci/run runs it",
    r"python chat.py 7000": "test_recipes.py runs the program, at another port",
    r"python -m tests\.matrix .*": "test_matrix.py runs legs that do nothing; these take hours",
    r"debootstrap .*": "it needs root and a network",
    r"chroot .*": "it needs root and a network",
}

#: Programs of others, of which nothing is looked at.
OTHERS = {"git", "cd", "printf", "debootstrap", "chroot", "export", "coverage", "ruff", "mypy"}


def lines(path: Path) -> list[str]:
    """Return the commands of a document's blocks, without comments."""
    text = "".join(pages.blocks(path, "sh"))
    text += "".join(re.findall(r"^\$ (.*\n)", "".join(pages.blocks(path, "console")), re.MULTILINE))
    return [re.sub(r"\s+#.*", "", line) for line in text.splitlines()]


def inline(path: Path) -> list[str]:
    """Return the commands in the midst of a document's text: code of two words or more that begins with a program."""
    text = re.sub(r"^(`{3}|:{3}).*?^\1$", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    found = [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", text)]
    return [code for code in found if re.match(r"(\w+=\S+ )*(\S*/)?(python|pip|make|sockframe|coverage) +[^ =]", code)]


BLOCKS = [(path, line) for path in DOCUMENTS for line in lines(path)]
COMMANDS = [*BLOCKS, *((path, code) for path in DOCUMENTS for code in inline(path))]


def test_both_kinds_are_found() -> None:
    assert len(BLOCKS) > 25 and len(COMMANDS) - len(BLOCKS) > 25
    assert {str(path.relative_to(ROOT)) for path, _ in BLOCKS} >= {*RUN, "README.md", "CONTRIBUTING.md"}


def test_each_line_of_a_block_is_run_or_told_of() -> None:
    unused = {*OTHERWISE}
    for path, line in BLOCKS:
        found = [pattern for pattern in OTHERWISE if re.fullmatch(pattern, line)]
        unused -= {*found}
        assert found or (str(path.relative_to(ROOT)) in RUN and (line in "".join(pages.blocks(path, "console")))), line
    assert not unused


@pytest.mark.parametrize("command", sorted({command for _, command in COMMANDS}))
def test_what_a_command_names_is_there(command: str) -> None:
    words = list(shlex.shlex(re.sub(r"\$\(.*?\)", "it", command), posix=True, punctuation_chars=True))
    while words:
        end = next((place for place, word in enumerate(words) if not {*word} - {*"&|;()"}), len(words))
        simple, words = words[:end], words[end + 1:]
        while simple and re.match(r"[A-Z_]+=", simple[0]):
            del simple[0]
        if simple:
            check(simple[0].rpartition("/")[2], simple[1:])


def check(program: str, words: list[str]) -> None:
    """Fail where a command of this program names what is not there."""
    options = {word.partition("=")[0] for word in words if word.startswith("--")}
    if re.fullmatch(r"python[\d.]*t?", program):
        if words[0] == "-m":
            check_module(words[1], words[2:], options)
        else:
            assert (ROOT / words[0]).exists() or any(
                pages.name_of(text) == words[0] for path in [ROOT / "README.md", *pages.PAGES]
                for text in pages.blocks(path, "python")), words[0]
    elif program == "pip":
        check_install(words)
    elif program == "make":
        assert words[:2] == ["-C", "csrc"]
        text = (ROOT / "csrc" / "Makefile").read_text()
        for word in words[2:]:
            name, is_variable, _ = word.partition("=")
            assert re.search(rf"^{name} ?{'=' if is_variable else ':'}", text, re.MULTILINE), word
    elif program == "sockframe":
        if words[0] != "--help":
            assert options <= told(sys.executable, "-m", "sockframe", words[0], "--help"), words
    else:
        assert program in OTHERS, f"{program}: teach this test what it may name"


def check_module(module: str, words: list[str], options: set[str]) -> None:
    """Fail where a module is not there, or has not these options."""
    if module.partition(".")[0] in ("tests", "bench"):
        assert options <= told(sys.executable, "-m", module, "--help"), (module, words)
    else:
        assert module in ("pytest", "sphinx", "venv"), f"{module}: teach this test what it may name"
    for word in words if module == "pytest" else ():
        assert "/" not in word or [*ROOT.glob(word)], word


def check_install(words: list[str]) -> None:
    """Fail where pip is to install a group or an extra that is not there."""
    text = (ROOT / "pyproject.toml").read_text()
    extras, groups = (text.partition(f"[{table}]\n")[2].partition("\n[")[0]
                      for table in ("project.optional-dependencies", "dependency-groups"))
    for option, group in itertools.pairwise(words):
        assert option != "--group" or re.search(rf"^{group} = ", groups, re.MULTILINE), group
    for extra in re.findall(r"\[(\w+)\]", " ".join(words)):
        assert re.search(rf"^{extra} = ", extras, re.MULTILINE), extra


@functools.cache
def told(*command: str) -> set[str]:
    """Return the options that a command's help tells of."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return {*re.findall(r"--[\w-]+", done.stdout)}
