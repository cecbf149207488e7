"""Processes of a VGA and of PCI that are taken over: what they ask for, at the VMM's side of a run.

The VGA's asks for windows and frame buffers, and tells a state of itself that is damaged. What must hold: it
is told bytes of its own window alone, no other byte of RAM changes, and KVM is asked for nothing but the slot
and the zones of this window. That of PCI places registers, routes interrupts and sends messages: see
`test_pci_fabric`.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any, Final

from kvmbox.base import layout
from kvmbox.base.errors import DeviceProcessError
from kvmbox.base.memory import WINDOW_SLOT, GuestMemory
from kvmbox.contract.bulk_data import Aperture, FrameBuffer
from kvmbox.contract.catalog import build_model
from kvmbox.contract.model import Effect, MemoryRead, MemoryWrite, Stop
from kvmbox.contract.names import VGA
from kvmbox.contract.pci_effects import Control, Decode, Message, Route
from kvmbox.devices.pc_board import BoardOptions, pc_board
from kvmbox.devices.vga.model import VgaText
from kvmbox.jail.server import DeviceServer
from kvmbox.remote.channel.effect_calls import MAX_FOLLOW_UPS
from kvmbox.remote.channel.grants import bind
from kvmbox.remote.channel.hello import greet
from kvmbox.remote.transport.direct import DirectLink
from kvmbox.run.display.vga_window_switch import FIRST, SIZE
from kvmbox.run.display.vga_window_switch import Aperture as Window
from kvmbox.wire import protocol
from kvmbox.wire.effects import decode_effects, encode_effects
from kvmbox.wire.protocol import FrameError, request_word
from tests.fuzz.targets import Fault
from tests.property.test_pci_fabric import PLACES, PORTS, Rig, check_fabric
from tests.support.halves import Half
from tests.support.noting_host import NotingHost

END: Final = FIRST + SIZE
SECRET: Final = 0xEE
OPEN: Final = 0x11
MOST_ZONES: Final = 8
LOOK_EVERY: Final = 64
STARTS: Final = (FIRST, FIRST, FIRST + 0x1_0000, FIRST + 0x1_8000, END - 1, END, FIRST - 1, 0, 1 << 32)
SIZES: Final = (0, 1, 64, 0x8000, 0x1_0000, 0x1_0001, SIZE, SIZE + 1, (1 << 32) - 1)
STATES: Final = 40


class Vm:
    """KVM's side of the window."""

    def __init__(self) -> None:
        self.zones = 0

    def register_coalesced(self, address: int, size: int, *, pio: bool) -> None:
        """See `kvm.vm`."""
        self.zones += 1
        if not pio and (address, size) != (FIRST, SIZE):
            raise Fault(f"a zone at {address:#x}")
        if self.zones > MOST_ZONES:
            raise Fault(f"{self.zones} zones")

    def unregister_coalesced(self, _address: int, _size: int, *, pio: bool) -> None:
        """See `kvm.vm`."""
        del pio
        self.zones -= 1

    def set_user_memory_region(self, slot: int, start: int, size: int, _host: int) -> None:
        """See `kvm.vm`."""
        if (slot, start) != (WINDOW_SLOT, FIRST) or size not in (0, SIZE):
            raise Fault(f"slot {slot} at {start:#x}, {size} bytes")


class VgaHost(NotingHost):
    """Windows are those of a run."""

    def __init__(self, ram: GuestMemory) -> None:
        super().__init__()
        self.ram = ram
        self.window_of_run: Window

    def aperture(self, index: int, effect: Effect) -> Any:
        """See Host."""
        return self.window_of_run.check(index, effect)


def _states(dice: random.Random) -> list[bytes]:
    """States that a VGA may be in, with some memory."""
    found = []
    for _ in range(STATES):
        vga = VgaText()
        for _ in range(dice.randrange(30)):
            index, value = (
                dice.choice(((0x14, dice.randrange(5)), (0x1E, dice.randrange(9)))),
                dice.randrange(256),
            )
            vga.write(0, index[0], 2, index[1] | value << 8)
            vga.write(0, FIRST + dice.randrange(SIZE), 1, 0x33)
            vga.take_effects()
        found.append(vga.snapshot())
    return found


class TakenOverVga(VgaText):
    """It asks for what the target makes up, and tells a state that is nobody's."""

    target: VgaTarget

    def write(self, now: int, offset: int, size: int, value: int) -> None:
        """See DeviceModel."""

    def memory(self, _now: int, _tag: int, data: bytes | None) -> None:
        """See MemoryModel."""
        if SECRET in (data or b""):
            raise Fault(f"the process was told {data!r}")

    def complete(self, now: int, tag: int, status: int) -> None:
        """See MediaModel."""

    def snapshot(self) -> bytes:
        """See DeviceModel."""
        return self.target.state

    def take_effects(self) -> list[Effect]:
        """See DeviceModel."""
        return self.target.effects()


class VgaTarget:
    """The process of the VGA, and its window in a run's memory."""

    def __init__(self, seed: int, half: Half) -> None:
        self.dice = random.Random(seed)
        self.frames = self.refused = self.told = 0
        self._fault: Fault | None = None
        self._half = half
        self._states = _states(self.dice)
        self.state = self._states[0]
        self.ram = GuestMemory(layout.MIB)
        self.ram.fill(0, layout.MIB, SECRET)
        self.ram.fill(FIRST, SIZE, OPEN)
        self._rest = self._outside()
        self._asks = False
        self._connect()

    def _outside(self) -> tuple[bytes, bytes]:
        return self.ram.read(0, FIRST), self.ram.read(END, layout.MIB - END)

    def _connect(self) -> None:
        board = [one for one in pc_board(BoardOptions((), 0, layout.MIB)) if one.device_type == "vga"]
        host = VgaHost(self.ram)
        kind = type("TakenOver", (TakenOverVga,), {"target": self})
        build = {"vga_text": lambda **_parameters: kind()}
        server = partial(
            DeviceServer,
            build=lambda name, parameters: build[name]() if name in build else build_model(name, parameters),
        )
        self.channel = self._half.channel(
            "vga", DirectLink(server), [bind(one, host) for one in board], now=lambda: 1
        )
        pool: Any = SimpleNamespace(
            channel=lambda _type: self.channel,
            places=lambda: [("vga", number, one) for number, one in enumerate(board)],
        )
        proxy = SimpleNamespace(name=VGA)
        devices: Any = SimpleNamespace(
            proxies=[proxy], coalesced={0x3D4: (proxy, 0x24)}, late_ports={}, pool=pool
        )
        standstill: Any = SimpleNamespace(admit=lambda _one: None, call=lambda: None)
        watch: Any = SimpleNamespace(flush_writes=lambda: None, boot=None)
        self.window = host.window_of_run = Window(devices, standstill, watch)
        self._asks = False
        greet(self.channel, board)
        self._asks = True
        self._vga = [one.name for one in board].index(VGA)
        ring = SimpleNamespace(pending=False, open_window=lambda _window: None)
        guest = SimpleNamespace(vm=Vm(), vcpus=[SimpleNamespace(words64=None, words32=None)], memory=self.ram)
        self.window.boot_begins(SimpleNamespace(guest=guest, ring=ring))  # type: ignore[arg-type]

    def step(self) -> None:
        """One access, or one visit of the main thread. Raises Fault."""
        dice, before = self.dice, self.frames
        try:
            if dice.random() < 0.1:
                self.state = self._damaged()
                self.window.visit()
            else:
                self.channel.access(request_word(protocol.WRITE, self._vga, 1), 4, 0, 0)
        except DeviceProcessError as error:
            self.refused += 1
            if "Fault" in str(error):
                raise Fault(str(error)) from error
            self._connect()
        if self.frames - before > MAX_FOLLOW_UPS + 80:  # a state has 65 parts
            raise Fault(f"{self.frames - before} requests at once")
        if self.frames % LOOK_EVERY == 0 and self._outside() != self._rest:
            raise Fault("RAM beside the window has changed")

    def _damaged(self) -> bytes:
        dice = self.dice
        state = bytearray(dice.choice(self._states))
        for _ in range(dice.choice((0, 0, 1, 2))):
            state[dice.randrange(min(len(state), 400))] = dice.randrange(256)
        if dice.random() < 0.05:
            del state[dice.randrange(len(state)) :]
        return bytes(state).replace(b"\xee", b"\xed")

    def effects(self) -> list[Effect]:
        """What the process asks for in its reply."""
        self.frames += 1
        dice = self.dice
        if not self._asks or dice.random() < 0.5:
            return []
        return [self._effect() for _ in range(dice.choice((1, 1, 1, 2, 3)))]

    def _effect(self) -> Effect:
        dice = self.dice
        if dice.random() < 0.01:
            return dice.choice((MemoryRead(1, [(0x9000, 4)]), MemoryWrite(0x9000, b"x", 1), Stop()))
        if dice.random() < 0.01:
            return FrameBuffer(dice.randrange(256), dice.randrange(2), dice.choice(SIZES))
        address = FIRST if dice.random() < 0.8 else dice.choice((*STARTS, dice.randrange(1 << 64)))
        size = 64 if dice.random() < 0.8 else dice.choice((*SIZES, dice.randrange(SIZE)))
        return Aperture(dice.randrange(2), address, size)

    def close(self) -> None:
        """Give back what the kernel gave."""
        self.ram.close()


class PciTarget:
    """The process of PCI, and the buses of a run."""

    def __init__(self, seed: int, half: Half) -> None:
        del half  # there is one
        self.dice = random.Random(seed)
        self.frames = self.refused = 0
        self.rig = Rig()

    def step(self) -> None:
        """One frame. Raises Fault."""
        dice = self.dice
        if self.frames % 1000 == 999:
            self.rig = Rig()
        self.frames += 1
        said: list[tuple[int, Effect]] = [(0, self._effect()) for _ in range(dice.choice((1, 1, 2, 5)))]
        frame = bytearray(encode_effects(said))
        if dice.random() < 0.1:
            frame[dice.randrange(len(frame))] = dice.randrange(256)
        try:
            effects, _ = decode_effects(len(said), bytes(frame))
        except FrameError:
            self.refused += 1
            return
        for _, effect in effects:
            self.rig.say(effect)
        if dice.random() < 0.3:
            pins: list[Callable[[int, int], None]] = [*self.rig.pins, *self.rig.functions]
            dice.choice(pins)(dice.randrange(2), 0)
        try:
            check_fabric(self.rig)
        except AssertionError as error:
            raise Fault(f"{said}: {error}") from error

    def _effect(self) -> Effect:
        dice = self.dice
        number = dice.choice((0, 8, 0x18, 0x20)) if dice.random() < 0.9 else dice.randrange(256)
        place = dice.choice((*PLACES, *PORTS)) if dice.random() < 0.8 else dice.getrandbits(64)
        match dice.randrange(6):
            case 0 | 1 | 2:
                return Decode(number, dice.randrange(7), place, dice.randrange(2))
            case 3:
                return Route(dice.randrange(6), dice.randrange(256), dice.randrange(2))
            case 4:
                return Control(number, dice.randrange(256))
            case _:
                apic = layout.LOCAL_APIC_BASE + 4 * dice.randrange(1 << 19)
                return Message(
                    dice.randrange(256), dice.choice((apic, place)), dice.getrandbits(32), dice.randrange(2)
                )

    def close(self) -> None:
        """There is nothing to give back."""
