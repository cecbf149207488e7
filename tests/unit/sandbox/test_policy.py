"""The device policy: decided by simulation, and the compiled filter decides the same."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmbox.base.errors import SandboxError
from kvmbox.jail.fixed_descriptors import CHANNEL_FD, REPLY_FD
from kvmbox.sandbox import policy, seccomp
from kvmbox.sandbox.libseccomp import compile_policy, load_libseccomp
from kvmbox.sandbox.policy import DEVICE_POLICY, DEVICE_POLICY_PIPES, Action, Condition, Policy, Rule
from kvmbox.sandbox.seccomp import (
    compiled_ahead,
    device_filter,
    filter_of,
    shipped,
    syscall_name,
)
from kvmbox.sandbox.vmm_policy import DISK_MAIN_POLICY, DISK_VCPU_POLICY, MAIN_POLICY, VCPU_POLICY
from tests.reference.bpf import run_bpf

ALLOW, NOTIFY, KILL = Action.ALLOW, Action.NOTIFY, Action.KILL
RW = policy.PROT_READ | policy.PROT_WRITE
ANONYMOUS = policy.MAP_PRIVATE | policy.MAP_ANONYMOUS
UPPER = 0xABCD_0000_0000
READ, WRITE, MMAP = 0, 1, 9

ACTIONS = [
    (ALLOW, READ, (CHANNEL_FD, 0x1000, 4096)),
    (ALLOW, READ, (UPPER | CHANNEL_FD, 0x1000, 4096)),  # the kernel looks at 32 bits
    (NOTIFY, READ, (0, 0x1000, 4096)),
    (NOTIFY, READ, (CHANNEL_FD + 1, 0x1000, 4096)),
    (NOTIFY, READ, (-1, 0x1000, 4096)),
    (NOTIFY, READ, (CHANNEL_FD << 32, 0x1000, 4096)),
    (ALLOW, WRITE, (CHANNEL_FD, 0x1000, 4096)),
    (NOTIFY, WRITE, (1, 0x1000, 4096)),
    (NOTIFY, WRITE, (2, 0x1000, 4096)),
    (ALLOW, MMAP, (0, 1 << 20, RW, ANONYMOUS, -1, 0)),
    (ALLOW, MMAP, (0, 1 << 20, RW, ANONYMOUS, 0xFFFF_FFFF, 0)),  # an int -1 that was not extended
    (NOTIFY, MMAP, (0, 1 << 20, RW | 4, ANONYMOUS, -1, 0)),
    (NOTIFY, MMAP, (0, 1 << 20, 4, ANONYMOUS, -1, 0)),
    (NOTIFY, MMAP, (0, 1 << 20, policy.PROT_READ, ANONYMOUS, -1, 0)),
    (NOTIFY, MMAP, (0, 1 << 20, UPPER | RW, ANONYMOUS, -1, 0)),  # prot is a full word
    (NOTIFY, MMAP, (0, 1 << 20, RW, policy.MAP_ANONYMOUS | 1, -1, 0)),
    (NOTIFY, MMAP, (0, 1 << 20, RW, ANONYMOUS | 0x10, -1, 0)),
    (NOTIFY, MMAP, (0, 1 << 20, RW, ANONYMOUS | 0x40000, -1, 0)),
    (NOTIFY, MMAP, (0, 1 << 20, RW, ANONYMOUS, CHANNEL_FD, 0)),
    (NOTIFY, MMAP, (0, 1 << 20, RW, policy.MAP_PRIVATE, CHANNEL_FD, 0)),
    (ALLOW, 11, (0x1000, 4096)),  # munmap
    (ALLOW, 12, (0,)),  # brk
    (ALLOW, 15, ()),  # rt_sigreturn
    (ALLOW, 60, (0,)),  # exit
    (ALLOW, 231, (0,)),  # exit_group
    (NOTIFY, 2, ()),  # open
    (NOTIFY, 3, (CHANNEL_FD,)),  # close
    (NOTIFY, 10, (0, 4096, 4)),  # mprotect
    (NOTIFY, 19, (CHANNEL_FD,)),  # readv
    (NOTIFY, 25, ()),  # mremap
    (NOTIFY, 46, (CHANNEL_FD,)),  # sendmsg
    (NOTIFY, 56, ()),  # clone
    (NOTIFY, 59, ()),  # execve
    (NOTIFY, 257, ()),  # openat
    (NOTIFY, 435, ()),  # clone3
    (NOTIFY, 0x3FFF_FFFF, ()),
    (NOTIFY, -1, ()),  # a call that a tracer skipped
    (KILL, 0x4000_0000 | READ, (CHANNEL_FD,)),  # x32
    (KILL, 0x8000_0000, ()),
]


@pytest.fixture(scope="module")
def bpf() -> bytes:
    return compile_policy(DEVICE_POLICY)


@pytest.mark.parametrize(("action", "number", "arguments"), ACTIONS)
def test_simulate_call_gives_action(action: Action, number: int, arguments: tuple[int, ...]) -> None:
    assert DEVICE_POLICY.simulate(number, arguments) is action


@pytest.mark.parametrize(("action", "number", "arguments"), ACTIONS)
def test_compiled_filter_call_gives_action(
    bpf: bytes, action: Action, number: int, arguments: tuple[int, ...]
) -> None:
    assert run_bpf(bpf, number, policy.ARCH_X86_64, arguments) is action


def test_simulate_foreign_architecture_kills(bpf: bytes) -> None:
    i386 = 0x4000_0003
    assert DEVICE_POLICY.simulate(READ, (CHANNEL_FD,), arch=i386) is KILL
    assert run_bpf(bpf, READ, i386, (CHANNEL_FD,)) is KILL


POLICIES = (
    DEVICE_POLICY,
    DEVICE_POLICY_PIPES,
    VCPU_POLICY,
    MAIN_POLICY,
    DISK_VCPU_POLICY,
    DISK_MAIN_POLICY,
)
SHIPPED = [(one, compiled_ahead(one) or b"") for one in POLICIES]
COMPILED = [(one, compile_policy(one)) for one, _ in SHIPPED]
EDGES = [
    0,
    1,
    2,
    3,
    4,
    5,
    19,
    0xAE80,
    0x4008_AE61,
    0x2100,
    0x5402,
    0x1_0000,
    0x41,
    0o1101,
    0x21,
    0x22,
    0x23,
    0x32,
    policy.INT,
    policy.WORD,
    1 << 32,
    3 << 32,
    0x1_0000_0003,
]
ARGUMENTS = st.tuples(*[st.one_of(st.sampled_from(EDGES), st.integers(0, policy.WORD))] * 6)
NUMBERS = st.one_of(
    st.sampled_from([rule.number for rule in (*DEVICE_POLICY.rules, *MAIN_POLICY.rules)]),
    st.integers(-1, policy.INT),
)
ARCHES = [policy.ARCH_X86_64, 0x4000_0003, 0xC000_00B7, 0]  # i386 and aarch64 among them


@pytest.mark.parametrize("pair", SHIPPED + COMPILED, ids=lambda pair: pair[0].name)
@given(number=NUMBERS, arguments=ARGUMENTS)
def test_filter_any_call_decides_as_the_simulation(
    pair: tuple[Policy, bytes], number: int, arguments: tuple[int, ...]
) -> None:
    by, bpf = pair
    assert run_bpf(bpf, number, policy.ARCH_X86_64, arguments) is by.simulate(number, arguments)


@pytest.mark.parametrize(("by", "bpf"), SHIPPED, ids=lambda one: getattr(one, "name", ""))
def test_shipped_filter_every_call_of_every_abi_decides_as_the_simulation(by: Policy, bpf: bytes) -> None:
    passing = (CHANNEL_FD, 0, RW, ANONYMOUS, policy.INT, 0)
    calls = [*range(601), policy.INT, *(policy.X32_BIT + number for number in range(601)), 1 << 31]
    for number in calls:
        for arguments in [(), passing, (REPLY_FD, *passing[1:])]:
            for arch in ARCHES:
                assert run_bpf(bpf, number, arch, arguments) is by.simulate(number, arguments, arch=arch)


@pytest.mark.parametrize(("by", "bpf"), SHIPPED, ids=lambda one: getattr(one, "name", ""))
def test_shipped_filter_each_argument_at_its_edges_decides_as_the_simulation(by: Policy, bpf: bytes) -> None:
    for first in (CHANNEL_FD, REPLY_FD):
        passing = (first, 0, RW, ANONYMOUS, policy.INT, 0)
        for number in [rule.number for rule in by.rules]:
            for position in range(6):
                for value in EDGES:
                    arguments = (*passing[:position], value, *passing[position + 1 :])
                    action = by.simulate(number, arguments)
                    assert run_bpf(bpf, number, policy.ARCH_X86_64, arguments) is action


@pytest.mark.parametrize("one", POLICIES, ids=lambda one: one.name)
def test_shipped_filter_is_of_todays_policy(one: Policy) -> None:
    # If this fails the policy was edited: run tools/compile_policies.py.
    assert compiled_ahead(one) == filter_of(one)
    assert shipped(one.name) == compiled_ahead(one)


def test_no_filter_is_shipped_under_another_name() -> None:
    assert shipped("vmm") is None


def test_device_filter_is_the_shipped_one() -> None:
    assert device_filter() == compiled_ahead(DEVICE_POLICY)
    assert device_filter(pipes=True) == compiled_ahead(DEVICE_POLICY_PIPES)


@pytest.mark.parametrize(
    "edited",
    [
        Policy("device", DEVICE_POLICY.rules[:-1]),
        Policy("device", DEVICE_POLICY.rules[::-1]),
        Policy("device", DEVICE_POLICY_PIPES.rules),
        Policy("other", DEVICE_POLICY.rules),
        Policy("device", DEVICE_POLICY.rules, Action.REFUSE),
    ],
    ids=["rule-gone", "other-order", "other-descriptor", "other-name", "other-default"],
)
def test_compiled_ahead_edited_policy_is_not_answered_with_the_old_filter(edited: Policy) -> None:
    assert compiled_ahead(edited) is None


def test_device_filter_edited_policy_is_compiled_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    with_getpid = Policy("device", (*DEVICE_POLICY.rules, Rule("getpid", 39, "test")))
    monkeypatch.setattr(seccomp, "DEVICE_POLICY", with_getpid)
    assert run_bpf(device_filter(), 39, policy.ARCH_X86_64, ()) is ALLOW


def test_device_filter_needs_no_libseccomp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyseccomp", None)
    monkeypatch.setitem(sys.modules, "seccomp", None)
    with pytest.raises(SandboxError):
        load_libseccomp()
    assert device_filter() == compiled_ahead(DEVICE_POLICY)


def test_binding_of_libseccomp_itself_is_taken_where_there_is_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = ModuleType("seccomp")
    monkeypatch.setitem(sys.modules, "seccomp", own)
    assert load_libseccomp() is not own
    monkeypatch.setitem(sys.modules, "pyseccomp", None)
    assert load_libseccomp() is own


def test_rules_names_match_their_numbers() -> None:
    assert [syscall_name(rule.number) for rule in DEVICE_POLICY.rules] == [
        rule.name for rule in DEVICE_POLICY.rules
    ]


def test_rules_each_has_a_reason() -> None:
    assert all(rule.reason for rule in DEVICE_POLICY.rules)


def test_device_policy_allows_exactly_these_calls() -> None:
    # A call more is a hole: think before this list grows.
    assert {rule.name for rule in DEVICE_POLICY.rules} == {
        "read", "write", "mmap", "munmap", "brk", "rt_sigreturn", "exit", "exit_group",
    }  # fmt: skip


def test_device_policy_of_pipes_reads_on_one_descriptor_and_writes_on_the_other() -> None:
    pipes = device_filter(pipes=True)
    for number, descriptor, action in [
        (READ, CHANNEL_FD, ALLOW),
        (READ, REPLY_FD, NOTIFY),
        (WRITE, REPLY_FD, ALLOW),
        (WRITE, CHANNEL_FD, NOTIFY),
    ]:
        assert DEVICE_POLICY_PIPES.simulate(number, (descriptor,)) is action
        assert run_bpf(pipes, number, policy.ARCH_X86_64, (descriptor,)) is action


def test_device_policies_differ_in_the_descriptor_of_write_and_in_nothing_else() -> None:
    rules, pipes = DEVICE_POLICY.rules, DEVICE_POLICY_PIPES.rules
    assert [(a.name, b.name) for a, b in zip(rules, pipes, strict=True) if a != b] == [("write", "write")]


def test_simulate_several_conditions_needs_all_of_them() -> None:
    both = Policy("test", (Rule("x", 7, "test", (Condition(0, 1), Condition(1, 2))),))
    assert both.simulate(7, (1, 2)) is ALLOW
    assert both.simulate(7, (1, 3)) is NOTIFY
    assert both.simulate(7, (0, 2)) is NOTIFY


def test_syscall_name_of_unknown_number_tells_the_number() -> None:
    assert syscall_name(9999) == "system call 9999"
