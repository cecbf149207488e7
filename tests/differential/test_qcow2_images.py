"""Images that qemu-img makes: kvmbox reads from them what qemu-img converts them to."""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from kvmbox.base.errors import StartError
from kvmbox.host.disk.stores import READ_ONLY, DiskRequest, DiskStore, open_disk
from tests.support.qcow2_images import Asked, connect

QEMU_IMG: Final = shutil.which("qemu-img")
QEMU_IO: Final = shutil.which("qemu-io")

needs_tools = pytest.mark.skipif(
    QEMU_IMG is None or QEMU_IO is None, reason="no qemu-img: install qemu-utils"
)

pytestmark = [pytest.mark.thorough, needs_tools]
SEED: Final = 20_261_129


def run(*arguments: str | Path | None) -> None:
    subprocess.run([str(one) for one in arguments], check=True, capture_output=True)


def opened(image: Path, *, backing: str = "", format_: str = "qcow2") -> DiskStore:
    disk = open_disk(DiskRequest(str(image), READ_ONLY, format_, backing=backing), overlay_bytes=0)
    if disk.mapped is not None:
        connect(disk.mapped, Asked())
    return disk


def compare(disk: DiskStore, raw: bytes, chance: random.Random) -> None:
    assert disk.size == len(raw)
    for start in range(0, len(raw), 1 << 20):
        assert disk.read(start, min(1 << 20, len(raw) - start)) == raw[start : start + (1 << 20)]
    for _ in range(50):
        offset = chance.randrange(len(raw))
        size = chance.randrange(min(1 << 18, len(raw) - offset))
        assert disk.read(offset, size) == raw[offset : offset + size]
    disk.close()


@pytest.mark.parametrize(
    "options",
    [
        "",
        "cluster_size=512",
        "cluster_size=4096",
        "cluster_size=2M",
        "compat=0.10",
        "lazy_refcounts=on",
        "preallocation=metadata",
        "preallocation=full",
        "refcount_bits=1",
        "compression_type=zstd",
    ],
)
@pytest.mark.parametrize("is_backed", [False, True], ids=["alone", "backed"])
def test_image_reads_as_qemu_converts_it(tmp_path: Path, options: str, is_backed: bool) -> None:
    chance = random.Random(f"{SEED} {options} {is_backed}")
    size = 9 << 20
    image, raw, base = tmp_path / "disk.qcow2", tmp_path / "disk.img", tmp_path / "base.img"
    base.write_bytes(chance.randbytes(5 << 20))
    backing: list[str | Path] = []
    if is_backed:
        if "preallocation" in options:
            pytest.skip("qemu-img preallocates no image that builds on another one")
        backing = ["-b", base, "-F", "raw"]
    run(QEMU_IMG, "create", "-f", "qcow2", "-o", options or "compat=1.1", *backing, image, str(size))
    commands: list[str] = []
    for _ in range(60):
        offset = chance.randrange(size >> 9) << 9
        length = min(chance.choice((512, 4096, 65536, 300_032)), size - offset)
        verb = chance.choice((f"write -P {chance.randrange(256)}", "write -z", "write -z -u", "discard"))
        commands += ["-c", f"{verb} {offset} {length}"]
    run(QEMU_IO, *commands, image)
    run(QEMU_IMG, "convert", "-O", "raw", image, raw)

    compare(opened(image, backing=str(base) if is_backed else ""), raw.read_bytes(), chance)


def test_image_with_a_snapshot_reads_as_it_is_now(tmp_path: Path) -> None:
    image, raw = tmp_path / "disk.qcow2", tmp_path / "disk.img"
    run(QEMU_IMG, "create", "-f", "qcow2", image, "4M")
    run(QEMU_IO, "-c", "write -P 1 0 1M", image)
    run(QEMU_IMG, "snapshot", "-c", "then", image)
    run(QEMU_IO, "-c", "write -P 2 512K 1M", image)
    run(QEMU_IMG, "convert", "-O", "raw", image, raw)

    compare(opened(image), raw.read_bytes(), random.Random(SEED))


def test_fixed_vhd_reads_as_qemu_converts_it(tmp_path: Path) -> None:
    raw, image = tmp_path / "disk.img", tmp_path / "disk.vhd"
    data = random.Random(SEED).randbytes(4 << 20)
    raw.write_bytes(data)
    options = "subformat=fixed,force_size=on"
    run(QEMU_IMG, "convert", "-f", "raw", "-O", "vpc", "-o", options, raw, image)

    compare(opened(image, format_="vhd"), data, random.Random(SEED))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["-o", "extended_l2=on"], "subclusters"),
        (["-o", "encrypt.format=luks,encrypt.key-secret=key"], "encrypted"),
        (["-o", "data_file={}/data"], "external file"),
    ],
)
def test_image_that_needs_more_is_refused(tmp_path: Path, options: list[str], words: str) -> None:
    image = tmp_path / "disk.qcow2"
    secret = ["--object", "secret,id=key,data=x"]
    run(QEMU_IMG, "create", *secret, "-f", "qcow2", *(one.format(tmp_path) for one in options), image, "4M")

    with pytest.raises(StartError, match=words):
        opened(image)


def test_compressed_image_is_refused(tmp_path: Path) -> None:
    raw, image = tmp_path / "disk.img", tmp_path / "disk.qcow2"
    raw.write_bytes(b"text" * (1 << 20))
    run(QEMU_IMG, "convert", "-c", "-O", "qcow2", raw, image)

    with pytest.raises(StartError, match="compressed"):
        opened(image)
