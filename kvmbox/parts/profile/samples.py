"""Samples of the CPUs of a running guest, added up: equal stacks are one entry with a count.

The entries are numbers, so that a sample costs little. Their number is bounded, because the guest decides
which stacks there are. A stack that has no room is counted under `other`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

MOST_STACKS: Final = 16384
USER: Final = 4
"""Bit: the CPU is in user mode (CPL 3)."""

WIDE: Final = 8
"""Bit: the CPU is in 64-bit code, and words have eight bytes."""

TOP: Final = 16
"""Bit: the top of the stack follows."""

Stack = tuple[int, ...]
"""The number of the CPU, what it does, and addresses: the program counter, then return addresses. With TOP,
the number of words of the stack and these words precede the addresses. What cannot be a return address is 0.
"""


def with_top(cpu: int, state: int, top: Sequence[int], addresses: Sequence[int]) -> Stack:
    """The entry of a sample, whose words `top` of the stack count up to the last that is not 0."""
    size = max((index + 1 for index, word in enumerate(top) if word), default=0)
    return (cpu, state | TOP, size, *top[:size], *addresses) if size else (cpu, state, *addresses)


def split(stack: Stack) -> tuple[int, int, Stack, Stack]:
    """CPU, state without TOP, top of the stack, and addresses of an entry."""
    cpu, state, *rest = stack
    if not state & TOP:
        return cpu, state, (), tuple(rest)
    size, *rest = rest
    return cpu, state & ~TOP, tuple(rest[:size]), tuple(rest[size:])


class Samples:
    """How often each stack was seen."""

    def __init__(self, most: int = MOST_STACKS) -> None:
        self._most = most
        self.stacks: dict[Stack, int] = {}
        self.other: dict[int, int] = {}
        """Samples of stacks that had no room, by CPU."""

    def add(self, stack: Stack) -> None:
        """Count one sample."""
        if stack in self.stacks:
            self.stacks[stack] += 1
        elif len(self.stacks) < self._most:
            self.stacks[stack] = 1
        else:
            self.other[stack[0]] = self.other.get(stack[0], 0) + 1

    @property
    def total(self) -> int:
        """The number of samples."""
        return sum(self.stacks.values()) + sum(self.other.values())
