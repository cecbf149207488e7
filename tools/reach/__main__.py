"""What a device that was taken over can reach: kvmbox in each of its modes, and QEMU.

    python -m tools.reach              measure, print the table
    python -m tools.reach --page       and put it into docs/reach.md, its data into docs/reach.json

The process that emulates the serial port is stopped, and made to call the kernel (`tracee`). Needs /dev/kvm
and cc; and root, to stop a process that is not dumpable, as those of kvmbox's devices are. What cannot be
measured is `?`, and said.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from kvmbox.sandbox.syscall_names import NAMES
from kvmbox.tools.audit.audit_setup import Scene
from tools.blocks import fill, table
from tools.planted.attack import COMMON, FLAGS
from tools.reach.bpf import I386, let_through
from tools.reach.machines import FIRST_MIB, MACHINES, MEMORY_MIB, Files, Machine, mark, running
from tools.reach.probes import PROBES, Refused
from tools.reach.tracee import Stopped, Tracee
from tools.scratch import PROJECT

PAGE: Final = PROJECT / "docs/reach.md"
DATA: Final = PROJECT / "docs/reach.json"
LETTERS: Final = re.compile(rb"KVMREACH")
MARK_SIZE: Final = 16
NAMESPACES: Final = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
FACTS: Final = (
    "user id",
    "capabilities",
    "own namespaces",
    "system calls",
    "of i386",
    "descriptors",
    "guest memory",
)
DEADLY: Final = ("fork", "run a program")
"""Those behind which the process does not go on."""
STRICT_CALLS: Final = "4"
"""What mode 1 leaves (seccomp(2)): read, write, exit, sigreturn."""


def build(folder: Path) -> Files:
    """The files of the machines. CalledProcessError if the guest cannot be built."""
    guests, image = PROJECT / "guests", folder / "marks.elf"
    sources = [Path(__file__).parent / "marks.c", *(guests / "common" / one for one in COMMON[:2])]
    subprocess.run(
        ["cc", *FLAGS, f"-DMEMORY_MIB={MEMORY_MIB}", f"-I{guests}", f"-I{guests}/common", "-T",
         str(guests / "common/elf.ld"), "-o", str(image), *map(str, sources)],
        check=True,
    )  # fmt: skip
    files = Files(image, folder / "disk")
    files.disk.write_bytes(bytes(1 << 20))
    return files


def status_of(pid: int, thread: int) -> dict[str, str]:
    """/proc/PID/task/TID/status."""
    text = Path(f"/proc/{pid}/task/{thread}/status").read_text()
    return {name: value.strip() for name, _, value in (one.partition(":") for one in text.splitlines())}


def system_calls(tracee: Tracee, thread: int, mode: str) -> tuple[str, str]:
    """How many system calls the filters of a thread let through: of x86-64, and of i386."""
    if mode == "0":
        return f"all {len(NAMES)}", "all"
    if mode == "1":
        return STRICT_CALLS, "4"
    filters = tracee.filters(thread)
    found = Counter(let_through(filters, number) for number in NAMES)
    of_i386 = sum(let_through(filters, number, I386) != "" for number in range(len(NAMES)))
    some = f", {found['some']} of them by arguments" if found["some"] else ""
    return f"{found['any'] + found['some']}{some}", str(of_i386 or "none")


def descriptors(pid: int) -> str:
    """How many, and of what kinds."""
    kinds: Counter[str] = Counter()
    for name in os.listdir(f"/proc/{pid}/fd"):
        target = os.readlink(f"/proc/{pid}/fd/{name}")
        kinds[re.sub(r"^anon_inode:\[?([\w-]+).*|^(socket|pipe):.*|^/.*/", r"\1\2", target)] += 1
    return f"{sum(kinds.values())}: " + ", ".join(
        f"{count} {kind}" if count > 1 else kind for kind, count in sorted(kinds.items())
    )


def guest_memory(tracee: Tracee) -> str:
    """How much of the guest's memory it sees, by the marks in it."""
    marks = {mark(number) for number in range(FIRST_MIB, MEMORY_MIB)}
    found: set[bytes] = set()
    for first, end, rights in tracee.mappings():
        if rights.startswith("r"):
            data = tracee.read(first, end - first)
            found |= marks & {data[at.start() : at.start() + MARK_SIZE] for at in LETTERS.finditer(data)}
    return f"{len(found)} of {MEMORY_MIB - FIRST_MIB} MiB"


def facts(pid: int, thread: int, tracee: Tracee) -> dict[str, str]:
    """What /proc and the tracer tell of it."""
    status = status_of(pid, thread)
    own = [
        one
        for one in NAMESPACES
        if os.readlink(f"/proc/{pid}/ns/{one}") != os.readlink(f"/proc/self/ns/{one}")
    ]
    calls, of_i386 = system_calls(tracee, thread, status["Seccomp"])
    return {
        "user id": "the user's" if int(status["Uid"].split()[1]) == os.geteuid() else "its own",
        "capabilities": str(int(status["CapEff"], 16).bit_count() or "none"),
        "own namespaces": "all" if len(own) == len(NAMESPACES) else ", ".join(own) or "none",
        "system calls": calls,
        "of i386": of_i386,
        "descriptors": descriptors(pid),
        "guest memory": guest_memory(tracee),
    }


def try_all(machine: Machine, files: Files, scene: Scene) -> dict[str, str]:
    """All rows of one machine."""
    waiting = list(PROBES)
    with running(machine, files) as (program, pid, thread):
        if program != pid:
            os.kill(program, signal.SIGSTOP)  # or it would end a device process that does not answer
        with Tracee(pid) as tracee:
            cells = facts(pid, thread, tracee)
            if program == pid:
                try_some(waiting, cells, tracee, scene)
    while waiting:
        with running(machine, files) as (_, pid, _), Tracee(pid) as tracee:
            try_some(waiting, cells, tracee, scene)
    return cells


def try_some(waiting: list[str], cells: dict[str, str], tracee: Tracee, scene: Scene) -> None:
    """Take probes from `waiting`, as many as this process survives."""
    while waiting:
        name = waiting.pop(0)
        scene.prepare()
        try:
            cells[name] = "yes" if PROBES[name](tracee, scene) else "no"
        except Refused as refused:
            cells[name] = str(refused)
        except Stopped as stopped:
            cells[name] = str(stopped)
            return
        if name in DEADLY and cells[name] == "yes":
            return


def main(arguments: Sequence[str]) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="reach", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--page", action="store_true", help="put the table into docs/reach.md")
    options = parser.parse_args(arguments)
    columns: list[dict[str, str]] = []
    with tempfile.TemporaryDirectory(prefix="kvmbox-reach-") as folder, Scene() as scene:
        files = build(Path(folder))
        for machine in MACHINES:
            try:
                columns.append(try_all(machine, files, scene))
            except (OSError, RuntimeError) as error:
                print(f"{machine.name} is not measured: {error}", file=sys.stderr)
                columns.append({})
    measured = {machine.name: column for machine, column in zip(MACHINES, columns, strict=True)}
    rows = rows_of(measured)
    print("\n".join(rows))
    if options.page:
        DATA.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
        fill(PAGE, "reach", rows)
    return 0


def rows_of(measured: Mapping[str, Mapping[str, str]]) -> list[str]:
    """The table: of each machine what is in each row, or `?`."""
    columns = [measured.get(one.name, {}) for one in MACHINES]
    return table(
        ("a taken-over device", *(one.name for one in MACHINES)),
        [(name, *(one.get(name, "?") for one in columns)) for name in (*FACTS, *PROBES)],
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
