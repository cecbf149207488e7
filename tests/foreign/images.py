"""Where foreign images come from: an environment variable, the installed package, or the package downloaded.

KVMBOX_FOREIGN names a directory with unpacked packages (DIRECTORY/PACKAGE/boot/…), which are taken first.
Then an installed package counts. Everything else is downloaded once with apt into `.lab/foreign` and unpacked
there: no root is needed, and no network the next time. What is made of packages (a kernel taken out of its
gzip file or its bzImage) is kept beside them.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from kvmbox.boot import bundled
from tests.lab.archive import Archive
from tests.lab.modules import Modules
from tests.lab.packages import Apt, Unavailable

TOP: Final = Path(__file__).parents[2]
CACHE: Final = TOP / ".lab/foreign"
VARIABLE: Final = "KVMBOX_FOREIGN"
BUSYBOX: Final = ("busybox-static", "usr/bin/busybox")
LINUX_SCRIPTS: Final = Path(__file__).with_name("linux")
ROOT_SIZE: Final = 16 << 20
ROOT_CONTENT: Final = 128 << 10
"""Bytes that are read and written: without DMA each two bytes of a write are an exit."""
INIT_SOURCE: Final = Path(__file__).with_name("init.c")
_VERSION: Final = "{}.version"
_NO_LIBRARY: Final = (
    "-static",
    "-nostdlib",
    "-nostartfiles",
    "-ffreestanding",
    "-fno-stack-protector",
    "-fno-pie",
)


def find(package: str, pattern: str) -> Path:
    """The one file of `package` that matches `pattern`, below its root. Unavailable if it cannot be had."""
    if given := os.environ.get(VARIABLE):
        return _only(Path(given, package), package, pattern)
    if _installed_version(package) and sorted(Path("/").glob(pattern)):
        return _only(Path("/"), package, pattern)
    if (CACHE.parent / package).exists():  # of the lab itself
        return _only(CACHE.parent / package, package, pattern)
    return _only(_downloaded(package), package, pattern)


def version(package: str) -> str:
    """The version of what `find` finds, or an empty text where nobody has told it."""
    if os.environ.get(VARIABLE):
        return ""
    if installed := _installed_version(package):
        return installed
    file = CACHE / _VERSION.format(package)
    return file.read_text().strip() if file.exists() else ""


def unzipped(package: str, pattern: str) -> Path:
    """The content of a gzip file of a package: for QEMU, which takes no compressed Multiboot kernel."""
    source = find(package, pattern)
    return _made(f"{source.stem}.elf", source, lambda: gzip.decompress(source.read_bytes()))


def vmlinux(package: str, pattern: str) -> Path:
    """The ELF kernel in a bzImage: payload_offset and payload_length of the setup header (boot.rst), zstd."""
    source = find(package, pattern)
    return _made(f"{source.name}.elf", source, lambda: _payload(source.read_bytes()))


def initramfs(directory: Path) -> Path:
    """An archive with nothing but /init of `init.c` and a console, in `directory`."""
    program, archive = directory / "init", directory / "initramfs.cpio"
    if shutil.which("cc") is None:
        raise Unavailable("cc not found: the init of the initramfs cannot be compiled")
    command_output(["cc", "-O1", "-Wall", "-Werror", *_NO_LIBRARY, "-o", str(program), str(INIT_SOURCE)])
    content = Archive()
    content.directory("dev")
    content.device("dev/console", 5, 1)
    content.file("init", program.read_bytes(), executable=True)
    archive.write_bytes(content.pack())
    return archive


def scripted_initramfs(directory: Path, kernel: tuple[str, str], modules: Sequence[str], script: str) -> Path:
    """An archive in `directory` with `modules` of the kernel, and one of `LINUX_SCRIPTS` as its /init."""
    image, archive = find(*kernel), directory / f"{script}-initramfs.cpio"
    tree = image.parents[1] / "usr/lib/modules" / image.name.removeprefix("vmlinuz-")
    if not tree.exists():
        raise Unavailable(f"{kernel[0]} has no modules")
    content = Archive()
    for path in ("bin", "dev", "modules", "new"):
        content.directory(path)
    content.device("dev/console", 5, 1)
    content.file("init", (LINUX_SCRIPTS / script).read_bytes(), executable=True)
    content.file("bin/busybox", find(*BUSYBOX).read_bytes(), executable=True)
    order = Modules(tree).load_order(modules)
    for name, data in order:
        content.file(f"modules/{name}.ko", data)
    content.file("modules/order", "".join(f"{name}\n" for name, _ in order).encode())
    archive.write_bytes(content.pack())
    return archive


def root_disk(directory: Path) -> Path:
    """A disk with an ext4 root file system, without partitions, in `directory`."""
    if shutil.which("mkfs.ext4") is None:
        raise Unavailable("mkfs.ext4 not found: apt-get install e2fsprogs")
    root, image = directory / "linux-root", directory / "root.img"
    for path in ("bin", "dev", "etc", "proc", "sys"):
        (root / path).mkdir(parents=True, exist_ok=True)
    shutil.copy(find(*BUSYBOX), root / "bin/busybox")
    shutil.copy(LINUX_SCRIPTS / "start", root / "etc/start")
    (root / "etc/content").write_bytes(bytes(index % 251 for index in range(ROOT_CONTENT)))
    with image.open("wb") as file:
        file.truncate(ROOT_SIZE)
    command_output(["mkfs.ext4", "-q", "-F", "-d", str(root), str(image)])
    return image


def bundled_file(name: str) -> Path:
    """The file of a bundled guest."""
    found = bundled.find(name)
    if found is None:
        raise Unavailable("the bundled guests are not built: make guests")
    return Path(found)


def grub_cd(directory: Path) -> Path:
    """A CD of grub-mkrescue, in `directory`, on which GRUB boots a bundled Multiboot kernel."""
    for tool in ("grub-mkrescue", "xorriso", "mformat"):
        if shutil.which(tool) is None:
            raise Unavailable(f"{tool} not found: apt-get install grub-pc-bin grub-common xorriso mtools")
    kernel = bundled_file("hello32")
    root, image = directory / "root", directory / "grub.iso"
    (root / "boot/grub").mkdir(parents=True, exist_ok=True)
    shutil.copy(kernel, root / "boot/kernel")
    (root / "boot/grub/grub.cfg").write_text("multiboot /boot/kernel\nboot\n")
    # Few modules: GRUB looks at all of them, which takes long where KVM emulates its instructions.
    modules = "--install-modules=multiboot normal iso9660 biosdisk"
    options = ["-d", "/usr/lib/grub/i386-pc", modules, "--locales=", "--fonts=", "--themes="]
    command_output(["grub-mkrescue", *options, "-o", str(image), str(root)])
    return image


def isolinux_cd(directory: Path) -> Path:
    """A CD on which ISOLINUX boots a bundled Multiboot kernel, in `directory`."""
    if shutil.which("xorriso") is None:
        raise Unavailable("xorriso not found: apt-get install xorriso")
    root, image = directory / "isolinux-root", directory / "isolinux.iso"
    root.mkdir()
    shutil.copy(find("isolinux", "usr/lib/ISOLINUX/isolinux.bin"), root)
    for file in _syslinux_files(directory, "isolinux.cfg"):
        shutil.copy(file, root)
    boot = (
        "-b",
        "isolinux.bin",
        "-c",
        "boot.cat",
        "-no-emul-boot",
        "-boot-load-size",
        "4",
        "-boot-info-table",
    )
    command_output(["xorriso", "-as", "mkisofs", "-quiet", *boot, "-o", str(image), str(root)])
    return image


def syslinux_disk(directory: Path) -> Path:
    """A disk with a partition of FAT16 on which SYSLINUX boots a bundled Multiboot kernel, in `directory`."""
    if shutil.which("syslinux") is None:
        raise Unavailable("syslinux not found: apt-get install syslinux")
    image, files = directory / "syslinux.img", _syslinux_files(directory, "syslinux.cfg")
    place = _fat16_disk(image, files, find("syslinux-common", "usr/lib/syslinux/mbr/mbr.bin").read_bytes())
    command_output(["syslinux", "--offset", place, "--install", str(image)])
    return image


def dos_disk(directory: Path) -> Path:
    """A disk with a partition of FAT16 and message.txt on it, in `directory`."""
    image, message = directory / "dos.img", directory / "message.txt"
    message.write_text("A disk of kvmbox's\r\n")
    _fat16_disk(image, [message])
    return image


def _fat16_disk(image: Path, files: Sequence[Path], boot: bytes = b"") -> str:
    """Make a disk with `files`, and `boot` in its first sector. The offset of its partition, in bytes."""
    for tool in ("mkfs.fat", "mcopy"):
        if shutil.which(tool) is None:
            raise Unavailable(f"{tool} not found: apt-get install dosfstools mtools")
    sectors, first = 65_520, 63  # 65 cylinders of 16 heads and 63 sectors
    entry = struct.pack("<B3sB3sII", 0x80, b"\x01\x01\0", 6, b"\x0f\x3f\x40", first, sectors - first)
    with image.open("wb") as file:
        file.write(boot.ljust(446, b"\0") + entry + bytes(48) + b"\x55\xaa")
        file.truncate(sectors * 512)
    place = str(first * 512)
    geometry = ("--offset", str(first), "-h", str(first), "-g", "16/63", "-F16")
    command_output(["mkfs.fat", *geometry, str(image), str((sectors - first) // 2)])
    command_output(["mcopy", "-i", f"{image}@@{place}", *map(str, files), "::"])
    return place


def _syslinux_files(directory: Path, configuration: str) -> list[Path]:
    """What SYSLINUX and ISOLINUX need to boot a bundled Multiboot kernel; the configuration is made."""
    kernel, file = bundled_file("hello32"), directory / configuration
    file.write_text(f"DEFAULT mboot.c32 {kernel.name}\n")
    modules = ("ldlinux.c32", "mboot.c32", "libcom32.c32")
    return [
        *(find("syslinux-common", f"usr/lib/syslinux/modules/bios/{name}") for name in modules),
        kernel,
        file,
    ]


def _payload(image: bytes) -> bytes:
    """The uncompressed kernel in a bzImage."""
    setup_sectors = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    # The build appends the size of what is inside: four bytes that belong to no format.
    packed = image[start : start + length - 4]
    if not packed.startswith(b"\x28\xb5\x2f\xfd"):
        raise Unavailable("the kernel in the package's bzImage is not compressed with zstd")
    if shutil.which("zstd") is None:
        raise Unavailable(
            "zstd not found: the kernel cannot be taken out of its bzImage (apt-get install zstd)"
        )
    return subprocess.run(["zstd", "-dcq"], input=packed, capture_output=True, check=True).stdout


def _made(name: str, source: Path, make: Callable[[], bytes]) -> Path:
    """A file that is made of `source`, and made again only if `source` is another."""
    stamp = source.stat()
    key = hashlib.sha256(f"{source.name} {stamp.st_size} {stamp.st_mtime_ns}".encode()).hexdigest()[:12]
    target = CACHE / "made" / f"{key}-{name}"
    if not target.exists():
        content = make()
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as scratch:
            scratch.write(content)
        Path(scratch.name).rename(target)
    return target


def _only(top: Path, package: str, pattern: str) -> Path:
    found = sorted(top.glob(pattern))
    if len(found) != 1:
        raise Unavailable(f"{package}: {len(found) or 'no'} file(s) {top / pattern}")
    return found[0]


def _installed_version(package: str) -> str:
    if shutil.which("dpkg-query") is None:
        return ""
    done = subprocess.run(
        ["dpkg-query", "-W", "-f", "${db:Status-Status} ${Version}", package],
        capture_output=True,
        text=True,
        check=False,
    )
    status, _, number = done.stdout.partition(" ")
    return number if done.returncode == 0 and status == "installed" else ""


def _downloaded(package: str) -> Path:
    """The tree of a package that is not installed; of a meta package of a kernel, what it stands for."""
    target = CACHE / package
    if not target.exists():
        for tool in ("apt-get", "apt-cache", "dpkg-deb"):
            if shutil.which(tool) is None:
                raise Unavailable(f"{package} is not installed, and {tool} not found: it is a Debian package")
        CACHE.mkdir(parents=True, exist_ok=True)
        apt, name = Apt(CACHE), package
        if found := re.search(r"^\s*Depends: (linux-image-\S+)$", apt.depends(package), re.MULTILINE):
            name = found[1]
        with tempfile.TemporaryDirectory(dir=CACHE, prefix="fetch-") as scratch:
            archive = apt.download(name, Path(scratch))
            tree = Path(scratch, "tree")
            command_output(["dpkg-deb", "-x", str(archive), str(tree)])
            number = command_output(["dpkg-deb", "-f", str(archive), "Version"])
            (CACHE / _VERSION.format(package)).write_text(number)
            tree.rename(target)
    return target


def command_output(command: Sequence[str]) -> str:
    """stdout of a tool; Unavailable, with the end of what it says, if it fails."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().rpartition("\n")[2]
        raise Unavailable(f"{Path(command[0]).name} fails: {said}")
    return done.stdout
