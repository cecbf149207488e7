"""What `kvmbox run` loads: every module that it does without is time before the guest's first instruction."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.runs import ENTRY

COLD = (
    "click",  # what is odd on the command line
    "dataclasses",  # values are `value_classes.Value`
    "json",  # --json
    "kvmbox.boot.unsupported_formats",  # names in refusals
    "kvmbox.boot.linux.setup_header",
    "kvmbox.boot.linux.way",  # imported when an image is offered to it
    "kvmbox.remote.channel.model_state",  # snapshots, the registers of a VGA
    "kvmbox.contract.catalog",  # the models are in device processes
    "kvmbox.devices.vga.model",
    "kvmbox.devices.vga.dispi",
    "kvmbox.firmware.video_modes",  # kernels that ask for a frame buffer
    "kvmbox.host.frame_buffer",
    "kvmbox.run.display.start_mode",
    "kvmbox.host.console.keyboard_input",  # --keyboard console
    "kvmbox.host.console.us_keyboard",  # and whatever else presses keys
    "kvmbox.host.disk.transfers",  # disks
    "kvmbox.jail.spawner",  # in the spawner
    "kvmbox.jail.lock_up",
    "pathlib",
    "socket",  # `_socket` is enough
    "elftools",  # names in refusals
    "pyseccomp",  # policies without a compiled filter, names of forbidden calls
    "tomllib",  # the table of bundled guests
    "traceback",  # --debug
    "kvmbox.parts.profile",  # --profile, and the profile of a hang
    "kvmbox.parts.exit_samples.part",  # --stats, --json
    "kvmbox.parts.profile.profiler",
    "kvmbox.explain.sampler",
    "kvmbox.parts.record",  # --record
    "kvmbox.parts.inject",  # --inject
    "kvmbox.parts.gdb",  # --gdb
    "kvmbox.parts.gdb.debugger",
    "kvmbox.kvm.guest_debug",
    "kvmbox.tools.bench",
    "kvmbox.tools.qtest",
    "kvmbox.explain",
    "kvmbox.parts.core_file.part",  # --core
    "kvmbox.parts.crash_report.source_tree",  # --source
    "kvmbox.parts.snapshot",
    "kvmbox.parts.screen",  # what the guest has printed there
)
"""What a plain run does not import; docs/adr/start.md has the times."""


def loaded_by(code: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; {code}; print(*sys.modules)"],
        check=True,
        capture_output=True,
        text=True,
    )
    return [name for name in done.stdout.split() if f"{name}.".startswith(tuple(f"{cold}." for cold in COLD))]


@pytest.mark.parametrize(
    ("reader", "needed"),
    [
        ("run.quick_parser", "ctypes, gc, mmap, tty"),
        ("main, kvmbox.cli.run.command", "click, ctypes, gc, mmap, tty"),
    ],
)
def test_run_imports_nothing_that_a_plain_run_does_without(reader: str, needed: str) -> None:
    code = (
        f"import kvmbox.cli.entry, kvmbox.cli.run.execute, kvmbox.cli.{reader}, kvmbox.run.run, "
        "kvmbox.run.result.run_statistics, kvmbox.boot.bundled"
    )
    # Some version of click, or of what is imported, may need one of them itself.
    assert set(loaded_by(code)) - set(loaded_by(f"import {needed}")) == set()


def test_run_loaded_by_is_able_to_find_one() -> None:
    assert loaded_by("import tomllib")


def test_report_needs_no_shared_object_that_a_confined_vmm_could_not_load() -> None:
    code = """
import sys
from importlib.machinery import ExtensionFileLoader
import kvmbox.cli.entry, kvmbox.cli.run.execute, kvmbox.run.run
from kvmbox.run.parts import prepare_report

def refuse(self, spec):
    raise ImportError(f"{spec.name}: failed to map segment from shared object")

prepare_report()
ExtensionFileLoader.create_module = refuse
from elftools.elf.elffile import ELFFile
import kvmbox.parts.crash_report.part, kvmbox.parts.crash_report.report_text, kvmbox.explain.lines
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.kvm
@pytest.mark.parametrize("guest", ["hello32", "hello64", "real16"])
def test_run_without_pyelftools_and_libseccomp_boots(guest: str, tmp_path: Path) -> None:
    for name in ("elftools", "pyseccomp"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('not on this host')\n")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {ENTRY}"
    done = subprocess.run([sys.executable, "-c", code, "run", guest], check=False, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout


@pytest.mark.kvm
@pytest.mark.parametrize("sandbox", ["process", "none"])
def test_run_that_leaves_the_screen_alone_does_not_import_it(sandbox: str) -> None:
    code = (
        "import os, sys; leave = os._exit; "
        "os._exit = lambda status: leave(status or any('parts.screen' in name for name in sys.modules)); "
        f"{ENTRY}"
    )
    command = [sys.executable, "-c", code, "run", "hello32", "--sandbox", sandbox]
    done = subprocess.run(command, check=False, capture_output=True)
    assert (done.returncode, done.stdout) == (0, b"Hello from 32-bit protected mode!\n")
