"""A machine for a `parts.gdb.gdb_session.Session` that stands still as long as the test wants."""

from __future__ import annotations

from collections.abc import Iterable

from kvmbox.kvm.uapi import kvm_fpu
from kvmbox.parts.gdb.breakpoints import WRITE_WATCH, Point
from kvmbox.parts.gdb.refused import RefusedError
from kvmbox.parts.gdb.registers import Layout, Registers, layout_of
from tests.support.stopped_cpu import Memory, long_mode


class FakeTarget:
    """Notes what it is asked to do, and refuses watchpoints."""

    def __init__(self, cpus: int = 2) -> None:
        self._cpus = cpus
        self.memory = Memory()
        self.states = [long_mode(self.memory, rip=0x7C00 + number) for number in range(cpus)]
        self.done: list[tuple[object, ...]] = []
        self.said: list[str] = []

    @property
    def cpus(self) -> int:
        return self._cpus

    @property
    def layout(self) -> Layout:
        return layout_of(64)

    def name_of(self, cpu: int) -> str:
        return f"CPU {cpu}"

    def registers(self, cpu: int) -> Registers:
        return Registers(self.states[cpu], kvm_fpu())

    def set_registers(self, cpu: int, registers: Registers) -> None:
        self.done.append(("set", cpu, registers.changed))

    def read(self, cpu: int | None, address: int, size: int) -> bytes:
        return self.memory.read(address, size) if cpu is None else self.states[cpu].read(address, size)

    def write(self, cpu: int | None, address: int, data: bytes) -> None:
        self.done.append(("write", cpu, address, data))
        self.memory.write(address & 0xFFFF, data)

    def add_point(self, cpu: int, point: Point) -> None:
        if point.kind >= WRITE_WATCH:
            raise RefusedError("no watchpoints")
        self.done.append(("add", cpu, point.kind, point.address))

    def remove_point(self, point: Point) -> None:
        self.done.append(("remove", point.kind, point.address))

    def resume(self, running: Iterable[int], step: int | None) -> None:
        self.done.append(("resume", list(running), step))

    def interrupt(self) -> None:
        self.done.append(("interrupt",))

    def detach(self) -> None:
        self.done.append(("detach",))

    def kill(self) -> None:
        self.done.append(("kill",))

    def reset(self) -> None:
        self.done.append(("reset",))

    def monitor(self, cpu: int, words: list[str]) -> str:
        self.done.append(("monitor", cpu, *words))
        return "COM1\n" * 5000 if words == ["devices"] else ""

    def notify(self, text: str) -> None:
        self.said.append(text)
