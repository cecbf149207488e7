"""One instruction, or a few, for each feature that brings any: `kvmbox doctor --cpu` lets a guest try them.

The guest is in 64-bit mode at privilege level 0. Its registers and its memory at RSI and RDI hold zeros, but
for RBX, which is 16. A test assembles the text of each row and compares the bytes.
"""

from __future__ import annotations

from typing import Final

from kvmbox.base.value_classes import Value


class Probe(Value):
    """The instructions of `feature` as text for the assembler and as hexadecimal digits. `result` is what RAX
    holds afterwards, or None where that says nothing: KVM's emulator takes some of these for older ones.
    """

    feature: str
    text: str
    code: str
    result: int | None = None


RBX: Final = 16

PROBES: Final = (
    Probe("fpu", "fld1; fstp %st(0)", "d9 e8 dd d8"),
    Probe("tsc", "rdtsc", "0f 31"),
    Probe("cx8", "lock cmpxchg8b (%rsi)", "f0 0f c7 0e"),
    Probe("cmov", "cmovz %rbx, %rax", "48 0f 44 c3"),
    Probe("clflush", "clflush (%rsi)", "0f ae 3e"),
    Probe("mmx", "paddb %mm0, %mm1", "0f fc c8"),
    Probe("fxsr", "fxsave64 (%rsi)", "48 0f ae 06"),
    Probe("sse", "addps %xmm0, %xmm1", "0f 58 c8"),
    Probe("sse2", "addpd %xmm0, %xmm1", "66 0f 58 c8"),
    Probe("pni", "haddps %xmm0, %xmm1", "f2 0f 7c c8"),
    Probe("pclmulqdq", "pclmulqdq $0, %xmm0, %xmm1", "66 0f 3a 44 c8 00"),
    Probe("monitor", "mov %rsi, %rax; monitor", "48 89 f0 0f 01 c8"),
    Probe("ssse3", "pshufb %xmm0, %xmm1", "66 0f 38 00 c8"),
    Probe("fma", "vfmadd132ps %xmm0, %xmm1, %xmm2", "c4 e2 71 98 d0"),
    Probe("cx16", "lock cmpxchg16b (%rsi)", "f0 48 0f c7 0e"),
    Probe("sse4_1", "pminud %xmm0, %xmm1", "66 0f 38 3b c8"),
    Probe("sse4_2", "crc32b %bl, %eax", "f2 0f 38 f0 c3"),
    Probe("movbe", "movbe %rbx, (%rsi)", "48 0f 38 f1 1e"),
    Probe("popcnt", "popcnt %rbx, %rax", "f3 48 0f b8 c3", 1),
    Probe("aes", "aesenc %xmm0, %xmm1", "66 0f 38 dc c8"),
    Probe("xsave", "xgetbv", "0f 01 d0"),
    Probe("avx", "vaddps %xmm0, %xmm1, %xmm2", "c5 f0 58 d0"),
    Probe("f16c", "vcvtph2ps %xmm0, %xmm1", "c4 e2 79 13 c8"),
    Probe("rdrand", "rdrand %rax", "48 0f c7 f0"),
    Probe("fsgsbase", "rdfsbase %rax", "f3 48 0f ae c0"),
    Probe("bmi1", "andn %rbx, %rbx, %rax", "c4 e2 e0 f2 c3", 0),
    Probe("rtm", "xbegin 1f; xend; 1: nop", "c7 f8 03 00 00 00 0f 01 d5 90"),
    Probe("avx2", "vpaddb %ymm0, %ymm1, %ymm2", "c5 f5 fc d0"),
    Probe("bmi2", "shlx %rcx, %rbx, %rax", "c4 e2 f1 f7 c3", 16),
    Probe("erms", "cld; mov $1, %cl; mov %rsi, %rdi; rep movsb", "fc b1 01 48 89 f7 f3 a4"),
    Probe("invpcid", "invpcid (%rsi), %rcx", "66 0f 38 82 0e"),
    Probe("avx512f", "vaddps %zmm0, %zmm1, %zmm2", "62 f1 74 48 58 d0"),
    Probe("rdseed", "rdseed %rax", "48 0f c7 f8"),
    Probe("adx", "adcx %rbx, %rax", "66 48 0f 38 f6 c3"),
    Probe("smap", "stac", "0f 01 cb"),
    Probe("clflushopt", "clflushopt (%rsi)", "66 0f ae 3e"),
    Probe("clwb", "clwb (%rsi)", "66 0f ae 36"),
    Probe("sha_ni", "sha256msg1 %xmm0, %xmm1", "0f 38 cc c8"),
    Probe("gfni", "gf2p8mulb %xmm0, %xmm1", "66 0f 38 cf c8"),
    Probe("vaes", "vaesenc %ymm0, %ymm1, %ymm2", "c4 e2 75 dc d0"),
    Probe("vpclmulqdq", "vpclmulqdq $0, %ymm0, %ymm1, %ymm2", "c4 e3 75 44 d0 00"),
    Probe("rdpid", "rdpid %rax", "f3 0f c7 f8"),
    Probe("cldemote", "cldemote (%rsi)", "0f 1c 06"),
    Probe("movdiri", "movdiri %rbx, (%rsi)", "48 0f 38 f9 1e"),
    Probe("movdir64b", "movdir64b (%rsi), %rdi", "66 0f 38 f8 3e"),
    Probe("waitpkg", "umonitor %rsi", "f3 0f ae f6"),
    Probe("serialize", "serialize", "0f 01 e8"),
    Probe(
        "tsxldtrk",
        "xbegin 1f; xsusldtrk; xresldtrk; xend; 1: nop",
        "c7 f8 0b 00 00 00 f2 0f 01 e8 f2 0f 01 e9 0f 01 d5 90",
    ),
    Probe("xsaveopt", "xsaveopt64 (%rsi)", "48 0f ae 36"),
    Probe("xsavec", "xsavec64 (%rsi)", "48 0f c7 26"),
    Probe("xsaves", "xsaves64 (%rsi)", "48 0f c7 2e"),
    Probe("xgetbv1", "mov $1, %cl; xgetbv", "b1 01 0f 01 d0"),
    Probe("avx_vnni", "{vex} vpdpbusd %xmm0, %xmm1, %xmm2", "c4 e2 71 50 d0"),
    Probe("lahf_lm", "lahf", "9f"),
    Probe("abm", "lzcnt %rbx, %rax", "f3 48 0f bd c3", 59),
    Probe("sse4a", "extrq $0, $1, %xmm0", "66 0f 78 c0 01 00"),
    Probe("3dnowprefetch", "prefetchw (%rsi)", "0f 0d 0e"),
    Probe("xop", "vphaddbd %xmm0, %xmm1", "8f e9 78 c2 c8"),
    Probe("fma4", "vfmaddps %xmm0, %xmm1, %xmm2, %xmm3", "c4 e3 e9 68 d8 10"),
    Probe("tbm", "blcfill %rbx, %rax", "8f e9 f8 01 cb"),
    Probe("mwaitx", "mov %rsi, %rax; monitorx", "48 89 f0 0f 01 fa"),
    Probe("rdtscp", "rdtscp", "0f 01 f9"),
    Probe("3dnow", "pfadd %mm0, %mm1", "0f 0f c8 9e"),
    Probe("clzero", "mov %rsi, %rax; clzero", "48 89 f0 0f 01 fc"),
    Probe("rdpru", "rdpru", "0f 01 fd"),
    Probe("wbnoinvd", "wbnoinvd", "f3 0f 09"),
)
