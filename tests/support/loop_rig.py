"""A run loop on a scripted vCPU, with devices at ports and in memory that note what they are asked."""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable
from typing import Final, cast

from kvmbox.base.outcome import Outcome
from kvmbox.kvm import exits, uapi
from kvmbox.kvm.vcpu import Vcpu
from kvmbox.remote.bus.routing import Bus, FastPath, InBytes, Mapping
from kvmbox.run.vcpu.run_loop import ExitAction
from kvmbox.run.vcpu.run_state import Event, VcpuState
from tests.support.halves import Half
from tests.support.scripted_vcpu import DATA, OUT, FakeVcpu

READ_WORD: Final = 0x100  # what the fake devices' fast_paths are asked with, but for the size
WRITE_WORD: Final = 0x200


class Device:
    """Notes each access; reads give the values the test queued, then ones. It has fast_paths to itself."""

    def __init__(self, natural_sizes: frozenset[int] = frozenset()) -> None:
        self.natural_sizes = natural_sizes
        self.at_once = True
        self.accesses: list[tuple[object, ...]] = []
        self.values: list[int] = []
        self.fast_paths = 0
        self.strings = 0
        """How many string instructions came at once."""
        self.counted = {True: 0, False: 0}
        self.to_count = {True: 0, False: 0}
        """The accesses by a fast path, each of which is to be counted."""

    def fast_path(self, is_read: bool, size: int) -> FastPath:
        word, limit = (READ_WORD, (1 << 8 * size) - 1) if is_read else (WRITE_WORD, 0)
        return FastPath(self.access, word | size, limit)

    def count(self, is_read: bool, accesses: int) -> None:
        self.counted[is_read] += accesses

    def in_bytes(self, size: int) -> InBytes:
        return DeviceInBytes(self, size)

    def read_string(self, offset: int, size: int, count: int) -> bytes:
        self.strings += 1
        return b"".join(self.read(offset, size).to_bytes(size, "little") for _ in range(count))

    def write_string(self, offset: int, size: int, data: bytes) -> None:
        self.strings += 1
        for start in range(0, len(data), size):
            self.write(offset, size, int.from_bytes(data[start : start + size], "little"))

    def access(self, word: int, offset: int, value: int, limit: int) -> int:
        self.fast_paths += 1
        self.to_count[word & ~0xFF == READ_WORD] += 1
        size = word & 0xFF
        if word & ~0xFF == READ_WORD:
            assert (value, limit) == (0, (1 << 8 * size) - 1)
            return self.read(offset, size)
        assert (word & ~0xFF, limit) == (WRITE_WORD, 0)
        self.write(offset, size, value)
        return 0

    def read(self, offset: int, size: int) -> int:
        self.accesses.append(("read", offset, size))
        return self.values.pop(0) if self.values else (1 << 8 * size) - 1

    def write(self, offset: int, size: int, value: int) -> None:
        self.accesses.append(("write", offset, size, value))


class DeviceInBytes:
    """The same device for wide accesses: it gets their bytes, and notes that they came at once."""

    def __init__(self, device: Device, size: int) -> None:
        self._device = device
        self._size = size

    def fast_path(self, is_read: bool, size: int) -> FastPath:
        assert size == self._size
        limit = (1 << 8 * size) - 1 if is_read else 0
        return FastPath(self.access, (READ_WORD if is_read else WRITE_WORD) | size, limit)

    def count(self, is_read: bool, accesses: int) -> None:
        self._device.count(is_read, self._size * accesses)

    def access(self, word: int, offset: int, value: int, limit: int) -> int:
        self._device.fast_paths += 1
        self._device.to_count[word & ~0xFF == READ_WORD] += self._size
        if word & ~0xFF == READ_WORD:
            assert (value, limit) == (0, (1 << 8 * self._size) - 1)
            return self.read(offset)
        assert limit == 0
        self.write(offset, value)
        return 0

    def read(self, offset: int) -> int:
        registers = range(offset, offset + self._size)
        return int.from_bytes(bytes(self._device.read(register, 1) for register in registers), "little")

    def write(self, offset: int, value: int) -> None:
        for number in range(self._size):
            self._device.write(offset + number, 1, value >> 8 * number & 0xFF)


class Rig:
    """A loop on a fake vCPU, with devices at ports and in memory."""

    def __init__(self, half: Half | None = None, buses: tuple[Bus, Bus] | None = None) -> None:
        self.vcpu = FakeVcpu()
        self.standstills = 0
        """How often the vCPU has stood still."""
        self.announced: list[tuple[int, bool]] = []
        """How many accesses COM1 had seen, and the promise for the next exit, whenever one was announced."""
        self.ports, self.mmio = buses or (Bus(16), Bus(52))
        self.uart, self.exit, self.mmio_uart = Device(), Device(frozenset({2, 4})), Device()
        self.ports.attach(Mapping(0x3F8, 8, self.uart, direct=self.uart))
        self.ports.attach(Mapping(0xF4, 4, self.exit, direct=self.exit))
        self.mmio.attach(Mapping(0xD000_0000, 8, self.mmio_uart, direct=self.mmio_uart))
        self._half = half or Half()
        self.exit_filter: Callable[[exits.Exit], ExitAction] | None = None
        """A debugger's answer to rare exits, for the next `named`."""
        self.named(None)
        self.while_standing: Callable[[], object] = self.control.resume
        """What the main thread does when the vCPU stands still."""

    def named(self, name: str | None) -> None:
        """Make the loop that of the CPU `name`: one of several."""
        self.control = self._half.control(self.vcpu.kick, self._notified)
        self.control.move(Event.START)
        self.loop = self._half.loop(
            self.control,
            cast(Vcpu, self.vcpu),
            self.ports,
            self.mmio,
            read_memory=lambda a: a & 0xFF if a != 0x7C03 else None,
            name=name,
            exit_filter=self.exit_filter,
        )

    def _notified(self) -> None:
        if self.control.state is not VcpuState.RUNNING:
            self.standstills += 1
            self.while_standing()
            return
        self.announced.append((len(self.uart.accesses), self.control.announces_exit))

    def step(self, step: Callable[[], int]) -> None:
        self.vcpu.script.append(step)

    def port(
        self,
        direction: int,
        port: int,
        *,
        size: int = 1,
        count: int = 1,
        data: bytes = b"",
        offset: int = DATA,
    ) -> None:
        """The next exit: a port access, with what the guest writes."""

        def play() -> int:
            struct.pack_into("<I", self.vcpu.page, uapi.RUN_EXIT_REASON, uapi.KVM_EXIT_IO)
            struct.pack_into("<BBHIQ", self.vcpu.page, 32, direction, size, port, count, offset)
            if direction == OUT:
                self.vcpu.page[offset : offset + len(data)] = data
            elif offset < len(self.vcpu.page):
                # What is there is from an earlier exit: it must not be what the guest reads.
                length = min(size * count, len(self.vcpu.page) - offset)
                self.vcpu.page[offset : offset + length] = b"\xee" * length
            return 0

        self.step(play)

    def memory(self, address: int, length: int, data: bytes | None = None) -> None:
        """The next exit: a memory access, a write if there is `data`."""

        def play() -> int:
            struct.pack_into("<I", self.vcpu.page, uapi.RUN_EXIT_REASON, uapi.KVM_EXIT_MMIO)
            content = b"\xee" * 8 if data is None else data.ljust(8, b"\xee")
            # Behind the direction is nothing that anybody has written.
            rest = b"\xee" * 3
            struct.pack_into("<Q8sIB3s", self.vcpu.page, 32, address, content, length, data is not None, rest)
            return 0

        self.step(play)

    def reason(self, reason: int) -> None:
        """The next exit: nothing but a reason."""

        def play() -> int:
            struct.pack_into("<I", self.vcpu.page, uapi.RUN_EXIT_REASON, reason)
            return 0

        self.step(play)

    def peek(self, look: Callable[[], None]) -> None:
        """Between two exits, look; the loop sees an interrupted KVM_RUN."""

        def play() -> int:
            look()
            return -errno.EINTR

        self.step(play)

    def data(self, length: int, *, at: int = DATA) -> bytes:
        return bytes(self.vcpu.page[at : at + length])

    def play(self) -> Outcome | None:
        """Run the script, then leave."""
        self.peek(self.control.leave)
        return self.loop.run()
