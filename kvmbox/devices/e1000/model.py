"""An Intel 82540EM, the network interface that is known as e1000.

Sources: PCI/PCI-X Family of Gigabit Ethernet Controllers Software Developer's Manual (317453), chapters 3
(descriptors), 5 (EEPROM), 8 (PHY) and 13 (registers); section numbers below are of it.

Theory of operation
-------------------
The registers are here; the two rings of descriptors are walked by the VMM
(`devices.e1000.vmm`), which notes where the guest has written that they are. The model says
with `Queue` that a ring is live or gone, and with `Walk` that the guest has moved its tail. Each descriptor
comes as a chain. Its head is what the descriptor says of itself: its second half, or all of one that has no
buffer. No address and no byte of a frame comes here, but for the address that a received frame is for. A
descriptor goes back by `ChainUsed`, whose number is its new second half; 0 leaves it as it is.

Sending. The buffers of a frame are put together at the VMM: `ChainTransfer` says at which place of the frame
a buffer goes, and that there is more to come (`MORE`). The checksums that the guest wants, and the segments
that it wants a large frame cut into, are made there, too: `HostOutput` says which, before the last buffer.

Receiving. `receive` is told length and destination of the frames that wait, with what may be a VLAN tag
behind the addresses, and says where they go, as `net` does. What no filter takes is accepted, and put
nowhere. In loopback a sent frame waits there, as one that has come.

Interrupts. The output falls at once, and rises no sooner after its last rise than ITR says (13.4.18): this
is all that time is for. The other delays are kept, and not looked at. The link is up, always.

A device process is given this text with HELLO, so that no other run loads it.
"""

from __future__ import annotations

import struct

from kvmbox.contract.bulk_data import ChainTransfer, ChainUsed, ChainWrite, Queue, Walk
from kvmbox.contract.model import DONE, HostOutput, InputRoom, IrqLine, ModelBase, SnapshotError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    from kvmbox.contract.bulk_data import Chain

# Registers: 13.4. Those of the ring that receives, at the same distances those of the one that sends.
CTRL: Final = 0x0000
STATUS: Final = 0x0008
EECD: Final = 0x0010
EERD: Final = 0x0014
MDIC: Final = 0x0020
ICR: Final = 0x00C0
ITR: Final = 0x00C4
ICS: Final = 0x00C8
IMS: Final = 0x00D0
IMC: Final = 0x00D8
RCTL: Final = 0x0100
TCTL: Final = 0x0400
RDBAL: Final = 0x2800
TDBAL: Final = 0x3800
BAH, LEN, HEAD, TAIL = 0x04, 0x08, 0x10, 0x18
RAL: Final = 0x5400
RAH: Final = 0x5404
MTA: Final = 0x5200
STATISTICS: Final = range(0x4000, 0x4100, 4)

REGISTERS_SIZE: Final = 0x20000
"""Of base address 0. IOADDR and IODATA, the ports of base address 1, are behind it."""
IOADDR: Final = 0x20000
IODATA: Final = 0x20004

RECEIVED: Final = 0
SENT: Final = 1
RINGS: Final = (RDBAL, TDBAL)
CONTROLS: Final = (RCTL, TCTL)
ENABLE: Final = 1 << 1
"""Of RCTL and TCTL."""
RESET: Final = 1 << 26
"""Of CTRL."""
LEN_BITS: Final = 0xF_FF80
DESCRIPTOR_SIZE: Final = 16

TXDW: Final = 1 << 0
TXQE: Final = 1 << 1
LSC: Final = 1 << 2
RXDMT0: Final = 1 << 4
RXO: Final = 1 << 6
RXT0: Final = 1 << 7
MDAC: Final = 1 << 9

DD: Final = 1 << 32
"""Of the second half of a descriptor: done. EOP: this is the last one of the frame."""
EOP: Final = 1 << 33
NO_CHECKSUM: Final = 1 << 34
"""Of a received one: no checksum was looked at."""

LEAST_FRAME: Final = 14
MOST_FRAME: Final = 1518
"""Of a frame that is received without LPE, without its checksum."""
LONGEST_FRAME: Final = 16384 - 4
"""With LPE: 13.7.15."""
LONGEST_SENT: Final = 16288
"""3.3.3."""
MOST_SENT: Final = (1 << 16) + 256
"""Of a frame that is to be cut into segments."""
SHORTEST: Final = 60
"""A shorter frame is received with zeros behind it."""
PLACE_BITS: Final = (1 << 20) - 1
MORE: Final = 1 << 20
"""In the offset of a sent buffer: it is not the last one of its frame."""
NUMBER_SHIFT: Final = 16
"""In the offset of a received one: the number of the frame is from here on."""
UNTAGGED: Final = 1 << 15
"""There, too: the place is one of the frame without its tag."""
OFFER: Final = struct.Struct("<H6s4s")
"""A frame that waits, in what `receive` is given: its length, the address that it is for, and the bytes where
a VLAN tag is.
"""
TAG_PLACE: Final = 12
TAG_SIZE: Final = 4

OFFLOAD: Final = struct.Struct("<BBBHBBHBHI")
"""What is to be done with a frame: flags; start, place and last byte of each checksum; header and segment;
the VLAN tag to put in, or 0.
"""
SUM_IP, SUM_TCP, SEGMENTS, IS_TCP, IS_IPV4, LOOPED = (1 << bit for bit in range(6))

BATCH: Final = 16
MOST_CHAINS: Final = 64
_MOST_EFFECTS: Final = 24
"""When there are more of one request, no further frame is taken."""
_WIRE: Final = 0
_PIN: Final = 0
_ONES: Final = 0xFFFF_FFFF
_EVERYBODY: Final = b"\xff" * 6

# Of what a descriptor that sends says of itself: 3.3.
_END: Final = 1 << 24
_CHECKSUM: Final = 1 << 26  # of a legacy descriptor; of the others, that segments are wanted
_REPORT: Final = 3 << 27  # RS and RPS
_EXTENDED: Final = 1 << 29
_TAGGED: Final = 1 << 30
_HALF: Final = struct.Struct("<Q")
_CONTEXT: Final = struct.Struct("<BBHBBHIBBH")

_SIZES: Final = ((2048, 1024, 512, 256), (2048, 16384, 8192, 4096))
_HASH_SHIFTS: Final = (4, 3, 2, 0)
_LONG: Final = 1 << 5
"""LPE, of RCTL."""
_UNICAST: Final = 1 << 3
_MULTICAST: Final = 1 << 4
_BROADCAST: Final = 1 << 15
_STRIP: Final = 1 << 26
_LOOPBACK: Final = 3 << 6
_FILTERS_TAGS: Final = 1 << 18
_TAGS: Final = 1 << 30
"""Of CTRL: tags are put in and taken out (chapter 9)."""
_TAG_TAKEN: Final = 1 << 35  # of a received descriptor; the tag is in its last two bytes
_TAG_SHIFT: Final = 48
VET: Final = 0x0038
VFTA: Final = 0x5600

# The PHY is a Marvell 88E1000, at address 1: 8.4. By register what the guest can write, and what is there.
_PHY_ADDRESS: Final = 1
_PHY_RESET: Final = 1 << 15
_PHY_RESTART: Final = 1 << 9
_PHY_LOOPBACK: Final = 1 << 14
_PHY: Final = {
    0: (0x7D40, 0x1140),  # control
    1: (0, 0x796D),  # status: the link is up, what it does was agreed on
    2: (0, 0x0141),  # identifiers
    3: (0, 0x0C20),
    4: (0xFFFF, 0x0DE1),  # what is offered, what the partner offers
    5: (0, 0x01E0),
    6: (0, 0x0001),
    7: (0xFFFF, 0),
    8: (0, 0),
    9: (0xFFFF, 0x0E00),  # 1000BASE-T control, status
    10: (0, 0x3C00),
    15: (0, 0),
    16: (0xFFFF, 0x0360),
    17: (0, 0xAC00),  # 1000 Mb/s, full duplex, resolved, link
    18: (0xFFFF, 0),
    19: (0, 0),
    20: (0xFFFF, 0x0D60),
    21: (0, 0),
}
_PHY_AT: Final = 0x3_0000

# Of a register, and behind `_PHY_AT` of one of the PHY: what the guest can write, and what is there at first.
_SIXTEEN: Final = (0x2820, 0x282C, 0x3820, 0x382C, ITR)  # RDTR, RADV, TIDV, TADV
_WHOLE: Final = (
    *(RCTL, 0x0170, 0x0178, TCTL, 0x0410, 0x0458),  # FCTTV, TXCW, TIPG, AIT
    *(0x2160, 0x2168, 0x2828, 0x3828, 0x5000),  # FCRTL, FCRTH, RXDCTL, TXDCTL, RXCSUM
    *(0x5800, 0x5808, 0x5810, IOADDR),  # WUC, WUFC, WUS
    *(*range(MTA, MTA + 0x200, 4), *range(RAL, RAL + 0x80, 4), *range(VFTA, VFTA + 0x200, 4)),
)
_PLAIN: Final = {
    CTRL: (~(RESET | 1 << 31), 0x0014_0240),
    STATUS: (0, 0x8008_0783),
    0x0018: (~(1 << 13), 0),  # CTRL_EXT
    0x0028: (_ONES, 0x00C2_8001),  # FCAL, FCAH, FCT
    0x002C: (_ONES, 0x0100),
    0x0030: (_ONES, 0x8808),
    VET: (_ONES, 0x8100),
    0x0E00: (_ONES, 0x0602),  # LEDCTL
    0x1000: (_ONES, 0x0010_0030),  # PBA
    0x5820: (_ONES, 0x0020_2000),  # MANC
    **dict.fromkeys((EERD, MDIC, IMS, ICR, *STATISTICS), (0, 0)),
    **dict.fromkeys(_SIXTEEN, (0xFFFF, 0)),
    **dict.fromkeys(_WHOLE, (_ONES, 0)),
    **{ring + place: (_ONES, 0) for ring in RINGS for place in (0, BAH)},
    **{ring + LEN: (LEN_BITS, 0) for ring in RINGS},
    **{ring + place: (0xFFFF, 0) for ring in RINGS for place in (HEAD, TAIL)},
    **{_PHY_AT + number: register for number, register in _PHY.items()},
}

# Counters of STATISTICS: 13.7. Those of sizes come six in a row; those of bytes have a second half behind.
_BY_SIZE: Final = (0x405C, 0x40D8)
_LIMITS: Final = (64, 127, 255, 511, 1023)
_GOOD: Final = ((0x4074, 0x40D0), (0x4080, 0x40D4))  # GPRC, TPR; GPTC, TPT
_BYTES: Final = ((0x4088, 0x40C0), (0x4090, 0x40C8))  # GORC, TOR; GOTC, TOT
_BROADCASTS, _MULTICASTS, _NO_BUFFER, _SEGMENTED = 0x4078, 0x407C, 0x40A0, 0x40F8
_OVERSIZE: Final = (0x40AC, 0x4040)  # ROC, RLEC
_MISSED: Final = 0x4010  # MPC
_HIGH_HALVES: Final = frozenset(one + 4 for pair in _BYTES for one in pair)
_LOW_HALVES: Final = frozenset(one for pair in _BYTES for one in pair)

_READY: Final = 1 << 28
_WRITE, _READ = 1, 2

# The EEPROM has 64 words (5.6), and speaks Microwire: 5.4.
_SUM: Final = 0xBABA
_EEPROM_WORDS: Final = 64
_CLOCK, _SELECT, _DATA_IN, _DATA_OUT = (1 << bit for bit in range(4))
_REQUEST, _GRANT, _PRESENT = (1 << bit for bit in range(6, 9))
_EECD_KEPT: Final = _CLOCK | _SELECT | _DATA_IN | 3 << 4 | _REQUEST
_READ_CODE: Final = 0b110  # start bit, and the operation

_ITR_NS: Final = 256
_LONGEST_WAIT: Final = _ITR_NS << 16
_LAST_NOW: Final = (1 << 63) - 1

_MAGIC: Final = b"E1K\x02"
_WORDS: Final = struct.Struct(f"<4s{len(_PLAIN)}I")
_FIXED: Final = struct.Struct("<3I16sIQ5?QI")  # EECD; the frame that is put together; rings; interrupt
_WAITING: Final = struct.Struct("<II")


def eeprom(mac: bytes) -> list[int]:
    """The words of an EEPROM with this address: address, identity, and what makes their sum 0xBABA."""
    words = [0xFFFF] * _EEPROM_WORDS
    words[:8] = [*struct.unpack("<3H", mac), 0x0200, 0xFFFF, 0x1000, 0xFFFF, 0xFFFF]
    words[10:16] = [0x640B, 0x1100, 0x1AF4, 0x100E, 0x8086, 0x3040]
    words[-1] = _SUM - sum(words[:-1]) & 0xFFFF
    return words


class Microwire:
    """The EEPROM behind EECD: the guest moves clock and data itself (5.4)."""

    __slots__ = ("_count", "_pins", "_shifted", "_words")

    def __init__(self, words: list[int]) -> None:
        self._words = words
        self.become(0, 0, 0)

    def become(self, pins: int, shifted: int, count: int) -> None:
        """`pins` as they were written last; the bits that came since it was selected, and how many."""
        self._pins, self._shifted, self._count = pins & _EECD_KEPT, shifted, count

    @property
    def state(self) -> tuple[int, int, int]:
        """What `become` takes."""
        return self._pins, self._shifted, self._count

    def read(self) -> int:
        """EECD: an address has 6 bits, and there is always somebody who grants."""
        output = _DATA_OUT
        if self._count > 9 and self._shifted >> 6 & 7 == _READ_CODE:
            word = self._words[self._shifted & _EEPROM_WORDS - 1]
            output *= word >> 15 - (self._count - 10) % 16 & 1
        elif self._count == 9:
            output = 0  # the bit before the first one
        return self._pins | _PRESENT | _GRANT | output

    def write(self, value: int) -> None:
        """EECD: with a rising clock a bit goes in, or the next one comes out."""
        rises = value & ~self._pins & _CLOCK
        self._pins = value & _EECD_KEPT
        if not value & _SELECT:
            self._shifted = self._count = 0
        elif rises:
            bit = int(bool(value & _DATA_IN))
            if self._count == 0 and not bit:
                return  # no start bit yet
            if self._count < 9:
                self._shifted = self._shifted << 1 | bit
            self._count = self._count + 1 if self._count < 25 else 10


class E1000(ModelBase):
    """See the module. `mac` is the address of the interface: 6 bytes.

    >>> nic = E1000(mac=bytes.fromhex("026b76000001"))
    >>> hex(nic.read(0, RAL, 4)), hex(nic.read(0, RAH, 4))
    ('0x766b02', '0x80000100')
    """

    __slots__ = (
        *("_context", "_eeprom", "_is_bad", "_level", "_live", "_mac", "_now"),
        *("_options", "_place", "_rose_at", "_serial", "_starved", "_waiting", "_words"),
    )

    def __init__(self, *, mac: bytes) -> None:
        super().__init__()
        self._now = 0
        self._mac = mac
        self._eeprom = eeprom(mac)
        self._serial = Microwire(self._eeprom)
        self._level = 0
        self._power_on()

    def _power_on(self) -> None:
        self._words = {offset: first for offset, (_, first) in _PLAIN.items()}
        low, high = struct.unpack("<IH", self._mac)
        self._words[RAL], self._words[RAH] = low, high | 1 << 31
        self._serial.become(0, 0, 0)
        self._live = [False, False]  # whether the VMM knows of the ring
        self._waiting: dict[int, int] = {}  # what a frame can be received to, in order: handle and size
        self._starved = True
        self._rose_at = -_LONGEST_WAIT
        self._context = bytes(DESCRIPTOR_SIZE)
        self._new_frame()
        self._drive()

    def _new_frame(self) -> None:
        self._place = 0  # of the next buffer in the frame that is put together
        self._options: int = 0  # of its first descriptor
        self._is_bad = False

    def advance(self, now: int) -> None:
        """See DeviceModel. An interrupt that is held back comes when it may."""
        due = self.next_deadline()
        if due is not None and now >= due:
            self._now = min(due, _LAST_NOW)
            self._drive()
        self._now = max(self._now, min(now, _LAST_NOW))

    def next_deadline(self) -> int | None:
        """See DeviceModel. An interrupt that is not driven is held back."""
        is_held = not self._level and self._words[ICR] & self._words[IMS]
        return self._rose_at + _ITR_NS * self._words[ITR] if is_held else None

    # --- Registers ----------------------------------------------------------------------------------------

    def read(self, now: int, offset: int, size: int) -> int:
        """See DeviceModel. A narrow access is one to a part of a register. What is reserved is 0."""
        self.advance(now)
        if size == 8:
            return self.read(now, offset, 4) | self.read(now, offset + 4, 4) << 32
        value = self._read(offset & ~3) >> 8 * (offset & 3)
        return value & (1 << 8 * size) - 1

    def _read(self, offset: int) -> int:
        reader = _READERS.get(offset)
        if reader is not None:
            return reader(self)
        value = self._words.get(offset, 0)
        if offset in STATISTICS and offset not in _LOW_HALVES:
            self._words[offset] = 0
            if offset in _HIGH_HALVES:
                self._words[offset - 4] = 0
        return value

    def _read_causes(self) -> int:
        causes = self._words[ICR]
        self._set_causes(0)
        return causes

    def write(self, now: int, offset: int, size: int, value: int) -> None:
        """See DeviceModel. A register is written as a whole, or not at all."""
        self.advance(now)
        if size == 8:
            self.write(now, offset, 4, value)
            self.write(now, offset + 4, 4, value >> 32)
        elif size == 4 and not offset & 3:
            self._write(offset, value & _ONES)

    def _write(self, offset: int, value: int) -> None:
        writer = _WRITERS.get(offset)
        if writer is not None:
            writer(self, value)
        elif offset in _PLAIN:
            self._keep(offset, value)
            ring = offset & ~0xFF
            if ring in RINGS and offset - ring <= TAIL:
                self._change(RINGS.index(ring), offset - ring)

    def _keep(self, offset: int, value: int) -> None:
        mask, _ = _PLAIN[offset]
        self._words[offset] = self._words[offset] & ~mask | value & mask

    def _write_data(self, value: int) -> None:
        if self._words[IOADDR] < REGISTERS_SIZE:
            self.write(self._now, self._words[IOADDR], 4, value)

    def _read_data(self) -> int:
        address = self._words[IOADDR]
        return self._read(address & ~3) if address < REGISTERS_SIZE else 0

    def _control(self, value: int) -> None:
        if value & RESET:
            self._restart()
            return
        if value & 1 << 31:
            self._reset_phy()
        self._words[CTRL] = value & _PLAIN[CTRL][0]

    def _restart(self) -> None:
        for index in (RECEIVED, SENT):
            self._words[CONTROLS[index]] = 0
            self._publish(index)
        self._power_on()

    # --- EEPROM and PHY -----------------------------------------------------------------------------------

    def _read_eeprom(self, value: int) -> None:
        """EERD: the word is there at once."""
        self._words[EERD] = value & 0xFF00
        if value & 1:
            address = value >> 8 & 0xFF
            word = self._eeprom[address] if address < _EEPROM_WORDS else 0
            self._words[EERD] |= word << 16 | 1 << 4

    def _manage(self, value: int) -> None:
        """MDIC: an access to the PHY, which is over at once."""
        number, address, code = value >> 16 & 31, value >> 21 & 31, value >> 26 & 3
        value &= ~(1 << 30)
        if address != _PHY_ADDRESS or number not in _PHY or code not in (_WRITE, _READ):
            value |= 1 << 30
        elif code == _READ:
            value = value & ~0xFFFF | self._words[_PHY_AT + number]
        else:
            self._write_phy(number, value & 0xFFFF)
        self._words[MDIC] = value | _READY
        if value & 1 << 29:
            self._cause(MDAC)

    def _write_phy(self, number: int, value: int) -> None:
        if number == 0 and value & _PHY_RESET:
            self._reset_phy()
            return
        self._keep(_PHY_AT + number, value)
        if number == 0 and value & _PHY_RESTART:
            self._cause(LSC)  # what both can do is agreed on in no time

    def _reset_phy(self) -> None:
        self._words |= {_PHY_AT + number: first for number, (_, first) in _PHY.items()}

    # --- Interrupts ---------------------------------------------------------------------------------------

    def _cause(self, causes: int) -> None:
        self._set_causes(self._words[ICR] | causes)

    def _set_causes(self, causes: int) -> None:
        self._words[ICR] = causes
        self._drive()

    def _set_mask(self, mask: int) -> None:
        self._words[IMS] = mask
        self._drive()

    def _pace(self, value: int) -> None:
        self._keep(ITR, value)
        self._drive()

    def _drive(self) -> None:
        """Drive the output, if it may rise."""
        level = int(bool(self._words[ICR] & self._words[IMS]))
        due = self.next_deadline()
        if level == self._level or (due is not None and self._now < due):
            return
        self._level = level
        if level:
            self._rose_at = self._now
        self._effects.append(IrqLine(_PIN, level))

    # --- Rings --------------------------------------------------------------------------------------------

    def _set_control(self, index: int, value: int) -> None:
        """RCTL or TCTL."""
        turned = (self._words[CONTROLS[index]] ^ value) & ENABLE
        self._words[CONTROLS[index]] = value
        if turned:
            self._publish(index)
        if index == SENT and value & ENABLE and not self._free(SENT):
            self._cause(TXQE)

    def _change(self, index: int, place: int) -> None:
        """The guest has written a register of a ring."""
        if place != TAIL:
            self._publish(index)
        elif self._live[index]:
            if index == SENT and not self._free(SENT):
                self._cause(TXQE)
            else:
                self._effects.append(Walk(index, BATCH))

    def _entries(self, index: int) -> int:
        return self._words[RINGS[index] + LEN] // DESCRIPTOR_SIZE

    def _free(self, index: int) -> int:
        """How many descriptors are between head and tail, which may be beyond the ring."""
        ring = RINGS[index]
        free = self._words[ring + TAIL] - self._words[ring + HEAD]
        return free if free >= 0 else free + self._entries(index)

    def _publish(self, index: int) -> None:
        """The ring is where the guest has written, or nowhere. What it has handed out is void."""
        entries = self._entries(index) if self._words[CONTROLS[index]] & ENABLE else 0
        if not (entries or self._live[index]):
            return
        self._effects.append(Queue(index, entries, 0, 0, 0, 0))
        self._live[index] = bool(entries)
        if entries:
            self._effects.append(Walk(index, BATCH))
        if index == RECEIVED:
            self._waiting.clear()
            self._starved = True

    def _use(self, index: int, handle: int, half: int) -> None:
        """Give a descriptor back."""
        self._effects.append(ChainUsed(handle, half))
        head = RINGS[index] + HEAD
        self._words[head] = (self._words[head] + 1) % (self._entries(index) or 1)

    def chains(self, now: int, index: int, chains: list[Chain], status: int) -> None:
        """See QueueModel. What is no ring just stays where it is."""
        self.advance(now)
        if index > SENT or not self._live[index] or status != DONE:
            return
        if index == RECEIVED:
            self._waiting.update((chain.handle, chain.writable) for chain in chains)
            if self._starved and self._waiting:
                self._starved = False
                self._effects.append(InputRoom(len(self._waiting)))
            return
        causes = 0
        for chain in chains:
            causes |= self._send(chain)
        self._cause(causes | (0 if self._free(SENT) else TXQE))

    # --- Sending ------------------------------------------------------------------------------------------

    def _send(self, chain: Chain) -> int:
        """What a descriptor asks for, and the causes of an interrupt."""
        (half,) = _HALF.unpack_from(chain.head.rjust(DESCRIPTOR_SIZE, b"\0"), 8)
        if len(chain.head) == DESCRIPTOR_SIZE:
            self._context = chain.head
        else:
            self._add(chain, half)
        reports = half & _REPORT
        self._use(SENT, chain.handle, half & _ONES | DD | half & ~0xF_FFFF_FFFF if reports else 0)
        return TXDW if reports else 0

    def _add(self, chain: Chain, half: int) -> None:
        """A buffer of the frame that is put together."""
        if not self._place:
            self._options = half
        size, place = half & 0xFFFF, self._place
        self._place = min(place + size, MOST_SENT)
        self._is_bad |= chain.readable != size or place + size > MOST_SENT
        if not half & _END:
            if size and not self._is_bad:
                self._effects.append(ChainTransfer(chain.handle, _WIRE, place | MORE, 0, size, 0))
            return
        wanted = self._wish(half)
        segment = self._segment(wanted)
        if not self._is_bad and self._place >= LEAST_FRAME and (segment or self._place <= LONGEST_SENT):
            if wanted is not None:
                self._effects.append(HostOutput(OFFLOAD.pack(*wanted)))
            self._effects.append(ChainTransfer(chain.handle, _WIRE, place, 0, size, 0))
            self._count_sent(self._place, segment, TAG_SIZE if wanted is not None and wanted[-1] else 0)
        self._new_frame()

    def _wish(self, last: int) -> tuple[int, ...] | None:
        """What the VMM is to do with the frame, whose last descriptor says so, or the first one."""
        first, flags, places = self._options, LOOPED * self._is_looped, [0] * 8
        if first & _EXTENDED:
            *places, of_context, _, header, segment = _CONTEXT.unpack(self._context)
            places += header, segment
            flags |= first >> 40 & 3
            if first & _CHECKSUM:
                command = of_context >> 24
                flags |= SEGMENTS | IS_TCP * (command & 1) | IS_IPV4 * (command >> 1 & 1)
        elif last & _CHECKSUM:
            flags |= SUM_TCP
            places[3:5] = last >> 40 & 0xFF, last >> 16 & 0xFF
        is_tagged = last & _TAGGED and self._words[CTRL] & _TAGS
        tag = (self._words[VET] << 16 & _ONES | last >> _TAG_SHIFT) if is_tagged else 0
        return (flags, *places, tag) if flags or tag else None

    @property
    def _is_looped(self) -> bool:
        is_by_phy = bool(self._words[_PHY_AT] & _PHY_LOOPBACK)
        return is_by_phy or self._words[RCTL] & _LOOPBACK == _LOOPBACK

    @staticmethod
    def _segment(wanted: tuple[int, ...] | None) -> tuple[int, int] | None:
        """The bytes of the header, and of what follows it, of each segment, if there are to be some."""
        return (wanted[-3], wanted[-2]) if wanted is not None and wanted[0] & SEGMENTS else None

    def _count_sent(self, size: int, segment: tuple[int, int] | None, more: int) -> None:
        """A frame of `size` bytes, and `more` in each segment."""
        if segment is None:
            self._count(SENT, [size + more])
        elif segment[1] and segment[0] < size:
            header, most = segment[0] + more, segment[1]
            self._add_to(_SEGMENTED, 1)
            whole, rest = divmod(size - segment[0], most)
            self._count(SENT, [header + most] * min(whole, 1024) + [header + rest] * bool(rest))

    # --- Receiving ----------------------------------------------------------------------------------------

    def receive(self, now: int, data: bytes) -> int:
        """See the module. How many bytes of offers were accepted."""
        self.advance(now)
        accepted = causes = 0
        ends_early = False
        whole = len(data) - len(data) % OFFER.size
        for number, (size, address, behind) in enumerate(OFFER.iter_unpack(data[:whole])):
            ends_early = len(self._effects) > _MOST_EFFECTS
            if ends_early:
                self._effects.append(InputRoom(len(self._waiting) or 1))
                break
            if not self._live[RECEIVED]:
                break
            tag = self._tag(size, behind)
            if self._takes(address, tag):
                if size > (LONGEST_FRAME if self._words[RCTL] & _LONG else MOST_FRAME):
                    for counter in _OVERSIZE:
                        self._add_to(counter, 1)
                elif self._deliver(number, size, tag if self._words[CTRL] & _TAGS else None):
                    causes |= RXT0
                    self._count_kind(address)
                else:
                    if self._has_all:
                        causes |= RXO
                        self._add_to(_NO_BUFFER, 1)
                    if not self._is_filled:
                        break
                    self._add_to(_MISSED, 1)  # larger than all buffers of the ring: it would wait for ever
            accepted += OFFER.size
        if causes & RXT0 and self._free(RECEIVED) <= self._entries(RECEIVED) >> self._threshold:
            causes |= RXDMT0
        if causes & RXT0 and self._words[RDBAL + TAIL] >= self._entries(RECEIVED):
            self._effects.append(Walk(RECEIVED, BATCH))  # what goes back is the device's again
        self._starved = accepted < len(data) and not ends_early
        self._cause(causes)
        return accepted

    @property
    def _has_all(self) -> bool:
        """Whether all descriptors that the guest has given are here: no further one is on its way."""
        given = min(self._free(RECEIVED), self._entries(RECEIVED) - 1)
        return len(self._waiting) >= min(given, MOST_CHAINS)

    @property
    def _is_filled(self) -> bool:
        """Whether as many descriptors are here as ever can be."""
        return len(self._waiting) >= min(self._entries(RECEIVED) - 1, MOST_CHAINS)

    @property
    def _threshold(self) -> int:
        return (self._words[RCTL] >> 8 & 3) + 1

    def _tag(self, size: int, behind: bytes) -> int | None:
        """The VLAN tag of a frame that has one."""
        kind, tag = struct.unpack(">HH", behind)
        return tag if kind == self._words[VET] & 0xFFFF and size >= TAG_PLACE + TAG_SIZE else None

    def _takes(self, address: bytes, tag: int | None) -> bool:
        """Whether the filters take frames for this address, and with this tag: 3.2.1, 9.3."""
        control = self._words[RCTL]
        if tag is not None and control & _FILTERS_TAGS and not self._is_set(VFTA, tag & 0xFFF):
            return False
        is_group = address[0] & 1
        if control & (_MULTICAST if is_group else _UNICAST):
            return True
        if address == _EVERYBODY and control & _BROADCAST:
            return True
        low, high = struct.unpack("<IH", address)
        for own in range(RAL, RAL + 0x80, 8):
            if self._words[own] == low and self._words[own + 4] & 0x8000_FFFF == high | 1 << 31:
                return True
        return bool(is_group and self._is_set(MTA, high >> _HASH_SHIFTS[control >> 12 & 3] & 0xFFF))

    def _is_set(self, table: int, number: int) -> bool:
        return bool(self._words[table + 4 * (number >> 5)] >> (number & 31) & 1)

    def _count_kind(self, address: bytes) -> None:
        if address[0] & 1:
            self._add_to(_BROADCASTS if address == _EVERYBODY else _MULTICASTS, 1)

    @property
    def _buffer(self) -> int:
        return buffer_size(self._words[RCTL])

    def _deliver(self, number: int, size: int, tag: int | None) -> bool:
        """Put a frame into buffers, if there are enough; without its tag, if there is one."""
        half, gap = (0, 0) if tag is None else (tag << _TAG_SHIFT | _TAG_TAKEN, TAG_SIZE)
        frame = number << NUMBER_SHIFT | UNTAGGED * bool(gap)
        data = max(size, SHORTEST) - gap
        total = data + (0 if self._words[RCTL] & _STRIP else 4)  # the checksum, whose bytes nobody knows
        wanted, room = [], 0
        for handle, writable in self._waiting.items():
            wanted.append(handle)
            room += writable or self._buffer
            if room >= total:
                break
        else:
            return False
        place = 0
        for handle in wanted:
            writable = self._waiting.pop(handle)
            part = min(writable or self._buffer, total - place)
            if writable:
                self._put(handle, frame | place, place, part, size - gap, data)
            place += part
            last = EOP | NO_CHECKSUM if place == total else 0
            self._use(RECEIVED, handle, (part if writable else 0) | DD | last | half)
        self._count(RECEIVED, [data])
        return True

    def _put(self, handle: int, at: int, place: int, part: int, size: int, data: int) -> None:
        """The bytes [place, place + part) of a frame of `size` bytes, at `at`; then zeros, up to `data`."""
        of_frame = max(0, min(part, size - place))
        if of_frame:
            self._effects.append(ChainTransfer(handle, _WIRE, at, 0, of_frame, 1))
        zeros = min(place + part, data) - max(place, size)
        if zeros > 0:
            self._effects.append(ChainWrite(handle, of_frame, bytes(zeros)))

    # --- Statistics ---------------------------------------------------------------------------------------

    def _count(self, index: int, sizes: list[int]) -> None:
        """Frames of these sizes, without their checksums."""
        for counter in _GOOD[index]:
            self._add_to(counter, len(sizes))
        for size in sizes:
            place = sum(size + 4 > limit for limit in _LIMITS)
            self._add_to(_BY_SIZE[index] + 4 * place, 1)
        total = sum(sizes) + 4 * len(sizes)
        for counter in _BYTES[index]:
            value = self._words[counter] + (self._words[counter + 4] << 32) + total
            self._words[counter], self._words[counter + 4] = value & _ONES, value >> 32 & _ONES

    def _add_to(self, counter: int, count: int) -> None:
        self._words[counter] = min(self._words[counter] + count, _ONES)

    # --- State --------------------------------------------------------------------------------------------

    def reset(self, now: int) -> None:
        """See DeviceModel. The VMM has forgotten the rings already."""
        self.advance(now)
        self._live = [False, False]
        self._power_on()

    def memory(self, now: int, tag: int, data: bytes | None) -> None:
        """See MemoryModel. Nothing is asked for."""

    def complete(self, now: int, tag: int, status: int) -> None:
        """See MemoryModel. A frame that was not moved is lost."""

    def snapshot(self) -> bytes:
        """See DeviceModel: registers, the rest, and what waits for frames."""
        fixed = _FIXED.pack(
            *self._serial.state,
            *(self._context, self._place, self._options),
            *(self._is_bad, *self._live, self._starved),
            *(bool(self._level), self._now, min(self._now - self._rose_at, _LONGEST_WAIT)),
        )
        parts = [_WORDS.pack(_MAGIC, *self._words.values()), fixed]
        return b"".join(parts + [_WAITING.pack(*one) for one in self._waiting.items()])

    def restore(self, state: bytes) -> None:
        """See DeviceModel."""
        end = _WORDS.size + _FIXED.size
        if not state.startswith(_MAGIC) or len(state) < end or (len(state) - end) % _WAITING.size:
            raise SnapshotError(f"not a snapshot of this model and version ({_MAGIC!r})")
        waiting = list(_WAITING.iter_unpack(state[end:]))
        if len(dict(waiting)) != len(waiting) or len(waiting) > MOST_CHAINS:
            raise SnapshotError(f"{len(waiting)} descriptors to receive to")
        _, *words = _WORDS.unpack_from(state)
        fixed = _FIXED.unpack_from(state, _WORDS.size)
        *serial, context, place, options, is_bad, receives, sends, starved, level, now, age = fixed
        is_timed = now <= _LAST_NOW and age <= _LONGEST_WAIT
        if place > MOST_SENT or serial[1] >= 1 << 9 or serial[2] > 25 or not is_timed:
            raise SnapshotError("numbers that none has")
        self._words = dict(zip(_PLAIN, words, strict=True))
        self._serial.become(*serial)
        self._context, self._place, self._options, self._is_bad = context, place, options, is_bad
        self._live, self._starved = [receives, sends], starved
        self._waiting = dict(waiting)
        self._level, self._now, self._rose_at = int(level), now, now - age
        self._drive()
        self._effects = []


def buffer_size(control: int) -> int:
    """How many bytes a buffer for received frames has, as RCTL says: BSEX, BSIZE."""
    return _SIZES[control >> 25 & 1][control >> 16 & 3]


def is_context(half: int) -> bool:
    """Whether a descriptor that sends, of which this is the second half, has no buffer (3.3.6)."""
    return bool(half & _EXTENDED) and not half >> 20 & 15


_READERS: Final[dict[int, Callable[[E1000], int]]] = {
    EECD: lambda nic: nic._serial.read(),
    ICR: E1000._read_causes,
    ICS: lambda nic: nic._words[ICR],
    CTRL + 4: lambda nic: nic._words[CTRL],
    IODATA: E1000._read_data,
}
_WRITERS: Final[dict[int, Callable[[E1000, int], None]]] = {
    CTRL: E1000._control,
    EECD: lambda nic, value: nic._serial.write(value),
    EERD: E1000._read_eeprom,
    MDIC: E1000._manage,
    ICR: lambda nic, value: nic._set_causes(nic._words[ICR] & ~value),
    ITR: E1000._pace,
    ICS: E1000._cause,
    IMS: lambda nic, value: nic._set_mask(nic._words[IMS] | value),
    IMC: lambda nic, value: nic._set_mask(nic._words[IMS] & ~value),
    RCTL: lambda nic, value: nic._set_control(RECEIVED, value),
    TCTL: lambda nic, value: nic._set_control(SENT, value),
    IODATA: E1000._write_data,
}
