"""The debug console, POST, debug-exit and shutdown ports, and what models without time share."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kvmbox.contract.model import DeviceModel, HostOutput, SnapshotError, Stop
from kvmbox.devices.debug.model import DebugCon, DebugExit, PostPort, ShutdownPort
from kvmbox.devices.ps2.model import I8042

ALL: list[Callable[[], DeviceModel]] = [DebugCon, DebugExit, I8042, PostPort, ShutdownPort]


@pytest.mark.parametrize("build", [build for build in ALL if build is not I8042])
def test_small_model_has_no_time_and_no_input(build: Callable[[], DeviceModel]) -> None:
    model = build()
    assert model.next_deadline() is None
    model.advance(1 << 80)
    assert model.receive(5, b"abc") == 0
    assert model.take_effects() == []


@pytest.mark.parametrize("build", ALL)
def test_small_model_offset_outside_gives_ones_and_drops_writes(build: Callable[[], DeviceModel]) -> None:
    model = build()
    before = model.snapshot()
    for offset in (-1, 4, 1 << 40):
        assert model.read(0, offset, 1) == 0xFF
        model.write(0, offset, 1, 0x53)
    assert model.read(0, 100, 4) == 0xFFFFFFFF
    assert model.take_effects() == []
    assert model.snapshot() == before


@pytest.mark.parametrize("build", ALL)
@pytest.mark.parametrize("size", [0, 3, -1, 1 << 40])
def test_small_model_size_that_no_access_has_does_nothing(
    build: Callable[[], DeviceModel], size: int
) -> None:
    model = build()
    model.write(0, 0, size, 0x53)
    assert model.read(0, 0, size) == 0
    assert model.take_effects() == []


@pytest.mark.parametrize("build", ALL)
def test_small_model_snapshot_restores_and_refuses_others(build: Callable[[], DeviceModel]) -> None:
    model = build()
    model.write(0, 0, 1, 0x53)
    model.take_effects()
    state = model.snapshot()
    for bad in (b"", state[:-1], state + b"\0", b"XXX" + state[3:], state[:3] + b"\x7f" + state[4:]):
        with pytest.raises(SnapshotError):
            model.restore(bad)
        assert model.snapshot() == state
    other = build()
    other.restore(state)
    assert other.snapshot() == state
    model.reset(0)
    assert model.snapshot() == build().snapshot()


def test_debugcon_write_is_host_output_and_read_tells_its_presence() -> None:
    model = DebugCon()
    model.write(0, 0, 1, 0x141)
    model.write(0, 0, 1, 0x0A)
    assert model.take_effects() == [HostOutput(b"A"), HostOutput(b"\n")]
    assert model.take_effects() == []
    assert model.read(0, 0, 1) == 0xE9


def test_post_keeps_the_last_code_until_reset() -> None:
    model = PostPort()
    assert model.read(0, 0, 1) == 0
    model.write(0, 0, 1, 0x1FE)
    assert model.read(0, 0, 1) == 0xFE
    other = PostPort()
    other.restore(model.snapshot())
    assert other.read(0, 0, 1) == 0xFE
    model.reset(0)
    assert model.read(0, 0, 1) == 0


@pytest.mark.parametrize(("offset", "size"), [(0, 1), (3, 1), (0, 2), (0, 4)])
def test_debug_exit_write_is_one_stop(offset: int, size: int) -> None:
    model = DebugExit()
    assert model.read(0, offset, size) == (0 if offset + size <= 4 else 0xFF)
    model.write(0, offset, size, 0)
    assert model.take_effects() == [Stop()]


def test_debug_exit_write_beyond_its_ports_does_nothing() -> None:
    model = DebugExit()
    model.write(0, 4, 1, 1)
    model.write(0, 0, 8, 1)
    assert model.take_effects() == []


@pytest.mark.parametrize(
    ("text", "stops"),
    [
        (b"Shutdown", 1),
        (b"shutdown", 0),
        (b"Shutdow", 0),
        (b"Shut down", 0),
        (b"SShutdown", 1),
        (b"ShutShutdown", 1),
        (b"ShutdownShutdown", 2),
        (b"Shutdownhutdown", 1),
    ],
)
def test_shutdown_port_stops_on_the_word_alone(text: bytes, stops: int) -> None:
    model = ShutdownPort()
    for byte in text:
        model.write(0, 0, 1, byte)
    assert model.take_effects() == [Stop()] * stops
    assert model.read(0, 0, 1) == 0xFF


def test_shutdown_port_snapshot_goes_on_in_the_middle_of_the_word() -> None:
    model, other = ShutdownPort(), ShutdownPort()
    for byte in b"Shut":
        model.write(0, 0, 1, byte)
    other.restore(model.snapshot())
    for byte in b"down":
        other.write(0, 0, 1, byte)
    assert other.take_effects() == [Stop()]
    with pytest.raises(SnapshotError):
        other.restore(model.snapshot()[:-1] + b"\x08")
