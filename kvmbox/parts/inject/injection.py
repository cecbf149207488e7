"""The faults of a run: which device of the board gets which, what they are put between, and what they did.

Where the faults are. Accesses pass a `FaultyDevice` on the bus, in place of the proxy that has a fast path.
Interrupts pass a `FaultyLine`, in place of the source of the line. Other devices, and runs without faults,
have neither. The model of a device with faults announces no interrupts (docs/adr/interrupts.md), and none of
its writes is late (docs/adr/late-writes.md): so the guest's accesses and the interrupts come here in one
order. The faults of a disk are at its store, and those of a network at its
wire.

A device process knows nothing of faults. It is asked what it would be asked otherwise, or less, or what a
guest might ask. So a recording replays, a lost process is restarted, and grants are checked as ever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, cast

from kvmbox.base.errors import UsageError
from kvmbox.contract import device_spec
from kvmbox.contract.device_spec import DeviceSpec
from kvmbox.host.disk.transfers import Store
from kvmbox.parts.inject.device import FaultyDevice
from kvmbox.parts.inject.device_faults import Count, DeviceFaults
from kvmbox.parts.inject.disk_faults import FaultyDisk
from kvmbox.parts.inject.fault_table import BREAK, BUSY, FAULTS, FRAMING, JUMP, OVERRUN, PARITY
from kvmbox.parts.inject.line import FaultyLine
from kvmbox.parts.inject.network_faults import FaultyWire
from kvmbox.parts.inject.rtc_faults import FaultyRtc
from kvmbox.parts.inject.spec import Spec, Wanted, select
from kvmbox.parts.inject.uart_faults import FaultyUart
from kvmbox.remote.bus.routing import BusDevice
from kvmbox.remote.channel.grants import Host, Rise
from kvmbox.wire.protocol import NO_DEADLINE

ANNOUNCE: Final = "announce"
"""The parameter of models that announce interrupts."""

_OF_UART: Final = (BUSY, OVERRUN, PARITY, FRAMING, BREAK)
_WITH_CHIPS: Final = {**dict.fromkeys(_OF_UART, _OF_UART), JUMP: (JUMP,)}
"""Faults that need a stand-in for the chip, which a device with one of these has."""

DeadlineChanged = Callable[[str, int, int], None]


class Injection:
    """The faults of one run. Made before its devices; `attach` comes before `host_of` and `device_of`, and
    before anything of a disk is moved.
    """

    def __init__(self, specs: Sequence[Spec], devices: Sequence[DeviceSpec]) -> None:
        """Find out which of `devices` are meant. Raises UsageError."""
        self._devices = devices
        self._chosen: dict[str, list[tuple[Spec, Wanted]]] = {}
        for spec in specs:
            for device, wanted in select(spec, devices):
                chosen = self._chosen.setdefault(device.name, [])
                if any(other.fault is wanted.fault for _, other in chosen):
                    raise UsageError(
                        f"--inject: {device.name} has the fault '{wanted.fault.name}' twice",
                        hint=f"once in '{spec.text}'",
                    )
                chosen.append((spec, wanted))
        self._now: Callable[[], int] = lambda: 0
        self._faults = {name: self._faults_of(name, chosen) for name, chosen in self._chosen.items()}
        self._lines: dict[str, list[FaultyLine]] = {}
        self._process_of: dict[str, str] = {}
        self._deadlines: dict[str, int] = {}  # by process, what its models want
        self._announce: DeadlineChanged = _nobody_hears

    def add(self, spec: Spec) -> None:
        """Add faults while the guest runs. What is between a device and its guest stays as it was made.

        Raises UsageError.
        """
        chosen = select(spec, self._devices)
        for device, wanted in chosen:
            faults, name = self._faults.get(device.name), wanted.fault.name
            if faults is None or (name in _WITH_CHIPS and not faults.has(_WITH_CHIPS[name])):
                raise UsageError(f"--inject: {device.name} has not been prepared for '{name}' at the start")
            if faults.has([name]):
                raise UsageError(f"--inject: {device.name} has the fault '{name}' already")
        for device, wanted in chosen:
            self._faults[device.name].add(spec, wanted)

    def board_of(self, devices: Sequence[DeviceSpec]) -> list[DeviceSpec]:
        """The board to build: devices with faults announce nothing, and none of their writes may be late."""
        return [_without_shortcuts(one) if one.name in self._chosen else one for one in devices]

    def attach(
        self, now: Callable[[], int], processes: Iterable[tuple[str, DeviceSpec]], announce: DeadlineChanged
    ) -> DeadlineChanged:
        """Guest time is `now`. `processes` are the devices, each with the name of its process.

        Returns what learns the deadlines of processes, and calls `announce` with them: a delayed interrupt
        may be earlier than what the models want.
        """
        self._process_of = {device.name: process for process, device in processes}
        self._announce = announce
        self._now = now
        return self._deadline_changed

    def _guest_time(self) -> int:
        return self._now()

    def _faults_of(self, name: str, chosen: Sequence[tuple[Spec, Wanted]]) -> DeviceFaults:
        faults = DeviceFaults(name, self._guest_time)
        for spec, wanted in chosen:
            faults.add(spec, wanted)
        return faults

    def store_of(self, disk: str, store: Store) -> Store:
        """What is read and written in place of `store`, of the drive `disk`: that itself without faults."""
        faults = self._faults.get(disk)
        return store if faults is None else FaultyDisk(store, faults)

    def wire_of(self, net: str, wire: Any) -> Any:
        """What carries frames in place of `wire`, of the interface `net`: that itself without faults."""
        faults = self._faults.get(net)
        return wire if faults is None else FaultyWire(wire, faults)

    def host_of(self, device: DeviceSpec, host: Host) -> Host:
        """What does for `device` what `host` would."""
        faults = self._faults.get(device.name)
        if faults is None:
            return host
        lines = self._lines.setdefault(device.name, [])
        process = self._process_of[device.name]
        return cast(Host, _FaultyHost(host, faults, lines, lambda: self._report_deadline(process)))

    def device_of(self, device: DeviceSpec, proxy: BusDevice) -> BusDevice:
        """What is put on the bus for `device`, whose proxy is `proxy`: that itself, if it has no faults."""
        faults = self._faults.get(device.name)
        if faults is None:
            return proxy
        chip = proxy
        if faults.has(_OF_UART):
            chip = FaultyUart(chip, faults)
        if faults.has((JUMP,)):
            chip = FaultyRtc(chip, faults)
        return FaultyDevice(chip, faults, self._lines.get(device.name, ()))

    def reset(self) -> None:
        """The machine is reset: what was to come late never comes. Faults and their counts go on."""
        for lines in self._lines.values():
            for line in lines:
                line.reset()

    @property
    def counts(self) -> list[Count]:
        """What each fault of each device has done so far."""
        return [count for faults in self._faults.values() for count in faults.counts]

    # --- Deadlines ----------------------------------------------------------------------------------------

    def _deadline_changed(self, process: str, deadline: int, now: int) -> None:
        # Under the lock of the channel of `process`, as what follows.
        self._deadlines[process] = deadline
        self._report_deadline(process, now)

    def _report_deadline(self, process: str, now: int = 0) -> None:
        deadline = self._deadlines.get(process, NO_DEADLINE)
        self._announce(process, min(deadline, self._first_rise(process)), now)

    def _first_rise(self, process: str) -> int:
        """When the first delayed interrupt of a process is due, or NO_DEADLINE."""
        return min(
            (
                line.at
                for device, lines in self._lines.items()
                if self._process_of[device] == process
                for line in lines
            ),
            default=NO_DEADLINE,
        )


class _FaultyHost:
    """A host whose interrupt lines have faults, and that takes no late writes. The rest is that of `host`."""

    def __init__(
        self, host: Host, faults: DeviceFaults, lines: list[FaultyLine], postponed: Callable[[], None]
    ) -> None:
        self._host = host
        self._faults = faults
        self._lines = lines
        self._postponed = postponed

    def irq_source(self, gsi: int) -> FaultyLine:
        return self._add(self._host.irq_source(gsi))

    def replacing_irq_source(self, gsi: int) -> tuple[FaultyLine, Callable[[int], None]]:
        source, take = self._host.replacing_irq_source(gsi)
        return self._add(source), take

    def rise_of(self, line: Callable[[int, int], None]) -> Rise | None:
        return line if isinstance(line, FaultyLine) else None

    def late_writes(self, _device: DeviceSpec, _grant: device_spec.LateWrites) -> Callable[[int], None]:
        return lambda _allowed: None

    def _add(self, source: Callable[[int, int], None]) -> FaultyLine:
        line = FaultyLine(source, self._faults, self._postponed)
        self._lines.append(line)
        return line

    def __getattr__(self, name: str) -> Any:
        return getattr(self._host, name)


def report(counts: Iterable[Count]) -> list[str]:
    """What was injected, for a person: a line for each fault that had a chance, or one that none had."""
    lines = [
        f"{count.device}: {count.injected} of {count.events} {FAULTS[count.fault].counted}"
        for count in counts
        if count.events
    ]
    return lines or ["no fault had a chance"]


def _without_shortcuts(device: DeviceSpec) -> DeviceSpec:
    changed: dict[str, Any] = {"coalesced": ()}
    if ANNOUNCE in device.parameters:
        changed["parameters"] = {**device.parameters, ANNOUNCE: 0}
    if device.runs is not None:
        changed |= {"runs": None, "on_demand": False}  # what stands in for the process announces
    return DeviceSpec(**{**device.as_dict(), **changed})


def _nobody_hears(_process: str, _deadline: int, _now: int) -> None:
    """Ignore deadlines."""
