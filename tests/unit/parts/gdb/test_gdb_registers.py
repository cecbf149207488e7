"""Registers as a client of GDB's protocol numbers and describes them."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from kvmbox.explain.stopped_cpu import Cpu
from kvmbox.kvm.uapi import kvm_fpu
from kvmbox.parts.gdb.refused import RefusedError
from kvmbox.parts.gdb.registers import FLOAT, GENERAL, SPECIAL, Registers, bits_of_image, layout_of
from tests.support.stopped_cpu import Memory, long_mode, protected_mode, real_mode


def registers(cpu: Cpu) -> Registers:
    return Registers(cpu, kvm_fpu())


def number_of(bits: int, name: str) -> int:
    return [one.name for one in layout_of(bits).registers].index(name)


@pytest.mark.parametrize(
    ("bits", "architecture", "size"), [(16, "i8086", 4), (32, "i386", 4), (64, "i386:x86-64", 8)]
)
def test_description_names_every_register_in_the_order_of_the_values(
    bits: int, architecture: str, size: int
) -> None:
    layout = layout_of(bits)
    tree = ElementTree.fromstring(layout.xml)
    found = [(one.get("name"), int(one.get("bitsize", ""))) for one in tree.iter("reg")]
    assert found == [(one.name, one.bits) for one in layout.registers]
    assert tree.findtext("architecture") == architecture
    assert layout.pointer_size == size
    cpu = (real_mode if bits == 16 else protected_mode if bits == 32 else long_mode)(Memory())
    assert len(layout.all_values(registers(cpu))) * 8 == sum(bits for _, bits in found)
    known = {"i8086": "eip", "i386": "eip"}.get(architecture, "rip")
    assert layout.pc.name == known
    # GDB's own numbers: the program counter comes after the general registers, then flags and segments.
    names = [name for name, _ in found]
    at = 16 if bits == 64 else 8
    assert names[at : at + 8] == [known, "eflags", "cs", "ss", "ds", "es", "fs", "gs"]


def test_types_of_registers_are_described_or_known_to_gdb() -> None:
    known = {"int", "int32", "int64", "data_ptr", "code_ptr", "i387_ext"}
    for bits in (16, 32, 64):
        tree = ElementTree.fromstring(layout_of(bits).xml)
        for feature in tree.iter("feature"):
            described = {one.get("id") for one in feature if one.tag != "reg"}
            assert {one.get("type") for one in feature.iter("reg")} <= known | described


def test_all_values_can_be_set_again() -> None:
    layout, state = layout_of(64), registers(long_mode(Memory(), rax=1 << 63))
    values = layout.all_values(state)
    layout.set_all(state, values)
    assert state.changed == 0
    with pytest.raises(RefusedError, match="are not all registers"):
        layout.set_all(state, values[:-1])


def test_value_goes_to_its_part_of_the_state() -> None:
    layout, state = layout_of(64), registers(long_mode(Memory()))
    for name, data, changed in (
        ("rax", bytes(7) + b"\x80", GENERAL),
        ("cr3", bytes((0, 0x20, 0, 0, 0, 0, 0, 0)), SPECIAL),
        ("gs_base", bytes(7) + b"\xff", SPECIAL),
        ("xmm15", bytes(range(16)), FLOAT),
        ("st7", bytes(range(10)), FLOAT),
        ("fctrl", b"\x7f\x03\0\0", FLOAT),
        ("mxcsr", b"\x80\x1f\0\0", FLOAT),
    ):
        state.changed = 0
        layout.set_value(number_of(64, name), state, data)
        assert state.changed == changed, name
        assert layout.value(number_of(64, name), state) == data
    assert state.regs.rax == 1 << 63
    assert bytes(state.fpu.xmm[15]) == bytes(range(16))
    with pytest.raises(RefusedError, match="rax has 64 bits, not 32"):
        layout.set_value(0, state, bytes(4))
    with pytest.raises(IndexError):
        layout.value(1000, state)


def test_tags_are_two_bits_a_register() -> None:
    layout, state = layout_of(32), registers(protected_mode(Memory()))
    number = number_of(32, "ftag")
    assert layout.value(number, state) == b"\xff\xff\0\0"
    layout.set_value(number, state, b"\xfc\x3f\0\0")
    assert state.fpu.ftwx == 0b1000_0001


def test_half_of_a_register_leaves_the_other_half() -> None:
    layout, state = layout_of(32), registers(long_mode(Memory(), rax=0x1111_2222_3333_4444))
    layout.set_value(0, state, b"\x01\0\0\0")
    assert state.regs.rax == 0x1111_2222_0000_0001


def test_program_counter_is_linear() -> None:
    cpu = real_mode(Memory(), rip=0x10)
    cpu.sregs.cs.base = 0x7C00
    layout, state = layout_of(16), registers(cpu)
    number = number_of(16, "eip")
    assert layout.value(number, state) == (0x7C10).to_bytes(4, "little")
    layout.set_value(number, state, (0x7C20).to_bytes(4, "little"))
    assert state.regs.rip == 0x20


def test_segment_is_set_in_real_mode_only() -> None:
    layout, state = layout_of(16), registers(real_mode(Memory()))
    layout.set_value(number_of(16, "ds"), state, b"\x34\x12\0\0")
    assert (state.sregs.ds.selector, state.sregs.ds.base) == (0x1234, 0x12340)
    state = registers(protected_mode(Memory()))
    with pytest.raises(RefusedError, match="no descriptor would be loaded"):
        layout_of(32).set_value(number_of(32, "ds"), state, b"\x08\0\0\0")


def test_image_tells_how_wide_registers_are() -> None:
    assert bits_of_image(b"\x7fELF\x01" + bytes(60)) == 32
    assert bits_of_image(b"\x7fELF\x02" + bytes(60)) == 64
    assert bits_of_image(b"\x7fELF\x03" + bytes(60)) is None
    assert bits_of_image(b"\x7fELF") is None
    assert bits_of_image(b"") is None
