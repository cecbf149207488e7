"""Names for the addresses of samples. The image, which has them, may be hostile: all is bounded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from kvmbox.explain import sampler
from kvmbox.parts.profile import named_stacks, samples
from kvmbox.parts.profile.named_stacks import Frame, Number, Profile, Stack
from kvmbox.parts.profile.samples import Samples

if TYPE_CHECKING:
    from kvmbox.explain.debug_info import DebugInfo

LONGEST_NAME: Final = 256
MOST_TEXT: Final = 16 << 20
"""How many characters the stacks of a profile have together. What is beyond becomes `[other]`."""

_DOING: Final = {sampler.HALTED: named_stacks.HALTED, sampler.ACCESSING: named_stacks.ACCESSING}


FrameOf = Callable[[int], Frame | None]
"""Gives the function of an address, or None where it is not known."""


CallersOf = Callable[[int, Sequence[int], int, int], list[int]]
"""Gives return addresses: see `DebugInfo.callers`."""


def frames_of(debug_info: DebugInfo, *, with_files: bool = True) -> FrameOf:
    """What knows the functions that `debug_info` knows, and their source files, which take time to find."""

    def frame(address: int) -> Frame | None:
        place = debug_info.place(address)
        if place is None:
            return None
        line = debug_info.line(address) if with_files else None
        return Frame(_cut(place.symbol), "" if line is None else _cut(line.path))

    return frame


def named(
    found: Samples,
    frame_of: FrameOf,
    callers_of: CallersOf = lambda _pc, _top, _bits, _most: [],
    *,
    most_text: int = MOST_TEXT,
) -> Profile:
    """The samples with names, as `frame_of` gives them. Stacks of the same functions become one. `callers_of`
    gives the callers of functions without a frame, which the chain of frame pointers leaves out.

    Above a function that is known, the first caller that is not known ends the stack: code without frame
    pointers leaves anything in their register.
    """
    known: dict[int, Frame | None] = {}

    def at(address: int) -> Frame | None:
        if address not in known:
            known[address] = frame_of(address)
        return known[address]

    merged: dict[tuple[int, Stack], int] = {}
    for entry, count in found.stacks.items():
        cpu, state, top, known_addresses = samples.split(entry)
        addresses = list(known_addresses)
        if top:
            bits = 64 if state & samples.WIDE else 32
            addresses[1:1] = callers_of(addresses[0], top, bits, sampler.MOST_FRAMES - 1)
            del addresses[sampler.MOST_FRAMES :]
        doing = _DOING.get(state & ~(samples.USER | samples.WIDE))
        stack = _stack(addresses, at, is_behind=doing is not None)
        if state & samples.USER:
            stack.insert(0, Frame(named_stacks.USER))
        if doing is not None:
            stack.append(Frame(doing))
        key = cpu, tuple(stack)
        merged[key] = merged.get(key, 0) + count
    return Profile(_by_cpu(merged, found.other, most_text))


def _stack(addresses: list[int], at: FrameOf, *, is_behind: bool) -> list[Frame]:
    found: list[Frame] = []
    ends_unknown = False
    for address in addresses:
        # Of a call, an access that has ended and HLT, the instruction is the one before the address.
        inside = address - (is_behind or bool(found))
        frame = at(inside)
        if frame is None and ends_unknown:
            break
        ends_unknown = ends_unknown or (not found and frame is not None)
        found.append(frame or Frame(f"{inside:#x}"))
    return found[::-1]


def _by_cpu(
    merged: dict[tuple[int, Stack], int], other: dict[int, int], most_text: int
) -> dict[str, dict[Stack, Number]]:
    text = 0
    rest = dict(other)
    threads: dict[int, dict[Stack, Number]] = {}
    for (cpu, stack), count in sorted(merged.items(), key=lambda item: -item[1]):
        text += sum(len(frame.name) + 1 for frame in stack)
        if text > most_text:
            rest[cpu] = rest.get(cpu, 0) + count
        else:
            threads.setdefault(cpu, {})[stack] = count
    for cpu, count in rest.items():
        threads.setdefault(cpu, {})[(Frame(named_stacks.OTHER),)] = count
    return {f"CPU {cpu}": threads[cpu] for cpu in sorted(threads)}


def _cut(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"
