#!/bin/sh
# Make the virtual environment $1 and install kvmbox with its development tools in it, editable.
# Debian ships python3 without ensurepip (package python3-venv): say so, or as root install it.
set -eu
venv=$1
python=${PYTHON:-python3}

die() { printf 'make-venv: error: %s\nhint: %s\n' "$1" "$2" >&2; exit 1; }

command -v "$python" >/dev/null 2>&1 ||
    die "$python not found" "install Python 3.11 or newer, or name one: make PYTHON=/path/to/python3"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    die "$python is $("$python" -V 2>&1), kvmbox needs 3.11 or newer" "make PYTHON=/path/to/python3.11"
for tool in cc as ld; do
    command -v "$tool" >/dev/null 2>&1 ||
        die "$tool not found: the guests are built with cc, as and ld" "apt-get install gcc binutils (or your system's C compiler)"
done

if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        apt-get update && apt-get install -y --no-install-recommends python3-venv
    else
        die "$python has no ensurepip, so it cannot make a virtual environment" "apt-get install python3-venv"
    fi
fi
if ! ldconfig -p 2>/dev/null | grep -q 'libseccomp\.so\.2' &&
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    apt-get update && apt-get install -y --no-install-recommends libseccomp2
fi

[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --upgrade pip
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check -e '.[dev]'
# pip compiles what it installs, but not what it leaves where it is; the Makefile keeps it up to date.
"$venv/bin/python" -m compileall -q kvmbox
