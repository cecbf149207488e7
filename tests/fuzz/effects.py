"""Effects of a process that is taken over: what the wire makes of them, and which of them are granted.

Any device of any board asks for anything. What decodes encodes to the same bytes. What is granted is of a
kind that a grant of the device names (`wire.effects.TABLE`), and applying it does not raise. Registers of PCI
never come over what is there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

from kvmbox import board, layout
from kvmbox.board import DeviceSpec, by_type
from kvmbox.board_pci import with_pci
from kvmbox.devices.model import Effect
from kvmbox.remote import aperture
from kvmbox.remote.buses import Buses
from kvmbox.remote.follow_up import Application
from kvmbox.remote.grants import Grants, Rise, bind, rise_slack
from kvmbox.remote.guest_memory import Submit
from kvmbox.wire import effect_kinds, effects, media_effects, pci_effects, protocol
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
    if bits == 8 and way >= 200:
        return (way & 7) << 3  # a function of PCI
    found = way & 3 if way < 120 else dice.some(PLACES) if way < 190 else dice.number(bits // 8)
    return found & (1 << bits) - 1


def effect_bytes(dice: Dice, kinds: Sequence[Any]) -> bytes:
    """One effect as it travels, mostly one of these and well-formed."""
    kind: Any = dice.some(kinds if kinds and dice.byte() < 200 else KINDS)
    pin = number(dice, 8) if kind.has_pin else 0
    level = dice.byte() % (kind.most_level + 1)
    argument = number(dice, 32) if kind.has_argument else 0
    tail = b""
    if kind.has_ranges:
        pin %= 5
        tail = b"".join(effect_kinds.RANGE.pack(number(dice, 64), number(dice, 32)) for _ in range(pin))
    elif kind.has_data:
        tail = dice.randbytes(dice.some((0, 1, 16, 4000)))
        argument = len(tail)
    words = b"".join(number(dice, 64).to_bytes(8, "little") for _ in range(kind.words))
    made = bytearray(effect_kinds.EFFECT.pack(kind.tag, 0, pin, level, argument) + words + tail)
    if dice.byte() < 25:
        made[dice.byte() % len(made)] ^= 1 << dice.byte() % 8
    return bytes(made[: len(made) - (dice.byte() > 250)])


def _named(kind: Any) -> set[str]:
    """The grants of an effect. A function of PCI has pins, too."""
    return {*kind.grants, *(("Intx", "Vectors") if "Irq" in kind.grants else ())}


class Host(NotingHost):
    """The window of a VGA is checked as in a run; transfers find no room, now and then."""

    def __init__(self, dice: Dice) -> None:
        super().__init__()
        self._dice = dice

    def aperture(self, index: int, effect: Effect) -> Application | None:
        return super().aperture(index, effect) if aperture.allowed(effect) else None

    def transfers(self, device: str, grant: board.Resource) -> Submit:
        submit = super().transfers(device, grant)
        return lambda *order: submit(*order) and self._dice.byte() < 200

    def rise_of(self, line: Callable[[int, int], None]) -> Rise | None:
        return super().rise_of(line) if self._dice.byte() < 250 else None


class Asked(NamedTuple):
    """A device that asks: its grants, their names, and the kinds of effects that they may be for."""

    spec: DeviceSpec
    grants: Grants
    names: set[str]
    kinds: list[Any]

    @classmethod
    def of(cls, spec: DeviceSpec, host: Host) -> Asked:
        """`spec` with what `host` grants it."""
        names = {kind.__name__ for grant in spec.grants for kind in type(grant).__mro__}
        return cls(spec, bind(spec, host), names, [kind for kind in KINDS if names & _named(kind)])


class Asker:
    """A device with its grants, or all of a PCI bus, beside the functions of that bus."""

    def __init__(self, dice: Dice, specs: Sequence[DeviceSpec]) -> None:
        self.host = Host(dice)
        self.host.buses = Buses(BOARD, self.host.ram, self.host.irq_source)
        for device in BOARD:
            self.host.buses.attach(device, Device(), None)
        self.fabric = self.host.buses.pci
        self.fabric.power_on()
        self.sent: list[int] = []
        self.fabric.attach((lambda address, _data: self.sent.append(address)) if dice.byte() < 240 else None)
        self.asked = [Asked.of(spec, self.host) for spec in specs]

    def ask(self, dice: Dice) -> None:
        """One effect, in the reply to any request."""
        asked = dice.some(self.asked)
        frame = effect_bytes(dice, asked.kinds)
        try:
            pairs, rest = effects.decode_effects(1, frame)
        except FrameError:
            return
        assert effects.encode_effects(pairs) + rest == frame
        assert effects.encode_effects_of(pairs[0][0], [pairs[0][1]]) + rest == frame
        effect = pairs[0][1]
        sent = random_request(dice, [asked.spec], 1, 1)
        found = asked.grants.check(0, effect, sent.encode())
        if found is None:
            return
        kind = effect_kinds.BY_CLASS[type(effect)]
        assert asked.names & _named(kind), f"{effect} is granted"
        assert not kind.after_write or sent.kind == protocol.WRITE
        found[0](*found[1])
        self.host.log.clear()

    def check(self, dice: Dice) -> None:
        """What holds after any effect."""
        grants = dice.some(self.asked).grants
        for line in grants.irq_lines:
            line(dice.byte() & 1, 0)
        assert rise_slack(number(dice, 64), 0, list(grants.rises.values())) >= 0
        if grants.media is not None and dice.byte() < 30:
            grants.media.forget()
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


def ask_for_anything(dice: Dice, specs: Sequence[DeviceSpec] = ()) -> None:
    """A device, or several on a PCI bus, asks for one thing after the other."""
    asker = Asker(dice, specs or [dice.some(SPECS)])
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
        models = protocol.decode_board(data)
    except ValueError:
        models = [(one.model, dict(one.parameters)) for one in by_type(BOARD)["pci"]]
    assert protocol.decode_board(protocol.encode_board(models)) == models
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
    "pci-bus": partial(ask_for_anything, specs=BOARD),
    "protocol": greet_anybody,
}
