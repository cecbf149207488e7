"""The state of a vCPU as bytes."""

from __future__ import annotations

import ctypes
from typing import cast

import pytest

from kvmbox.base.errors import KvmError, SnapshotFileError
from kvmbox.kvm import uapi
from kvmbox.kvm.vcpu import Vcpu
from kvmbox.parts.snapshot.vcpu_state import MSR_TSC, CpuSnapshot, apply, capture, decode, encode

XSAVE = 4096


class FakeVcpu:
    """Registers that can be read and set, and a log of the order."""

    index = 0

    def __init__(self, msrs: dict[int, int]) -> None:
        self.msrs = msrs
        self.log: list[str] = []
        self.mp_state = uapi.KVM_MP_STATE_RUNNABLE
        self.refuses: str | None = None
        self.events = uapi.kvm_vcpu_events()
        self.counters: list[int] = []
        """What the time-stamp counter was set to."""

    def get_readable_msrs(self, indices: list[int]) -> dict[int, int]:
        return {index: self.msrs[index] for index in indices if index in self.msrs}

    def get_vcpu_events(self) -> uapi.kvm_vcpu_events:
        return self.events

    def get_mp_state(self) -> int:
        return self.mp_state

    def get_xsave(self, size: int) -> bytes:
        return bytes(range(256)) * (size // 256)

    def set_msrs(self, values: dict[int, int]) -> None:
        self.log.append(f"msrs {sorted(values)}")
        self.counters += [value for index, value in values.items() if index == MSR_TSC]
        self.msrs |= values

    def __getattr__(self, name: str) -> object:
        verb, _, what = name.partition("_")
        if verb == "get":
            return getattr(uapi, {"lapic": "kvm_lapic_state"}.get(what, f"kvm_{what}"))
        if verb == "set":
            return lambda _value: self.note(what)
        raise AttributeError(name)

    def note(self, what: str) -> None:
        if what == self.refuses:
            raise KvmError(f"cannot set {what}")
        self.log.append(what)


def taken(vcpu: FakeVcpu, *, sregs2: bool = True) -> CpuSnapshot:
    return capture(cast(Vcpu, vcpu), [0x174, MSR_TSC, 0x3B], xsave_size=XSAVE, sregs2=sregs2)


@pytest.mark.parametrize("sregs2", [False, True])
def test_decode_gives_what_was_encoded(sregs2: bool) -> None:
    state = taken(FakeVcpu({0x174: 5, MSR_TSC: 1 << 63}), sregs2=sregs2)
    found = decode(encode(state), xsave_size=XSAVE, sregs2=sregs2)
    assert found.msrs == {MSR_TSC: 1 << 63, 0x174: 5}
    assert encode(found) == encode(state)
    assert isinstance(found.sregs, uapi.kvm_sregs2 if sregs2 else uapi.kvm_sregs)


def test_pending_nmi_and_start_up_vector_are_marked_as_valid() -> None:
    vcpu = FakeVcpu({})
    assert taken(vcpu).events.flags == uapi.KVM_VCPUEVENT_VALID_NMI_PENDING
    vcpu.mp_state = uapi.KVM_MP_STATE_SIPI_RECEIVED
    assert taken(vcpu).events.flags & uapi.KVM_VCPUEVENT_VALID_SIPI_VECTOR


def test_state_is_set_in_the_order_that_kvm_needs() -> None:
    state = taken(FakeVcpu({0x174: 5, 0x3B: 1, MSR_TSC: 9}))
    fresh = FakeVcpu({0x174: 0, 0x3B: 1, MSR_TSC: 3})
    apply(cast(Vcpu, fresh), state)
    assert fresh.log == [
        *("mp_state", "regs", "sregs2", "xcrs", "xsave", "debugregs", "lapic"),
        f"msrs {[MSR_TSC]}",
        f"msrs {[MSR_TSC, 0x174]}",
        "vcpu_events",
    ]


@pytest.mark.parametrize("index", [0, 1])
def test_counter_of_the_first_cpu_is_set_far_away_before(index: int) -> None:
    # Or KVM would take the value for an attempt to make two counters equal; for the others it is one.
    state = taken(FakeVcpu({MSR_TSC: 1_000}))
    fresh = FakeVcpu({MSR_TSC: 3})
    fresh.index = index
    apply(cast(Vcpu, fresh), state)
    assert fresh.counters[-1] == 1_000
    assert [counter > 1 << 40 for counter in fresh.counters[:-1]] == [True] * (1 - index)


def test_register_that_a_fresh_cpu_has_already_is_not_set() -> None:
    state = taken(FakeVcpu({0x174: 5}))
    fresh = FakeVcpu({0x174: 5})
    apply(cast(Vcpu, fresh), state)
    assert not any(entry.startswith("msrs") for entry in fresh.log)


def test_state_that_kvm_refuses_is_an_error_of_the_snapshot() -> None:
    state = taken(FakeVcpu({}))
    fresh = FakeVcpu({})
    fresh.refuses = "lapic"
    with pytest.raises(SnapshotFileError, match="state of CPU 0: cannot set lapic") as caught:
        apply(cast(Vcpu, fresh), state)
    assert caught.value.hint is not None


def test_bytes_of_another_length_are_refused() -> None:
    data = encode(taken(FakeVcpu({0x174: 5})))
    for wrong in (b"", data[:11], data[:-1], data + b"\0", data[: ctypes.sizeof(uapi.kvm_regs)]):
        with pytest.raises(SnapshotFileError, match="the state of a CPU has"):
            decode(wrong, xsave_size=XSAVE, sregs2=True)
    with pytest.raises(SnapshotFileError):
        decode(data, xsave_size=2 * XSAVE, sregs2=True)


def test_register_twice_is_refused() -> None:
    data = encode(taken(FakeVcpu({0x174: 5, 0x3B: 7})))
    with pytest.raises(SnapshotFileError, match="twice"):
        decode(data[:-12] + data[-24:-12], xsave_size=XSAVE, sregs2=True)
