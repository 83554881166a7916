"""The house is in order: twin rooms, one table of kinds and faults, imports that run downward only.

Whoever adds a framing kind, a fault, a method or a module finds here what is still missing.
"""

import ast
import ctypes
import importlib
import importlib.util
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
CSRC = ROOT / "csrc"
PACKAGE = ROOT / "src" / "sockframe"
CORE = PACKAGE / "_core"
PURE = PACKAGE / "_pure"
ROOMS = sorted(path.stem for path in CORE.glob("*.pyx") if path.stem != "capi")  # which Python sees nothing of
WITHOUT_CORE = os.environ.get("SOCKFRAME_CORE") == "0"
WITHOUT_TWISTED = importlib.util.find_spec("twisted") is None
WITHOUT_CAPSULES = not hasattr(ctypes, "pythonapi")  # PyPy, where a batch is no array of Arrow's
needs_core = pytest.mark.skipif(WITHOUT_CORE, reason="SOCKFRAME_CORE is 0")

#: Who may import whom: each module only those of earlier lines, and the rooms of a package each other.
LAYERS = [
    {"errors", "polling"},
    {"framings", "transport"},
    {"protocols", "tls"},
    {"_core", "_pure"},
    {"_wing"},
    {"sockets", "selectors"},
    {"aio"},
    {"server", "drop_in"},
    {"__init__"},
    {"stdlib_bench"},
    {"cli"},
    {"__main__"},
]


# ---- the rooms of both wings ----

#: Done differently by nature: a cdef class is also made by __cinit__, unmade by __dealloc__, and final.
CONSTRUCTION = {"__init__", "__new__", "__cinit__", "__dealloc__", "__del__", "__init_subclass__"}


def classes(path: Path) -> "dict[str, list[str]]":
    """Return the public classes of a Python file, each with its methods and properties in order."""
    found: dict[str, list[str]] = {}
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            found[node.name] = public(item.name for item in node.body
                                      if isinstance(item, (ast.FunctionDef, ast.AsyncFunctionDef)))
    return found


def cython_classes(path: Path) -> "dict[str, list[str]]":
    """Return the same of a Cython file."""
    return {name: public(re.findall(r"^    def (\w+)\(", body, re.MULTILINE))
            for name, body in cython_bodies(path).items()}


def cython_attributes(path: Path) -> "dict[str, list[str]]":
    """Return the fields of each class in a Cython file that can be seen from Python."""
    return {name: re.findall(r"^    cdef (?:readonly|public) \w+ (\w+)$", body, re.MULTILINE)
            for name, body in cython_bodies(path).items()}


def cython_bodies(path: Path) -> "dict[str, str]":
    """Return the text of each class in a Cython file."""
    text = path.read_text() if path.exists() else ""
    return dict(re.findall(r"^(?:cdef )?class (\w+)[^\n]*:\n((?: .*\n|\n)*)", text, re.MULTILINE))


def public(names: "Iterator[str] | list[str]") -> "list[str]":
    """Return each name once, without helpers and construction."""
    return [name for name in dict.fromkeys(names)
            if name not in CONSTRUCTION and (not name.startswith("_") or name.startswith("__"))]


def test_both_wings_have_the_same_rooms() -> None:
    assert ROOMS
    # Beside them are the twin of csrc, and that of what batch.pyx says in C.
    assert {path.stem for path in PURE.glob("*.py")} - {"__init__", "kinds", "arrow"} == set(ROOMS)
    assert {path.stem for path in CORE.glob("*.pyi")} - {"__init__"} == set(ROOMS)


def test_both_wings_export_the_same_names() -> None:
    exports = [path.read_text().partition("\n\n")[2] for path in (CORE / "__init__.py", PURE / "__init__.py")]
    assert exports[0] == exports[1]


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_has_the_same_classes_and_methods_in_the_same_order(room: str) -> None:
    pure = classes(PURE / f"{room}.py")
    stub = classes(CORE / f"{room}.pyi")
    core = cython_classes(CORE / f"{room}.pyx")
    assert list(stub) == list(pure)
    assert [name for name in core if name in stub] == list(pure)
    attributes = {**cython_attributes(CORE / f"{room}.pyx"), **cython_attributes(CORE / f"{room}.pxd")}
    for name, methods in pure.items():
        assert [method for method in stub[name] if method in methods] == methods, name
        assert core[name] == [method for method in methods if method not in attributes[name]], name


def twins() -> "list[tuple[str, str]]":
    """Return every public class, as its room and its name."""
    return [(room, name) for room in ROOMS for name in classes(PURE / f"{room}.py")]


def members(kind: type) -> "list[str]":
    """Return the names that a user of the class can see."""
    return sorted(name for name in dir(kind) if not name.startswith("_"))


@needs_core
@pytest.mark.parametrize(("room", "name"), twins())
def test_twins_have_the_same_members_signatures_and_docstrings(room: str, name: str) -> None:
    core, pure = (getattr(importlib.import_module(f"sockframe.{wing}.{room}"), name) for wing in ("_core", "_pure"))
    assert [kind.__name__ for kind in core.__mro__] == [kind.__name__ for kind in pure.__mro__]
    assert members(core) == members(pure)
    assert inspect.getdoc(core) == inspect.getdoc(pure)
    assert inspect.getdoc(pure)
    for member in members(pure):
        one, other = getattr(core, member), getattr(pure, member)
        assert callable(one) == callable(other), member
        if inspect.isdatadescriptor(other) and None in (inspect.getdoc(one), inspect.getdoc(other)):
            continue  # a plain attribute: a slot, or a readonly field of a cdef class
        assert inspect.getdoc(one) == inspect.getdoc(other), member
        assert inspect.getdoc(other), f"{member} has no docstring"
        if callable(other):
            assert shape(one) == shape(other), member


def shape(function: object) -> "list[tuple[str, object, object]]":
    """Return the parameters of a method, without the types: the core's stub holds those."""
    assert callable(function)
    parameters = inspect.signature(function).parameters.values()
    return [(item.name, item.kind, item.default) for item in parameters if item.name != "self"]


# ---- one table of kinds ----

def kinds_in_c() -> "list[str]":
    """Return the names of the kinds in the table of csrc/kinds.c, in its order."""
    table = re.search(r"sf_kinds\[\] = \{(.*?)NULL", (CSRC / "kinds.c").read_text(), re.DOTALL)
    assert table
    rows = dict(re.findall(r'^const sf_kind (sf_\w+) = \{\s*\.name = "(\w+)"', every_c_file(), re.MULTILINE))
    return [rows[symbol] for symbol in re.findall(r"&(sf_\w+)", table[1])]


def every_c_file() -> str:
    """Return the text of all the C files of the parser."""
    return "\n".join(path.read_text() for path in sorted(CSRC.glob("*.c")))


def kinds_in_framings() -> "set[str]":
    """Return the names of the kinds that the framings' specs ask for."""
    tree = ast.parse((PACKAGE / "framings.py").read_text())
    return {node.args[0].value for node in ast.walk(tree)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Spec"
            and isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str)}


def test_every_kind_is_in_c_in_python_in_the_framings_and_has_vectors() -> None:
    kinds = set(kinds_in_c())
    assert kinds
    # A framing of the user's own is the same Python in both wings.
    assert set(importlib.import_module("sockframe._pure.kinds").KINDS) == kinds | {"own"}
    assert kinds_in_framings() == kinds | {"own"}
    vectors = {path.stem: path.read_text() for path in (ROOT / "tests" / "vectors").glob("*.txt")}
    assert set(vectors) == kinds
    assert [kind for kind, text in vectors.items() if f"\nspec {kind} " not in text] == []


def test_every_kind_defined_in_c_is_in_the_table() -> None:
    defined = re.findall(r'^const sf_kind sf_\w+ = \{\s*\.name = "(\w+)"', every_c_file(), re.MULTILINE)
    assert sorted(defined) == sorted(kinds_in_c())


# ---- one list of faults ----

def test_faults_have_the_same_numbers_and_words_in_c_and_python() -> None:
    from sockframe.errors import TEXTS, Fault

    enum = re.search(r"enum sf_fault \{(.*?)\}", (CSRC / "sockframe.h").read_text(), re.DOTALL)
    assert enum
    names = re.findall(r"\bSF_(\w+)", re.sub(r"/\*.*?\*/", "", enum[1], flags=re.DOTALL))
    assert names.pop() == "FAULTS"
    assert names == [fault.name for fault in Fault]
    assert [fault.value for fault in Fault] == list(range(len(names)))
    words = re.findall(r'\[SF_(\w+)\] = "(.*)"', (CSRC / "kinds.c").read_text())
    assert words == [(fault.name, TEXTS[fault][0]) for fault in Fault]


# ---- imports ----

def modules() -> "list[Path]":
    """Return every source file of the package."""
    return sorted(path for path in PACKAGE.rglob("*") if path.suffix in (".py", ".pyi", ".pyx", ".pxd"))


def imported(path: Path) -> "set[str]":
    """Return the sockframe modules that a file imports, as dotted names below the package."""
    parents = ["sockframe", *path.relative_to(PACKAGE).parts[:-1]]
    found: set[str] = set()
    for dots, module, names in statements(path):
        base = parents[:len(parents) - len(dots) + 1] if dots else []
        target = [*base, *(module.split(".") if module else [])]
        if target[:1] == ["sockframe"]:
            found.update(resolve(target[1:], name) for name in names)
    return found


def resolve(package: "list[str]", name: str) -> str:
    """Return the module that `from package import name` loads."""
    for parts in ([*package, name] if name else package, package):
        path = PACKAGE.joinpath(*parts)
        if parts and (path.is_dir() or any(path.with_suffix(end).exists() for end in (".py", ".pyx", ".pxd"))):
            return ".".join(parts)
    return "__init__"


def statements(path: Path) -> "Iterator[tuple[str, str, list[str]]]":
    """Return the imports of a file: the dots, the module, and the names taken from it."""
    text = path.read_text()
    if path.suffix in (".pyx", ".pxd"):
        for dots, module, names in re.findall(r"^\s*from\s+(\.*)([\w.]*)\s+c?import\s+(\([^)]*\)|[^\n]*)", text,
                                              re.MULTILINE):
            yield dots, module, re.findall(r"\w+", names)
        for module in re.findall(r"^\s*c?import\s+([\w.]+)", text, re.MULTILINE):
            yield "", module, [""]
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom):
            yield "." * node.level, node.module or "", [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield "", alias.name, [""]


def layer(module: str) -> int:
    """Return the number of the layer that a module is in; every module must have one."""
    first = module.partition(".")[0]
    found = [number for number, names in enumerate(LAYERS) if first in names]
    assert found, f"{module} is in no layer: say in LAYERS where it belongs"
    return found[0]


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_downward_only(path: Path) -> None:
    here = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    package = here.partition(".")[0] if "." in here else None
    for other in imported(path):
        if package is None or other.partition(".")[0] != package:
            assert layer(other) < layer(here), f"{here} imports {other}"


def test_imports_are_seen() -> None:
    assert {"errors", "framings"} <= imported(CORE / "codec.pyx")
    assert {"_core", "_pure"} <= imported(PACKAGE / "_wing.py")


def importable() -> "list[str]":
    """Return the name of every module of the package."""
    paths = [path for path in modules() if path.suffix in (".py", ".pyx")]
    names = [".".join(["sockframe", *path.relative_to(PACKAGE).with_suffix("").parts]) for path in paths]
    return [name.removesuffix(".__init__") for name in names
            if not (WITHOUT_CORE and name.startswith("sockframe._core"))
            and not (WITHOUT_TWISTED and name == "sockframe.drop_in.twisted")
            and not (WITHOUT_CAPSULES and name == "sockframe._pure.arrow")]


@pytest.mark.parametrize("name", importable())
def test_every_module_can_be_imported_alone(name: str) -> None:
    subprocess.run([sys.executable, "-W", "error", "-c", f"import {name}"], check=True, cwd=ROOT / "tests")


# ---- habits ----

def test_each_wing_is_what_it_is_called(wing: Any) -> None:
    for kind in (wing.Encoder, wing.Decoder, wing.Connection):
        assert kind.__module__.startswith(f"sockframe._{wing.name}.")


def test_nothing_generated_is_in_git() -> None:
    if not (ROOT / ".git").exists():  # an unpacked sdist
        return
    listed = subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).splitlines()
    assert "setup.py" in listed
    generated = re.compile(r"\.(so|o|a|pyd|pyc|html)$|(^|/)(build|dist|__pycache__)/|\.egg-info/|^src/.*\.(c|cpp|h)$")
    assert [name for name in listed if generated.search(name)] == []


@pytest.mark.parametrize("path", sorted(PURE.glob("*.py")), ids=lambda path: path.name)
def test_the_pure_wing_reads_no_digits_with_int(path: Path) -> None:
    """D10: int() takes signs, blanks, underscores and foreign digits; of a truth value it is no reading."""
    calls = [node for node in ast.walk(ast.parse(path.read_text()))
             if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "int"]
    assert [ast.unparse(call) for call in calls if not ast.unparse(call).startswith("int(not ")] == []


@pytest.mark.parametrize(("choice", "passes"), [(None, False), ("1", False), ("0", True)])
def test_the_suite_fails_where_the_core_is_missing(choice: "str | None", passes: bool) -> None:
    """R3."""
    environment = {key: value for key, value in os.environ.items() if key != "SOCKFRAME_CORE"}
    if choice is not None:
        environment["SOCKFRAME_CORE"] = choice
    source = ("import sys; sys.modules['sockframe._core'] = None; import pytest;"
              "sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', sys.argv[1]]))")
    test = f"{__file__}::{test_each_wing_is_what_it_is_called.__name__}"
    result = subprocess.run([sys.executable, "-c", source, test], cwd=ROOT, env=environment, capture_output=True,
                            text=True)
    assert (result.returncode == 0) == passes, result.stdout + result.stderr
    if not passes:
        assert "sockframe._core" in result.stdout + result.stderr
