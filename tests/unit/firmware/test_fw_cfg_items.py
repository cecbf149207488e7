"""What the guest is told through fw_cfg: keys, sizes and names as QEMU has them, and a layout that fits."""

from __future__ import annotations

import struct

import pytest

from kvmbox.base import layout
from kvmbox.base.errors import UsageError
from kvmbox.devices.fw_cfg.model import DIRECTORY, MOST_BY_DMA
from kvmbox.firmware import fw_cfg
from kvmbox.firmware.fw_cfg import (
    FwCfgItem,
    content_of,
    machine_items,
)
from kvmbox.firmware.fw_cfg_linux import linux_items
from kvmbox.firmware.memory_map import memory_map
from kvmbox.wire.protocol import MAX_BOARD


def read_all(items: list[FwCfgItem]) -> dict[int, bytes]:
    """The items by key, as the device would read them."""
    content = content_of(items)
    joined = b"".join(content.parts)
    assert joined.startswith(content.small)
    return {
        key: joined[place : place + size] for key, size, place in DIRECTORY.iter_unpack(content.directory)
    }


def files(told: dict[int, bytes]) -> dict[str, bytes]:
    """The files of the directory by name, in its order."""
    directory = told[fw_cfg.FILE_DIRECTORY]
    (count,) = struct.unpack_from(">I", directory)
    assert len(directory) == 4 + 64 * count
    found = {}
    for size, key, reserved, name in struct.iter_unpack(">IHH56s", directory[4:]):
        assert reserved == 0
        assert len(told[key]) == size
        found[name.rstrip(b"\0").decode()] = told[key]
    assert list(found) == sorted(found)
    return found


def test_machine_tells_what_qemu_tells() -> None:
    told = read_all(machine_items(128 * layout.MIB, 3))
    assert told[0x00] == b"QEMU"
    assert told[0x01] == b"\x03\0\0\0"
    assert told[0x02] == bytes(16)
    assert told[0x03] == (128 << 20).to_bytes(8, "little")
    assert told[0x04] == b"\x01\0"
    assert told[0x05] == told[0x0F] == b"\x03\0"
    assert told[0x0E] == b"\0\0"
    assert told[0x8002] == b"\x01\0\0\0"


def test_kernel_data_is_absent_where_no_firmware_boots() -> None:
    # kvm-unit-tests takes key 0x11 for the highest address that it may use, and 0 for no limit.
    assert 0x11 not in read_all(machine_items(128 * layout.MIB, 1))


@pytest.mark.parametrize("size", [layout.MIN_MEMORY, 128 * layout.MIB, 5 * layout.GIB])
def test_machine_files_are_those_that_firmware_looks_for(size: int) -> None:
    told = read_all(machine_items(size, 1))
    found = files(told)
    e820 = [(one.base, one.length, one.kind) for one in memory_map(size)]
    assert list(struct.iter_unpack("<QQI", found["etc/e820"])) == e820
    assert told[0x8003] == len(e820).to_bytes(4, "little") + found["etc/e820"]
    assert found["etc/pvpanic-port"] == b"\x05\x05"
    assert found["etc/boot-fail-wait"] == b"\xff" * 4
    end = max(base + length for base, length, _ in e820 if base >= layout.MMIO_HOLE_START)
    assert found["etc/reserved-memory-end"] == end.to_bytes(8, "little")


def test_user_files_are_in_the_directory_with_the_others() -> None:
    told = read_all(
        [*machine_items(1 << 20, 1), FwCfgItem(b"hello", "opt/org.example/b"), FwCfgItem(b"", "opt/a")]
    )
    found = files(told)
    assert found["opt/org.example/b"] == b"hello"
    assert found["opt/a"] == b""


def test_small_items_come_first_and_large_ones_are_not_copied() -> None:
    large = [bytes([number]) * (fw_cfg.SMALL + number) for number in (1, 2)]
    content = content_of(
        [FwCfgItem(large[0], "a"), FwCfgItem(b"s" * fw_cfg.SMALL, "b"), FwCfgItem(large[1], "c")]
    )
    assert content.parts[0] == content.small
    assert len(content.small) == 4 + 3 * 64 + fw_cfg.SMALL
    assert content.parts[1] is large[0]
    assert content.parts[2] is large[1]


def test_as_many_files_as_there_can_be_fit_in_hello() -> None:
    items = [FwCfgItem(bytes(fw_cfg.SMALL), f"opt/{number}") for number in range(fw_cfg.MOST_FILES)]
    content = content_of(items)
    assert len(content.small) + len(content.directory) < MAX_BOARD // 2
    with pytest.raises(UsageError, match="257 files are more than the 256"):
        content_of([*items, FwCfgItem(b"", "opt/one more")])


def test_item_that_is_too_large_is_refused_by_its_name() -> None:
    class Large(bytes):
        def __len__(self) -> int:
            return fw_cfg.MOST_BYTES + 1

    with pytest.raises(UsageError, match="fw_cfg item 'opt/x' has 268435457 bytes, at most 268435456"):
        content_of([FwCfgItem(Large(), "opt/x")])
    with pytest.raises(UsageError, match="fw_cfg item 0x11 has"):
        content_of([FwCfgItem(Large(), key=0x11)])
    assert fw_cfg.MOST_BYTES <= MOST_BY_DMA


def test_two_files_with_one_name_are_refused() -> None:
    with pytest.raises(UsageError, match="two files with the name 'etc/e820'"):
        content_of([*machine_items(1 << 20, 1), FwCfgItem(b"", "etc/e820")])


def test_linux_kernel_has_its_pieces_where_qemu_puts_them() -> None:
    told = read_all([*linux_items(b"setup", b"kernel", b"console=ttyS0", b"initrd", 0x700_0000)])
    numbers = {key: int.from_bytes(told[key], "little") for key in (7, 8, 0xA, 0xB, 0x13, 0x14, 0x16, 0x17)}
    assert numbers == {
        7: 0x10_0000,
        8: 6,
        0xA: 0x700_0000,
        0xB: 6,
        0x13: 0x2_0000,
        0x14: 14,
        0x16: 0x1_0000,
        0x17: 5,
    }
    assert (told[0x11], told[0x12], told[0x15], told[0x18]) == (
        b"kernel",
        b"initrd",
        b"console=ttyS0\0",
        b"setup",
    )
