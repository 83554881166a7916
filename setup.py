"""The list of extensions, and how they are packed: all metadata is in pyproject.toml.

SOCKFRAME_CORE=1 makes a core that can't be built an error, 0 builds none; unset builds it where a C
compiler is at hand. Under cibuildwheel a missing core is always an error. SOURCE_DATE_EPOCH, the time in seconds that
files are to have, gives the same sdist and the same wheels byte for byte, whatever folder they are built in.
"""

import gzip
import os
import sys
import tarfile
from glob import glob

from setuptools import Extension, setup
from setuptools.command.sdist import sdist

CHOICE = os.environ.get("SOCKFRAME_CORE", "")
if CHOICE not in ("", "0", "1"):
    raise SystemExit(f"SOCKFRAME_CORE must be 0, 1 or unset, not {CHOICE!r}")

PARSER = sorted(set(glob("csrc/*.c")) - {"csrc/descriptors.c"})
DESCRIPTORS = ["csrc/descriptors.c"]
SOURCES = {"batch": [], "capi": [], "codec": PARSER, "connection": DESCRIPTORS, "endpoint": DESCRIPTORS,
           "iteration": [], "message": DESCRIPTORS, "selector": DESCRIPTORS, "sender": DESCRIPTORS, "stream": []}
WANTED = CHOICE != "0" and sys.implementation.name == "cpython"
REQUIRED = CHOICE == "1" or os.environ.get("CIBUILDWHEEL") == "1"
EPOCH = os.environ.get("SOURCE_DATE_EPOCH", "")
FLAGS = [] if os.name == "nt" else ["-O3", f"-ffile-prefix-map={os.getcwd()}=."] if EPOCH else ["-O3"]


class Sdist(sdist):
    """An sdist that tells nothing of the machine that it was made on."""

    def make_archive(self, base_name, format, root_dir=None, base_dir=None, owner=None, group=None):
        if not EPOCH or format != "gztar":
            return super().make_archive(base_name, format, root_dir, base_dir, owner, group)
        name = f"{base_name}.tar.gz"
        with (open(name, "wb") as file, gzip.GzipFile("", "wb", fileobj=file, mtime=int(EPOCH)) as packed,
              tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive):
            archive.add(base_dir, filter=anonymous)
        return name


def anonymous(entry):
    """Return an entry of an archive without its owner and times."""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mtime = int(EPOCH)
    entry.mode = 0o755 if entry.mode & 0o100 else 0o644
    return entry


setup(
    ext_modules=[
        Extension(
            f"sockframe._core.{room}",
            [f"src/sockframe/_core/{room}.pyx", *sources],
            include_dirs=["csrc"],
            depends=sorted(glob("csrc/*.h") + glob("src/sockframe/_core/*.pxd")),
            extra_compile_args=FLAGS,
            optional=not REQUIRED,
        )
        for room, sources in SOURCES.items()
        if WANTED
    ],
    options={"build_ext": {"cython_c_in_temp": True}},
    cmdclass={"sdist": Sdist},
)
