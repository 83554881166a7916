# Builds the core for the Python of a tree of another machine: cross.sh MACHINE TREE VERSION, from the project's root, with
# `cython` and the compiler MACHINE-gcc in PATH. Each room has all of csrc, as setup.py would not.
set -eu
include=$2/usr/include
for room in src/sockframe/_core/*.pyx; do
    to=${room%.pyx}
    cython -3 "$room" -o cross.c
    "$1-gcc" -O1 -w -shared -fPIC -Icsrc -I"$include/python$3" -idirafter "$include" cross.c csrc/*.c \
        -o "$to.cpython-$(echo "$3" | tr -d .)-$1.so"
done
rm cross.c
