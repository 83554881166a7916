"""The list of extensions, and nothing else: all metadata is in pyproject.toml.

SOCKFRAME_CORE=1 makes a core that can't be built an error, 0 builds none; unset builds it where a C
compiler is at hand. Under cibuildwheel a missing core is always an error.
"""

import os
import sys
from glob import glob

from setuptools import Extension, setup

CHOICE = os.environ.get("SOCKFRAME_CORE", "")
if CHOICE not in ("", "0", "1"):
    raise SystemExit(f"SOCKFRAME_CORE must be 0, 1 or unset, not {CHOICE!r}")

PARSER = sorted(set(glob("csrc/*.c")) - {"csrc/descriptors.c"})
SOURCES = {"batch": [], "capi": [], "codec": PARSER, "connection": ["csrc/descriptors.c"], "iteration": [],
           "message": ["csrc/descriptors.c"], "selector": ["csrc/descriptors.c"], "stream": []}
WANTED = CHOICE != "0" and sys.implementation.name == "cpython"
REQUIRED = CHOICE == "1" or os.environ.get("CIBUILDWHEEL") == "1"

setup(
    ext_modules=[
        Extension(
            f"sockframe._core.{room}",
            [f"src/sockframe/_core/{room}.pyx", *sources],
            include_dirs=["csrc"],
            depends=sorted(glob("csrc/*.h") + glob("src/sockframe/_core/*.pxd")),
            extra_compile_args=[] if os.name == "nt" else ["-O3"],
            optional=not REQUIRED,
        )
        for room, sources in SOURCES.items()
        if WANTED
    ],
    options={"build_ext": {"cython_c_in_temp": True}},
)
