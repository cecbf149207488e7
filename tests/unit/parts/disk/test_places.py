"""Where drives are, what asks for them, and the image as one of them."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from kvmbox.base.errors import UsageError
from kvmbox.boot.image import GuestImage
from kvmbox.contract.device_spec import Medium
from kvmbox.devices.ide.board import IdeDrive, ide_board
from kvmbox.host.disk.stores import DiskRequest
from kvmbox.parts.disk.boot_image import PaddedStore, image_disk
from kvmbox.parts.disk.disk_option import cd, disk
from kvmbox.parts.disk.places import placed
from kvmbox.run.api.machine import Machine


@pytest.mark.parametrize(
    ("disks", "cds", "places"),
    [
        ("", "", "----"),
        ("a", "", "a---"),
        ("abcd", "", "abcd"),
        ("", "x", "--x-"),
        ("a", "x", "a-x-"),
        ("abc", "x", "abxc"),
        ("ab", "xy", "abxy"),
        ("a", "xyz", "azxy"),
        ("", "wxyz", "zywx"),
    ],
)
def test_drives_take_places_as_on_qemu(disks: str, cds: str, places: str) -> None:
    assert "".join(drive or "-" for drive in placed(list(disks), list(cds))) == places


def test_drives_beyond_the_places_are_refused_with_the_other_way() -> None:
    with pytest.raises(UsageError, match="5 drives at IDE, which has room for 4") as caught:
        placed(list("abc"), list("xy"))
    assert "on=virtio" in (caught.value.hint or "")


def test_both_channels_are_there_with_any_drive_and_an_absent_drive_has_no_bytes() -> None:
    assert ide_board([None] * 4) == []
    primary, secondary = ide_board([None, None, None, IdeDrive("cd0", 3, is_cd=True)])
    assert (primary.name, primary.irqs, primary.parameters) == ("ide0", (14,), {})
    assert (secondary.name, secondary.irqs) == ("ide1", (15,))
    assert [one.first for one in secondary.ports] == [0x170, 0x376]
    assert list(secondary.parameters) == ["slave"]
    assert secondary.granted(Medium) == [
        Medium("", 0, window=0),
        Medium("cd0", 3 * 2048, window=0),
    ]


@pytest.mark.parametrize(("writable", "kind"), [(True, 1), (False, 0x81)])
def test_model_is_told_whether_its_disk_is_written(writable: bool, kind: int) -> None:
    drive = IdeDrive("disk0", 7, writable=writable, serial="ABC")
    assert drive.parameter == bytes((kind,)) + (7).to_bytes(8, "little") + b"ABC".ljust(20)
    assert drive.grant == Medium("disk0", 7 * 512, writable, window=0)


def test_what_asks_for_a_disk() -> None:
    assert disk("a.img,write") == DiskRequest("a.img", "write")
    assert disk(Path("a.img,write")) == DiskRequest("a.img,write")
    request = DiskRequest("b.img", "readonly")
    assert disk(request) is request
    assert cd(Path("c,d.iso")) == cd("c,d.iso") == DiskRequest("c,d.iso", "readonly", "raw", is_cd=True)
    with pytest.raises(UsageError, match=r"^--disk: 'x' is none of "):
        disk("a,x")
    with pytest.raises(UsageError, match=r"^--disk: 7 is neither text, a path nor a DiskRequest$"):
        disk(7)


@pytest.mark.parametrize(("is_cd", "size"), [(False, 1024), (True, 2048)])
def test_image_has_whole_sectors_and_zeros_behind_its_end(is_cd: bool, size: int) -> None:
    _, store = image_disk(GuestImage("i", b"x" * 600), is_cd=is_cd, overlay_bytes=4096)
    assert store.size == size
    assert store.read_now(0, size) == (b"x" * 600).ljust(size, b"\0")
    assert store.writable is not is_cd


def test_bios_sees_zeros_behind_the_image_and_writes_none_of_them() -> None:
    _, store = image_disk(GuestImage("i", b"x" * 512), is_cd=False, overlay_bytes=4096)
    padded = PaddedStore(store)
    assert padded.read(0, 1024) == b"x" * 512 + bytes(512)
    assert padded.read(4096, 512) == bytes(512)
    padded.write(0, b"y" * 512)
    assert store.read(0, 512) == b"y" * 512
    with pytest.raises(OSError, match="no such bytes") as caught:
        padded.write(512, bytes(512))
    assert caught.value.errno == errno.EINVAL


def test_disk_that_is_written_is_no_file_whose_change_boots_again() -> None:
    config = Machine("ata", disks=["a.img,write", "b.img"], cdroms=["c.iso"]).config
    assert config.files_written == [("--disk", "a.img")]
    assert config.files_read[1:] == [("--disk", "b.img"), ("--cdrom", "c.iso")]
