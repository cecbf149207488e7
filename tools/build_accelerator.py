#!/usr/bin/env python3
"""Build the compiled hot path, each .so beside its .pyx, for the Python that runs this.

Cython writes C, and the system's compiler makes an extension module of it. Where one of them, or the headers
of Python, is missing, kvmbox works without the modules. So then this removes what an earlier build has left,
prints one line that says what is missing, and ends with status 1.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Final

PACKAGE: Final = Path(__file__).resolve().parents[1] / "kvmbox"
MODULES: Final = ("fast/vmm", "fast/serving")
FLAGS: Final = (
    *("-O2", "-g0", "-fPIC", "-shared", "-fvisibility=hidden", "-fno-strict-overflow", "-DNDEBUG"),
    *("-fstack-protector-strong", "-Wl,-z,relro,-z,now", "-Wl,--as-needed", "-Wl,-s"),
    "-DCYTHON_CLINE_IN_TRACEBACK=0",
)


def target(module: str) -> Path:
    """The file of an extension module."""
    return PACKAGE / f"{module}{sysconfig.get_config_var('EXT_SUFFIX')}"


def build(module: str, directory: str) -> str | None:
    """Build one module; returns why it could not be built, or None."""
    include = sysconfig.get_paths()["include"]
    if not os.path.exists(f"{include}/Python.h"):
        return f"{include}/Python.h is missing (package python3-dev)"
    source, built = f"{directory}/source.c", f"{directory}/built.so"
    cython = [sys.executable, "-m", "cython", "-3", str(PACKAGE / f"{module}.pyx"), "-o", source]
    compiler = os.environ.get("CC", "cc").split()
    for command in (cython, [*compiler, *FLAGS, f"-I{include}", f"-I{PACKAGE}/fast", source, "-o", built]):
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            return f"{command[0]}: {error.strerror}"
        if done.returncode:
            if os.environ.get("KVMBOX_BUILD_VERBOSE"):
                sys.stderr.write(done.stdout + done.stderr)
            lines = (done.stderr.strip() or done.stdout.strip() or "?").splitlines()
            return f"{' '.join(command[:3])}: {lines[-1]}"
    # Renamed, not written: a process that has the old one mapped keeps it.
    Path(built).replace(target(module))
    return None


def remove() -> None:
    """Remove what an earlier build has left for this Python."""
    for module in MODULES:
        target(module).unlink(missing_ok=True)


def loads() -> str | None:
    """Why what was built cannot be loaded, or None."""
    names = ", ".join(f"kvmbox.{module.replace('/', '.')}" for module in MODULES)
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    command = [sys.executable, "-c", f"import {names}"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return done.stderr.strip().splitlines()[-1] if done.returncode else None


def main() -> int:
    """Build all modules, or none."""
    with tempfile.TemporaryDirectory(dir=PACKAGE) as directory:
        reasons = [reason for module in MODULES if (reason := build(module, directory))]
    reason = reasons[0] if reasons else loads()
    if reason is None:
        return 0
    remove()
    sys.stderr.write(f"kvmbox: note: the hot path is not compiled, and slower: {reason}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
