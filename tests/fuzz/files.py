"""Files that kvmbox reads: disks, compressed kernels, snapshots, recordings, symbols. See `parsers`."""

from __future__ import annotations

import bz2
import errno
import gzip
import json
import lzma
import os
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from functools import partial
from types import SimpleNamespace
from typing import Any, Final
from unittest.mock import patch

from kvmbox.base import layout
from kvmbox.base.memory import GuestMemory
from kvmbox.boot import GuestImage, compressed
from kvmbox.boot.compressed import compression_of, decompressed
from kvmbox.boot.disk.contents import disk_contents
from kvmbox.contract.names import VBE
from kvmbox.devices.qcow2.model import (
    MAPPED,
    OPENED,
    OPENED_FRAME,
    RANGE,
    REFUSED,
    UNALLOCATED,
    WANT,
    WANT_FRAME,
    ZEROS,
)
from kvmbox.devices.vga.dispi import VbeDispi
from kvmbox.explain import symbols
from kvmbox.host.disk import mapped_image
from kvmbox.host.disk.overlay import Overlay
from kvmbox.host.disk.stores import DiskRequest, open_disk
from kvmbox.host.files.sparse_memory import BLOCK
from kvmbox.kvm import uapi
from kvmbox.parts.record import format as fmt
from kvmbox.parts.snapshot import ram, vcpu_state
from kvmbox.parts.snapshot.description import RUNS, VIDEO, DeviceFacts, decode, device_section, encode
from kvmbox.parts.snapshot.file import SnapshotFile
from kvmbox.parts.snapshot.file_layout import Header, Section, decode_header, decode_runs
from kvmbox.tools.replay import reader as replay_reader
from kvmbox.tools.replay.reader import RecordingReader
from kvmbox.wire import protocol
from tests.fuzz.images import SEEDS as IMAGES
from tests.fuzz.parsers import checksum, edited, in_file, refused, told
from tests.support.dice import Dice
from tests.support.disk_images import (
    CD_SECTOR,
    SECTOR,
    boot_entry,
    ext,
    fat,
    gpt,
    gpt_entry,
    iso,
    put,
    section,
    table,
    validation,
)
from tests.support.machine_files import DESCRIPTION, MEMORY_SIZE, SECTIONS
from tests.support.qcow2_images import qcow2
from tests.support.recordings import recording, small_machine

# --- Disks ------------------------------------------------------------------------------------------------

MOST_READS: Final = 4000
MOST_BYTES: Final = 8 << 20
NUMBERS: Final = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 1 << 31, (1 << 32) - 1, 1 << 63, (1 << 64) - 1)


def disk(*pieces: tuple[int, bytes]) -> bytes:
    """A disk of 1 MiB with these sectors."""
    image = bytearray(2048 * SECTOR)
    for sector, data in pieces:
        put(image, sector * SECTOR, data)
    return bytes(image)


def cd_of_descriptors() -> bytes:
    """A CD whose volume descriptors do not end, and whose boot catalog fills its sector."""
    image = bytearray(iso(b"", sectors=1000))
    put(image, 17 * CD_SECTOR + 0x47, struct.pack("<I", 95))
    for number in range(18, 90):
        put(image, number * CD_SECTOR, b"\2CD001\1")
    put(image, 95 * CD_SECTOR, validation() + boot_entry() + section(0xEF, *[boot_entry()] * 61, last=False))
    return bytes(image)


def mend_gpt(image: bytearray) -> None:
    """Give the header of a GPT the right checksum."""
    header = image[SECTOR : SECTOR + 16] + bytes(4) + image[SECTOR + 20 : SECTOR + 92]
    put(image, SECTOR + 16, struct.pack("<I", checksum(bytes(header))))


DISKS: Final = {
    "cd": iso(validation() + boot_entry(2) + section(0xEF, boot_entry()), sectors=1000),
    "mbr": disk(
        (0, table((0x80, 0x83, 64, 100), (0, 0x05, 200, 900), (0, 0x0C, 1200, 99))),
        (64, ext()),
        (200, table((0, 0x83, 1, 9), (0, 0x05, 50, 60))),
        (250, table((0, 0x83, 1, 9))),
        (1200, fat(80)),
    ),
    "gpt": gpt([gpt_entry(34, 99, "ro\7ot"), gpt_entry(100, 199)]),
    "cd of descriptors": cd_of_descriptors(),
    "mbr of links": disk(
        (0, table((0, 0x05, 1, 900))),
        *((1 + number, table((0, 0x83, 1, 9), (0, 0x05, number + 1, 60))) for number in range(200)),
    ),
}
PLACES: Final = {
    "cd": (16 * CD_SECTOR, 17 * CD_SECTOR + 0x47, 19 * CD_SECTOR, 19 * CD_SECTOR + 32, 19 * CD_SECTOR + 64),
    "mbr": (446, 462, 478, 64 * SECTOR + 1024, 200 * SECTOR + 446, 250 * SECTOR + 446, 1200 * SECTOR),
    "cd of descriptors": (95 * CD_SECTOR + 64,),
    "mbr of links": (446, 462),
    "gpt": (SECTOR, SECTOR + 60, 2 * SECTOR, 2 * SECTOR + 128, 2047 * SECTOR, 446),
}
"""Where fields are that lead to others."""
FILE_SYSTEMS: Final = (
    *((3, b"NTFS    "), (0x438, b"\x53\xef"), (54, b"FAT16   "), (82, b"FAT32   "), (3, b"EXFAT   ")),
    *(
        (0, b"\x7fELF"),
        (0x202, b"HdrS"),
        (0, b"XFSB"),
        (0x10040, b"_BHRfS_M"),
        (0, b"hsqs"),
        (0x8001, b"CD001"),
        (510, b"\x55\xaa"),
        (0x13, struct.pack("<HBHHHII", 0, 0xF8, 200, 63, 255, 0, 1 << 20)),  # a FAT32
    ),
)


def hostile_disk(dice: Dice) -> bytes:
    """A disk image made wrong."""
    kind = dice.some(tuple(DISKS))
    image = bytearray(DISKS[kind])
    for _ in range(dice.byte() % 6):
        if dice.byte() < 40:
            at, text = dice.some(FILE_SYSTEMS)
            put(image, at + dice.some((0, 64 * SECTOR, 1200 * SECTOR)), text)
            continue
        place = dice.some(PLACES[kind]) + dice.byte() % 112
        size = dice.some((1, 2, 4, 8))
        number = dice.some((*NUMBERS, *[dice.number(size)] * 8))
        put(image, place, (number & (1 << 8 * size) - 1).to_bytes(size, "little"))
    size = dice.number(3) % len(image) if dice.byte() > 200 else len(image)
    if dice.byte() & 1:
        mend_gpt(image)
    return bytes(image[:size])


def describe_disk(dice: Dice) -> None:
    """What is on a disk is told with bounded work."""
    image = hostile_disk(dice)
    sizes: list[int] = []

    def read(offset: int, size: int) -> bytes:
        assert offset >= 0
        sizes.append(size)
        return image[offset : offset + size]

    found = disk_contents(read, len(image))
    assert len(sizes) < MOST_READS
    assert sum(sizes) < MOST_BYTES
    if found is not None:
        assert str(found.as_json()).isprintable()
        assert found.boots in (True, False)


VHD: Final = bytes(4 * SECTOR) + struct.pack(">8s40xQ4xI448x", b"conectix", 4 * SECTOR, 2)
QCOW2: Final = qcow2({0: b"a", 1: b"", 2: b"b", 70: b"c"}, size=100 * SECTOR)


def hostile_map(dice: Dice, frame: bytes) -> bytes:
    """What a process that reads the map of an image may answer."""
    size = int.from_bytes(QCOW2[24:32], "big")
    ranges = [
        (
            dice.some((ZEROS, UNALLOCATED, 512 * dice.byte(), dice.number(8))),
            dice.some((512, 1 << 9, dice.number(4))),
        )
        for _ in range(dice.byte() % 4)
    ]
    answers = (
        OPENED_FRAME.pack(
            OPENED, dice.some((size, size, size, dice.number(8))), dice.some((9, 9, 12, 30)), dice.byte() & 1
        ),
        bytes((MAPPED,)) + b"".join(RANGE.pack(*one) for one in ranges) + bytes(dice.byte() % 16 // 15),
        WANT_FRAME.pack(WANT, dice.some((0, 512, dice.number(8))), dice.some((8, 512, 1024, dice.number(4)))),
        bytes((REFUSED,)) + dice.randbytes(dice.byte() % 8),
        dice.randbytes(dice.byte() % 6),
    )
    first = 0 if frame[:1] == b"\x01" else 1
    return answers[first if dice.byte() < 170 else dice.byte() % len(answers)]


def connect_map(dice: Dice, mapped: Any) -> bool:
    """Have a hostile process answer for an image."""
    mapped.connect(lambda frame: mapped.hear(hostile_map(dice, frame)))
    return True


def open_any_disk(dice: Dice) -> None:
    """A disk is opened and read, or refused; a process that reads its map may say anything."""
    image = edited(dice, dice.some((VHD, QCOW2, QCOW2, bytes(3 * SECTOR), b"")))
    with in_file(image) as path, in_file(edited(dice, dice.some((bytes(SECTOR), QCOW2)))) as backing:
        request = DiskRequest(
            *(path, dice.some(("overlay", "readonly", "write")), dice.some(("", "", "raw", "qcow2", "vhd"))),
            backing=dice.some(("", "", backing)),
            is_cd=dice.byte() < 20,
        )
        store = refused(partial(open_disk, request, overlay_bytes=8192))
        if store is None:
            return
        try:
            mapped = store.mapped
            if mapped is not None and not refused(partial(connect_map, dice, mapped)):
                return
            uses = dice.byte()
            with patch.object(mapped_image, "_MOST_KEPT", 1 if uses & 128 else 16384):
                for _ in range(uses % 8):
                    use_disk(dice, store)
            assert store.summary().isprintable()
        finally:
            store.close()


def use_disk(dice: Dice, store: Any) -> None:
    """One access of a guest, or of the VMM."""
    offset, size = SECTOR * dice.some((0, 1, dice.byte() % 120)), SECTOR * dice.some((0, 1, 8, 20))
    try:
        match dice.byte() % 7:
            case 0 | 1:
                assert len(store.read(offset, size)) == size
            case 2:
                found = store.read_now(offset, size)
                assert found is None or len(found) == size
            case 3:
                store.write(offset + (dice.byte() > 250), bytes(size))
            case 4:
                store.flush()
                assert store.changed in (False, True)
                store.hear(dice.randbytes(dice.byte() % 9))
                store.read(*dice.some(((-SECTOR, SECTOR), (0, -SECTOR), (0, SECTOR))))
                if store.file_now(offset, size) >= 0:
                    store.was_read(size)
            case 5:
                store.checksum()
            case _:
                state = store.overlay()
                store.restore_overlay(state if dice.byte() & 1 else edited(dice, state))
    except (OSError, ValueError) as error:
        told(error)


def restore_overlay(dice: Dice) -> None:
    """What was written to a disk comes back as it was, or is refused."""
    overlay = Overlay(3 * 4096)
    for _ in range(dice.byte() % 5):
        try:
            overlay.write(
                SECTOR * (dice.byte() % 40) + dice.byte() // 255, bytes([1]) * SECTOR * (dice.byte() % 20)
            )
        except OSError as error:
            told(error)
    for _ in range(2):
        overlay.pieces(SECTOR * dice.byte(), SECTOR * dice.byte())
        overlay.has_any(SECTOR * dice.byte(), SECTOR * dice.byte())
    state = overlay.state()
    given = edited(dice, state)
    other = Overlay(dice.some((8192, 1 << 20)))
    try:
        other.restore(given, dice.some((1 << 20, 20 * SECTOR)))
    except ValueError as error:
        told(error)
        return
    assert other.state() == given


# --- Compressed images ------------------------------------------------------------------------------------

_PLAIN: Final = IMAGES["elf"][0][0][:600]
COMPRESSED: Final = (
    *(
        gzip.compress(_PLAIN, mtime=0),
        lzma.compress(_PLAIN),
        bz2.compress(_PLAIN),
        gzip.compress(bytes(90_000), mtime=0),
    ),
    b"\x28\xb5\x2f\xfd\x20\x03\x19\0\0abc",
)


def decompress(dice: Dice) -> None:
    """A compressed image gives a bounded one, or is refused."""
    data = b"".join(
        edited(dice, dice.some(COMPRESSED)) + bytes(dice.byte() % 3) for _ in range(1 + dice.byte() % 3)
    )
    most = dice.some((80_000, 1 << 20))
    image, way = GuestImage("fuzzed", data), dice.byte()
    with ExitStack() as stack:
        if way & 1:  # as if there could be so many members only
            stack.enter_context(patch.object(compressed, "MOST_MEMBERS", 2))
        if way & 2:  # a newer Python
            stack.enter_context(patch.object(compressed, "sys", SimpleNamespace(version_info=(3, 14))))
        if way & 4:  # one without libraries for Zstandard
            names = ("compression.zstd", "backports.zstd")
            stack.enter_context(patch.dict(sys.modules, dict.fromkeys(names)))
        if way & 8:  # a host without memory
            stack.enter_context(patch.object(compressed, "_end_of_zeros", side_effect=MemoryError))
        found = refused(partial(decompressed, image, max_size=most))
    assert found is None or len(found.data) <= max(most, len(data))
    compression_of(data)


# --- Snapshots --------------------------------------------------------------------------------------------

END: Final = layout.PAGE_SIZE + MEMORY_SIZE + 1000
HEADER: Final = Header(END + 100, MEMORY_SIZE, END, 100, 0)
DESCRIBED: Final = encode(DESCRIPTION, {name: Section(END - 500, 10, 1) for name in (RUNS, *SECTIONS)})
VALUES: Final[tuple[Any, ...]] = (
    None,
    True,
    -1,
    1 << 70,
    1.5,
    [],
    [1],
    {},
    [[]],
    "x",
    "zz",
    "\ud800",
    "a\0b",
    0,
    7,
    [1, 2, 3, 4, 5, 6, 7],
)


def _replaced(dice: Dice, data: Any) -> None:
    """One value of a description becomes another, is left out, or comes twice."""
    for _ in range(8):
        keys = list(data) if isinstance(data, dict) else list(range(len(data)))
        if not keys:
            return
        key = keys[dice.byte() % len(keys)]
        if isinstance(data[key], dict | list) and data[key] and dice.byte() < 200:
            data = data[key]
            continue
        match dice.byte() % 4:
            case 0:
                del data[key]
            case 1 if isinstance(data, dict):
                data["more"] = 1
            case 1:
                data.append(deepcopy(data[key]))
            case _:
                data[key] = deepcopy(dice.some(VALUES))
        return


def describe_machine(dice: Dice) -> None:
    """The description of a snapshot is exactly what one writes, or is refused; so are header and runs."""
    match dice.byte() % 5:
        case 0:
            text = edited(dice, DESCRIBED, (b"{", b"}", b"NaN", b'"', b"[" * 60, b'"boot":1,'))
        case 1:
            data = edited(dice, HEADER.encode(0))
            fields = data[:-4] if dice.byte() & 1 else HEADER.fields()
            refused(
                partial(
                    decode_header, data, dice.some((HEADER.file_size, 7)), dice.some((checksum(fields), 0))
                )
            )
            return
        case 2:
            runs = b"".join(
                struct.pack("<III", dice.byte(), dice.byte() % 9, 0) for _ in range(dice.byte() % 5)
            )
            found = refused(partial(decode_runs, runs + bytes(dice.byte() // 250), MEMORY_SIZE))
            assert found is None or len(found) == len(runs) // 12
            return
        case _:
            whole = json.loads(DESCRIBED)
            for _ in range(dice.byte() % 3):
                _replaced(dice, whole)
            text = json.dumps(whole, separators=(",", ":")).encode("ascii")
    found = refused(partial(decode, text, HEADER))
    if found is not None:
        assert decode(encode(*found), HEADER) == found


def _structures(*, sregs2: bool) -> bytes:
    kinds = (uapi.kvm_regs, uapi.kvm_sregs2 if sregs2 else uapi.kvm_sregs, uapi.kvm_debugregs)
    kinds += (uapi.kvm_vcpu_events, uapi.kvm_lapic_state, uapi.kvm_xcrs)  # type: ignore[assignment]
    return b"".join(bytes(kind()) for kind in kinds)


def restore_cpu(dice: Dice) -> None:
    """The state of a CPU is what was written, or is refused."""
    sregs2 = dice.byte() & 1 == 1
    msrs = [dice.byte() % 4 for _ in range(dice.byte() % 4)]
    count = dice.some((len(msrs), len(msrs), dice.number(4)))
    data = struct.pack("<III", 0, count, dice.some((4096, 4096, 4096, 0))) + _structures(sregs2=sregs2)
    data += bytes(4096) + b"".join(struct.pack("<IQ", index, 5) for index in msrs)
    data = edited(dice, data)
    found = refused(partial(vcpu_state.decode, data, xsave_size=4096, sregs2=sregs2))
    assert found is None or vcpu_state.encode(found) == data


AREA: Final = layout.PAGE_SIZE
"""Where guest memory is in a file."""
BLOCKS: Final = {0: bytes(0x1000) + b"hello", MEMORY_SIZE // BLOCK - 1: bytes(BLOCK - 5) + b"world"}
"""The blocks that are not zero."""


def _dispi(*registers: tuple[int, int]) -> bytes:
    """The state of a display interface whose registers were written so."""
    dispi = VbeDispi()
    for index, value in registers:
        dispi.write(0, 0, 2, index)
        dispi.write(0, 2, 2, value)
    return dispi.snapshot()


STATES: Final[tuple[bytes, ...]] = (
    _dispi(),
    _dispi((0, 0xB0C5), (1, 640), (2, 480), (3, 8), (4, 1), (5, 3)),
    VbeDispi().snapshot()[:-1],
)
"""Of a display interface: as at the start, with a bank in the window, and damaged."""


def snapshot_file(dice: Dice) -> Iterator[tuple[int, bytes]]:
    """The pieces of a snapshot of a small machine, with their places: some is wrong, or nothing."""
    runs = [[first, 1, checksum(data.ljust(BLOCK, b"\0"))] for first, data in BLOCKS.items()]
    wrong = dice.byte() % 16
    if wrong == 9:  # not the last one
        runs.pop()
    if wrong == 1:
        runs[dice.byte() & 1][dice.byte() % 3] = dice.some((0, 1, 2, 255, 256, dice.number(4)))
    blobs = {RUNS: b"".join(struct.pack("<III", *run) for run in runs) + bytes(wrong == 2), **SECTIONS}
    description = DESCRIPTION
    if dice.byte() & 1:
        blobs[VIDEO] = dice.some((b"", b"dots", bytes(layout.FRAME_BUFFER_SIZE + 1) if wrong == 3 else b"x"))
        if dice.byte() & 1:
            blobs[device_section(VBE)] = dice.some(STATES)
            described = (*description.devices, DeviceFacts(VBE, 0, True))
            description = description.replaced(devices=described)
    place, table_ = AREA + MEMORY_SIZE, {}
    for name, data in blobs.items():
        table_[name] = Section(place, len(data), checksum(data) ^ (wrong == 4 and dice.byte() < 50))
        yield place, data
        place += len(data)
    text = encode(description, table_)
    yield place, edited(dice, text) if wrong == 5 else text
    header = Header(place + len(text), MEMORY_SIZE, place, len(text), checksum(text))
    yield (
        0,
        edited(dice, header.encode(checksum(header.fields())))
        if wrong == 6
        else header.encode(checksum(header.fields())),
    )
    for first, data in list(BLOCKS.items())[: len(runs)]:
        yield AREA + first * BLOCK, edited(dice, data)[:BLOCK] if wrong == 7 else data
    if wrong == 8:
        yield AREA + dice.number(4) % MEMORY_SIZE, dice.some((b"\0", b"\1"))


def read_snapshot(dice: Dice) -> None:
    """A file is a snapshot whose sections and memory are right, or is refused with its name."""
    with in_file(b"") as path:
        with open(path, "r+b") as written:
            for place, data in snapshot_file(dice):
                written.seek(place)
                written.write(data)
            if dice.byte() > 240:
                written.truncate(dice.some((0, 8, 40, AREA + 9, dice.number(3))))
        file = refused(partial(SnapshotFile, dice.some((path,) * 15 + ("/nowhere\0", "/nowhere", "/"))))
        if file is None:
            return
        with file, unlike_others(dice):
            for name in file.sections:
                refused(partial(file.section, name))
            memory = refused(file.memory)
            if memory is not None:
                assert memory.read(0x1000, 5) == b"hello"
                memory.close()
                shorten(dice, file)


ERRORS: Final = (OSError(errno.EINVAL, "no holes"), OSError(errno.EIO, "bad"), OSError("odd"))


@contextmanager
def unlike_others(dice: Dice) -> Iterator[None]:
    """Now and then, the host has a file system that does not tell holes, or fails."""
    error, seek = dice.some((None, None, *ERRORS)), os.lseek

    def lseek(descriptor: int, place: int, how: int) -> int:
        if error is not None and how == os.SEEK_DATA:
            raise error
        return seek(descriptor, place, how)

    with patch.object(os, "lseek", lseek):
        yield


def shorten(dice: Dice, file: SnapshotFile) -> None:
    """Its owner makes a good snapshot shorter, after its description was read."""
    runs = decode_runs(file.section(RUNS), MEMORY_SIZE)
    size = dice.some((AREA, AREA + BLOCK // 2, AREA + BLOCK, AREA + MEMORY_SIZE))
    os.truncate(file.path, size)
    memory = GuestMemory(MEMORY_SIZE)
    try:
        refused(partial(ram.read, memory, runs, file.descriptor))
        assert memory.read(0, 5) == bytes(5)
    finally:
        memory.close()


# --- Recordings -------------------------------------------------------------------------------------------

_MACHINE: Final = small_machine()
RECORDING: Final = recording(_MACHINE.records)
_HEADER_SIZE: Final = fmt.PREAMBLE.size + fmt.header_length(RECORDING[: fmt.PREAMBLE.size])
STREAM: Final = zlib.decompress(RECORDING[_HEADER_SIZE:])
_SIZES: Final = [fmt.RECORD.size + len(one.request) + len(one.reply) for one in _MACHINE.records]
REQUESTS: Final = [sum(_SIZES[:number]) + fmt.RECORD.size for number in range(len(_SIZES))]
"""Where the requests are in it."""
TOO_LONG: Final = b"".join(
    (
        fmt.RECORD.pack(0, fmt.EXCHANGE, protocol.MAX_FRAME + 1, 0),
        protocol.Request(protocol.RECEIVE, 0, 0, 1).encode()[:-4],
        struct.pack("<I", protocol.MAX_PAYLOAD + 1),
        bytes(protocol.MAX_PAYLOAD + 1),
    )
)
"""A record of a request that fits in no frame."""
HEADER_WORDS: Final = (
    b'"channels"',
    b"[",
    b"]",
    b"{",
    b"}",
    b'"inject":["x"],',
    b'"inject":[1],',
    b"null",
    b"-1",
)


def read_recording(dice: Dice) -> None:
    """The records of a recording are whole, and behind damage there is one line."""
    header = RECORDING[:_HEADER_SIZE]
    if dice.byte() < 80:
        text = edited(dice, header[fmt.PREAMBLE.size :], HEADER_WORDS)
        if dice.byte() & 1:
            whole = json.loads(header[fmt.PREAMBLE.size :]) | dice.some(
                ({}, {"inject": ["x"]}, {"inject": 1})
            )
            _replaced(dice, whole)
            text = json.dumps(whole).encode("ascii")
        length = dice.some((len(text), len(text), len(text) + 9, 1 << 30))
        header = (
            edited(
                dice, fmt.PREAMBLE.pack(fmt.MAGIC, dice.some((fmt.VERSION, 0)), dice.byte() // 250, length)
            )
            + text
        )
    plain = bytearray(STREAM)
    edits = dice.byte()
    for _ in range(edits % 3):  # another kind, size or value of one of the requests
        at = dice.some(REQUESTS)
        plain[at + dice.some((0, 1, 2, 3, 16, 17))] = dice.some((10, 11, 13, 15, 16, 17, 18, dice.byte()))
    stream = edited(
        dice,
        bytes(plain),
        (TOO_LONG, fmt.encode_end(fmt.End(fmt.EndReason.LIMIT, 3))),
    ) + bytes(edits // 252)
    packed = zlib.compress(stream) if dice.byte() < 200 else edited(dice, zlib.compress(stream))
    data = header + packed[: len(packed) - dice.byte() // 200] + bytes(dice.byte() // 250)
    with in_file(data if dice.byte() < 240 else data[: dice.byte()]) as path, ExitStack() as stack:
        if dice.byte() & 1:  # it comes in small pieces
            for name in ("READ_SIZE", "INFLATE_SIZE"):
                stack.enter_context(patch.object(replay_reader, name, 1 + dice.byte()))
        reader = refused(partial(RecordingReader, dice.some((path, "/nowhere"))))
        if reader is None:
            return
        assert (
            fmt.decode_inject(fmt.encode_header(reader.channels, reader.inject)[fmt.PREAMBLE.size :])
            == reader.inject
        )
        with reader:
            records = refused(lambda: list(reader.records()))
            assert records is None or reader.ending.records == len(records)
            if records is not None and (notice := reader.ending.notice()) is not None:
                assert notice.isprintable()
            assert all(text.isprintable() for text in reader.warnings())


# --- Symbols ----------------------------------------------------------------------------------------------


def _with_symbols(*, wide: bool) -> bytes:
    """An ELF file with two symbols, and sections for them: instructions, symbols, names."""
    names = b"\0main\0data\0"
    if wide:
        symbol, entry, header = "<IBBHQQ", "<IIQQQQIIQQ", "<16sHHIQQQIHHHHHH"
        values = [(1, 0x12, 0, 1, 0x1000, 16), (6, 0x01, 0, 1, 0x1010, 0), (0, 0, 0, 0, 0, 0)]
    else:
        symbol, entry, header = "<IIIBBH", "<10I", "<16sHHIIIIIHHHHHH"
        values = [(1, 0x1000, 16, 0x12, 0, 1), (6, 0x1010, 0, 0x01, 0, 1), (0, 0, 0, 0, 0, 0)]
    table_ = b"".join(struct.pack(symbol, *one) for one in values)
    first = struct.calcsize(header)
    sections = [
        (0,) * 10,
        (0, 1, 4, 0x1000, first, 0x20, 0, 0, 1, 0),
        (0, 2, 0, 0, first, len(table_), 3, 0, 8, len(table_) // 3),
        (0, 3, 0, 0, first + len(table_), len(names), 0, 0, 1, 0),
    ]
    at = first + len(table_) + len(names)
    ident = b"\x7fELF" + bytes((2 if wide else 1, 1, 1))
    size = struct.calcsize(entry)
    fields = (ident, 2, 62, 1, 0x1000, 0, at, 0, first, 0, 0, size, 4, 3)
    return (
        struct.pack(header, *fields) + table_ + names + b"".join(struct.pack(entry, *one) for one in sections)
    )


SYMBOLS: Final = (
    _with_symbols(wide=True),
    _with_symbols(wide=False),
    b"0000000000001000 T main\n0000000000001010 d _ZN4core3fmtE\n0000000000001010 A x\nffff t y\n",
)


def name_addresses(dice: Dice) -> None:
    """Symbols of any file answer every question."""
    data, base = edited(dice, dice.some(SYMBOLS), (b"\x0a\0\0\0", b"\x0b\0\0\0")), dice.some((0, 0, 1 << 40))
    refused(partial(symbols.checked, data, "a map"))
    most = dice.some((symbols.MOST_SYMBOLS, 1))
    with patch.object(symbols, "MOST_SYMBOLS", most):
        found = symbols.read(data, base)
    for address in (0x1000, 0x1008, 0x1010, 0x1020, base + 0x1001, 0, (1 << 64) - 1, dice.number(2)):
        place = found.at(address)
        assert place is None or str(place.behind(0))
    assert found.find("main") is None or len(found)
    symbols.entry_of(data, base)
    symbols.code_of(data, base)


TARGETS: Final[dict[str, Callable[[Dice], None]]] = {
    "disk-contents": describe_disk,
    "disk-formats": open_any_disk,
    "disk-overlay": restore_overlay,
    "compressed": decompress,
    "snapshot-text": describe_machine,
    "snapshot-cpu": restore_cpu,
    "snapshot-file": read_snapshot,
    "recordings": read_recording,
    "symbols": name_addresses,
}
