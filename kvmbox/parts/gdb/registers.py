"""The registers of a CPU as a client numbers them, and their descriptions (the GDB manual, appendix G).

A client learns names, sizes and numbers of registers from the XML text `Layout.xml`. There is one layout for
each kind of image: a client that has read a 32-bit ELF file refuses a 64-bit description, and the other way
round. `org.gnu.gdb.i386.*` are the features that GDB knows by name; the control registers are in a feature of
our own, whose registers a client shows as it finds them.

GDB knows no segments. So the program counter is a linear address: the base of CS is added to IP where that
counts, and subtracted when a client sets it. All other registers are as the CPU has them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from kvmbox.base.value_classes import Value
from kvmbox.explain.stopped_cpu import Cpu
from kvmbox.kvm.uapi import kvm_fpu, kvm_regs, kvm_sregs
from kvmbox.parts.gdb.refused import RefusedError

GENERAL: Final = 1
SPECIAL: Final = 2
FLOAT: Final = 4


class Registers:
    """All registers of a stopped CPU. `changed` has the bits GENERAL, SPECIAL and FLOAT of what was set."""

    def __init__(self, cpu: Cpu, fpu: kvm_fpu) -> None:
        self.cpu: Final = cpu
        self.regs: Final[kvm_regs] = cpu.regs
        self.sregs: Final[kvm_sregs] = cpu.sregs
        self.fpu: Final = fpu
        self.changed = 0


Get = Callable[[Registers], int]
Set = Callable[[Registers, int], None]


class Register(Value):
    """One register: `bits` wide, of GDB's `type`, in its `group` ("" is the default one)."""

    name: str
    bits: int
    type: str
    get: Get
    set: Set
    group: str = ""


def _field(
    name: str, home: str, field: str, bits: int, type_: str = "", group: str = "", changes: int = GENERAL
) -> Register:
    """A field of the structure `home` of `Registers`."""

    def get(registers: Registers) -> int:
        return int(getattr(getattr(registers, home), field))

    def set_(registers: Registers, value: int) -> None:
        # A client that sees half of a register leaves the other half.
        structure = getattr(registers, home)
        setattr(structure, field, getattr(structure, field) >> bits << bits | value)
        registers.changed |= changes

    return Register(name, bits, type_ or f"int{bits}", get, set_, group)


def _program_counter(name: str, bits: int) -> Register:
    def get(registers: Registers) -> int:
        return registers.cpu.pc

    def set_(registers: Registers, value: int) -> None:
        if registers.cpu.bits != 64:
            value = value - registers.sregs.cs.base & 0xFFFF_FFFF
        registers.regs.rip = value
        registers.changed |= GENERAL

    return Register(name, bits, "code_ptr", get, set_)


def _segment(name: str) -> Register:
    def get(registers: Registers) -> int:
        return int(getattr(registers.sregs, name).selector)

    def set_(registers: Registers, value: int) -> None:
        if not registers.cpu.is_real:
            raise RefusedError(f"{name} cannot be set in protected mode: no descriptor would be loaded")
        segment = getattr(registers.sregs, name)
        segment.selector = value & 0xFFFF
        segment.base = segment.selector << 4
        registers.changed |= SPECIAL

    return Register(name, 32, "int32", get, set_)


def _base(name: str, segment: str) -> Register:
    def get(registers: Registers) -> int:
        return int(getattr(registers.sregs, segment).base)

    def set_(registers: Registers, value: int) -> None:
        getattr(registers.sregs, segment).base = value
        registers.changed |= SPECIAL

    return Register(name, 64, "int64", get, set_)


def _special(name: str, bits: int, type_: str = "") -> Register:
    return _field(name, "sregs", name, bits, type_, "system", SPECIAL)


def _array(name: str, field: str, index: int, bytes_: int, type_: str, group: str) -> Register:
    def get(registers: Registers) -> int:
        return int.from_bytes(bytes(getattr(registers.fpu, field)[index][:bytes_]), "little")

    def set_(registers: Registers, value: int) -> None:
        getattr(registers.fpu, field)[index][:bytes_] = value.to_bytes(bytes_, "little")
        registers.changed |= FLOAT

    return Register(name, bytes_ * 8, type_, get, set_, group)


def _float(
    name: str,
    field: str,
    *,
    shift: int = 0,
    mask: int = 0xFFFF_FFFF,
    type_: str = "int",
    group: str = "float",
) -> Register:
    def get(registers: Registers) -> int:
        return int(getattr(registers.fpu, field)) >> shift & mask

    def set_(registers: Registers, value: int) -> None:
        others = getattr(registers.fpu, field) & ~(mask << shift)
        setattr(registers.fpu, field, others | (value & mask) << shift)
        registers.changed |= FLOAT

    return Register(name, 32, type_, get, set_, group)


def _tags() -> Register:
    """The tag word. FXSAVE keeps one bit a register, whether it is in use (SDM volume 1, 10.5.1.1)."""
    empty, valid = 0b11, 0b00

    def get(registers: Registers) -> int:
        used = registers.fpu.ftwx
        return sum((valid if used >> index & 1 else empty) << 2 * index for index in range(8))

    def set_(registers: Registers, value: int) -> None:
        registers.fpu.ftwx = sum(1 << index for index in range(8) if value >> 2 * index & 0b11 != empty)
        registers.changed |= FLOAT

    return Register("ftag", 32, "int", get, set_, "float")


_FLAGS: Final = {
    "i386_eflags": (
        4,
        "CF:0 :1 PF:2 AF:4 ZF:6 SF:7 TF:8 IF:9 DF:10 OF:11 NT:14 RF:16 VM:17 AC:18 VIF:19 VIP:20 ID:21",
    ),
    "i386_mxcsr": (4, "IE:0 DE:1 ZE:2 OE:3 UE:4 PE:5 DAZ:6 IM:7 DM:8 ZM:9 OM:10 UM:11 PM:12 FZ:15"),
    "cr0_flags": (8, "PE:0 MP:1 EM:2 TS:3 ET:4 NE:5 WP:16 AM:18 NW:29 CD:30 PG:31"),
    "cr4_flags": (
        8,
        "VME:0 PVI:1 TSD:2 DE:3 PSE:4 PAE:5 MCE:6 PGE:7 PCE:8 OSFXSR:9 OSXMMEXCPT:10 UMIP:11 LA57:12 VMXE:13 "
        "SMXE:14 FSGSBASE:16 PCIDE:17 OSXSAVE:18 SMEP:20 SMAP:21 PKE:22",
    ),
    "efer_flags": (8, "SCE:0 LME:8 LMA:10 NXE:11 SVME:12 FFXSR:14"),
}
"""Flag types: size in bytes, and name and bit of each flag (SDM volume 3, chapter 2; volume 1, 3.4.3)."""

_VECTOR: Final = """\
<vector id="v4f" type="ieee_single" count="4"/>
<vector id="v2d" type="ieee_double" count="2"/>
<vector id="v16i8" type="int8" count="16"/>
<vector id="v8i16" type="int16" count="8"/>
<vector id="v4i32" type="int32" count="4"/>
<vector id="v2i64" type="int64" count="2"/>
<union id="vec128">
<field name="v4_float" type="v4f"/><field name="v2_double" type="v2d"/>
<field name="v16_int8" type="v16i8"/><field name="v8_int16" type="v8i16"/>
<field name="v4_int32" type="v4i32"/><field name="v2_int64" type="v2i64"/>
<field name="uint128" type="uint128"/>
</union>
"""


def _flags(name: str, size: int = 0) -> str:
    own, fields = _FLAGS[name]
    text = "".join(
        f'<field name="{field}" start="{bit}" end="{bit}"/>'
        for field, _, bit in (one.partition(":") for one in fields.split())
    )
    return f'<flags id="{name}" size="{size or own}">{text}</flags>\n'


class Feature(Value):
    """Registers that GDB knows under one name, and the types that only they use, as XML."""

    name: str
    registers: tuple[Register, ...]
    types: str = ""


class Layout:
    """The registers of one architecture, numbered from 0."""

    def __init__(
        self, architecture: str, triple: str, pointer_size: int, features: Sequence[Feature]
    ) -> None:
        self.architecture: Final = architecture
        self.triple: Final = triple
        """The same as LLVM names it."""
        self.pointer_size: Final = pointer_size
        self.registers: Final = tuple(one for feature in features for one in feature.registers)
        self.pc: Final = next(one for one in self.registers if one.type == "code_ptr")
        self.xml: Final = _xml(architecture, features)

    def value(self, number: int, registers: Registers) -> bytes:
        """The bytes of a register, little-endian. IndexError if there is none of that number."""
        register = self.registers[number]
        value = register.get(registers) & (1 << register.bits) - 1
        return value.to_bytes(register.bits // 8, "little")

    def set_value(self, number: int, registers: Registers, data: bytes) -> None:
        """Set a register. IndexError if there is none; RefusedError if it cannot be set."""
        register = self.registers[number]
        if len(data) * 8 != register.bits:
            raise RefusedError(f"{register.name} has {register.bits} bits, not {len(data) * 8}")
        if data != self.value(number, registers):
            register.set(registers, int.from_bytes(data, "little"))

    def all_values(self, registers: Registers) -> bytes:
        """The bytes of all registers, in their order."""
        return b"".join(self.value(number, registers) for number in range(len(self.registers)))

    def set_all(self, registers: Registers, data: bytes) -> None:
        """Set all registers. RefusedError if the size is wrong, or one cannot be set."""
        if len(data) * 8 != sum(one.bits for one in self.registers):
            raise RefusedError(f"{len(data)} bytes are not all registers")
        at = 0
        for number, register in enumerate(self.registers):
            size = register.bits // 8
            self.set_value(number, registers, data[at : at + size])
            at += size


def _xml(architecture: str, features: Sequence[Feature]) -> bytes:
    lines = [
        '<?xml version="1.0"?>\n<!DOCTYPE target SYSTEM "gdb-target.dtd">\n<target version="1.0">\n',
        f"<architecture>{architecture}</architecture>\n",
    ]
    for feature in features:
        lines.append(f'<feature name="{feature.name}">\n{feature.types}')
        for one in feature.registers:
            group = f' group="{one.group}"' if one.group else ""
            lines.append(f'<reg name="{one.name}" bitsize="{one.bits}" type="{one.type}"{group}/>\n')
        lines.append("</feature>\n")
    lines.append("</target>\n")
    return "".join(lines).encode()


_SEGMENTS: Final = tuple(_segment(name) for name in ("cs", "ss", "ds", "es", "fs", "gs"))
_X87: Final = (
    *(_array(f"st{index}", "fpr", index, 10, "i387_ext", "float") for index in range(8)),
    _float("fctrl", "fcw", mask=0xFFFF),
    _float("fstat", "fsw", mask=0xFFFF),
    _tags(),
    _float("fiseg", "last_ip", shift=32),
    _float("fioff", "last_ip"),
    _float("foseg", "last_dp", shift=32),
    _float("fooff", "last_dp"),
    _float("fop", "last_opcode", mask=0x7FF),
)


def _sse(count: int) -> Feature:
    xmm = tuple(_array(f"xmm{index}", "xmm", index, 16, "vec128", "vector") for index in range(count))
    mxcsr = _float("mxcsr", "mxcsr", type_="i386_mxcsr", group="vector")
    return Feature("org.gnu.gdb.i386.sse", (*xmm, mxcsr), _VECTOR + _flags("i386_mxcsr"))


def _system(bits: int) -> Feature:
    registers = (
        _special("cr0", bits, "cr0_flags"),
        _special("cr2", bits),
        _special("cr3", bits),
        _special("cr4", bits, "cr4_flags"),
        *((_special("cr8", bits),) if bits == 64 else ()),
        _special("efer", bits, "efer_flags"),
    )
    types = "".join(_flags(name, bits // 8) for name in ("cr0_flags", "cr4_flags", "efer_flags"))
    return Feature("org.kvmbox.i386.system", registers, types)


def _core(names: str, letter: str, bits: int) -> Feature:
    """GDB's order: general registers, program counter, flags, segments, x87."""
    general = tuple(
        _field(
            name,
            "regs",
            f"r{name[1:]}" if name[0] == "e" else name,
            bits,
            "data_ptr" if name[1:] in ("bp", "sp") else "",
        )
        for name in names.split()
    )
    return Feature(
        "org.gnu.gdb.i386.core",
        (
            *general,
            _program_counter(f"{letter}ip", bits),
            _field("eflags", "regs", "rflags", 32, "i386_eflags"),
            *_SEGMENTS,
            *_X87,
        ),
        _flags("i386_eflags"),
    )


def _small(architecture: str) -> Layout:
    core = _core("eax ecx edx ebx esp ebp esi edi", "e", 32)
    return Layout(architecture, "i386-unknown-none", 4, (core, _sse(8), _system(32)))


def layout_of(bits: int) -> Layout:
    """The layout for 16-, 32- or 64-bit code."""
    if bits == 64:
        names = "rax rbx rcx rdx rsi rdi rbp rsp r8 r9 r10 r11 r12 r13 r14 r15"
        bases = (_base("fs_base", "fs"), _base("gs_base", "gs"))
        features = (
            _core(names, "r", 64),
            _sse(16),
            Feature("org.gnu.gdb.i386.segments", bases),
            _system(64),
        )
        return Layout("i386:x86-64", "x86_64-unknown-none", 8, features)
    return _small("i386" if bits == 32 else "i8086")


def bits_of_image(data: bytes) -> int | None:
    """Whether an image is an ELF file of 32 or of 64 bits; None if it is neither."""
    if data[:4] != b"\x7fELF" or len(data) < 5:
        return None
    return {1: 32, 2: 64}.get(data[4])  # EI_CLASS
