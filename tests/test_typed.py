"""The types that users of the API see, by mypy and pyright, and that the stubs tell what is there, on either wing.

Both read the files in tests/typed, as strictly as they can: what a call gives (`assert_type`), and what is wrong and
must be found: a comment that hides an error where there is none is one.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import sockframe

TESTS = Path(__file__).parent
TYPED = sorted((TESTS / "typed").glob("*.py"))
PACKAGE = Path(sockframe.__file__).parent
WINGS = ["0"] if os.environ.get("SOCKFRAME_CORE") == "0" else ["1", "0"]
MODULES = ("sockframe", "sockframe.aio", "sockframe.server", "sockframe.drop_in.asyncio_streams",
           "sockframe.drop_in.multiprocessing")



def needs(*names: str) -> pytest.MarkDecorator:
    """Skip a test where not all of these are installed."""
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}: the dependency groups types and test")


def check(*command: object, folder: Path, wing: str = "") -> None:
    """Run a module of Python's, which must find nothing."""
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent), "MYPY_CACHE_DIR": str(folder / "cache"),
                   "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}
    if wing:
        environment["SOCKFRAME_CORE"] = wing
    done = subprocess.run([sys.executable, "-m", *map(str, command)], cwd=folder, env=environment, text=True,
                          check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of a user's own, with the files and no settings of this project."""
    shutil.copytree(TESTS / "typed", tmp_path / "typed", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


@needs("mypy", "twisted")
def test_mypy_finds_what_is_wrong_and_nothing_else(folder: Path) -> None:
    (folder / "empty.ini").write_text("[mypy]\n")
    check("mypy", "--strict", "--config-file", "empty.ini", "typed", folder=folder)


@needs("pyright", "twisted", "typing_extensions")
def test_pyright_finds_what_is_wrong_and_nothing_else(folder: Path) -> None:
    (folder / "pyrightconfig.json").write_text(json.dumps({
        "include": ["typed"], "extraPaths": [str(PACKAGE.parent)], "typeCheckingMode": "strict",
        "enableTypeIgnoreComments": False, "reportUnnecessaryTypeIgnoreComment": "error"}))
    check("pyright", "--pythonpath", sys.executable, "--project", ".", folder=folder)


@needs("mypy", "twisted", "click", "rich")
@pytest.mark.skipif(WINGS == ["0"], reason="SOCKFRAME_CORE is 0")
@pytest.mark.parametrize("wing", ["1", "0"])
def test_the_stubs_tell_what_is_there(wing: str, folder: Path) -> None:
    lists = [TESTS / "stubtest.txt", *([TESTS / "stubtest_pure.txt"] if wing == "0" else [])]
    check("mypy.stubtest", "sockframe", "--concise", *(word for path in lists for word in ("--allowlist", path)),
          folder=folder, wing=wing)


@pytest.mark.parametrize("name", [*MODULES, pytest.param("sockframe.drop_in.twisted", marks=needs("twisted"))])
def test_every_public_name_is_in_the_typed_files(name: str) -> None:
    used = {part for path in TYPED for node in ast.walk(ast.parse(path.read_text()))
            for part in (getattr(node, "attr", None), getattr(node, "id", None)) if part}
    module = importlib.import_module(name)
    assert [public for public in module.__all__ if public not in used] == []
