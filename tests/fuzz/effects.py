"""Effects of a process that is taken over: what the wire makes of them, and which of them are granted.

Any device of any board asks for anything. What decodes encodes to the same bytes. What is granted is of a
kind that a grant of the device names (`wire.effects.TABLE`), and applying it does not raise. Registers of PCI
never come over what is there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from threading import Lock
from typing import Any, Final, NamedTuple

from kvmbox.base import layout
from kvmbox.contract import device_spec
from kvmbox.contract.device_spec import DeviceSpec, by_type
from kvmbox.contract.model import Effect
from kvmbox.contract.names import VGA
from kvmbox.contract.pci_effects import Control, Decode, Message
from kvmbox.contract.pci_grants import bus_of
from kvmbox.devices.pci.board import with_pci
from kvmbox.remote.bus.machine_buses import Buses
from kvmbox.remote.channel import vga_window
from kvmbox.remote.channel.effect_calls import Application
from kvmbox.remote.channel.grants import Grants, Rise, bind, rise_slack
from kvmbox.remote.published.guest_memory import Submit, settled
from kvmbox.wire import (
    access_blocks,
    bulk_effect_table,
    chains,
    effect_kinds,
    effects,
    pci_effect_table,
    protocol,
)
from kvmbox.wire.protocol import FrameError
from tests.fuzz.lives import random_request
from tests.support.dice import Dice
from tests.support.loop_rig import Device
from tests.support.model_variants import VARIANTS
from tests.support.noting_host import NotingHost

FUNCTIONS: Final = [one for one in VARIANTS.values() if one.pci is not None]
BOARD: Final = sorted(with_pci([*FUNCTIONS, VARIANTS["vga_text"]]), key=lambda one: one.name == VGA)
BUS: Final = bus_of(BOARD).functions
SPECS: Final = (*VARIANTS.values(), *BOARD)
KINDS: Final = (*effects.TABLE, *bulk_effect_table.TABLE, *pci_effect_table.TABLE)
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
    most_pin, most_level, most_argument = kind._most
    pin = number(dice, 8) if most_pin else 0
    level = dice.byte() % (most_level + 1)
    argument = number(dice, 32) if most_argument else 0
    tail = b""
    if kind.has_ranges:
        pin %= dice.some((5, 40))
        tail = b"".join(effect_kinds.RANGE.pack(number(dice, 64), number(dice, 32)) for _ in range(pin))
    elif kind.has_data:
        tail = dice.randbytes(dice.some((0, 1, 16, 4000)))
        argument = len(tail)
    words = b"".join(number(dice, 64).to_bytes(8, "little") for _ in range(kind.words))
    made = bytearray(effect_kinds.EFFECT.pack(kind.tag, 0, pin, level, argument) + words + tail)
    if dice.byte() < 25:
        made[dice.byte() % len(made)] ^= 1 << dice.byte() % 8
    return bytes(made[: len(made) - (dice.byte() > 250)])


def likely_bytes(dice: Dice) -> bytes:
    """What a bus may ask for: registers at addresses of their size, messages to where interrupts are."""
    function, way, place = dice.some(BUS), dice.byte(), dice.some(PLACES)
    effect: Effect = Control(function.number, way % 8)
    if way < 80:
        effect = Message(
            function.number, dice.some((layout.LOCAL_APIC_BASE, place)), number(dice, 32), way & 1
        )
    elif way < 220 and function.bars:
        index, bar, address = dice.some(function.bars)
        address = dice.some((address, place)) // bar.size * bar.size
        effect = Decode(function.number, index, address, way & 1)
    return effects.encode_effects([(0, effect)])


def _named(kind: Any) -> set[str]:
    """The grants of an effect. A function of PCI has pins, too."""
    return {*kind.grants, *(("Intx", "Vectors") if "Irq" in kind.grants else ())}


class Host(NotingHost):
    """The window of a VGA is checked as in a run; transfers find no room, now and then."""

    def __init__(self, dice: Dice) -> None:
        super().__init__()
        self._dice = dice

    def aperture(self, index: int, effect: Effect) -> Application | None:
        return super().aperture(index, effect) if vga_window.allowed(effect) else None

    def transfers(self, device: str, grant: device_spec.Resource) -> Submit:
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
        buses = [one for one in self.asked if "PciBus" in one.names]
        self.asked += buses  # what they ask for then is likely
        for one in self.asked:
            if one.grants.media is not None:
                one.grants.media.guarded_by(Lock())

    def ask(self, dice: Dice) -> None:
        """One effect, in the reply to any request."""
        place = dice.randrange(len(self.asked))
        asked = self.asked[place]
        is_likely = asked in self.asked[:place]
        frame = likely_bytes(dice) if is_likely else effect_bytes(dice, asked.kinds)
        try:
            pairs, rest = effects.decode_effects(1, frame)
        except FrameError:
            return
        assert effects.encode_effects(pairs) + rest == frame
        assert effects.encode_effects_of(pairs[0][0], [pairs[0][1]]) + rest == frame
        effect = pairs[0][1]
        assert effects.encode_effects_of(0, [effect] * 2) == effects.encode_effects([(0, effect)] * 2)
        sent = random_request(dice, [asked.spec], 1, 1)
        try:
            reply = effects.encode_reply(sent, number(dice, 64) or None, 0, pairs * dice.some((1, 300)))
            assert reply.endswith(frame[: len(frame) - len(rest)])
        except FrameError:
            pass
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
        settles: tuple[Any, ...] = (None, lambda _status: True, lambda _status: False, lambda _status: [])
        assert len(settled(0, 1, dice.byte() & 3, dice.some(settles))) < 2
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
    way, data = dice.byte(), dice.rest()
    try:
        request = protocol.decode_request(data)
        assert request.encode()[:3] == data[:3]
        assert request == protocol.decode_request(data)
        assert request != data
    except FrameError:
        pass
    told = protocol.Request(protocol.COMPLETE, payload=data[: way % 32])
    try:
        assert len(protocol.completions(told)) == 1 + len(told.payload) // 8
    except FrameError:
        assert len(told.payload) % 8
    try:
        models = protocol.decode_board(data)
    except ValueError:
        models = [(one.model, dict(one.parameters)) for one in by_type(BOARD)["pci"]]
    if way == 0:
        models.append(("more", {"more": bytes(protocol.MAX_BOARD)}))
    try:
        assert protocol.decode_board(protocol.encode_board(models)) == models
        assert len(protocol.hello_requests(models)) > 0
    except FrameError:
        assert way == 0
    _put_together(data)
    _use_block(data)
    _tell_chains(data)


def _put_together(data: bytes) -> None:
    """Parts come one after the other, or are refused; what is too long is never sent."""
    parts = protocol.Parts("hello", 10_000)
    whole, left = data * 40, Dice(data)
    for part in range(4):
        piece = whole[part * protocol.MAX_PAYLOAD :][: protocol.MAX_PAYLOAD + left.byte() // 250]
        try:
            protocol.Request(protocol.HELLO, payload=piece).encode()
            total = left.some((len(whole), len(whole), left.number(2)))
            found = parts.add(part if left.byte() < 200 else left.byte() % 3, total, piece)
        except FrameError:
            return
        assert found is None or len(found) == total


def _use_block(data: bytes) -> None:
    """A block says of itself what it reads; of a reply, what was made of it, which is some of it."""
    dice = Dice(data)
    kind, size, way = dice.some(tuple(access_blocks.BLOCKS)), dice.byte() % 10, dice.byte()
    value, offset, payload = dice.number(dice.byte() % 9), dice.number(dice.byte() % 9), dice.rest()
    value, payload = value * (way & 1), payload[: 16 * (way >> 1 & 3)] if way < 200 else payload
    try:
        block = access_blocks.Block(protocol.Request(kind, 0, size, 1, 1, value, offset, payload))
    except FrameError:
        return
    assert 0 < block.count * block.width <= access_blocks.MAX_STRING
    made = 1 + way % block.count
    single = block.single(made - 1)
    assert single.kind == (protocol.READ if block.reads else protocol.WRITE)
    assert single.offset == block.register(made - 1)
    has_effects = bool(way & 8) or made < block.count
    read = bytes(made * block.width) if block.reads else b""
    told = block.reply(made, read, has_effects=has_effects)
    assert block.outcome(*told, has_effects=has_effects) == (made, read)
    lie = (
        (0, 0, value << 8 & (1 << 64) - 1, 1)[way >> 4 & 3],
        (value.to_bytes(8, "little") + payload)[: way >> 3],
    )
    try:
        found, read = block.outcome(*lie, has_effects=has_effects)
        assert 0 < found <= block.count
        assert len(read) == (found * block.width if block.reads else 0)
    except FrameError:
        pass


def _tell_chains(data: bytes) -> None:
    """Chains come as they were sent, or are refused."""
    try:
        found = chains.decode_chains(data)
        assert chains.encode_chains(found) == data
        chains.encode_chains(found * (chains.MAX_CHAINS + 1))
    except FrameError:
        pass


TARGETS: Final[dict[str, Callable[[Dice], None]]] = {
    "effects": ask_for_anything,
    "pci-bus": partial(ask_for_anything, specs=BOARD),
    "protocol": greet_anybody,
}
