"""A built tree of kvm-unit-tests: its entries, how each is run, and what an exit status says.

x86/unittests.cfg has a section per entry: file, smp, test_args, qemu_params, arch, check, groups, timeout.
The guests end by isa-debug-exit with (code << 1) | 1, so 1 is a pass, and 77 (code 38): all was skipped.
"""

from __future__ import annotations

import enum
import re
import shlex
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.foreign.observe import End, Observation

CONFIGURATION: Final = "x86/unittests.cfg"
DEFAULT_TIMEOUT_S: Final = 90
_SECTION: Final = re.compile(r"\[(.+)\]$")
_SETTING: Final = re.compile(r"(\w+)\s*=\s*(.*)$")
_NOW: Final = "`date +%s`"
PASSED: Final = 1
SKIPPED: Final = 77


class BadConfiguration(Exception):
    """A line of unittests.cfg that nobody here understands."""


class Verdict(enum.Enum):
    """What became of an entry."""

    PASS = "pass"
    SKIP = "skip"
    FAIL = "fail"
    TIMEOUT = "timeout"
    REFUSED = "refused"
    """KVM cannot run an instruction of it: kvmbox's status 10."""
    CRASHED = "crashed"
    """A triple fault, or halted for ever: kvmbox's status 6, or QEMU's reset with -no-reboot."""
    BROKEN = "broken"
    """The program failed, not the guest."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One section of unittests.cfg."""

    name: str
    file: str
    cpus: int = 1
    arguments: str = ""
    """The guest's command line."""
    qemu: tuple[str, ...] = ()
    arch: str = ""
    checks: tuple[tuple[str, str], ...] = ()
    """Files of the host and what they must contain."""
    groups: tuple[str, ...] = ()
    timeout_s: int = DEFAULT_TIMEOUT_S

    @property
    def memory_mib(self) -> int | None:
        """What its -m asks for; None where it has none."""
        for word, value in zip(self.qemu, self.qemu[1:], strict=False):
            if word == "-m":
                number, unit = re.fullmatch(r"(\d+)([gGmM]?)", value).groups()  # type: ignore[union-attr] # QEMU's own syntax; a wrong one may raise
                return int(number) * (1024 if unit in ("g", "G") else 1)
        return None

    def left_out(self) -> str | None:
        """Why the suite's own script would not run it on this host; None if it would."""
        if self.arch not in ("", "x86_64"):
            return f"{self.arch} only"
        if "nodefault" in self.groups:
            return "marked as a manual run"
        for path, value in self.checks:
            file = Path(path)
            if not file.is_file() or file.read_text().strip() != value:
                return f"{path} is not {value}"
        return None


ALONE: Final = (Entry("dummy", "dummy.flat"), Entry("hpet_read_test", "hpet_read_test.flat"))
"""Built by the suite, and not in its configuration."""


def entries(tree: Path) -> list[Entry]:
    """The entries of a tree, in its order, and the two that its configuration does not have."""
    return [*parse((tree / CONFIGURATION).read_text()), *ALONE]


def parse(text: str) -> Iterator[Entry]:
    """The entries of a configuration. BadConfiguration for what is neither section, setting nor comment."""
    name, settings = "", dict[str, str]()
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        if section := _SECTION.fullmatch(line.strip()):
            if name:
                yield _entry(name, settings)
            name, settings = section[1], {}
        elif (setting := _SETTING.fullmatch(line.strip())) and name:
            settings[setting[1]] = setting[2].strip()
        else:
            raise BadConfiguration(f"line {number}: {line!r}")
    if name:
        yield _entry(name, settings)


def _entry(name: str, settings: dict[str, str]) -> Entry:
    arguments = settings.get("test_args", "").replace(_NOW, str(int(time.time())))
    return Entry(
        name,
        settings["file"],
        cpus=int(settings.get("smp", "1")),
        arguments=" ".join(shlex.split(arguments)),
        qemu=tuple(shlex.split(settings.get("qemu_params", ""))),
        arch=settings.get("arch", ""),
        checks=tuple(
            (path, value)
            for path, _, value in (part.partition("=") for part in settings.get("check", "").split())
        ),
        groups=tuple(settings.get("groups", "").split()),
        timeout_s=int(settings.get("timeout", DEFAULT_TIMEOUT_S)),
    )


def kvmbox_arguments(entry: Entry, tree: Path) -> list[str]:
    """Arguments of `kvmbox`."""
    words = ["run", "--cpus", str(entry.cpus), "--testdev", "--no-reboot"]
    if entry.memory_mib is not None:
        words += ["--memory", f"{entry.memory_mib}M"]
    if entry.arguments:
        words += ["--append", entry.arguments]
    return [*words, str(tree / "x86" / entry.file)]


def qemu_command(entry: Entry, tree: Path, program: str) -> list[str]:
    """QEMU's command line, as x86/run makes it; with PVM `-cpu host` aborts unless a feature is off."""
    parameters = [
        f"{word},-arch-capabilities" if word.startswith(("max", "host")) else word for word in entry.qemu
    ]
    return [
        *(program, "-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio"),
        *("-machine", "accel=kvm", "-global", "kvm-pit.lost_tick_policy=discard"),
        *("-device", "pc-testdev", "-device", "isa-debug-exit,iobase=0xf4,iosize=0x4"),
        *("-device", "pci-testdev", "-kernel", str(tree / "x86" / entry.file)),
        *("-smp", str(entry.cpus)),
        *(("-append", entry.arguments) if entry.arguments else ()),
        *parameters,
    ]


def kvmbox_verdict(seen: Observation) -> Verdict:
    """What a run under kvmbox says of the entry."""
    if seen.end is not End.ITSELF:
        return Verdict.TIMEOUT
    known = {PASSED: Verdict.PASS, SKIPPED: Verdict.SKIP, 0: Verdict.CRASHED, 6: Verdict.CRASHED}
    known |= {10: Verdict.REFUSED, 124: Verdict.TIMEOUT}
    guests_own = seen.status > 0 and seen.status % 2
    return known.get(seen.status, Verdict.FAIL if guests_own else Verdict.BROKEN)


def qemu_verdict(seen: Observation) -> Verdict:
    """What a run under QEMU says of the entry; a failure of QEMU has status 1 too, and words on stderr."""
    if seen.end is not End.ITSELF:
        # An emulation failure stops the machine, and QEMU waits in case somebody looks at it.
        return Verdict.REFUSED if "KVM internal error" in seen.errors else Verdict.TIMEOUT
    if seen.status == SKIPPED:
        return Verdict.SKIP
    if seen.status == 0:
        return Verdict.CRASHED
    complaints = [line for line in seen.errors.splitlines() if line and "warning" not in line.lower()]
    if seen.status < 0 or (seen.status == PASSED and complaints):
        return Verdict.BROKEN
    return Verdict.PASS if seen.status == PASSED else Verdict.FAIL


def qemu_stopped(_output: str, errors: str) -> bool:
    """Whether QEMU has stopped the guest for good: it would wait for somebody to look at it."""
    return "KVM internal error" in errors and "\nCode=" in errors


def why(seen: Observation) -> str:
    """The line that tells most about an entry that did not pass, or an empty text."""
    lines = [line.strip() for line in seen.errors.splitlines() if line.strip() and "warning: " not in line]
    for line in lines:
        if "error" in line:
            return line.removeprefix("kvmbox: error: ")
    failures = [line for line in seen.output.splitlines() if line.startswith(("FAIL", "Unhandled", "SKIP"))]
    if failures:
        return failures[0].strip()
    printed = [line.strip() for line in seen.output.splitlines() if line.strip()]
    return lines[0] if lines else printed[-1] if printed else ""
