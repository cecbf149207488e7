"""A machine that was prepared ahead: what is set when it is wanted, and when it is given up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from kvmbox.base.errors import DeviceProcessError
from kvmbox.boot.boot_files import HostFiles
from kvmbox.boot.plan import BootPlan
from kvmbox.boot.real_mode.entry_registers import waking_state
from kvmbox.contract.device_spec import DeviceSpec
from kvmbox.devices.rtc.board import rtc
from kvmbox.remote.channel.connection import Channel
from kvmbox.remote.channel.grants import Grants
from kvmbox.remote.channel.hello import greet
from kvmbox.remote.channel.on_demand import NoProcess
from kvmbox.remote.process.device_pool import DevicePool
from kvmbox.remote.process.late_starts import ProcessStarts
from kvmbox.remote.transport.direct import DirectLink
from kvmbox.tools.warm.orders import BootOrder
from kvmbox.tools.warm.pool import MOST_PREPARED, can_be_prepared
from kvmbox.tools.warm.prepared_machines import FAR_TSC, MSR_TSC, Ahead, AheadTimeline, Unprepared, set_rtc
from kvmbox.wire import protocol

MIB = 1 << 20
SECONDS_REGISTER = 0


class Guest:
    """A virtual machine whose clocks have run since it was made."""

    def __init__(self) -> None:
        self.clock = 5_000
        self.boot = BootPlan("multiboot", waking_state(0x1000), 0x1000)
        self.vcpus = [SimpleNamespace(set_msrs=self._set_msrs) for _ in range(2)]
        self.vm = SimpleNamespace(set_clock=self._set_clock)
        self.msrs: list[dict[int, int]] = []

    def _set_msrs(self, values: dict[int, int]) -> None:
        self.msrs.append(values)

    def _set_clock(self, time: int) -> None:
        self.clock = time


class Rig:
    """What stands when the machine of an image was prepared."""

    def __init__(self, image: Path) -> None:
        image.write_bytes(b"an image")
        files = HostFiles()
        files.image(str(image))
        self.lost: DeviceProcessError | None = None
        self.guest = Guest()
        self.ends = SimpleNamespace(started=0)
        self.timeline = AheadTimeline()
        pool = SimpleNamespace(members={}, check=lambda: self.lost)
        self.machine = SimpleNamespace(
            config=SimpleNamespace(guest=str(image)),
            files=files,
            devices=SimpleNamespace(pool=pool),
            loop=SimpleNamespace(ends=self.ends),
        )
        self.order = BootOrder({"image": str(image)}, (), "/")

    def owner(self, wanted: Callable[[], int | None]) -> Ahead:
        return Ahead(self.order, self.timeline, wanted)

    def stand(self, owner: Ahead) -> None:
        owner.stands(cast(Any, self.machine), cast(Any, self.guest))


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path / "image")


def test_time_begins_when_the_machine_is_wanted(rig: Rig) -> None:
    rig.timeline.mark("devices ready")
    at = rig.timeline.started + rig.timeline.stages["devices ready"] + 10**9
    owner = rig.owner(lambda: at)

    rig.stand(owner)

    assert owner.is_wanted
    assert rig.timeline.started == rig.ends.started == at
    assert rig.timeline.stages == {"devices ready": 0}
    assert rig.guest.msrs == [{MSR_TSC: FAR_TSC}, {MSR_TSC: 1}, {MSR_TSC: 1}]
    assert rig.guest.clock == 0


def test_stage_behind_the_wish_took_the_time_since(rig: Rig) -> None:
    rig.timeline.mark("asked for")
    at = rig.timeline.started + rig.timeline.stages["asked for"] + 1
    rig.timeline.stages["devices ready"] = at + 7 - rig.timeline.started

    rig.stand(rig.owner(lambda: at))

    assert rig.timeline.stages == {"asked for": 0, "devices ready": 7}


def test_timer_is_started_once_and_before_the_machine_is_wanted(rig: Rig) -> None:
    told: list[tuple[Any, ...]] = []
    channel = SimpleNamespace(request=lambda *_, **what: told.append((what["offset"], what["payload"])))
    pit = SimpleNamespace(runs=SimpleNamespace(firmware=((3, b"4"), (0, b"\0\0"))))
    rig.machine.devices.pool.places = lambda: [("pit", 0, pit), ("uart", 0, SimpleNamespace(runs=None))]
    rig.machine.devices.pool.channel = lambda _name: channel
    rig.guest.boot = rig.guest.boot.replaced(after_bios=True)

    with pytest.raises(Unprepared):
        rig.stand(rig.owner(lambda: None))

    assert told == [(3, b"4"), (0, b"\0\0")]
    assert not rig.guest.boot.after_bios


def test_machine_that_is_not_wanted_is_given_up(rig: Rig) -> None:
    owner = rig.owner(lambda: None)

    with pytest.raises(Unprepared):
        rig.stand(owner)

    assert not owner.is_wanted


@pytest.mark.parametrize("data", [b"an imagE", b"an image ", b"", None])
def test_machine_is_given_up_when_its_image_has_changed(rig: Rig, data: bytes | None) -> None:
    def wanted() -> int:
        image = Path(rig.machine.config.guest)
        image.unlink() if data is None else image.write_bytes(data)
        return 1

    owner = rig.owner(wanted)
    with pytest.raises(Unprepared):
        rig.stand(owner)

    assert not owner.is_wanted


def test_machine_is_given_up_when_its_name_means_another_file(rig: Rig) -> None:
    rig.machine.config.guest = "/another/file"

    with pytest.raises(Unprepared):
        rig.stand(rig.owner(lambda: 1))


def test_machine_is_given_up_when_a_device_process_has_died(rig: Rig) -> None:
    rig.lost = DeviceProcessError("uart", "was killed")

    with pytest.raises(Unprepared):
        rig.stand(rig.owner(lambda: 1))


class Pool:
    """A pool with one device that nobody has used, and no process."""

    def __init__(self, device: DeviceSpec) -> None:
        devices = [device]
        starts = ProcessStarts(lambda _name: DirectLink())
        link = NoProcess(starts, devices)
        self._channel = Channel(
            "rtc",
            link,
            [Grants(device.name)],
            now=lambda: 0,
            deadline_changed=lambda *_: None,
        )
        link.attach(self._channel)
        self.members = {"rtc": SimpleNamespace(devices=devices)}
        greet(self._channel, devices)

    def channel(self, _name: str) -> Channel:
        return self._channel

    def read(self, register: int) -> int:
        self._channel.request(protocol.WRITE, offset=0, size=1, value=register)
        return self._channel.request(protocol.READ, offset=1, size=1, limit=0xFF)[0]


def test_rtc_shows_the_wall_clock_of_the_start() -> None:
    pool = Pool(rtc(1_700_000_000, 64 * MIB))
    before = Pool(rtc(1_700_000_000, 64 * MIB)).read(SECONDS_REGISTER)

    set_rtc(cast(DevicePool, pool), 1_700_000_007)

    assert pool.read(SECONDS_REGISTER) == before + 7


@pytest.mark.parametrize(
    ("options", "can"),
    [
        ({}, True),
        ({"sandbox": "none", "cpus": 2, "expect": ("a",), "timeout": 5.0}, True),
        ({"sandbox": "thread"}, False),
        ({"serial": ["COM2=file:out"]}, False),
        ({"disks": ["disk"]}, False),
        ({"record": "file"}, False),
        ({"kvm_path": "/dev/tape"}, False),
        ({"image": "/dev/zero"}, False),
        ({"image": "/nonexistent"}, False),
        ({"image": 5}, False),
        ({"initrd": "/dev/zero"}, False),
        ({"modules": ("/dev/zero,words",)}, False),
        ({"modules": 5}, False),
    ],
)
def test_what_has_an_effect_on_others_is_not_prepared(
    tmp_path: Path, options: dict[str, Any], can: bool
) -> None:
    image = tmp_path / "image"
    image.write_bytes(b"")

    assert can_be_prepared({"image": image} | options) is can


def test_large_image_is_not_prepared_and_a_bundled_one_is(tmp_path: Path) -> None:
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(MOST_PREPARED + 1)

    assert can_be_prepared({"image": "hello32"})
    assert not can_be_prepared({"image": str(large)})
    assert not can_be_prepared({"from_snapshot": str(large)})
