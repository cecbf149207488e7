"""The peer: QEMU with the same guest image, the same command line, the same KVM, its devices in process."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from kvmbox.base import layout
from kvmbox.base.errors import StartError

PROGRAM: Final = "qemu-system-x86_64"
ENDED: Final = 33
"""QEMU's status when the guest has written 16 to isa-debug-exit, as bench does without a shutdown port."""


def find() -> str:
    """The path of QEMU. StartError if it is not installed."""
    path = shutil.which(PROGRAM)
    if path is None:
        raise StartError(
            f"--peer qemu: {PROGRAM} is not installed", hint="for example: apt-get install qemu-system-x86"
        )
    return path


def version() -> str:
    """What QEMU says it is, or an empty text."""
    with suppress(StartError, OSError, subprocess.SubprocessError):
        done = subprocess.run([find(), "--version"], capture_output=True, text=True, timeout=10, check=False)
        return done.stdout.partition("\n")[0].strip()
    return ""


def command(image: str, words: Sequence[str], cpus: int = 1) -> list[str]:
    """QEMU's command line: a PC with COM1 and the debug console on stdout, and nothing that is not measured.

    /dev/stdout opens the pipe again, so that the debug console costs what COM1 costs. With the interrupt
    controllers in the kernel, as kvmbox has them, QEMU leaves the PIT to the kernel too: its accesses never
    reach QEMU, so pit_read is not compared, and hlt_latency shows what a timer costs that is no device model.
    """
    return [
        find(),
        *("-machine", "pc,accel=kvm,kernel-irqchip=on,hpet=off"),
        *_common(image, words, cpus),
        *("-chardev", "file,id=debug,path=/dev/stdout"),
        *("-device", f"isa-debugcon,iobase={layout.DEBUGCON_PORTS[0]:#x},chardev=debug"),
    ]


def disk_command(image: str, words: Sequence[str], cpus: int, disk: str, *, virtio: bool) -> list[str]:
    """The same with the raw image `disk`: of the PC's first IDE channel, or a virtio device of a microvm."""
    drive = f"file={disk.replace(',', ',,')},format=raw,id=disk,if={'none' if virtio else 'ide'}"
    if not virtio:
        return [*command(image, words, cpus), "-drive", drive]
    return [*_microvm(image, words, cpus), "-drive", drive, "-device", "virtio-blk-device,drive=disk"]


def network_command(image: str, words: Sequence[str], cpus: int, path: str) -> list[str]:
    """A microvm with a virtio network device at the Unix socket `path`, where the peer listens."""
    netdev = f"stream,id=wire,server=off,addr.type=unix,addr.path={path.replace(',', ',,')}"
    return [*_microvm(image, words, cpus), "-netdev", netdev, "-device", "virtio-net-device,netdev=wire"]


def _microvm(image: str, words: Sequence[str], cpus: int) -> list[str]:
    machine = ("-machine", "microvm,accel=kvm", "-global", "virtio-mmio.force-legacy=false")
    return [find(), *machine, *_common(image, words, cpus)]


def _common(image: str, words: Sequence[str], cpus: int) -> list[str]:
    return [
        *("-m", str(layout.DEFAULT_MEMORY // layout.MIB), "-smp", str(cpus)),
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio"),
        *(
            "-device",
            f"isa-debug-exit,iobase={layout.DEBUG_EXIT_PORT:#x},iosize={layout.DEBUG_EXIT_PORT_COUNT}",
        ),
        *("-kernel", image, "-append", " ".join(words)),
    ]
