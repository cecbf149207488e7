"""Callers from the call frame information of an ELF file: .eh_frame and .debug_frame (DWARF 4, section 6.4).

Only the rules that compilers write for ordinary functions are followed: a frame address that is a register
and an offset, and registers saved at an offset from there.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from kvmbox.base.value_classes import Value

MOST_ENTRIES: Final = 200_000

# Register numbers of DWARF: System V psABI for x86-64, figure 3.36, and for i386, table 2.14.
_NAMES_64: Final = {0: "rax", 1: "rdx", 2: "rcx", 3: "rbx", 4: "rsi", 5: "rdi", 6: "rbp", 7: "rsp", 12: "r12",
                    13: "r13", 14: "r14", 15: "r15"}  # fmt: skip
_NAMES_32: Final = {0: "rax", 1: "rcx", 2: "rdx", 3: "rbx", 4: "rsp", 5: "rbp", 6: "rsi", 7: "rdi"}
_RETURN: Final = {64: 16, 32: 8}


class Frame(Value):
    """Registers of a caller: `pc` is the return address, the others are those that are known."""

    pc: int
    registers: Mapping[str, int]


class Frames:
    """The call frame information of one file."""

    def __init__(self, dwarf: Any, base: int) -> None:
        """`dwarf` is pyelftools' DWARFInfo or None."""
        self._base = base
        self._entries: list[tuple[int, int, Any]] | None = None
        self._starts: list[int] = []
        self._dwarf = dwarf

    def caller(
        self, pc: int, registers: Mapping[str, int], bits: int, read: Callable[[int, int], int | None]
    ) -> Frame | None:
        """The caller of the function at `pc`, or None where nothing is known of it. `read` gives a word."""
        try:
            return self._caller(pc, registers, bits, read)
        except Exception:  # noqa: BLE001 - the file is anybody's: pyelftools raises whatever its slips raise
            return None

    def _find(self, pc: int) -> Any:
        if self._entries is None:
            self._entries = []
            if self._dwarf is not None:
                found: list[Any] = []
                if self._dwarf.has_EH_CFI():
                    found += self._dwarf.EH_CFI_entries()
                if self._dwarf.has_CFI():
                    found += self._dwarf.CFI_entries()
                for entry in found[:MOST_ENTRIES]:
                    header = entry.header
                    if "initial_location" in header:
                        self._entries.append((header["initial_location"], header["address_range"], entry))
            self._entries.sort(key=lambda one: one[0])
            self._starts = [one[0] for one in self._entries]
        index = bisect_right(self._starts, pc) - 1
        if index < 0:
            return None
        start, size, entry = self._entries[index]
        return entry if pc < start + size else None

    def _caller(
        self, pc: int, registers: Mapping[str, int], bits: int, read: Callable[[int, int], int | None]
    ) -> Frame | None:
        entry = self._find(pc - self._base)
        if entry is None or bits not in _RETURN:
            return None
        row: Any = None
        for candidate in entry.get_decoded().table:
            if candidate["pc"] > pc - self._base:
                break
            row = candidate
        if row is None or row["cfa"].expr is not None:
            return None
        names = _NAMES_64 if bits == 64 else _NAMES_32
        word = bits // 8
        base = registers.get(names.get(row["cfa"].reg, ""))
        if base is None:
            return None
        frame = base + row["cfa"].offset & (1 << bits) - 1
        saved = {
            names[number]: rule for number, rule in row.items() if isinstance(number, int) and number in names
        }
        found = {name: value for name, value in registers.items() if name not in saved}
        for name, rule in saved.items():
            if rule.type == "OFFSET":
                value = read(frame + rule.arg & (1 << bits) - 1, word)
                if value is not None:
                    found[name] = value
            elif rule.type == "SAME_VALUE" and name in registers:
                found[name] = registers[name]
        rule = row.get(_RETURN[bits])
        if rule is None or rule.type != "OFFSET":
            return None
        target = read(frame + rule.arg & (1 << bits) - 1, word)
        found["rsp"] = frame
        return None if target is None else Frame(target, found)


def callers_in(frames: Frames, pc: int, top: Sequence[int], bits: int, most: int) -> list[int]:
    """At most `most` return addresses, innermost first, of a CPU at `pc` with the words `top` on its stack.

    Only the stack pointer is known. So they end at the first function whose frame is found by another
    register: the chain of frame pointers goes on there, as nobody has changed the frame pointer since.
    """
    word, found, registers = bits // 8, list[int](), {"rsp": 0}

    def read(address: int, _size: int) -> int | None:
        index, rest = divmod(address, word)
        return top[index] or None if not rest and index < len(top) else None

    while len(found) < most:
        frame = frames.caller(pc - bool(found), registers, bits, read)
        if frame is None or frame.registers["rsp"] <= registers["rsp"]:
            break
        found.append(frame.pc)
        pc, registers = frame.pc, dict(frame.registers)
    return found
