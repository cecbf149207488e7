"""Names of instructions: against the assembler, which has them from elsewhere, and at the edges."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmbox.explain.mnemonics import AVX, AVX_512, XOP, mnemonic

ANY_MODE = """
popcnt ax, bx | popcnt eax, [ebx] | tzcnt eax, ebx | lzcnt eax, ebx | crc32 eax, bl | crc32 eax, ebx
movbe eax, [ebx] | rdtscp | xgetbv | xsetbv | monitor | mwait | stac | clac | vmcall | vmmcall | clzero
xsave [ebx] | xrstor [ebx] | xsaveopt [ebx] | xsavec [ebx] | xsaves [ebx] | xrstors [ebx] | fxsave [ebx]
fxrstor [ebx] | ldmxcsr [ebx] | stmxcsr [ebx] | clflush [ebx] | clflushopt [ebx] | clwb [ebx]
rdrand eax | rdseed eax | rdrand ax | cmpxchg8b [ebx] | rdpkru | wrpkru | adcx eax, ebx | adox eax, ebx
rdsspd eax | fwait | iret | int3 | int 0x10 | fld dword ptr [ebx] | fld qword ptr [ebx]
fild word ptr [ebx] | fist dword ptr [ebx] | fstp tbyte ptr [ebx] | fbld tbyte ptr [ebx]
fbstp tbyte ptr [ebx] | fisttp qword ptr [ebx] | fadd dword ptr [ebx] | fmul qword ptr [ebx]
fiadd word ptr [ebx] | fidivr dword ptr [ebx] | fnsave [ebx] | frstor [ebx] | fldcw word ptr [ebx]
fnstcw word ptr [ebx] | fnstsw word ptr [ebx] | fnstsw ax | fldenv [ebx] | fnstenv [ebx] | fninit
fnclex | fnop | fchs | fabs | ftst | fxam | fld1 | fldl2t | fldl2e | fldpi | fldlg2 | fldln2 | fldz
f2xm1 | fyl2x | fptan | fpatan | fxtract | fprem1 | fdecstp | fincstp | fprem | fyl2xp1 | fsqrt
fsincos | frndint | fscale | fsin | fcos | fucompp | fcompp | faddp st(1), st | fmulp st(1), st
fsubp st(1), st | fdivrp st(1), st | fxch st(1) | ffree st(1) | fcomi st, st(1) | fucomi st, st(1)
fcomip st, st(1) | fucomip st, st(1) | fucom st(1) | fucomp st(1) | fcmove st, st(1) | fcmovnu st, st(1)
fsubr st(1), st | fdiv st(1), st | fcom st(1) | fcomp dword ptr [ebx] | movaps xmm0, xmm1
movapd [ebx], xmm0 | movups xmm0, [ebx] | movss xmm0, xmm1 | movsd xmm0, qword ptr [ebx]
movlps xmm0, [ebx] | movhps [ebx], xmm0 | movhpd xmm0, [ebx] | movddup xmm0, xmm1 | movshdup xmm0, xmm1
addps xmm0, xmm1 | addpd xmm0, xmm1 | addss xmm0, xmm1 | addsd xmm0, xmm1 | mulsd xmm0, [ebx]
subps xmm0, xmm1 | divss xmm0, xmm1 | minpd xmm0, xmm1 | maxsd xmm0, xmm1 | sqrtsd xmm0, xmm1
rsqrtps xmm0, xmm1 | rcpss xmm0, xmm1 | andps xmm0, xmm1 | andnpd xmm0, xmm1 | orps xmm0, xmm1
xorpd xmm0, xmm1 | xorps xmm0, xmm0 | ucomiss xmm0, xmm1 | comisd xmm0, xmm1 | cvtsi2sd xmm0, eax
cvttss2si eax, xmm0 | cvtps2pd xmm0, xmm1 | cvtsd2ss xmm0, xmm1 | cvtdq2ps xmm0, xmm1
unpcklps xmm0, xmm1 | unpckhpd xmm0, xmm1 | shufps xmm0, xmm1, 0x1b | movmskps eax, xmm0
movd xmm0, eax | movq mm0, mm1 | movq xmm0, [ebx] | movdqa xmm0, xmm1 | movdqu [ebx], xmm0
pshufd xmm0, xmm1, 0x1b | pshuflw xmm0, xmm1, 0x1b | pcmpeqb xmm0, xmm1 | pxor xmm0, xmm0 | por mm0, mm1
paddd xmm0, xmm1 | psubq xmm0, xmm1 | pmuludq xmm0, xmm1 | pmovmskb eax, xmm0 | movntdq [ebx], xmm0
movnti [ebx], eax | movntps [ebx], xmm0 | emms | pshufb xmm0, xmm1 | ptest xmm0, xmm1
palignr xmm0, xmm1, 3 | aesenc xmm0, xmm1 | aesdeclast xmm0, xmm1 | aeskeygenassist xmm0, xmm1, 1
pclmulqdq xmm0, xmm1, 1 | sha256rnds2 xmm0, xmm1 | sha1rnds4 xmm0, xmm1, 1 | vzeroupper | vzeroall
vaddps ymm0, ymm1, ymm2 | vmovaps ymm0, ymm1 | vxorpd xmm0, xmm1, xmm2 | vmovdqu ymm0, [ebx]
vpxor ymm0, ymm1, ymm2 | andn eax, ebx, ecx | bextr eax, ebx, ecx | blsr eax, ebx | blsi eax, ebx
blsmsk eax, ebx | bzhi eax, ebx, ecx | mulx eax, ebx, ecx | pdep eax, ebx, ecx | pext eax, ebx, ecx
rorx eax, ebx, 3 | sarx eax, ebx, ecx | shlx eax, ebx, ecx | shrx eax, ebx, ecx
"""
ONLY_64 = """
cmpxchg16b [rbx] | lock cmpxchg16b [r8] | iretq | swapgs | rdfsbase rax | wrgsbase rax | rdsspq rax
popcnt r8, r9 | crc32 rax, rbx | movq xmm0, rax | cvtsi2sd xmm8, r9 | xsave64 [rbx] | rdrand rax | rdpid rax
vaddsd xmm8, xmm9, xmm10 | shlx r8, r9, r10
"""
ALIASES = {
    "rdsspd": "rdssp",
    "rdsspq": "rdssp",
    "iretq": "iret",
    "iretw": "iret",
    "iretd": "iret",
    "xsave64": "xsave",
    "pclmulhqlqdq": "pclmulqdq",
}


def assembled(tmp_path: Path, text: str, bits: int) -> list[tuple[bytes, str]]:
    """Bytes and name of each instruction of `text`, by the GNU assembler and disassembler."""
    lines = [line.strip() for line in text.replace("|", "\n").splitlines() if line.strip()]
    if bits == 64:
        lines = [re.sub(r"\[e(b[xp])\]", r"[r\1]", line) for line in lines]
    source, made = tmp_path / "all.s", tmp_path / "all.o"
    source.write_text(f".intel_syntax noprefix\n.code{bits}\n" + "\n".join(lines) + "\n")
    subprocess.run(["as", "--64" if bits == 64 else "--32", "-o", made, source], check=True)
    shown = subprocess.run(
        ["objdump", "-d", "-w", "-z", "-M", "intel" + (",i8086" if bits == 16 else ""), made],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    listing = re.compile(r"\s+[0-9a-f]+:\t([0-9a-f ]+?)\s*\t(?:(?:lock|addr32|data32|rex\.\w+)\s+)*(\w+)")
    hits = [listing.match(line) for line in shown.splitlines()]
    found = [(bytes.fromhex(hit[1]), hit[2]) for hit in hits if hit]
    assert len(found) == len(lines)
    return found


@pytest.mark.skipif(not (shutil.which("as") and shutil.which("objdump")), reason="needs binutils")
@pytest.mark.parametrize(("bits", "text"), [(16, ANY_MODE), (32, ANY_MODE), (64, ANY_MODE), (64, ONLY_64)])
def test_instructions_have_the_name_that_the_assembler_knows(tmp_path: Path, bits: int, text: str) -> None:
    wrong = []
    for code, name in assembled(tmp_path, text, bits):
        found = mnemonic(code + bytes(5), bits)
        if found != ALIASES.get(name, name) and not (found == AVX and name.startswith("v")):
            wrong.append((code.hex(" "), name, found))
    assert wrong == []


@pytest.mark.parametrize(
    ("code", "bits", "name"),
    [
        ("0f 58 c1", 32, "addps"),
        ("66 f3 0f 58 c1", 32, "addss"),  # F3 wins over 66, on either side
        ("f3 66 0f 58 c1", 32, "addss"),
        ("f3 f2 0f 58 c1", 32, "addsd"),  # the last of the two
        ("65 67 f3 0f b8 00", 32, "popcnt"),
        ("48 0f c7 0b", 64, "cmpxchg16b"),
        ("0f c7 0b", 64, "cmpxchg8b"),
        ("48 0f c7 0b", 32, None),  # dec eax
        ("c5 f8 77", 64, "vzeroupper"),
        ("c5 f8 77", 32, "vzeroupper"),
        ("c5 00", 32, None),  # lds
        ("c4 00", 16, None),  # les
        ("62 00", 32, None),  # bound
        ("62 f1 7c 48 58 c1", 64, AVX_512),
        ("c4 e2 7d 18 00", 64, AVX),
        ("8f e9 78 c1 c0", 64, XOP),
        ("8f c0", 64, None),  # pop
        ("cf", 32, "iret"),
        ("cc", 64, "int3"),
        ("dd 28", 32, "an x87 instruction"),
        ("0f 60 c1", 32, "an MMX or SSE instruction"),
        ("66 0f 38 10 c1", 32, "an SSSE3 or SSE4 instruction"),
        ("0f 0b", 32, None),
        ("0f a2", 32, None),
        ("90", 64, None),
        ("00 00", 16, None),
        ("ff ff", 64, None),
    ],
)
def test_prefixes_and_modes_decide(code: str, bits: int, name: str | None) -> None:
    assert mnemonic(bytes.fromhex(code), bits) == name


CUT_SHORT = ["", "f3", "66 67", "0f", "f3 0f", "0f 01", "0f 38", "0f c7", "48", "d9", "c5", "c4 e2"]


@pytest.mark.parametrize("code", CUT_SHORT)
@pytest.mark.parametrize("bits", [16, 32, 64])
def test_instruction_that_is_cut_short_has_at_most_a_family(code: str, bits: int) -> None:
    assert mnemonic(bytes.fromhex(code), bits) in (None, AVX)


@given(st.binary(max_size=15), st.sampled_from([16, 32, 64]))
def test_any_bytes_give_a_name_or_none(code: bytes, bits: int) -> None:
    found = mnemonic(code, bits)
    assert found is None or re.fullmatch(r"[a-z][a-z0-9]+|an [A-Za-z0-9 -]+ instruction", found)
