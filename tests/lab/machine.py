"""One run of the machine: QEMU, the initramfs, a time limit, and the status that the work ended with."""

from __future__ import annotations

import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from tests.lab.archive import Archive
from tests.lab.modules import Modules
from tests.lab.variations import Host

BOOT: Final = Path(__file__).parent / "boot"
MODULES: Final = ("virtio_pci", "9p", "9pnet_virtio", "overlay", "kvm_amd")
CONSOLE_TAIL: Final = 20
"""How many lines of the kernel's log a failure shows."""
BOOT_S: Final = 150
"""How long a start may take: some ten seconds, or a minute where the host has much else to do."""
BOOT_ATTEMPTS: Final = 3
"""On a busy host one start in six hung: the timer of the second CPU was dead from the beginning."""
NEW_STARTS: Final = 1
"""How often a machine starts anew that has panicked in the midst of the work, or hangs: the emulator has
faults of its own, where a kernel changes its code while it runs, and with two CPUs."""
HOLDER: Final = "import fcntl, signal; vm = fcntl.ioctl(open('/dev/kvm'), 0xAE01, 0); signal.pause()"
HOLD_A_VM: Final = f"{{ {shlex.join([sys.executable, '-ISc', HOLDER])} >/dev/console 2>&1 & }}"
"""Keep a VM (KVM_CREATE_VM) for all of the work. With its first VM, and after its last, KVM has the kernel
patch the code that each switch of tasks runs. Hundreds of times in a session, this ended in a panic once: a
CPU of the emulator took the breakpoint that stands there in between, after it was gone."""
NOT_PREPARED: Final = 125
"""The work's status where the machine could not be made as a variation wants it."""


class LabFailure(Exception):
    """The machine itself failed: it did not start, or it ended before the work did."""


class LabPanic(LabFailure):
    """Its kernel panicked in the midst of the work."""


class LabTimeout(LabFailure):
    """The work did not end in time."""


def initramfs(kernel: Path, busybox: Path, work: str) -> bytes:
    """The archive that the kernel starts from; `work` is the shell script whose status counts."""
    (directory,) = kernel.glob("**/lib/modules/*")
    archive = Archive()
    for path in ("bin", "dev", "lab", "modules"):
        archive.directory(path)
    archive.device("dev/console", 5, 1)
    archive.file("init", (BOOT / "init").read_bytes(), executable=True)
    archive.file("bin/busybox", busybox.read_bytes(), executable=True)
    archive.file("lab/busybox", busybox.read_bytes(), executable=True)
    archive.file("lab/session", (BOOT / "session").read_bytes(), executable=True)
    archive.file("lab/work", work.encode())
    modules = Modules(directory).load_order(MODULES)
    for name, content in modules:
        archive.file(f"modules/{name}.ko", content)
    archive.file("modules/order", "".join(f"{name}\n" for name, _ in modules).encode())
    return archive.pack()


def script(
    commands: Sequence[Sequence[str]], host: Host, *, directory: Path, environment: Mapping[str, str]
) -> str:
    """A shell script that makes `host` what it is and runs `commands` in `directory` until one fails.

    Its status is that of the last command that ran, or NOT_PREPARED. The environment of the commands is
    `environment` and nothing else.
    """
    lines = [
        f"{step} || {{ echo {shlex.quote(f'lab: failed: {step}')}; exit {NOT_PREPARED}; }}"
        for step in (f"cd {shlex.quote(str(directory))}", *host.preparation)
    ]
    # By their paths: to BusyBox's shell the bare names are its own applets, which know fewer options.
    prefix = ["/usr/bin/env", "-i", *(f"{name}={value}" for name, value in environment.items())]
    if host.user:
        prefix += ["/usr/bin/setpriv", f"--reuid={host.user}", f"--regid={host.user}", "--clear-groups"]
    lines += [f"{shlex.join([*prefix, *command])} || exit $?" for command in commands]
    return "".join(f"{line}\n" for line in lines)


def run(
    emulator: str,
    kernel: Path,
    archive: bytes,
    host: Host,
    *,
    timeout_s: float,
    attempt_s: float | None = None,
    log: Path,
) -> int:
    """Boot, let the work's output through to stdout, return its status. `log` gets the kernel's console.

    The machine starts anew, once and in the time that is left, if it panics, or if the work takes longer
    than `attempt_s`. LabFailure, with the end of the console, where there is no status; LabTimeout after
    `timeout_s`.
    """
    (image,) = kernel.glob("boot/vmlinuz-*")
    with tempfile.TemporaryDirectory(prefix="kvmbox-lab-") as scratch:
        initrd = Path(scratch, "initramfs")
        initrd.write_bytes(archive)
        results = Path(scratch, "results")
        results.mkdir()
        command = [
            *(emulator, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
            *("-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max"),
            *("-smp", str(host.cpus), "-m", str(host.memory_mib)),
            *("-kernel", str(image), "-initrd", str(initrd)),
            # A panic is a reset, and a reset is the end of QEMU. The kernel's check of the timer is left out:
            # on a busy host it ends in a panic.
            *("-append", " ".join(("console=ttyS0 panic=-1 quiet no_timer_check", *host.parameters))),
            *("-serial", f"file:{log}", "-chardev", "stdio,id=output,signal=off"),
            *("-device", "isa-serial,chardev=output,index=1"),
            *("-virtfs", "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap"),
            *("-virtfs", f"local,path={results},mount_tag=results,security_model=none,multidevs=remap"),
        ]
        end = time.monotonic() + timeout_s
        for left in reversed(range(NEW_STARTS + 1)):
            until = min(end, time.monotonic() + attempt_s) if left and attempt_s else end
            try:
                return _attempt(command, results, until, log)
            except (LabPanic, LabTimeout) as problem:
                if not left or time.monotonic() >= end:
                    raise
                print(f"lab: the machine starts anew: {problem}", file=sys.stderr)
            (results / "started").unlink(missing_ok=True)
            log.replace(log.with_suffix(".before.log"))
        raise AssertionError("the last attempt returns or raises")


def _attempt(command: Sequence[str], results: Path, end: float, log: Path) -> int:
    """The status that the machine of one start leaves in `results`."""
    try:
        ended = _start(command, results / "started", end, log)
    except LabTimeout:
        if (status := _status(results)) is None:  # else it has only not switched itself off
            raise
        return status
    if (status := _status(results)) is None:
        kind = LabPanic if "Kernel panic" in _console(log) else LabFailure
        raise kind(f"the machine ended without a status (QEMU's is {ended}); {_tail(log)}")
    return status


def _status(results: Path) -> int | None:
    try:
        return int((results / "status").read_text())
    except (FileNotFoundError, ValueError):
        return None


def _start(command: Sequence[str], started: Path, end: float, log: Path) -> int | None:
    """Run QEMU to its end and return its status. BOOT_ATTEMPTS of them may end without the file `started`."""
    for attempt in range(1, BOOT_ATTEMPTS + 1):
        ended = watch(command, started, end - time.monotonic(), log)
        if started.exists():
            return ended
        print(f"lab: attempt {attempt}: the machine did not start", file=sys.stderr)
        if time.monotonic() >= end:
            raise LabTimeout(f"the machine did not start in time; {_tail(log)}")
    raise LabFailure(f"the machine does not start; {_tail(log)}")


def watch(command: Sequence[str], started: Path, timeout_s: float, log: Path) -> int | None:
    """Run QEMU to its end and return its status; None if `started` was not there after BOOT_S seconds."""
    boot_s = min(BOOT_S, timeout_s)
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as process:
        try:
            return process.wait(boot_s)
        except subprocess.TimeoutExpired:
            if not started.exists():
                return None
            try:
                return process.wait(timeout_s - boot_s)
            except subprocess.TimeoutExpired:
                raise LabTimeout(f"no end within {timeout_s:.0f} s; {_tail(log)}") from None
        finally:
            process.kill()


def _console(log: Path) -> str:
    return log.read_text(errors="replace") if log.exists() else ""


def _tail(log: Path) -> str:
    lines = _console(log).splitlines()
    return f"its console, also in {log}, ends with:\n" + "\n".join(lines[-CONSOLE_TAIL:])
