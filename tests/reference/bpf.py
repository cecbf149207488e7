"""What a seccomp filter decides, by a slow and independent reading of its BPF."""

from __future__ import annotations

from struct import Struct

from kvmbox.sandbox import policy
from kvmbox.sandbox.policy import Action

RETURNS = {
    0x7FFF_0000: Action.ALLOW,
    0x7FC0_0000: Action.NOTIFY,
    0x8000_0000: Action.KILL,
    0x0005_0026: Action.REFUSE,
}  # ENOSYS
DATA = Struct("=iIQ6Q")  # struct seccomp_data
INSTRUCTION = Struct("=HBBI")  # struct sock_filter


def run_bpf(bpf: bytes, number: int, arch: int, arguments: tuple[int, ...]) -> Action:
    """A slow, independent reading of the filter: the subset of BPF that libseccomp emits."""
    padded = [argument & policy.WORD for argument in arguments] + [0] * (6 - len(arguments))
    signed = (number & policy.INT) - ((number & 0x8000_0000) << 1)
    data = DATA.pack(signed, arch, 0, *padded)
    program = list(INSTRUCTION.iter_unpack(bpf))
    accumulator = counter = 0
    while True:
        code, true, false, k = program[counter]
        counter += 1
        match code:
            case 0x20:  # ld word
                accumulator = int.from_bytes(data[k : k + 4], "little")
            case 0x54:  # and
                accumulator &= k
            case 0x15:  # jeq
                counter += true if accumulator == k else false
            case 0x35:  # jge
                counter += true if accumulator >= k else false
            case 0x25:  # jgt
                counter += true if accumulator > k else false
            case 0x05:  # ja
                counter += k
            case 0x06:  # ret
                return RETURNS[k]
            case _:
                raise AssertionError(f"unknown BPF instruction {code:#x}")
