"""The window of a VGA, out of guest memory and back: what is asked of KVM."""

from __future__ import annotations

import errno
from types import SimpleNamespace
from typing import Any, Final

import pytest

from kvmbox.base import layout
from kvmbox.base.errors import KvmError
from kvmbox.base.memory import WINDOW_SLOT
from kvmbox.contract import bulk_data
from kvmbox.contract.names import VGA
from kvmbox.devices.vga.model import VgaText
from kvmbox.run.display import vga_window_switch
from kvmbox.run.display.vga_window_switch import Aperture

MOST_ZONES: Final = 1000
"""NR_IOBUS_DEVS of <linux/kvm_host.h>."""

Zone = tuple[int, int, bool]


class FakeVm:
    """A virtual machine with KVM's limit, which has a zone as often as it is registered."""

    def __init__(self) -> None:
        self.zones: list[Zone] = []
        self.slots: list[int] = []

    def register_coalesced(self, address: int, size: int, *, pio: bool) -> None:
        if len(self.zones) >= MOST_ZONES:
            raise KvmError(errno.errorcode[errno.ENOSPC])
        self.zones.append((address, size, pio))

    def unregister_coalesced(self, address: int, size: int, *, pio: bool) -> None:
        self.zones = [zone for zone in self.zones if zone != (address, size, pio)]

    def set_user_memory_region(self, _slot: int, _start: int, size: int, _host: int) -> None:
        self.slots.append(size)


class Restless(Aperture):
    """That of a VGA whose window is out, and may be back."""

    def _state(self) -> VgaText:
        vga = VgaText()
        for value in (6, 2):
            vga.write(0, 0x14, 2, 4 | value << 8)  # the sequencer's memory mode: planar, and as it was
        return vga


class Rig:
    """A machine whose VGA wants its window out, and back, as often as it is told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.proxy = SimpleNamespace(name=VGA)
        devices: Any = SimpleNamespace(
            proxies=[self.proxy], coalesced={0x3D4: (self.proxy, 0x24)}, late_ports={}, pool=None
        )
        standstill: Any = SimpleNamespace(admit=lambda _one: None, call=lambda: None)
        watch: Any = SimpleNamespace(flush_writes=lambda: None, boot=None)
        channel = SimpleNamespace(request=lambda *_arguments, **_options: None)
        monkeypatch.setattr(vga_window_switch, "place_of", lambda _pool: (channel, 0))
        self.aperture = Restless(devices, standstill, watch)
        self.begin()

    def begin(self) -> None:
        """A boot begins."""
        self.vm = FakeVm()
        memory = SimpleNamespace(
            read=lambda _address, size: bytes(size),
            write=lambda _address, _data: None,
            pieces={WINDOW_SLOT: SimpleNamespace(host_address=0)},
            shows_video=False,
        )
        vcpu = SimpleNamespace(words64=None, words32=None)
        boot: Any = SimpleNamespace(
            guest=SimpleNamespace(vm=self.vm, vcpus=[vcpu], memory=memory),
            ring=SimpleNamespace(pending=False, open_window=lambda _window: None),
        )
        self.aperture.boot_begins(boot)

    def say(self, is_plain: int) -> None:
        found = self.aperture.check(0, bulk_data.Aperture(is_plain, layout.VGA_MEMORY, 64))
        assert found is not None
        found[0](*found[1])

    def take_out(self) -> None:
        self.say(0)

    def put_back(self) -> None:
        self.say(1)
        self.aperture.visit()


OUT: Final = {(0x3C4, 2, True), (0x3CE, 2, True)}
ALWAYS: Final = {(0x3C8, 2, True), (layout.VGA_MEMORY, layout.VGA_MEMORY_SIZE, False)}


def test_window_goes_out_and_back_as_often_as_the_guest_likes(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(monkeypatch)
    for _ in range(1500):
        rig.take_out()
        assert sorted(rig.vm.zones) == sorted(OUT | ALWAYS)
        rig.put_back()
        assert sorted(rig.vm.zones) == sorted(ALWAYS)
    assert rig.vm.slots == [0, layout.VGA_MEMORY_SIZE] * 1500


def test_each_virtual_machine_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(monkeypatch)
    for _ in range(2):
        rig.take_out()
        rig.begin()
        assert rig.vm.zones == []
    rig.take_out()
    assert sorted(rig.vm.zones) == sorted(OUT | ALWAYS)
