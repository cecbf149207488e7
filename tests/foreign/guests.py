"""The table of foreign guests: how each is started, and by which milestones its output tells how far it got.

A milestone is a regular expression; milestones are looked for one after the other. Where a backend of KVM
cannot run a guest to its last milestone, `limits` says how far the guest must get there, and why not further.
With a backend that `limits` does not name the guest must reach the last.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.foreign import images, trees

GNUMACH: Final = ("gnumach-image-1.8-amd64-up", "boot/gnumach-1.8-amd64-up.gz")
XEN: Final = ("xen-hypervisor-4.20-amd64", "boot/xen-4.20-amd64.gz")
TBOOT: Final = ("tboot", "boot/tboot.gz")
LINUX: Final = ("linux-image-cloud-amd64", "boot/vmlinuz-*")
LINUX_OF_PCS: Final = ("linux-image-amd64", "boot/vmlinuz-*")
"""The lab's own kernel: unlike that for clouds it has drivers of mice and frame buffers."""
U_BOOT: Final = "u-boot-qemu"
SERIAL: Final = "com1=115200,8n1 console=com1 noreboot"
SECOND_DISK: Final = 1 << 20
# Of its log the banner is shown, and what is more urgent than that: each character is an exit or two.
LINUX_WORDS: Final = "console=ttyS0 earlyprintk=ttyS0 loglevel=6 panic=-1"


@dataclass(frozen=True, slots=True)
class Start:
    """How a guest is started."""

    kvmbox: tuple[str, ...]
    """Arguments after `kvmbox run`."""
    qemu: tuple[str, ...] = ()
    """Arguments of QEMU, beside those that every guest gets; none where QEMU has no such way to boot."""


@dataclass(frozen=True, slots=True)
class Milestone:
    """A point that a guest reaches, and the output that shows it."""

    name: str
    pattern: str


@dataclass(frozen=True, slots=True)
class Limit:
    """How far a guest must get with a backend of KVM that does not take it to its last milestone.

    Without milestones and without a status nothing is asked: the guest is not run.
    """

    milestones: int
    """How many it must reach."""
    why: str
    """Why not more."""
    status: int | None = None
    """What kvmbox must end with; None where the run is not followed beyond the milestones."""
    says: str = ""
    """What stderr must match then: the refused instruction."""


@dataclass(frozen=True, slots=True)
class Guest:
    """One guest, started in one way."""

    name: str
    package: str
    form: str
    start: Callable[[Path], Start]
    """Finds or makes the images (in the given directory); images.Unavailable where that is impossible."""
    milestones: tuple[Milestone, ...]
    limits: Mapping[str, Limit] = field(default_factory=dict)
    """By the backend of KVM."""
    timeout_s: int = 60
    typed: tuple[tuple[str, str], ...] = ()
    """What is typed, behind which output: see `observe`."""

    def limit(self, backend: str) -> Limit:
        """What is asked of the guest with `backend`."""
        return self.limits.get(backend, Limit(len(self.milestones), ""))

    def reached(self, output: str) -> int:
        """How many milestones `output` shows, in their order."""
        position = count = 0
        for milestone in self.milestones:
            found = re.compile(milestone.pattern).search(output, position)
            if found is None:
                break
            position, count = found.end(), count + 1
        return count


def _milestones(*pairs: tuple[str, str]) -> tuple[Milestone, ...]:
    return tuple(Milestone(*pair) for pair in pairs)


def _gnumach(_: Path) -> Start:
    kernel = str(images.find(*GNUMACH))
    unzipped = str(images.unzipped(*GNUMACH))
    return Start(
        ("--boot", "multiboot", "--append", "console=com0", kernel),
        ("-kernel", unzipped, "-append", "console=com0"),
    )


def _xen(way: str) -> Callable[[Path], Start]:
    def start(_: Path) -> Start:
        arguments = ("--boot", way, "--memory", "256M", "--append", SERIAL, str(images.find(*XEN)))
        if way != "multiboot":
            return Start(arguments)
        return Start(arguments, ("-kernel", str(images.unzipped(*XEN)), "-append", SERIAL))

    return start


def _tboot(way: str) -> Callable[[Path], Start]:
    def start(_: Path) -> Start:
        words = "logging=serial serial=115200,8n1,0x3f8"
        arguments = ("--boot", way, "--append", words, str(images.find(*TBOOT)))
        if way != "multiboot":
            return Start(arguments)
        return Start(arguments, ("-kernel", str(images.unzipped(*TBOOT)), "-append", words))

    return start


def _memtest(which: str) -> Callable[[Path], Start]:
    def start(_: Path) -> Start:
        image = str(images.find("memtest86+", f"boot/memtest86+{which}.bin"))
        words = "console=ttyS0,115200"
        # It looks at all of its memory before it shows anything.
        return Start(
            ("--memory", "16M", "--append", words, image), ("-m", "16M", "-kernel", image, "-append", words)
        )

    return start


def _linux(way: str, cpus: int) -> Callable[[Path], Start]:
    def start(directory: Path) -> Start:
        image = str(images.find(*LINUX) if way == "linux" else images.vmlinux(*LINUX))
        initrd = str(images.initramfs(directory))
        words = f"{LINUX_WORDS} -- poweroff"
        return Start(
            (
                *("--boot", way, "--cpus", str(cpus), "--memory", "256M", "--no-reboot"),
                *("--initrd", initrd, "--append", words, image),
            ),
            ("-smp", str(cpus), "-kernel", image, "-initrd", initrd, "-append", words),
        )

    return start


def _linux_on_disk(controller: str, device: str, cpus: int) -> Callable[[Path], Start]:
    modules = {
        "virtio": ("virtio_mmio", "virtio_blk", "ext4"),
        "ide": ("pata_legacy", "sd_mod", "virtio_mmio", "virtio_blk", "ext4"),
    }[controller]

    def start(directory: Path) -> Start:
        image, disk, second = images.find(*LINUX), images.root_disk(directory), directory / "second.img"
        second.write_bytes(bytes(SECOND_DISK))
        initrd = images.scripted_initramfs(directory, LINUX, modules, "init")
        return Start(
            (
                *("--cpus", str(cpus), "--memory", "256M", "--no-reboot", "--initrd", str(initrd)),
                *("--disk", f"{disk},on={controller},serial=ROOT-1"),
                *("--disk", f"{second},on=virtio", "--append", f"{LINUX_WORDS} -- {device}", str(image)),
            )
        )

    return start


def _linux_devices(directory: Path) -> Start:
    image = images.find(*LINUX_OF_PCS)
    modules = ("psmouse", "ata_piix", "sd_mod", "sr_mod", "virtio_blk")
    initrd = images.scripted_initramfs(directory, LINUX_OF_PCS, modules, "devices")
    disks = [directory / name for name in ("first.img", "second.img", "third.img")]
    for disk in disks:
        disk.write_bytes(bytes(SECOND_DISK))
    first, second, third = map(str, disks)
    return Start(
        (
            *("--pci", "on", "--memory", "256M", "--no-reboot", "--rng", "--initrd", str(initrd)),
            *("--disk", first, "--disk", second, "--disk", f"{third},on=virtio"),
            *("--append", f"console=tty0 {LINUX_WORDS} vga=0x342", str(image)),
        )
    )


def _seabios(directory: Path) -> Start:
    image = str(images.find("seabios", "usr/share/seabios/bios-256k.bin"))
    # SeaBIOS shows its screen on the serial port that this file names.
    port = directory / "sercon-port"
    port.write_bytes((0x3F8).to_bytes(2, "little"))
    named = "etc/sercon-port"
    return Start(
        ("--fw-cfg", f"{named}={port}", "--bios", image),
        ("-bios", image, "-fw_cfg", f"name={named},file={port}"),
    )


def _seabios_and_disk(directory: Path) -> Start:
    disk = images.bundled_file("bootdisk")
    return _with_disk(_seabios(directory), disk)


def _with_disk(start: Start, disk: Path) -> Start:
    """The same, with a disk at IDE."""
    return Start((*start.kvmbox, "--disk", str(disk)), (*start.qemu, *_qemu_drives(str(disk))))


def _qboot(directory: Path) -> Start:
    firmware = str(images.find("qemu-system-data", "usr/share/qemu/qboot.rom"))
    image = str(images.find(*LINUX))
    initrd = str(images.initramfs(directory))
    words = f"{LINUX_WORDS} -- poweroff"
    return Start(
        (
            *("--bios", firmware, "--memory", "256M", "--no-reboot"),
            *("--initrd", initrd, "--append", words, image),
        ),
        ("-bios", firmware, "-kernel", image, "-initrd", initrd, "-append", words),
    )


def _u_boot(build: str) -> Callable[[Path], Start]:
    def start(_: Path) -> Start:
        image = str(images.find(U_BOOT, f"usr/lib/u-boot/{build}/u-boot.rom"))
        return Start(("--bios", image), ("-bios", image))

    return start


def _u_boot_and_disk(directory: Path) -> Start:
    start = _with_disk(_u_boot("qemu-x86")(directory), images.dos_disk(directory))
    return Start(("--pci", "on", *start.kvmbox), start.qemu)


def _ipxe_kernel(_: Path) -> Start:
    image = str(images.find("ipxe", "usr/lib/ipxe/ipxe.lkrn"))
    return Start(("--memory", "64M", image), ("-machine", "graphics=off", "-kernel", image))


def _ipxe_disk(_: Path) -> Start:
    image = str(images.find("ipxe", "usr/lib/ipxe/ipxe.iso"))
    drive = f"file={image},format=raw,if=ide,snapshot=on"
    return Start(("--memory", "64M", "--boot", "bios", image), ("-machine", "graphics=off", "-drive", drive))


def _ipxe_cd(_: Path) -> Start:
    image = str(images.find("ipxe", "usr/lib/ipxe/ipxe.iso"))
    return Start(("--memory", "64M", image), ("-machine", "graphics=off", "-cdrom", image))


def _grub_cd(directory: Path) -> Start:
    image = str(images.grub_cd(directory))
    return Start((image,), ("-machine", "graphics=off", "-cdrom", image))


def _grub_disk(directory: Path) -> Start:
    image = str(images.grub_cd(directory))
    return Start(("--boot", "bios", image), ("-machine", "graphics=off", *_qemu_drives(image)))


def _isolinux_cd(directory: Path) -> Start:
    image = str(images.isolinux_cd(directory))
    return Start((image,), ("-machine", "graphics=off", "-cdrom", image))


def _syslinux_disk(directory: Path) -> Start:
    image = str(images.syslinux_disk(directory))
    return Start((image,), ("-machine", "graphics=off", *_qemu_drives(image)))


def _tree(tree: trees.Tree, files: tuple[str, str], memory: str) -> Callable[[Path], Start]:
    """A kernel that boots from the first of two disks and has its files on the second one."""

    def start(_: Path) -> Start:
        boot, second = (str(trees.built(tree, file)) for file in files)
        return Start(
            ("--memory", memory, boot, "--disk", second), ("-m", memory, *_qemu_drives(boot, second))
        )

    return start


def _freedos(directory: Path) -> Start:
    diskette = str(trees.built(trees.FREEDOS, "bootdisks/freedos.boot.disk.1.4MB.img"))
    disk = str(images.dos_disk(directory))
    return Start((diskette, "--disk", disk), (*_qemu_diskette(diskette), *_qemu_drives(disk)))


def _mikeos_diskette(_: Path) -> Start:
    image = str(trees.built(trees.MIKEOS, "disk_images/mikeos.flp"))
    return Start((image,), tuple(_qemu_diskette(image)))


def _mikeos_cd(_: Path) -> Start:
    image = str(trees.built(trees.MIKEOS, "disk_images/mikeos.iso"))
    return Start((image,), ("-machine", "graphics=off", "-cdrom", image))


def _qemu_diskette(file: str) -> list[str]:
    """Options of QEMU to boot from a diskette, which stays as it is."""
    drive = f"file={file},format=raw,if=floppy,snapshot=on"
    return ["-machine", "graphics=off", "-boot", "a", "-drive", drive]


def _qemu_drives(*files: str) -> list[str]:
    """Options of QEMU for disks at IDE, which stay as they are."""
    drives = (f"file={file},format=raw,if=ide,index={n},snapshot=on" for n, file in enumerate(files))
    return [word for drive in drives for word in ("-drive", drive)]


_LINUX_MILESTONES: Final = _milestones(
    ("the first line of its log", r"Linux version \d"),
    ("our init runs", r"kvmbox-init: running on \d+ CPU"),
    ("it powers off", r"reboot: Power down"),
)


def _linux_milestones(cpus: int) -> tuple[Milestone, ...]:
    first, init, last = _LINUX_MILESTONES
    return (first, Milestone(init.name, init.pattern.replace(r"\d+", str(cpus))), last)


_ROOT_MILESTONES: Final = _milestones(
    ("the first line of its log", r"Linux version \d"),
    ("its root is on the disk", r"kvmbox-root: \d+ CPU\(s\), /dev/\w+ / ext4"),
    (
        "both drives have their sizes and serial numbers",
        r"32768 sectors, serial ROOT-1\n(?s:.*): 2048 sectors, serial kvmbox-disk1\n",
    ),
    ("it reads and writes the disk", r"kvmbox-root: what was written is read"),
    ("it powers off", r"reboot: Power down"),
)
_DEVICES_MILESTONES: Final = _milestones(
    ("the first line of its log", r"Linux version \d"),
    (
        "its PCI functions are those of the specification",
        "".join(
            rf"kvmbox-pci: 0000:00:{place} {ids}\n"
            for place, ids in (
                (r"00\.0", "0x060000 0x8086 0x1237"),
                (r"01\.0", "0x060100 0x8086 0x7000"),
                (r"01\.1", "0x010100 0x8086 0x7010"),
                (r"02\.0", "0x030000 0x1234 0x1111"),
                (r"03\.0", "0x010000 0x1af4 0x1001"),
                (r"04\.0", "0x00ff00 0x1af4 0x1005"),
            )
        )
        + "kvmbox-block",
    ),
    ("its disks have their names", r"sda 2048\n(?s:.*)sdb 2048\n(?s:.*)vda 2048\n"),
    ("it finds the mouse", r"kvmbox-input: ImExPS/2 Generic Explorer Mouse\n"),
    ("its console is on the frame buffer", r"kvmbox-frame-buffer: 0 VESA VGA 640,480\n"),
    ("it has drawn there", r"kvmbox-drawn: 1000\n"),
    ("it powers off", r"reboot: Power down"),
)
_XEN_MILESTONES: Final = _milestones(
    ("its banner", r"Xen version 4\."), ("it has no dom0", r"(?i)dom0|domain 0")
)
_TBOOT_MILESTONES: Final = _milestones(
    ("its banner", r"\* TBOOT \*"), ("it finds no module", r"no MB\d modules")
)
_BOOTED_MILESTONES: Final = _milestones(
    ("its banner", r"Welcome to GRUB|(?:SYS|ISO)LINUX \d"), ("its kernel's message", r"Hello from 32-bit")
)
_DOS_PROMPT: Final = r"A:\\>"
_DOS_MILESTONES: Final = _milestones(
    ("its banner", r"FreeDOS kernel"),
    ("its prompt", _DOS_PROMPT),
    ("it lists its disk", r"MESSAGE\s+TXT"),
)
_MIKEOS_MENU: Final = "Welcome to MikeOS"
_MIKEOS_MILESTONES: Final = _milestones(("its menu", _MIKEOS_MENU), ("it lists its disk", r"EDIT\.BIN"))
_XV6_SHELL: Final = r"init: starting sh(?s:.*?)\$ "
_XV6_LISTED: Final = r"console\s+3 \d+ 0\s+\$ "
_XV6_MILESTONES: Final = _milestones(
    ("it runs", r"cpu0: starting"),
    ("its shell", _XV6_SHELL),
    ("it lists its disk", _XV6_LISTED),
)
_XV6_TYPED: Final = ((_XV6_SHELL, "ls\n"),)
_JOS_MILESTONES: Final = _milestones(
    ("it runs", r"6\.828 decimal"),
    ("its disk", r"superblock is good"),
    ("it reads and writes files", r"file rewrite is good"),
    ("its shell", r"init: running sh"),
)
_MEMTEST_MILESTONES: Final = _milestones(("its screen", r"Memtest86\+"))
_U_BOOT_MILESTONES: Final = _milestones(("its banner", r"U-Boot (SPL )?20\d\d"), ("its prompt", r"=> "))
# The decompressor takes BMI2 from CPUID, which shows the host's features whatever KVM is told to show.
_NO_SHLX: Final = Limit(0, "SHLX is refused, in its decompressor", 10, "shlx")
_NO_RDSSP: Final = Limit(0, "RDSSP is refused", 10, "rdssp")
_NO_FINIT: Final = Limit(0, "FINIT is refused", 10, "fwait")
_IRET: Final = ("IRET is refused in 32-bit mode", 10, "iret")
_LINUX_S: Final = 240


GUESTS: Final = (
    Guest(
        "GNU Mach",
        GNUMACH[0],
        "ELF64 with a Multiboot 1 header, gzip",
        _gnumach,
        _milestones(("its first message", r"(?i)biosmem|Mach"), ("it finds no module", r"No bootstrap")),
        {"pvm": Limit(0, "FNSTSW is refused", 10, "fnstsw")},
    ),
    *(
        Guest(
            f"Xen, {form}",
            XEN[0],
            f"ELF32, {form}, gzip",
            _xen(way),
            _XEN_MILESTONES,
            {"pvm": _NO_RDSSP},
        )
        for way, form in (("multiboot", "Multiboot 1"), ("multiboot2", "Multiboot 2"))
    ),
    *(
        Guest(f"tboot, {form}", TBOOT[0], f"ELF32, {form}, gzip", _tboot(way), _TBOOT_MILESTONES)
        for way, form in (("multiboot", "Multiboot 1"), ("multiboot2", "Multiboot 2"))
    ),
    *(
        Guest(
            f"memtest86+, {bits} bits",
            "memtest86+",
            f"bzImage, {bits}-bit entry",
            _memtest(which),
            _MEMTEST_MILESTONES,
            {"pvm": _NO_FINIT},
        )
        for which, bits in (("x64", 64), ("ia32", 32))
    ),
    Guest(
        "iPXE, a disk",
        "ipxe",
        "boot sector of a hybrid ISO",
        _ipxe_disk,
        _milestones(("its boot loader", r"ISOLINUX \d"), ("its banner", r"iPXE \d")),
        {"pvm": Limit(1, *_IRET)},
        timeout_s=90,
    ),
    Guest(
        "iPXE, a CD",
        "ipxe",
        "hybrid ISO, El Torito without emulation",
        _ipxe_cd,
        _milestones(("its boot loader", r"ISOLINUX \d"), ("its banner", r"iPXE \d")),
        {"pvm": Limit(1, *_IRET)},
        timeout_s=90,
    ),
    Guest(
        "GRUB, a CD",
        "grub-pc-bin",
        "ISO of grub-mkrescue, with a Multiboot kernel",
        _grub_cd,
        _milestones(("its banner", r"Welcome to GRUB"), ("its kernel's message", r"Hello from 32-bit")),
        timeout_s=240,
    ),
    Guest(
        "GRUB, a disk",
        "grub-pc-bin",
        "the same ISO as a disk",
        _grub_disk,
        _BOOTED_MILESTONES,
        timeout_s=240,
    ),
    *(
        Guest(name, package, form, start, _BOOTED_MILESTONES, {"pvm": Limit(1, *_IRET)}, timeout_s=90)
        for name, package, form, start in (
            ("ISOLINUX, a CD", "isolinux", "ISO, with a Multiboot kernel", _isolinux_cd),
            ("SYSLINUX, a disk", "syslinux-common", "MBR, FAT16, with a Multiboot kernel", _syslinux_disk),
        )
    ),
    *(
        Guest(
            name,
            tree.name,
            "boot sector, ATA",
            _tree(tree, files, memory),
            milestones,
            {"pvm": Limit(0, "its page tables are refused", 6)},
            timeout_s=120,
            typed=typed,
        )
        for name, tree, files, memory, milestones, typed in (
            ("xv6", trees.XV6, ("xv6.img", "fs.img"), "512M", _XV6_MILESTONES, _XV6_TYPED),
            (
                "xv6, 64 bits",
                trees.XV6_64,
                ("obj/xv6.img", "obj/fs.img"),
                "512M",
                _XV6_MILESTONES,
                _XV6_TYPED,
            ),
            ("JOS", trees.JOS, ("obj/kern/kernel.img", "obj/fs/fs.img"), "128M", _JOS_MILESTONES, ()),
            (
                "NanoCore",
                trees.NANOCORE,
                ("build/hd.img", "build/user/tarfs.img"),
                "512M",
                _milestones(("it runs", r"NanoCore booting"), ("its shell", r"Hello World from shell")),
                (),
            ),
        )
    ),
    Guest(
        "FreeDOS, a diskette",
        trees.FREEDOS.name,
        "boot sector, FAT12; a disk with FAT16",
        _freedos,
        _DOS_MILESTONES,
        timeout_s=240,
        typed=((_DOS_PROMPT, "dir c:\r"),),
    ),
    *(
        Guest(
            f"MikeOS, a {medium}",
            trees.MIKEOS.name,
            form,
            start,
            _MIKEOS_MILESTONES,
            typed=((_MIKEOS_MENU, "\r"),),
        )
        for medium, form, start in (
            ("diskette", "boot sector, FAT12", _mikeos_diskette),
            ("CD", "ISO, El Torito with a diskette", _mikeos_cd),
        )
    ),
    Guest(
        "iPXE, a kernel",
        "ipxe",
        "bzImage with a real-mode entry alone",
        _ipxe_kernel,
        _milestones(("its banner", r"iPXE \d")),
        {"pvm": Limit(0, "its decompressor takes minutes, instruction by instruction")},
    ),
    Guest(
        "SeaBIOS",
        "seabios",
        "firmware, 256 KiB",
        _seabios,
        _milestones(("its banner", r"SeaBIOS \(version"), ("it finds nothing to boot", r"No bootable")),
        timeout_s=90,
    ),
    Guest(
        "SeaBIOS, a disk",
        "seabios",
        "firmware, 256 KiB, ATA",
        _seabios_and_disk,
        _milestones(("its banner", r"SeaBIOS \(version"), ("its disk boots", r"ok by cylinder")),
        timeout_s=90,
    ),
    Guest(
        "qboot and Linux",
        "qemu-system-data",
        "firmware, 64 KiB",
        _qboot,
        _LINUX_MILESTONES,
        {"pvm": _NO_SHLX},
        timeout_s=_LINUX_S,
    ),
    *(
        Guest(f"U-Boot, {bits} bits", U_BOOT, "firmware, 1 MiB", _u_boot(build), _U_BOOT_MILESTONES, limits)
        for bits, build, limits in (
            (32, "qemu-x86", {"pvm": Limit(1, *_IRET)}),
            (64, "qemu-x86_64", {"pvm": Limit(0, *_IRET)}),
        )
    ),
    Guest(
        "U-Boot, a disk",
        U_BOOT,
        "firmware, 1 MiB, ATA",
        _u_boot_and_disk,
        _milestones(
            ("its banner", r"U-Boot (SPL )?20\d\d"),
            ("its disk", r"Model: \w+ HARDDISK(?s:.*)31\.\d MB"),
            ("its prompt", r"=> "),
        ),
        {"pvm": Limit(1, *_IRET)},
    ),
    *(
        Guest(
            f"Linux, {form}, {cpus} CPU{'s' * (cpus > 1)}",
            LINUX[0],
            form,
            _linux(way, cpus),
            _linux_milestones(cpus),
            {"pvm": limit},
            timeout_s=_LINUX_S,
        )
        for way, form, limit in (
            ("linux", "bzImage", _NO_SHLX),
            ("pvh", "PVH", Limit(1, "instructions of its set-up are refused")),
        )
        for cpus in (1, 2)
    ),
    *(
        Guest(
            f"Linux, {what}, {cpus} CPU{'s' * (cpus > 1)}",
            LINUX[0],
            "bzImage, ext4 root on a disk",
            _linux_on_disk(controller, device, cpus),
            _ROOT_MILESTONES,
            {"pvm": _NO_SHLX},
            timeout_s=_LINUX_S,
        )
        for what, controller, device, cpus in (
            ("virtio_blk", "virtio", "/dev/vda", 1),
            ("virtio_blk", "virtio", "/dev/vda", 2),
            ("pata_legacy", "ide", "/dev/sda", 1),
        )
    ),
    Guest(
        "Linux, its devices",
        LINUX_OF_PCS[0],
        "bzImage, PCI, IDE, virtio, mouse, frame buffer",
        _linux_devices,
        _DEVICES_MILESTONES,
        {"pvm": _NO_SHLX},
        timeout_s=_LINUX_S,
    ),
)
