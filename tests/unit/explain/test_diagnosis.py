"""Hints for the person behind a guest: whose fault a refused instruction is, and calls of a BIOS."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmbox.explain.diagnosis import bios_call, code_bits, family, refused_instruction
from kvmbox.kvm.exits import InternalErrorExit
from kvmbox.kvm.uapi import (
    KVM_INTERNAL_ERROR_DELIVERY_EV,
    KVM_INTERNAL_ERROR_EMULATION,
    kvm_regs,
    kvm_sregs,
)

POPCNT = bytes.fromhex("f30fb8c0")
NOT_THE_GUEST = "a limit of this host's KVM backend, not of the guest"


def protected(*, long: bool = False, idt_limit: int = 0) -> kvm_sregs:
    sregs = kvm_sregs(cr0=0x11, efer=0x500 if long else 0)
    sregs.cs.l, sregs.cs.db = int(long), int(not long)
    sregs.idt.limit = idt_limit
    return sregs


def refused(
    code: bytes, sregs: kvm_sregs | None = None, *, pvm: bool = True, astray: bool = False
) -> tuple[str, str]:
    found = InternalErrorExit(KVM_INTERNAL_ERROR_EMULATION, (), code)
    told = refused_instruction(found, sregs or protected(), b"", pvm=pvm, astray=astray)
    assert told is not None
    assert "\n" not in told.reason + told.hint
    return told.reason, told.hint


# --- Refused instructions --------------------------------------------------------------------------------


def test_instruction_that_pvm_lacks_is_named_and_is_not_the_guests_fault() -> None:
    reason, hint = refused(POPCNT)
    assert "KVM's emulator does not know popcnt" in reason
    assert NOT_THE_GUEST in reason
    assert reason.endswith("code bytes f3 0f b8 c0")
    assert "VT-x or AMD-V" in hint


def test_instruction_that_is_refused_where_the_processor_runs_the_guest_is_another_matter() -> None:
    reason, hint = refused(POPCNT, pvm=False)
    assert "does not know popcnt" in reason
    assert "not of the guest" not in reason
    assert "memory that is not RAM" in hint


@pytest.mark.parametrize("code", [bytes.fromhex("0fff"), bytes.fromhex("62f17c4858c1")])
def test_instruction_that_the_processor_may_lack_too_is_nobodys_fault(code: bytes) -> None:
    reason, hint = refused(code, protected(long=True))
    assert "not of the guest" not in reason
    assert "PVM" in hint


def test_instruction_of_a_guest_astray_is_not_the_backends_fault() -> None:
    assert "not of the guest" not in refused(POPCNT, astray=True)[0]


def test_mode_of_the_code_decides_what_the_bytes_are() -> None:
    code = bytes.fromhex("c500")
    assert "an AVX instruction" in refused(code, protected(long=True))[0]
    assert "does not know the instruction" in refused(code)[0]
    assert (code_bits(kvm_sregs()), code_bits(protected()), code_bits(protected(long=True))) == (16, 32, 64)


def test_return_from_an_interrupt_is_told_where_it_works() -> None:
    assert "real mode or 64-bit mode" in refused(b"\xcf")[1]


def test_bytes_at_rip_stand_in_for_those_that_kvm_does_not_tell() -> None:
    found = InternalErrorExit(KVM_INTERNAL_ERROR_EMULATION, (), b"")
    told = refused_instruction(found, protected(), POPCNT, pvm=True)
    assert told is not None
    assert "popcnt" in told.reason
    nothing = refused_instruction(found, protected(), b"", pvm=True)
    assert nothing is not None
    assert nothing.reason.endswith("does not know the instruction, code bytes unknown")


def test_disassembler_gives_the_name_and_not_the_verdict() -> None:
    found = InternalErrorExit(KVM_INTERNAL_ERROR_EMULATION, (), POPCNT)
    told = refused_instruction(
        found, protected(), b"", pvm=True, disassemble=lambda code, bits: f"{code.hex()} of {bits} bits"
    )
    assert told is not None
    assert f"does not know f30fb8c0 of 32 bits: {NOT_THE_GUEST}" in told.reason
    assert "without popcnt in assembly" in told.hint


@pytest.mark.parametrize(
    ("code", "bits", "name"),
    [
        ("0f 58 c1", 32, "an MMX or SSE instruction"),
        ("f3 0f b8 c0", 16, "popcnt"),
        ("65 67 f3 0f b8 00", 32, "popcnt"),
        ("66 f3 0f bc c1", 32, "tzcnt"),  # F3 wins over 66, on either side
        ("f3 66 0f bd c1", 32, "lzcnt"),
        ("f3 f2 0f b8 c1", 32, None),  # the last of the two
        ("f2 0f 38 f0 c1", 32, "crc32"),
        ("66 f2 0f 38 f1 c1", 32, "crc32"),
        ("0f 38 f0 03", 32, "movbe"),
        ("48 0f 38 f1 03", 64, "movbe"),
        ("48 0f 38 f1 03", 32, None),  # dec eax
        ("66 0f 38 82 03", 64, "invpcid"),
        ("66 0f 38 f6 c1", 64, "adcx or adox"),
        ("66 0f 38 17 c1", 32, "an SSSE3, SSE4, AES or SHA instruction"),
        ("66 0f 3a 44 c1 00", 32, "an SSSE3, SSE4, AES or SHA instruction"),
        ("0f 01 ca", 32, "clac"),
        ("0f 01 d0", 32, "xgetbv"),
        ("0f 01 18", 32, None),  # lidt
        ("66 0f ae 33", 32, "clwb"),
        (
            "0f ae 03",
            32,
            "an instruction such as fxsave, xsave or clflush",
        ),
        ("0f ae f0", 32, None),  # mfence
        ("f3 0f ae c0", 64, "an instruction such as rdfsbase or umonitor"),
        ("0f c7 0b", 64, "an instruction such as cmpxchg8b, cmpxchg16b or xsaves"),
        ("0f c7 03", 32, None),
        ("0f c7 f0", 32, "rdrand"),
        ("0f c7 f8", 32, "rdseed"),
        ("c5 f8 77", 32, "an AVX instruction"),
        ("c5 00", 32, None),  # lds
        ("c5 00", 64, "an AVX instruction"),
        ("c4 00", 16, None),  # les
        ("c4 e2 7d 18 00", 64, "an AVX or BMI instruction"),
        ("62 00", 32, None),  # bound
        ("62 f1 7c 48 58 c1", 64, "an AVX-512 instruction"),
        ("8f e9 78 c1 c0", 64, "an XOP instruction"),
        ("8f c0", 64, None),  # pop
        ("cf", 32, "iret"),
        ("cc", 64, "int3"),
        ("dd 28", 32, "an x87 instruction"),
        ("0f 0b", 32, None),
        ("0f a2", 32, None),
        ("90", 64, None),
        ("00 00", 16, None),
        ("ff ff", 64, None),
    ],
)
def test_prefixes_opcode_and_mode_decide_the_family(code: str, bits: int, name: str | None) -> None:
    assert family(bytes.fromhex(code), bits) == name


@pytest.mark.parametrize("code", ["", "f3", "66 67", "0f", "f3 0f", "0f 01", "0f 38", "0f c7", "48", "d9"])
@pytest.mark.parametrize("bits", [16, 32, 64])
def test_instruction_that_is_cut_short_has_no_family(code: str, bits: int) -> None:
    assert family(bytes.fromhex(code), bits) is None


def test_other_internal_errors_are_not_about_an_instruction() -> None:
    found = InternalErrorExit(KVM_INTERNAL_ERROR_DELIVERY_EV, (1, 2), b"")
    assert refused_instruction(found, protected(), POPCNT, pvm=True) is None


# --- Calls of a BIOS -------------------------------------------------------------------------------------


class RealMode:
    """A guest that executed `int vector` at `cs:ip`, with its stack at `ss:sp` before that."""

    def __init__(
        self,
        vector: int = 0x10,
        cs: int = 0,
        ip: int = 0x7C05,
        ss: int = 0,
        sp: int = 0x7C00,
        flags: int = 0x246,
    ) -> None:
        self.memory = bytearray(1 << 20)
        self.regs, self.sregs = kvm_regs(rsp=sp - 6 & 0xFFFF), kvm_sregs(cr0=0x10)
        self.sregs.ss.base = ss << 4
        self.sregs.idt.limit = 0x3FF
        self.memory[(cs << 4) + ip : (cs << 4) + ip + 2] = bytes([0xCD, vector])
        for offset, word in enumerate((ip + 2 & 0xFFFF, cs, flags)):
            at = (ss << 4) + (sp - 6 + 2 * offset & 0xFFFF)
            self.memory[at : at + 2] = word.to_bytes(2, "little")

    def found(self) -> str | None:
        return bios_call(self.regs, self.sregs, self._byte)

    def _byte(self, address: int) -> int | None:
        return self.memory[address] if address < len(self.memory) else None


def test_call_of_an_empty_vector_names_it_and_its_place() -> None:
    assert RealMode().found() == (
        "the guest executed int 0x10 at 0000:7c05, and its vector is 0000:0000: there is no BIOS here; print"
        " to COM1 (port 0x3f8) or to the debug console (port 0xe9) instead"
    )
    assert "there is no disk" in str(RealMode(0x13, cs=0x7C0, ip=5, ss=0x9000, sp=0xF000).found())
    assert str(RealMode(0x11).found()).endswith("there is no BIOS here")


def test_call_is_found_above_and_below_the_stack_pointer() -> None:
    guest = RealMode()
    for distance in (-34, -6, -2, 0, 2, 6, 32):
        guest.regs.rsp = 0x7BFA - distance
        assert (guest.found() is not None) == (-34 < distance <= 32)


def test_call_with_a_stack_that_wraps_is_found() -> None:
    assert RealMode(sp=4).found() is not None
    assert RealMode(sp=0).found() is not None


@pytest.mark.parametrize("byte", range(4))
def test_vector_that_the_guest_has_set_is_no_call_of_a_bios(byte: int) -> None:
    guest = RealMode(0x10)
    guest.memory[0x40 + byte] = 1
    assert guest.found() is None


def test_vector_table_elsewhere_counts() -> None:
    guest = RealMode(0x10)
    guest.sregs.idt.base = 0x5000
    guest.memory[0x40] = 1
    assert guest.found() is not None
    guest.memory[0x5040] = 1
    assert guest.found() is None


@pytest.mark.parametrize("flags", [0x244, 0x24E, 0x266, 0x8246, 0x0000, 0xFFFF])
def test_words_that_no_processor_pushes_as_flags_are_no_call(flags: int) -> None:
    assert RealMode(flags=flags).found() is None


def test_interrupt_or_exception_without_a_handler_is_no_call() -> None:
    guest = RealMode()
    guest.memory[0x7C05] = 0x90
    assert guest.found() is None


def test_memory_that_is_not_there_is_no_call() -> None:
    guest = RealMode()
    del guest.memory[0x7C00:]
    assert guest.found() is None
    guest.memory.clear()
    assert guest.found() is None


def test_fresh_guest_has_not_called_anything() -> None:
    guest = RealMode()
    guest.memory[:] = bytes(len(guest.memory))
    assert guest.found() is None


@pytest.mark.parametrize("long", [False, True])
def test_bios_call_in_protected_mode_without_a_table_is_told(long: bool) -> None:
    code = {0x100000: 0xCD, 0x100001: 0x10}
    sregs, regs = protected(long=long), kvm_regs(rip=0x100000)
    told = str(bios_call(regs, sregs, lambda address: code.get(address, 0)))
    assert told.startswith("the guest executed int 0x10 at 0x100000 without an interrupt table")
    assert "in protected mode there never is" in told
    sregs.idt.limit = (16 if long else 8) * 0x11 - 1
    assert bios_call(regs, sregs, lambda address: code.get(address, 0)) is None
    sregs.idt.limit -= 1
    assert bios_call(regs, sregs, lambda address: code.get(address, 0)) is not None


@pytest.mark.parametrize("code", [b"\xcd\x80", b"\xcc\x10", b"\x0f\x0b"])
def test_other_code_in_protected_mode_is_no_bios_call(code: bytes) -> None:
    at = dict(enumerate(code, 0x100000))
    assert bios_call(kvm_regs(rip=0x100000), protected(), lambda address: at.get(address, 0)) is None


@given(st.binary(min_size=256, max_size=256), st.integers(0, 0xFFFF), st.integers(0, 0xFFFF))
def test_any_memory_is_looked_at_without_an_error(content: bytes, sp: int, ss: int) -> None:
    sregs = kvm_sregs()
    sregs.ss.base = ss << 4
    told = bios_call(kvm_regs(rsp=sp), sregs, lambda address: content[address] if address < 256 else None)
    assert told is None or "there is no BIOS here" in told
