"""The DMA probe on a board: its `DeviceSpec`, a guest that drives it, and versions of it that lie."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from kvmbox.contract.device_spec import AddressRange, DeviceSpec, Irq, Memory, Resource

SOURCE: Final = Path(__file__).with_name("dma_probe.py").read_bytes()
PORT: Final = 0x700
PORTS: Final = 32
GSI: Final = 11
ADDRESS, LENGTH, OFFSET, COMMAND, STATUS, SUM, LINK = range(PORT, PORT + 0x1C, 4)
READ, READ_TWICE, WRITE, LOAD, STORE, CHASE = range(1, 7)
TABLE: Final = bytes(number * 7 & 0xFF for number in range(9000))
"""What WRITE writes: more than fits in one frame, so that HELLO has parts."""
LIMIT: Final = 4040
DISK: Final = bytes(number * 13 & 0xFF for number in range(1 << 16))
DONE, BAD_ADDRESS, BEYOND_END, FAILED, NO_SPACE, BUSY = range(6)

HOSTILE: Final = b'''

class Hostile(DmaProbe):
    """Asks for what it must not, once the guest gives a command."""

    def __init__(self, *, table, limit, way):
        super().__init__(table=table, limit=limit)
        self._way = way

    def _begin(self, command):
        address = self._registers[0]
        self._tag += 1
        self._status = BUSY
        add = self._effects.append
        match self._way:
            case b"too many bytes":
                add(MemoryRead(self._tag, [(address, 2048)] * 2))
            case b"four gigabytes":
                add(MemoryRead(self._tag, [(0, 0xFFFFFFFF)]))
            case b"too many ranges":
                add(MemoryRead(self._tag, [(address, 1)] * 65))
            case b"endless legs":
                add(MemoryRead(self._tag, [(address, 4)]))
            case b"many legs at once":
                add(MemoryRead(self._tag, [(address, 4)]))
                for tag in range(1, 21):
                    add(MemoryWrite(address, b"legs", tag))
            case b"write to what is read only":
                add(Transfer(self._tag, 1, 0, [(address, 16)], 0))
            case b"another resource":
                add(Transfer(self._tag, 2, 0, [(address, 16)], 1))
            case b"a resource of the next life":
                add(Transfer(self._tag, (1 << 64) - 1, 0, [(address, 16)], 1))
            case b"too large a transfer":
                add(Transfer(self._tag, 0, 0, [(address, 1 << 20), (address, 1)], 1))
            case b"wrapping":
                add(MemoryWrite((1 << 64) - 2, b"wrap", self._tag))
            case b"wrapping read":
                add(MemoryRead(self._tag, [((1 << 64) - 2, 4)]))
            case b"wrapping transfer":
                add(Transfer(self._tag, 0, (1 << 64) - 2, [(address, 4)], 1))
            case b"raise":
                raise IndexError("a bug of the model")
            case b"import":
                import wave

    def memory(self, now, tag, data):
        if self._way == b"endless legs":
            self._effects.append(MemoryRead(tag, [(0, 4)]))
        else:
            super().memory(now, tag, data)
'''


def probe(
    *,
    grants: tuple[Irq | Memory | Resource, ...] | None = None,
    way: bytes | None = None,
) -> DeviceSpec:
    """The device on the board, or a hostile version of it (`way`)."""
    if grants is None:
        grants = (
            *(Irq(GSI), Memory(max_bytes=LIMIT, max_ranges=64)),
            Resource("disk", len(DISK), writable=True, max_pending=4),
            Resource("rom", 4096),
        )
    hostile: dict[str, int | bytes] = {} if way is None else {"way": way}
    return DeviceSpec(
        "DMA",
        "dma",
        "DmaProbe" if way is None else "Hostile",
        ports=(AddressRange(PORT, PORTS),),
        parameters={"table": TABLE, "limit": LIMIT, **hostile},
        grants=grants,
        natural_sizes=frozenset({4}),
        source=SOURCE if way is None else SOURCE + HOSTILE,
    )


# --- A guest in real mode: see tests.support.real_mode -----------------------------------------------


def store(port: int, value: int) -> bytes:
    """mov dx,port; mov eax,value; out dx,eax."""
    return b"\xba" + port.to_bytes(2, "little") + b"\x66\xb8" + value.to_bytes(4, "little") + b"\x66\xef"


def command(number: int, address: int, length: int, offset: int = 0) -> bytes:
    """Give a command, wait until it is done, print its status as a digit, and acknowledge it."""
    begin = store(ADDRESS, address) + store(LENGTH, length) + store(OFFSET, offset) + store(COMMAND, number)
    # mov dx,STATUS; poll: in eax,dx; cmp al,1; jz poll; add al,'0'-2; mov dx,0xe9; out dx,al
    wait = b"\xba" + STATUS.to_bytes(2, "little") + bytes.fromhex("66ed 3c01 74fa 042e bae900 ee")
    return begin + wait + store(STATUS, 0)


def print_register(port: int) -> bytes:
    """Print four bytes, low first: mov dx,port; in eax,dx; mov dx,0xe9; out dx,al; shr eax,8; …"""
    load = b"\xba" + port.to_bytes(2, "little") + bytes.fromhex("66ed bae900")
    return load + bytes.fromhex("ee 66c1e808") * 3 + b"\xee"


def poke(address: int, value: int) -> bytes:
    """mov ax,segment; mov es,ax; mov dword es:[offset],value. Below 1 MiB."""
    segment, offset = address >> 4 & 0xF000, address & 0xFFFF
    return (
        b"\xb8" + segment.to_bytes(2, "little") + b"\x8e\xc0"
        b"\x26\x66\xc7\x06" + offset.to_bytes(2, "little") + value.to_bytes(4, "little")
    )


def print_memory(address: int) -> bytes:
    """Print four bytes of memory below 1 MiB, low first."""
    segment, offset = address >> 4 & 0xF000, address & 0xFFFF
    load = (
        b"\xb8" + segment.to_bytes(2, "little") + b"\x8e\xc0"
        b"\x26\x66\xa1" + offset.to_bytes(2, "little") + b"\xba\xe9\x00"
    )
    return load + bytes.fromhex("ee 66c1e808") * 3 + b"\xee"


MEMORY_SIZE: Final = 16 << 20


def tour(laps: int = 1, before: bytes = b"", shown: bytes = b"") -> tuple[bytes, bytes]:
    """A guest that uses everything once in each lap, and what it prints. `before` a lap it prints `shown`."""
    code, printed, total = b"", b"", 0
    for _ in range(laps):
        lap, prints, total = _lap(total)
        code += before + lap
        printed += shown + prints
    return code, printed


def _lap(total: int) -> tuple[bytes, bytes, int]:
    """A lap: its code, what it prints, and what the probe's sum is then, `total` before."""
    code, printed = b"", b""

    def does(number: int, address: int, length: int, offset: int = 0, *, status: int = DONE) -> None:
        nonlocal code, printed
        code += command(number, address, length, offset)
        printed += b"%d" % status

    def shows(what: bytes, value: int) -> None:
        nonlocal code, printed
        code += what
        printed += value.to_bytes(4, "little")

    # The table to memory, and back as a sum; its bytes beyond one frame cannot go at once.
    does(WRITE, 0x20000, 4000, 100)
    shows(print_memory(0x20000 + 3996), int.from_bytes(TABLE[100 + 3996 : 100 + 4000], "little"))
    does(READ, 0x20000, 4000)
    total += sum(TABLE[100:4100])
    shows(print_register(SUM), total)
    does(READ_TWICE, 0x20000, 200)
    total += sum(TABLE[100:200]) + sum(TABLE[100:150])
    shows(print_register(SUM), total)
    does(READ, 0x20000, 0)
    # A chain of three links.
    code += poke(0x30000, 0x30010) + poke(0x30010, 0x30020) + poke(0x30020, 0)
    total += sum((0x30010).to_bytes(4, "little")) + sum((0x30020).to_bytes(4, "little"))
    does(CHASE, 0x30000, 0)
    shows(print_register(LINK), 3)
    shows(print_register(SUM), total)
    # One that bites its tail: the device gives up, and nobody else minds.
    code += poke(0x30020, 0x30000)
    does(CHASE, 0x30000, 0)
    shows(print_register(LINK), 12)
    for turn in range(12):
        total += sum((0x30000 + (turn + 1) % 3 * 16).to_bytes(4, "little"))
    shows(print_register(SUM), total)
    # What is no memory: behind it, across its end, at the end of the addresses.
    for address, length in ((MEMORY_SIZE, 4), (MEMORY_SIZE - 2, 4), (0xFFFF_FFFF, 16), (0xF000_0000, 1)):
        does(READ, address, length, status=BAD_ADDRESS)
        does(WRITE, address, length, status=BAD_ADDRESS)
        does(LOAD, address, length * 2, status=BAD_ADDRESS)
    shows(print_register(SUM), total)
    # The disk: to memory, and back elsewhere.
    does(LOAD, 0x40000, 10_000, 777)
    shows(print_memory(0x40000), int.from_bytes(DISK[777:781], "little"))
    shows(print_memory(0x40000 + 9996), int.from_bytes(DISK[777 + 9996 : 777 + 10_000], "little"))
    does(STORE, 0x40000, 512, 4096)
    does(LOAD, 0x50000, 4, 4096)
    shows(print_memory(0x50000), int.from_bytes(DISK[777:781], "little"))
    does(LOAD, 0x50000, 4, len(DISK) - 3, status=BEYOND_END)
    does(STORE, 0x50000, 4, len(DISK), status=BEYOND_END)
    shows(print_memory(0x50000), int.from_bytes(DISK[777:781], "little"))
    return code, printed, total


DISK_AFTER: Final = DISK[:4096] + DISK[777 : 777 + 512] + DISK[4096 + 512 :]
"""What the tour leaves behind."""
