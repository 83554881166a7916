# Builds the core for 64-bit Windows, with a Python to run it: windows.sh PYTHON, from the project's root, with `cython`
# and `pip` in PATH. PYTHON is one for Linux of the same version, of which the headers and the library are taken. Wheels
# of Panda3D have CPython's DLLs, since programs are frozen with them: these, a program that calls them and the library
# become windows/, whose python.exe Wine runs. For ARM64 there is no more than clang to say that it would compile.
set -eu
CC=x86_64-w64-mingw32-gcc
version=$("$1" -c 'import sys; print("%d%d" % sys.version_info[:2])')
path() { "$1" -c "import sysconfig; print(sysconfig.get_path('$2'))"; }

mkdir -p windows/DLLs
pip download -q --no-deps --only-binary :all: --platform win_amd64 --python-version "$version" -d windows \
    panda3d==1.10.16
"$1" - <<'END'
import pathlib, zipfile

folder = pathlib.Path("windows")
(wheel,) = folder.glob("panda3d-*.whl")
with zipfile.ZipFile(wheel) as archive:
    for name in archive.namelist():
        file = name.removeprefix("deploy_libs/")
        # Not what Wine has itself, the extensions without a GIL, and the one that asks what Wine can't tell.
        if file != name and not file.startswith(("api-ms-", "_wmi.")) and "t-win_amd64" not in file:
            beside = file.lower().startswith(("python", "vcruntime"))
            (folder / ("" if beside else "DLLs") / file).write_bytes(archive.read(name))
wheel.unlink()
END
cp -r "$(path "$1" stdlib)" windows/Lib
rm -rf windows/Lib/site-packages windows/Lib/test windows/Lib/config-* windows/Lib/lib-dynload
cp -r "$(path "$1" include)" windows/include
cp tests/matrix/pyconfig.h windows/include

cat > windows/python.c <<'END'
#include <wchar.h>
int Py_Main(int argc, wchar_t **argv);
int wmain(int argc, wchar_t **argv) { return Py_Main(argc, argv); }
END
$CC -municode windows/python.c "windows/python$version.dll" -o windows/python.exe

# sf_kind_named() gives a const pointer, which Cython leaves out.
WARNINGS="-Wall -Werror -Wno-unused-function -Wno-discarded-qualifiers"
for room in src/sockframe/_core/*.pyx; do
    cython -3 "$room" -o windows/room.c
    # shellcheck disable=SC2086
    $CC -O2 $WARNINGS -shared -static-libgcc -Icsrc -Iwindows/include windows/room.c csrc/*.c \
        "windows/python$version.dll" -o "${room%.pyx}.cp$version-win_amd64.pyd"
    clang --target=aarch64-w64-windows-gnu -isystem /usr/share/mingw-w64/include -fsyntax-only -w -Icsrc \
        -Iwindows/include windows/room.c csrc/*.c
done
rm windows/room.c
