"""A profile with names: the stacks of each CPU, and how often each was seen."""

from __future__ import annotations

from typing import Final

from kvmbox.base.value_classes import Value

OTHER: Final = "[other]"
HALTED: Final = "[halted]"
ACCESSING: Final = "[device access]"
USER: Final = "[user]"

Number = int | float


class Frame(Value):
    """A function and its source file. `file` is empty where it is not known."""

    name: str
    file: str = ""


Stack = tuple[Frame, ...]
"""Functions, the outermost first."""


class Profile(Value):
    """`threads` has the stacks by the name of the CPU, or of whatever was sampled. `unit` says what the
    numbers count: "none" for samples, or a unit of speedscope's file format.
    """

    threads: dict[str, dict[Stack, Number]]
    unit: str = "none"

    @property
    def total(self) -> Number:
        """The sum of all numbers."""
        return sum(sum(stacks.values()) for stacks in self.threads.values())
