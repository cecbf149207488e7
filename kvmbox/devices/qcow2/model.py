"""A qcow2 image's map: where in the file the sectors of the guest's disk are. Nothing of them is read here.

Theory of operation
-------------------
The model has no registers. Questions arrive as host input, one at a time. Answers are host output:

    OPEN  <BQ   bytes of the file            answer: OPENED  <BQBB  bytes of the disk, bits, backing
    MAP   <BQI  offset and bytes on the disk  answer: MAPPED  <B, and <QQ a range: place, bytes
    DATA  <B    and bytes: those WANTed       answer: that of the question which wants them

A cluster has 1 << bits bytes; backing is 1 if the image builds on another file. The model may want to see
bytes of the file first (WANT <BQI: place, bytes), at most twice a question. What it wants is metadata: the
header, an entry of the L1 table, entries of an L2 table. REFUSED (<B, and text) answers what cannot be done.

The ranges of MAPPED begin at the offset and follow each other. There is at least one. They may end early, and
the rest is asked for again. A place is one in the file, or ZEROS, or UNALLOCATED: what the other file has.

An image is a header, an L1 table of places of L2 tables, and L2 tables of places of clusters. All numbers are
big-endian (QEMU, docs/interop/qcow2.rst: "Header", "Cluster mapping"). Each of them may be hostile. A place
is within the file, or the image is damaged. The work of a question depends on no number in the image.

Refcounts, snapshots and the name of the other file are not looked at: nothing is written, and no file is
opened because an image says so. Compressed clusters, encryption, external data files and subclusters are
refused by name.

The state is what the header says, and the question.
"""

from __future__ import annotations

import struct

from kvmbox.contract.model import HostOutput, SnapshotError, TimelessModel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

OPEN: Final = 1
MAP: Final = 2
DATA: Final = 3
WANT: Final = 4
OPENED: Final = 5
MAPPED: Final = 6
REFUSED: Final = 7

OPEN_FRAME: Final = struct.Struct("<BQ")
MAP_FRAME: Final = struct.Struct("<BQI")
WANT_FRAME: Final = struct.Struct("<BQI")
OPENED_FRAME: Final = struct.Struct("<BQBB")
RANGE: Final = struct.Struct("<QQ")

ZEROS: Final = (1 << 64) - 1
UNALLOCATED: Final = (1 << 64) - 2

MOST_WANTED: Final = 1024
"""Bytes of the file that one WANT is about, at most."""
MOST_WANTS: Final = 2
"""How often one question wants bytes."""

MOST_WORDS: Final = 200
"""Bytes of the text of REFUSED, at most."""

LEAST_BITS: Final = 9
MOST_BITS: Final = 21

MAGIC: Final = b"QFI\xfb"
_HEADER: Final = struct.Struct(">4sIQIIQIIQ")  # up to the place of the L1 table
_HEADER_3: Final = struct.Struct(">72xQ")  # incompatible features
_HEADER_SIZE: Final = 112
_NO_FEATURES: Final = (
    (1, "it is marked corrupt: 'qemu-img check -r all' repairs it"),
    (2, "its data is in an external file"),
    (4, "its clusters have subclusters (extended L2 entries)"),
)
_KNOWN_FEATURES: Final = 0x1F  # dirty, corrupt, external data, compression type, extended L2 entries

_MOST_FILE: Final = 1 << 62
_MOST_DISK: Final = 1 << 56
_ENTRY: Final = 8
_PLACE: Final = 0x00FF_FFFF_FFFF_FE00  # of L1 and L2 entries
_COMPRESSED: Final = 1 << 62
_ZERO: Final = 1 << 0
_L1_RESERVED: Final = 0x7F00_0000_0000_01FF
_L2_RESERVED: Final = 0x3F00_0000_0000_01FE

_IDLE: Final = 0
_WANTS_HEADER: Final = 1
_WANTS_L1: Final = 2
_WANTS_L2: Final = 3

_SNAPSHOT: Final = struct.Struct("<4sQQBBBQIBQI")
_SNAPSHOT_MAGIC: Final = b"QC2\x01"


class Qcow2(TimelessModel):
    """See the module.

    >>> image = Qcow2()
    >>> image.receive(0, OPEN_FRAME.pack(OPEN, 1 << 20))
    9
    >>> (wanted,) = image.take_effects()
    >>> WANT_FRAME.unpack(wanted.data)  # the header
    (4, 0, 112)
    >>> image.receive(0, bytes((DATA,)) + bytes(112))
    113
    >>> image.take_effects()
    [HostOutput(data=b'\\x07it is no qcow2 image')]
    """

    __slots__ = (
        "_backed",
        "_bits",
        "_file",
        "_l1",
        "_l1_entries",
        "_offset",
        "_size",
        "_step",
        "_version",
        "_wanted",
    )

    def __init__(self) -> None:
        super().__init__()
        self._forget()

    def _forget(self) -> None:
        self._file = 0  # bytes of the file
        self._size = 0  # bytes of the disk: 0 until it is open
        self._bits = 9  # a cluster has 1 << bits bytes
        self._version = 2
        self._backed = 0
        self._l1 = 0  # where the L1 table is
        self._l1_entries = 0
        self._step = _IDLE
        self._offset = 0
        self._wanted = 0  # bytes of the disk that are asked for

    def read(self, now: int, offset: int, size: int) -> int:
        """See DeviceModel. There are no registers."""
        return (1 << 8 * size) - 1

    def write(self, now: int, offset: int, size: int, value: int) -> None:
        """See DeviceModel. There are no registers."""

    def receive(self, now: int, data: bytes) -> int:
        """See DeviceModel. A question ends the one before. What is none is dropped."""
        kind = data[0] if data else 0
        if kind == OPEN and len(data) == OPEN_FRAME.size:
            self._forget()
            self._file = min(OPEN_FRAME.unpack(data)[1], _MOST_FILE)
            self._want(_WANTS_HEADER, 0, _HEADER_SIZE)
        elif kind == MAP and len(data) == MAP_FRAME.size:
            _, self._offset, self._wanted = MAP_FRAME.unpack(data)
            self._find_l1()
        elif kind == DATA and self._step != _IDLE:
            step, self._step = self._step, _IDLE
            (self._read_header, self._read_l1, self._read_l2)[step - _WANTS_HEADER](data[1:])
        return len(data)

    # --- The header --------------------------------------------------------------------------------------

    def _read_header(self, data: bytes) -> None:
        if len(data) < _HEADER_SIZE or not data.startswith(MAGIC):
            self._refuse("it is no qcow2 image")
            return
        _, version, backing, _, bits, size, encryption, entries, table = _HEADER.unpack_from(data)
        features = _HEADER_3.unpack_from(data)[0] if version == 3 else 0
        problem = _header_problem(version, bits, size, encryption, features)
        if not problem and entries < -(-size >> 2 * bits - 3):
            problem = f"its L1 table has {entries} entries, too few for {size} bytes"
        if not problem and (table % (1 << bits) or not 0 < table < self._file):
            problem = f"its L1 table is at {table:#x}"
        if problem:
            self._refuse(problem)
            return
        self._size, self._bits, self._version, self._backed = size, bits, version, int(backing != 0)
        self._l1, self._l1_entries = table, entries
        self._effects.append(HostOutput(OPENED_FRAME.pack(OPENED, size, bits, self._backed)))

    # --- The map -----------------------------------------------------------------------------------------

    def _find_l1(self) -> None:
        if not self._wanted or self._offset + self._wanted > self._size:
            self._refuse("there are no such bytes on the disk")
            return
        index = self._offset >> 2 * self._bits - 3
        self._want(_WANTS_L1, self._l1 + index * _ENTRY, _ENTRY)

    def _read_l1(self, data: bytes) -> None:
        span = 1 << 2 * self._bits - 3  # bytes of the disk that one L2 table maps
        self._wanted = min(self._wanted, span - self._offset % span)
        entry = int.from_bytes(data, "big")
        table = entry & _PLACE
        if len(data) != _ENTRY or entry & _L1_RESERVED or not self._is_cluster(table):
            self._refuse(f"its L1 table is damaged: {data.hex()} for byte {self._offset}")
        elif not table:
            self._answer([(UNALLOCATED, self._wanted)])
        else:
            first = self._offset % span >> self._bits
            last = (self._offset + self._wanted - 1) % span >> self._bits
            size = min((last - first + 1) * _ENTRY, MOST_WANTED)
            self._want(_WANTS_L2, table + first * _ENTRY, size)

    def _read_l2(self, data: bytes) -> None:
        cluster = 1 << self._bits
        ranges: list[tuple[int, int]] = []
        skip = self._offset % cluster
        left = self._wanted
        for (entry,) in struct.iter_unpack(">Q", data[: len(data) // _ENTRY * _ENTRY]):
            place, problem = self._place_of(entry)
            if problem and not ranges:
                self._refuse(f"{problem}, at byte {self._offset}")
                return
            if problem or not left:
                break
            size = min(cluster - skip, left)
            _append(ranges, place if place >= UNALLOCATED else place + skip, size)
            left -= size
            skip = 0
        if ranges:
            self._answer(ranges)
        else:
            self._refuse("its L2 table is damaged")

    def _place_of(self, entry: int) -> tuple[int, str]:
        """Where the cluster of an L2 entry is; or why it is nowhere."""
        if entry & _COMPRESSED:
            return 0, "it has compressed clusters"
        place = entry & _PLACE
        if entry & _L2_RESERVED or not self._is_cluster(place) or (entry & _ZERO and self._version < 3):
            return 0, f"its L2 table is damaged: {entry:016x}"
        if entry & _ZERO:
            return ZEROS, ""
        return place or UNALLOCATED, ""

    def _is_cluster(self, place: int) -> bool:
        return place < self._file and not place % (1 << self._bits)

    # --- Answers -----------------------------------------------------------------------------------------

    def _want(self, step: int, place: int, size: int) -> None:
        self._step = step
        self._effects.append(HostOutput(WANT_FRAME.pack(WANT, place, size)))

    def _answer(self, ranges: list[tuple[int, int]]) -> None:
        packed = b"".join(RANGE.pack(place, size) for place, size in ranges)
        self._effects.append(HostOutput(bytes((MAPPED,)) + packed))

    def _refuse(self, why: str) -> None:
        self._step = _IDLE
        self._effects.append(HostOutput(bytes((REFUSED,)) + why.encode("ascii", "replace")))

    def reset(self, now: int) -> None:
        """See DeviceModel. An image stays open: it is a thing of the host."""

    def snapshot(self) -> bytes:
        """See DeviceModel."""
        return _SNAPSHOT.pack(
            _SNAPSHOT_MAGIC,
            self._file,
            self._size,
            self._bits,
            self._version,
            self._backed,
            self._l1,
            self._l1_entries,
            self._step,
            self._offset,
            self._wanted,
        )

    def restore(self, state: bytes) -> None:
        """See DeviceModel."""
        if len(state) != _SNAPSHOT.size or not state.startswith(_SNAPSHOT_MAGIC):
            raise SnapshotError("not a snapshot of a qcow2 map")
        _, file, size, bits, version, backed, table, entries, step, offset, wanted = _SNAPSHOT.unpack(state)
        if (
            _header_problem(version, bits, size or 512, 0, 0)
            or step > _WANTS_L2
            or backed > 1
            or table >= max(file, 1)
            or file > _MOST_FILE
            or (step > _WANTS_HEADER and not 0 < wanted <= size - offset)
        ):
            raise SnapshotError("a snapshot of a qcow2 map that cannot be")
        self._file, self._size, self._bits, self._version, self._backed = file, size, bits, version, backed
        self._l1, self._l1_entries, self._step, self._offset, self._wanted = (
            table,
            entries,
            step,
            offset,
            wanted,
        )
        self._effects = []


def _append(ranges: list[tuple[int, int]], place: int, size: int) -> None:
    """Add a range, joined to the last one if it goes on there."""
    if ranges:
        before, length = ranges[-1]
        if place == (before if place >= UNALLOCATED else before + length):
            ranges[-1] = before, length + size
            return
    ranges.append((place, size))


def _header_problem(version: int, bits: int, size: int, encryption: int, features: int) -> str:
    """Why these numbers of a header are refused, or ''."""
    if version not in (2, 3):
        return f"it is a qcow2 image of version {version}"
    if encryption:
        return "it is encrypted"
    for bit, problem in _NO_FEATURES:
        if features >> bit & 1:
            return problem
    if features & ~_KNOWN_FEATURES:
        return f"it has incompatible features {features & ~_KNOWN_FEATURES:#x}"
    if not LEAST_BITS <= bits <= MOST_BITS:
        return f"its clusters have 1 << {bits} bytes"
    if not 0 < size <= _MOST_DISK or size % 512:
        return f"its disk has {size} bytes"
    return ""
