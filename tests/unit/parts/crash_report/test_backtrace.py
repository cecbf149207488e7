"""Who called whom, by frame pointers and at the start of a function; and chains that lead nowhere."""

from __future__ import annotations

from collections.abc import Callable

from kvmbox.explain.stopped_cpu import Cpu
from kvmbox.explain.symbols import Place, Symbol, Symbols
from kvmbox.parts.crash_report.backtrace import MOST_FRAMES, backtrace
from tests.support.stopped_cpu import Memory, long_mode, protected_mode, real_mode

TABLE = Symbols(
    [Symbol(0x3000, 0x100, "inner"), Symbol(0x3100, 0x100, "outer"), Symbol(0x3200, 0x100, "start")]
)


def chain(cpu: Cpu, place_of: Callable[[int], Place | None] = TABLE.at) -> list[int]:
    return [one.pc for one in backtrace(cpu, place_of, None)]


def stacked(*words: tuple[int, int], **registers: int) -> Cpu:
    memory = Memory()
    cpu = long_mode(memory, **registers)
    for address, value in words:
        memory.write_number(address, value)
    return cpu


def test_frame_pointers_are_followed() -> None:
    cpu = stacked(
        *((0x8010, 0x8030), (0x8018, 0x3150), (0x8030, 0), (0x8038, 0x3250)),
        rip=0x3020,
        rsp=0x8000,
        rbp=0x8010,
    )
    assert chain(cpu) == [0x3020, 0x3150, 0x3250]


def test_function_that_has_not_made_its_frame_yet() -> None:
    words = ((0x8000, 0x3150), (0x8010, 0), (0x8018, 0x3250))
    assert chain(stacked(*words, rip=0x3000, rsp=0x8000, rbp=0x8010)) == [0x3000, 0x3150, 0x3250]
    pushed = ((0x8000, 0x8010), (0x8008, 0x3150), (0x8010, 0), (0x8018, 0x3250))
    assert chain(stacked(*pushed, rip=0x3001, rsp=0x8000, rbp=0x8010)) == [0x3001, 0x3150, 0x3250]


def test_call_of_nothing_is_found_on_the_stack() -> None:
    cpu = stacked((0x8000, 0x3150), rip=0, rsp=0x8000, rbp=0)
    assert chain(cpu) == [0, 0x3150]


def test_return_address_outside_of_every_function_ends_the_chain() -> None:
    cpu = stacked((0x8010, 0x8030), (0x8018, 0x9999), rip=0x3020, rsp=0x8000, rbp=0x8010)
    assert chain(cpu) == [0x3020]


def test_frame_below_the_stack_ends_the_chain() -> None:
    cpu = stacked((0x7000, 0x8030), (0x7008, 0x3150), rip=0x3020, rsp=0x8000, rbp=0x7000)
    assert chain(cpu) == [0x3020]


def test_loop_of_frames_ends() -> None:
    cpu = stacked((0x8010, 0x8010), (0x8018, 0x3150), rip=0x3020, rsp=0x8000, rbp=0x8010)
    assert chain(cpu) == [0x3020, 0x3150]


def test_endless_chain_is_bounded() -> None:
    words = [(0x8010 + 16 * n, 0x8020 + 16 * n) for n in range(200)]
    words += [(0x8018 + 16 * n, 0x3150) for n in range(200)]
    assert len(chain(stacked(*words, rip=0x3020, rsp=0x8000, rbp=0x8010))) == MOST_FRAMES


def test_without_symbols_what_can_be_executed_is_plausible() -> None:
    cpu = stacked((0x8010, 0), (0x8018, 0x3150), rip=0x3020, rsp=0x8000, rbp=0x8010)
    assert chain(cpu, lambda _address: None) == [0x3020, 0x3150]


def test_protected_mode_has_words_of_four_bytes() -> None:
    memory = Memory()
    cpu = protected_mode(memory, rip=0x3020, rsp=0x8000, rbp=0x8010)
    memory.write(0x8010, bytes.fromhex("0000000050310000"))
    assert chain(cpu) == [0x3020, 0x3150]


def test_real_mode_has_no_backtrace() -> None:
    assert chain(real_mode(Memory(), rip=0x7C00)) == [0x7C00]
