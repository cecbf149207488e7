"""Names of the instructions that KVM's emulator is known to refuse, from their bytes. Pure.

No disassembler: it knows the instructions that a kernel may reasonably contain and that KVM's emulator
(arch/x86/kvm/emulate.c) lacks, wholly or in some mode, by the opcode maps of the Intel SDM, volume 2,
appendix A: x87, MMX and SSE, AVX, bit manipulation, extended state, random numbers, and the returns and
software interrupts of 32-bit protected mode. Everything else has no name here. The bytes may be cut short.
"""

from __future__ import annotations

from typing import Final

_PREFIXES: Final = frozenset(b"\x26\x2e\x36\x3e\x64\x65\x66\x67\xf0\xf2\xf3")
_PREFIX_INDEX: Final = {0: 0, 0x66: 1, 0xF3: 2, 0xF2: 3}
_SUFFIXES: Final = ("ps", "pd", "ss", "sd")  # of SSE arithmetic: no prefix, 66, F3, F2

AVX: Final = "an AVX instruction"
AVX_512: Final = "an AVX-512 instruction"
XOP: Final = "an XOP instruction"
_SSE: Final = "an MMX or SSE instruction"
_SSE4: Final = "an SSSE3 or SSE4 instruction"

_ONE_BYTE: Final = {0x9B: "fwait", 0xCC: "int3", 0xCD: "int", 0xCE: "into", 0xCF: "iret"}

# 0F 01 with a ModRM byte that names no memory.
_GROUP_7: Final = {
    0xC1: "vmcall",
    0xC8: "monitor",
    0xC9: "mwait",
    0xCA: "clac",
    0xCB: "stac",
    0xD0: "xgetbv",
    0xD1: "xsetbv",
    0xD8: "vmrun",
    0xD9: "vmmcall",
    0xEE: "rdpkru",
    0xEF: "wrpkru",
    0xF8: "swapgs",
    0xF9: "rdtscp",
    0xFA: "monitorx",
    0xFB: "mwaitx",
    0xFC: "clzero",
}
# 0F AE by ModRM.reg: memory; memory with 66; register with F3.
_GROUP_15: Final = ["fxsave", "fxrstor", "ldmxcsr", "stmxcsr", "xsave", "xrstor", "xsaveopt", "clflush"]
_GROUP_15_66: Final = {6: "clwb", 7: "clflushopt"}
_GROUP_15_F3: Final = {
    0: "rdfsbase",
    1: "rdgsbase",
    2: "wrfsbase",
    3: "wrgsbase",
    4: "ptwrite",
    5: "incssp",
    6: "umonitor",
}
# 0F C7 by ModRM.reg.
_GROUP_9_MEMORY: Final = {1: "cmpxchg8b", 3: "xrstors", 4: "xsavec", 5: "xsaves"}
_GROUP_9_REGISTER: Final = {6: "rdrand", 7: "rdseed"}

_ARITHMETIC: Final = {
    0x51: "sqrt",
    0x54: "and",
    0x55: "andn",
    0x56: "or",
    0x57: "xor",
    0x58: "add",
    0x59: "mul",
    0x5C: "sub",
    0x5D: "min",
    0x5E: "div",
    0x5F: "max",
    0xC2: "cmp",
    0xC6: "shuf",
}
_BOTH_HALVES: Final = frozenset({0x54, 0x55, 0x56, 0x57, 0xC6})  # these have no ss and sd
# 0F xx by prefix (none, 66, F3, F2), where the names do not follow a rule.
_TWO_BYTE: Final = {
    0x10: ("movups", "movupd", "movss", "movsd"),
    0x11: ("movups", "movupd", "movss", "movsd"),
    0x12: ("movlps", "movlpd", "movsldup", "movddup"),
    0x13: ("movlps", "movlpd"),
    0x14: ("unpcklps", "unpcklpd"),
    0x15: ("unpckhps", "unpckhpd"),
    0x16: ("movhps", "movhpd", "movshdup"),
    0x17: ("movhps", "movhpd"),
    0x28: ("movaps", "movapd"),
    0x29: ("movaps", "movapd"),
    0x2A: ("cvtpi2ps", "cvtpi2pd", "cvtsi2ss", "cvtsi2sd"),
    0x2B: ("movntps", "movntpd"),
    0x2C: ("cvttps2pi", "cvttpd2pi", "cvttss2si", "cvttsd2si"),
    0x2D: ("cvtps2pi", "cvtpd2pi", "cvtss2si", "cvtsd2si"),
    0x2E: ("ucomiss", "ucomisd"),
    0x2F: ("comiss", "comisd"),
    0x50: ("movmskps", "movmskpd"),
    0x52: ("rsqrtps", "", "rsqrtss"),
    0x53: ("rcpps", "", "rcpss"),
    0x5A: ("cvtps2pd", "cvtpd2ps", "cvtss2sd", "cvtsd2ss"),
    0x5B: ("cvtdq2ps", "cvtps2dq", "cvttps2dq"),
    0x6E: ("movd", "movd"),
    0x6F: ("movq", "movdqa", "movdqu"),
    0x70: ("pshufw", "pshufd", "pshufhw", "pshuflw"),
    0x77: ("emms",),
    0x7E: ("movd", "movd", "movq"),
    0x7F: ("movq", "movdqa", "movdqu"),
    0xB8: ("", "", "popcnt"),
    0xBC: ("", "", "tzcnt"),
    0xBD: ("", "", "lzcnt"),
    0xC3: ("movnti",),
    0xD6: ("", "movq"),
    0xD7: ("pmovmskb", "pmovmskb"),
    0xE7: ("movntq", "movntdq"),
    **{
        opcode: (name, name)
        for opcode, name in {
            0x74: "pcmpeqb",
            0x75: "pcmpeqw",
            0x76: "pcmpeqd",
            0xD4: "paddq",
            0xDB: "pand",
            0xDF: "pandn",
            0xEB: "por",
            0xEF: "pxor",
            0xF4: "pmuludq",
            0xF8: "psubb",
            0xF9: "psubw",
            0xFA: "psubd",
            0xFB: "psubq",
            0xFC: "paddb",
            0xFD: "paddw",
            0xFE: "paddd",
        }.items()
    },
}
_VECTOR_OPCODES: Final = ((0x10, 0x18), (0x28, 0x30), (0x50, 0x80), (0xC4, 0xC7), (0xD0, 0xFF))
"""Opcodes behind 0F, from and below, that are MMX or SSE whatever their prefix."""

# 0F 38 xx by (prefix, opcode).
_MAP_38: Final = {
    (0xF2, 0xF0): "crc32",
    (0xF2, 0xF1): "crc32",
    (0, 0xF0): "movbe",
    (0, 0xF1): "movbe",
    (0x66, 0xF0): "movbe",
    (0x66, 0xF1): "movbe",
    (0x66, 0xF6): "adcx",
    (0xF3, 0xF6): "adox",
    (0x66, 0x82): "invpcid",
    (0, 0): "pshufb",
    (0x66, 0): "pshufb",
    (0x66, 0x17): "ptest",
    (0x66, 0xDB): "aesimc",
    (0x66, 0xDC): "aesenc",
    (0x66, 0xDD): "aesenclast",
    (0x66, 0xDE): "aesdec",
    (0x66, 0xDF): "aesdeclast",
    (0, 0xC8): "sha1nexte",
    (0, 0xC9): "sha1msg1",
    (0, 0xCA): "sha1msg2",
    (0, 0xCB): "sha256rnds2",
    (0, 0xCC): "sha256msg1",
    (0, 0xCD): "sha256msg2",
}
_MAP_3A: Final = {
    0x0F: "palignr",
    0x44: "pclmulqdq",
    0x63: "pcmpistri",
    0xCC: "sha1rnds4",
    0xDF: "aeskeygenassist",
}

# VEX map 2 (0F 38) and 3 (0F 3A): bit manipulation, by (prefix, opcode); F3 /1, /2, /3 of map 2.
_VEX_38: Final = {
    (0, 0xF2): "andn",
    (0, 0xF5): "bzhi",
    (0xF3, 0xF5): "pext",
    (0xF2, 0xF5): "pdep",
    (0xF2, 0xF6): "mulx",
    (0, 0xF7): "bextr",
    (0x66, 0xF7): "shlx",
    (0xF3, 0xF7): "sarx",
    (0xF2, 0xF7): "shrx",
}
_VEX_GROUP_17: Final = {1: "blsr", 2: "blsmsk", 3: "blsi"}

# x87 by first byte: memory by ModRM.reg, register by ModRM.reg, and single instructions by the ModRM byte.
_X87_ARITHMETIC: Final = ["fadd", "fmul", "fcom", "fcomp", "fsub", "fsubr", "fdiv", "fdivr"]
_X87_INTEGER: Final = ["fiadd", "fimul", "ficom", "ficomp", "fisub", "fisubr", "fidiv", "fidivr"]
_X87_MEMORY: Final = {
    0xD8: _X87_ARITHMETIC,
    0xD9: ["fld", "", "fst", "fstp", "fldenv", "fldcw", "fnstenv", "fnstcw"],
    0xDA: _X87_INTEGER,
    0xDB: ["fild", "fisttp", "fist", "fistp", "", "fld", "", "fstp"],
    0xDC: _X87_ARITHMETIC,
    0xDD: ["fld", "fisttp", "fst", "fstp", "frstor", "", "fnsave", "fnstsw"],
    0xDE: _X87_INTEGER,
    0xDF: ["fild", "fisttp", "fist", "fistp", "fbld", "fild", "fbstp", "fistp"],
}
_X87_REGISTER: Final = {
    0xD8: _X87_ARITHMETIC,
    0xD9: ["fld", "fxch", "", "", "", "", "", ""],
    0xDA: ["fcmovb", "fcmove", "fcmovbe", "fcmovu", "", "", "", ""],
    0xDB: ["fcmovnb", "fcmovne", "fcmovnbe", "fcmovnu", "", "fucomi", "fcomi", ""],
    0xDC: ["fadd", "fmul", "", "", "fsubr", "fsub", "fdivr", "fdiv"],
    0xDD: ["ffree", "", "fst", "fstp", "fucom", "fucomp", "", ""],
    0xDE: ["faddp", "fmulp", "", "", "fsubrp", "fsubp", "fdivrp", "fdivp"],
    0xDF: ["", "", "", "", "", "fucomip", "fcomip", ""],
}
_X87_CONSTANTS_AND_FUNCTIONS: Final = (
    *("fchs", "fabs", "", "", "ftst", "fxam", "", ""),
    *("fld1", "fldl2t", "fldl2e", "fldpi", "fldlg2", "fldln2", "fldz", ""),
    *("f2xm1", "fyl2x", "fptan", "fpatan", "fxtract", "fprem1", "fdecstp", "fincstp"),
    *("fprem", "fyl2xp1", "fsqrt", "fsincos", "frndint", "fscale", "fsin", "fcos"),
)
"""D9 E0 to D9 FF."""
_X87_SINGLE: Final = {
    (0xD9, 0xD0): "fnop",
    (0xDA, 0xE9): "fucompp",
    (0xDB, 0xE2): "fnclex",
    (0xDB, 0xE3): "fninit",
    (0xDE, 0xD9): "fcompp",
    (0xDF, 0xE0): "fnstsw",
    **{(0xD9, 0xE0 + index): name for index, name in enumerate(_X87_CONSTANTS_AND_FUNCTIONS) if name},
}


def mnemonic(code: bytes, bits: int) -> str | None:
    """The name of the instruction that `code` begins with, in a code segment of `bits` (16, 32 or 64), or
    what it belongs to ("an AVX instruction"); None for one that has no name here.
    """
    return _Bytes(code, bits).name() or None


class _Bytes:
    """The instruction taken apart: where its opcode is, and which prefix selects among its meanings."""

    def __init__(self, code: bytes, bits: int) -> None:
        self.code = code
        self.bits = bits
        self.position = 0
        self.prefix = 0
        self.wide = False  # REX.W

    def name(self) -> str:
        self._skip_prefixes()
        first = self._byte(0)
        if first is None:
            return ""
        # With a memory operand, VEX and EVEX are other instructions (les, lds, bound) in 16- and 32-bit code.
        second = self._byte(1)
        if first in (0xC4, 0xC5, 0x62) and second is not None and (self.bits == 64 or second >= 0xC0):
            return AVX_512 if first == 0x62 else self._vex(first)
        if first == 0x8F and second is not None and second & 0x1F >= 8:
            return XOP
        if first == 0x0F:
            return "" if second is None else self._two_byte(second)
        if 0xD8 <= first <= 0xDF:
            return "" if second is None else _x87(first, second)
        return _ONE_BYTE.get(first, "")

    def _byte(self, offset: int) -> int | None:
        position = self.position + offset
        return self.code[position] if position < len(self.code) else None

    def _skip_prefixes(self) -> None:
        while (byte := self._byte(0)) is not None and byte in _PREFIXES:
            # F2 and F3 win over 66, and the last one of them counts.
            if byte in (0xF2, 0xF3) or (byte == 0x66 and not self.prefix):
                self.prefix = byte
            self.position += 1
        if self.bits == 64 and byte is not None and 0x40 <= byte <= 0x4F:
            self.wide = bool(byte & 8)
            self.position += 1

    def _two_byte(self, opcode: int) -> str:
        third = self._byte(2)
        if opcode in (0x38, 0x3A):
            if third is None:
                return ""
            if opcode == 0x3A:
                return _MAP_3A.get(third, _SSE4)
            # CRC32 keeps F2, whatever else is in front of it.
            return _MAP_38.get((self.prefix, third), _SSE4 if third < 0xF0 else "")
        if opcode in (0x01, 0xAE, 0xC7, 0x1E):
            return "" if third is None else self._group(opcode, third)
        name = _by_prefix(opcode, self.prefix)
        return "movq" if name == "movd" and self.wide else name

    def _group(self, opcode: int, modrm: int) -> str:
        register, kind = modrm >> 6 == 3, modrm >> 3 & 7
        if opcode == 0x01:
            return _GROUP_7.get(modrm, "")
        if opcode == 0x1E:
            return "rdssp" if register and kind == 1 and self.prefix == 0xF3 else ""
        if opcode == 0xC7:
            if register:
                return "rdpid" if kind == 7 and self.prefix == 0xF3 else _GROUP_9_REGISTER.get(kind, "")
            return "cmpxchg16b" if kind == 1 and self.wide else _GROUP_9_MEMORY.get(kind, "")
        if register:
            return _GROUP_15_F3.get(kind, "") if self.prefix == 0xF3 else ""
        return _GROUP_15_66.get(kind, "") if self.prefix == 0x66 else _GROUP_15[kind]

    def _vex(self, first: int) -> str:
        # C5 RvvvvLpp opcode; C4 RXBmmmmm WvvvvLpp opcode (SDM volume 2, 2.3.5)
        length = 2 if first == 0xC5 else 3
        last, opcode, modrm = self._byte(length - 1), self._byte(length), self._byte(length + 1)
        second = self._byte(1)
        if last is None or opcode is None or second is None:
            return AVX
        table = 1 if first == 0xC5 else second & 0x1F
        prefix = (0, 0x66, 0xF3, 0xF2)[last & 3]
        if table == 1 and opcode == 0x77:
            return "vzeroall" if last & 4 else "vzeroupper"
        if table == 2 and opcode == 0xF3 and modrm is not None:
            return _VEX_GROUP_17.get(modrm >> 3 & 7, AVX)
        if table == 2:
            return _VEX_38.get((prefix, opcode), AVX)
        if table == 3 and (prefix, opcode) == (0xF2, 0xF0):
            return "rorx"
        plain = _by_prefix(opcode, prefix) if table == 1 else ""
        return f"v{plain}" if plain and plain != _SSE else AVX


def _by_prefix(opcode: int, prefix: int) -> str:
    """The name of 0F `opcode`."""
    index = _PREFIX_INDEX[prefix]
    if opcode in _ARITHMETIC and not (index >= 2 and opcode in _BOTH_HALVES):
        return _ARITHMETIC[opcode] + _SUFFIXES[index]
    names = _TWO_BYTE.get(opcode, ())
    if index < len(names) and names[index]:
        return names[index]
    return _SSE if any(first <= opcode < end for first, end in _VECTOR_OPCODES) else ""


def _x87(first: int, modrm: int) -> str:
    if modrm < 0xC0:
        found = _X87_MEMORY[first][modrm >> 3 & 7]
    else:
        found = _X87_SINGLE.get((first, modrm)) or _X87_REGISTER[first][modrm >> 3 & 7]
    return found or "an x87 instruction"
