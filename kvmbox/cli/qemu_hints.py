"""What a user of QEMU types by habit, and what it is here. Loaded for an error only.

QEMU's options have one dash or two. `docs/coming-from-qemu.md` shows the same table.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

ROWS: Final = {
    "kernel": "name the image without an option: kvmbox run KERNEL",
    "append": "--append TEXT",
    "initrd": "--initrd FILE; modules of Multiboot are --module FILE[,ARGUMENTS]",
    "m": "--memory SIZE, as in --memory 128M",
    "smp": "--cpus N",
    "cpu": "--cpu MODEL",
    "bios pflash": "--bios FILE",
    "boot": "not needed: the image decides; --boot WAY forces one",
    "hda hdb hdc hdd": "--disk FILE, once for each disk; writes go to an overlay unless it is FILE,write",
    "drive": "--disk FILE[,write][,format=qcow2][,on=virtio]",
    "cdrom": "--cdrom FILE, or name the CD image without an option",
    "fda fdb": "name the image without an option: kvmbox run disk.img",
    "snapshot": "not needed: a disk has an overlay by default; --snapshot-when saves the machine",
    "loadvm": "--from FILE",
    "serial chardev": "--serial PORT=WHERE, as in COM1=file:log; COM1 is on stdin and stdout by default",
    "nographic": "not needed: the console is on stdin and stdout by default",
    "display": "not needed: --screen live shows the screen on the terminal, --vnc shows it to a client",
    "curses": "--screen live",
    "vga": "not needed: the guest has a VGA; --picture FILE is screendump",
    "monitor": "not needed: Ctrl-A C on a terminal; with --gdb, gdb's monitor commands",
    "qmp": "--gdb, or the Python API",
    "qtest": "kvmbox qtest",
    "debugcon": "not needed: ports 0xe9 and 0x402 are on stdout by default",
    "device": "not needed for isa-debug-exit and pvpanic; --rng for virtio-rng, "
    "--disk FILE,on=virtio for virtio-blk, --net BACKEND for virtio-net, --net BACKEND,on=e1000 for e1000",
    "no-reboot": "--no-reboot",
    "no-shutdown": "--gdb stops at the end of the guest",
    "s gdb": "--gdb :1234",
    "S": "--gdb, where the guest waits for the debugger",
    "d": "--stats and --profile; --record FILE has each access",
    "trace": "--record FILE, and then kvmbox trace FILE",
    "fw_cfg": "--fw-cfg NAME=FILE",
    "rtc": "--rtc-base TIME",
    "accel enable-kvm": "not needed: guests run on /dev/kvm",
    "machine M": "not needed: there is one machine; --pci on adds a PCI bus",
    "sandbox": "not needed: every device has a jail by default",
    "netdev": "--net user, --net tap:NAME, or --net socket:unix:PATH for -netdev stream",
    "nic": "--net user,forward=tcp:HOST:GUEST for user,hostfwd=…; no interface by default",
    "net": "--net BACKEND; none by default",
    "nodefaults": "not needed: there is no disk and no network by default",
    "usb": "there is none: the machine has no USB",
    "vnc": "--vnc :5900 or --vnc unix:PATH",
    "daemonize": "not needed: leave it to the shell or to a service",
}
"""QEMU's options, without their dashes, and what to type instead."""
OPTIONS: Final = {name: hint for names, hint in ROWS.items() for name in names.split()}


def advice(arguments: Sequence[str], refused: str) -> tuple[str, str] | None:
    """The first option of QEMU's in a command line of which `refused` is no option, as typed, and the hint.

    With two dashes only `refused` itself may be one: `--append` is an option here, too. With one dash nothing
    but `-h` is, and `refused` is the first letter.
    """
    for word in arguments:
        typed = word.partition("=")[0]
        name = typed.lstrip("-")
        is_long = refused.startswith("--") and len(name) > 1
        if name in OPTIONS and typed == (refused if is_long else f"-{name}"):
            return word, f"for QEMU's -{name}: {OPTIONS[name]}"
    return None
