"""Samples get names, and stay bounded."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from kvmbox.base.symbol_file import SymbolFile
from kvmbox.explain.debug_info import DebugInfo
from kvmbox.explain.sampler import ACCESSING, HALTED, MOST_FRAMES, RUNNING
from kvmbox.parts.profile.named_stacks import Frame, Profile
from kvmbox.parts.profile.naming import LONGEST_NAME, FrameOf, frames_of, named
from kvmbox.parts.profile.samples import USER, WIDE, Samples, with_top


def name_of(address: int) -> Frame:
    return Frame(f"f{address >> 8}")


def samples(*stacks: tuple[int, ...]) -> Samples:
    found = Samples()
    for stack in stacks:
        found.add(stack)
    return found


def plain(profile: Profile) -> dict[str, dict[str, int | float]]:
    return {
        thread: {";".join(frame.name for frame in stack): count for stack, count in stacks.items()}
        for thread, stacks in profile.threads.items()
    }


def test_stacks_of_the_same_functions_become_one() -> None:
    found = samples((0, RUNNING, 0x210, 0x105), (0, RUNNING, 0x214, 0x105), (0, RUNNING, 0x310))
    assert plain(named(found, name_of)) == {"CPU 0": {"f1;f2": 2, "f3": 1}}


def test_return_address_at_the_start_of_the_next_function_names_the_caller() -> None:
    assert plain(named(samples((0, RUNNING, 0x200, 0x200)), name_of)) == {"CPU 0": {"f1;f2": 1}}


def test_state_is_the_innermost_frame_and_user_mode_the_outermost() -> None:
    found = samples(
        (0, HALTED, 0x200), (1, ACCESSING | USER, 0x200, 0x305), (1, USER, 0x200), (0, RUNNING, 0x200)
    )
    assert plain(named(found, name_of)) == {
        "CPU 0": {"f1;[halted]": 1, "f2": 1},
        "CPU 1": {"[user];f3;f1;[device access]": 1, "[user];f2": 1},
    }


def test_stack_that_has_no_room_is_counted_as_other() -> None:
    found = Samples(most=2)
    for pc in (0x100, 0x200, 0x300, 0x400, 0x100):
        found.add((1, RUNNING, pc))
    assert found.total == 5
    assert plain(named(found, name_of)) == {"CPU 1": {"f1": 2, "f2": 1, "[other]": 2}}


def test_text_beyond_the_limit_is_counted_as_other_the_rarest_first() -> None:
    found = samples((0, RUNNING, 0x100), (0, RUNNING, 0x200), (0, RUNNING, 0x200))
    assert plain(named(found, name_of, most_text=4)) == {"CPU 0": {"f2": 2, "[other]": 1}}


def test_each_address_is_asked_for_once() -> None:
    asked: list[int] = []

    def frame(address: int) -> Frame:
        asked.append(address)
        return Frame("f")

    named(samples((0, RUNNING, 7), (1, RUNNING, 7)), frame)
    assert asked == [7]


def test_names_come_from_symbols_and_are_cut() -> None:
    long = "n" * 1000
    frame = frames_of(DebugInfo([SymbolFile(f"1000 T spin\n2000 T {long}\n3000 T end\n".encode())]))
    assert frame(0x1004) == Frame("spin")
    assert frame(0x20) is None
    cut = frame(0x2000)
    assert cut is not None
    assert len(cut.name) == LONGEST_NAME


def known_up_to(limit: int) -> FrameOf:
    return lambda address: name_of(address) if address < limit else None


def test_caller_that_is_not_known_ends_the_stack_of_a_function_that_is() -> None:
    found = samples((0, RUNNING, 0x100, 0x205, 0x905, 0x305))
    assert plain(named(found, known_up_to(0x400))) == {"CPU 0": {"f2;f1": 1}}


def test_addresses_without_names_stand_for_themselves() -> None:
    found = samples((0, RUNNING, 0x900, 0x105, 0x805))
    assert plain(named(found, known_up_to(0x400))) == {"CPU 0": {"0x804;f1;0x900": 1}}


@pytest.mark.parametrize(("wide", "bits"), [(0, 32), (WIDE, 64)])
def test_callers_of_a_function_without_a_frame_come_from_the_top_of_the_stack(wide: int, bits: int) -> None:
    def callers(pc: int, top: Sequence[int], asked_bits: int, most: int) -> list[int]:
        assert (pc, tuple(top), asked_bits, most) == (0x100, (0, 0x205), bits, MOST_FRAMES - 1)
        return [0x205]

    found = samples(
        with_top(0, RUNNING | wide, (0, 0x205, 0), (0x100, 0x305)), (0, RUNNING | wide, 0x100, 0x305)
    )
    assert plain(named(found, name_of, callers)) == {"CPU 0": {"f3;f2;f1": 1, "f3;f1": 1}}


def test_callers_from_both_sources_are_so_many_at_most() -> None:
    chain = tuple(range(0x1005, 0x1005 + 0x100 * (MOST_FRAMES - 1), 0x100))
    found = samples(with_top(0, RUNNING, (0x205,), (0x100, *chain)))
    (stack,) = named(found, name_of, lambda *_: [0x205]).threads["CPU 0"]
    assert len(stack) == MOST_FRAMES


def test_vcpu_whose_registers_are_not_known_is_its_state_alone() -> None:
    assert plain(named(samples((0, ACCESSING)), name_of)) == {"CPU 0": {"[device access]": 1}}
