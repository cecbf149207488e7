"""Effects of a process that is taken over: what the wire makes of them, and which of them are granted.

Any device of any board asks for anything. What decodes encodes to the same bytes. What is granted is of a
kind that a grant of the device names (`wire.effects.TABLE`), and applying it does not raise. Registers of PCI
never come over what is there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from kvmbox import layout
from kvmbox.board import DeviceSpec, by_type
from kvmbox.board_pci import with_pci
from kvmbox.remote.buses import Buses
from kvmbox.remote.grants import bind
from kvmbox.wire import effects, media_effects, pci_effects, protocol
from kvmbox.wire.protocol import FrameError
from tests.fuzz.lives import random_request
from tests.support.dice import Dice
from tests.support.loop_rig import Device
from tests.support.model_variants import VARIANTS
from tests.support.noting_host import NotingHost

FUNCTIONS: Final = [one for one in VARIANTS.values() if one.pci is not None]
BOARD: Final = with_pci(FUNCTIONS)
SPECS: Final = (*VARIANTS.values(), *BOARD)
KINDS: Final = (*effects.TABLE, *media_effects.TABLE, *pci_effects.TABLE)
PLACES: Final = (
    *(0, 0x1000, 0xA0000, 0xB8000, 0xC000, 0xC020, 0x3F8, 0xCF8, 0x20, 0xE200_0000, 0xE200_4000, 0xFEE0_0000),
    *(layout.IO_APIC_BASE, 1 << 32, 1 << 52, (1 << 64) - 0x4000, (1 << 64) - 1),
)


def number(dice: Dice, bits: int) -> int:
    """A number of so many bits: a small one, one that leads somewhere, or any."""
    way = dice.byte()
    found = way & 3 if way < 120 else dice.some(PLACES) if way < 190 else dice.number(bits // 8)
    return found & (1 << bits) - 1


def effect_bytes(dice: Dice) -> bytes:
    """One effect as it travels, mostly well-formed."""
    kind: Any = dice.some(KINDS)
    pin = number(dice, 8) if kind.has_pin else 0
    level = dice.byte() % (kind.most_level + 1)
    argument = number(dice, 32) if kind.has_argument else 0
    tail = b""
    if kind.has_ranges:
        pin %= 5
        tail = b"".join(effects.RANGE.pack(number(dice, 64), number(dice, 32)) for _ in range(pin))
    elif kind.has_data:
        tail = dice.randbytes(dice.some((0, 1, 16, 4000)))
        argument = len(tail)
    words = b"".join(number(dice, 64).to_bytes(8, "little") for _ in range(kind.words))
    made = bytearray(effects.EFFECT.pack(kind.tag, 0, pin, level, argument) + words + tail)
    if dice.byte() < 25:
        made[dice.byte() % len(made)] ^= 1 << dice.byte() % 8
    return bytes(made[: len(made) - (dice.byte() > 250)])


class Asker:
    """A device with its grants, beside all functions of a PCI bus."""

    def __init__(self, spec: DeviceSpec) -> None:
        self.host = NotingHost()
        self.host.buses = Buses(BOARD, self.host.ram, self.host.irq_source)
        for device in BOARD:
            self.host.buses.attach(device, Device(), None)
        self.fabric = self.host.buses.pci
        self.fabric.power_on()
        self.sent: list[int] = []
        self.fabric.attach(lambda address, _data: self.sent.append(address))
        self.spec = spec
        self.grants = bind(spec, self.host)
        self.names = {kind.__name__ for grant in spec.grants for kind in type(grant).__mro__}

    def ask(self, dice: Dice) -> None:
        """One effect, in the reply to any request."""
        frame = effect_bytes(dice)
        try:
            pairs, rest = effects.decode_effects(1, frame)
        except FrameError:
            return
        assert effects.encode_effects(pairs) + rest == frame
        assert effects.encode_effects_of(pairs[0][0], [pairs[0][1]]) + rest == frame
        effect = pairs[0][1]
        sent = random_request(dice, [self.spec], 1, 1)
        found = self.grants.check(0, effect, sent.encode())
        if found is None:
            return
        kind = effects.BY_CLASS[type(effect)]
        # A function of PCI has pins, too.
        named = {*kind.grants, *(("Intx", "Vectors") if "Irq" in kind.grants else ())}
        assert self.names & named, f"{effect} is granted"
        assert not kind.after_write or sent.kind == protocol.WRITE
        found[0](*found[1])
        self.host.log.clear()

    def check(self, dice: Dice) -> None:
        """What holds after any effect."""
        for line in self.grants.irq_lines:
            line(dice.byte() & 1, 0)
        ports, mmio = self.host.buses.ports, self.host.buses.mmio
        assert ports.find(0x20) is None
        assert mmio.find(0) is None
        assert mmio.find(layout.IO_APIC_BASE) is None
        assert all(0 <= place - layout.LOCAL_APIC_BASE < layout.LOCAL_APIC_MESSAGES for place in self.sent)
        state = self.fabric.state()
        damaged = bytearray(state)
        damaged[dice.number(2) % len(state)] ^= dice.byte()
        try:
            self.fabric.restore(bytes(damaged[: len(state) - dice.byte() // 250]))
        except ValueError:
            self.fabric.restore(state)
            assert self.fabric.state() == state


def ask_for_anything(dice: Dice) -> None:
    """A device asks for one thing after the other."""
    asker = Asker(dice.some(SPECS))
    while not dice.ended:
        for _ in range(1 + dice.byte() % 4):
            asker.ask(dice)
        asker.check(dice)


def greet_anybody(dice: Dice) -> None:
    """The frames of the protocol: what decodes is what encodes, and boards survive the wire."""
    data = dice.rest()
    try:
        request = protocol.decode_request(data)
        assert request.encode()[:3] == data[:3]
    except FrameError:
        pass
    try:
        board = protocol.decode_board(data)
    except ValueError:
        board = [(one.model, dict(one.parameters)) for one in by_type(BOARD)["pci"]]
    assert protocol.decode_board(protocol.encode_board(board)) == board
    parts = protocol.Parts("hello", 10_000)
    whole, left = data * 40, Dice(data)
    for part in range(4):
        piece = whole[part * protocol.MAX_PAYLOAD :][: protocol.MAX_PAYLOAD]
        try:
            total = left.some((len(whole), len(whole), left.number(2)))
            found = parts.add(part if left.byte() < 200 else left.byte() % 3, total, piece)
        except FrameError:
            return
        assert found is None or len(found) == total


TARGETS: Final[dict[str, Callable[[Dice], None]]] = {
    "effects": ask_for_anything,
    "protocol": greet_anybody,
}
