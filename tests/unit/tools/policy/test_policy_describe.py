"""What `kvmbox policy` tells is what is enforced: the registry, the results, the page, the data."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmbox.jail import layers
from kvmbox.jail import lock_up as jail
from kvmbox.jail.fixed_descriptors import CHANNEL_FD, REPLY_FD
from kvmbox.remote.transport.ipc_table import IPC_CHOICES
from kvmbox.sandbox.pfc import policy_as_pfc
from kvmbox.sandbox.policy import DEVICE_POLICY, DEVICE_POLICY_PIPES, WORD, Action, Policy, Rule
from kvmbox.sandbox.syscall_names import NUMBERS as NUMBERS_BY_NAME
from kvmbox.tools.policy import process_policies
from kvmbox.tools.policy.process_policies import Confinement, confinements, decide
from kvmbox.tools.policy.render import as_data, as_text, groups, results_as_text, rule_as_data

TYPES = {"uart": "device process: COM1", "pit": "device process: PIT"}
EVERYTHING_THERE: dict[str, str | None] = dict.fromkeys(layers.NAMES.values())


def of(process: str, **options: str) -> Confinement:
    (found,) = [one for one in confinements(TYPES, **options) if one.process == process]
    return found


# --- The registry ----------------------------------------------------------------------------------------


def test_confinements_have_every_device_type_and_the_spawner() -> None:
    assert [one.process for one in confinements(TYPES)][:3] == ["uart", "pit", "spawner"]


@pytest.mark.parametrize(
    ("ipc", "policy"),
    [("socketpair", DEVICE_POLICY), ("pipe", DEVICE_POLICY_PIPES), ("shm", DEVICE_POLICY_PIPES)],
)
def test_device_process_has_the_policy_of_its_ipc(ipc: str, policy: Policy) -> None:
    assert of("uart", ipc=ipc).policy is policy


@pytest.mark.parametrize("ipc", ["pipe", "shm"])
def test_device_process_with_two_ends_writes_to_the_reply_end_only(ipc: str) -> None:
    uart = of("uart", ipc=ipc)
    assert decide(uart, 1, (REPLY_FD,)).action is Action.ALLOW
    assert decide(uart, 1, (CHANNEL_FD,)).action is Action.NOTIFY


@pytest.mark.parametrize(("ipc", "words"), [("socketpair", "a socket"), ("shm", "a page shared")])
def test_device_process_holds_its_channel(ipc: str, words: str) -> None:
    page = as_text([of("uart", ipc=ipc)], EVERYTHING_THERE)
    assert f"Holds: {words}" in page


def test_device_limits_are_those_that_the_jail_sets() -> None:
    import resource

    told = {getattr(resource, name): value for name, value in process_policies.device_limits()}
    assert told == dict(jail.LIMITS)
    assert "RLIMIT_NOFILE" in dict(process_policies.device_limits())


def test_required_layers_are_all_there_unless_seccomp_is_off() -> None:
    assert of("uart").layers & layers.REQUIRED == layers.REQUIRED
    assert of("uart", seccomp="strict").layers & layers.REQUIRED == layers.REQUIRED
    assert of("uart", seccomp="off").layers & layers.REQUIRED == layers.REQUIRED & ~layers.SECCOMP


def test_spawner_has_no_filter_and_no_limit() -> None:
    spawner = of("spawner")
    assert spawner.policy is None
    assert not spawner.layers & (layers.SECCOMP | layers.RLIMITS)
    assert spawner.layers & layers.ISOLATION == layers.ISOLATION
    assert decide(spawner, 59, ()).action is Action.ALLOW


def test_added_vmm_policy_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = Policy("vmm", (Rule("futex", 202, "locks"),))
    monkeypatch.setattr(process_policies, "VMM_THREADS", (("vmm-main", "the main thread", policy),))
    main = of("vmm-main")
    assert decide(main, 202, ()).action is Action.ALLOW
    assert decide(main, 59, ()).action is Action.NOTIFY
    assert "futex" in as_text([main], EVERYTHING_THERE)


def test_vmm_threads_refuse_what_they_do_not_need() -> None:
    for name in ("vmm-main", "vmm-vcpu"):
        thread = of(name)
        assert decide(thread, NUMBERS_BY_NAME["execve"], ()).action is Action.REFUSE
        assert decide(thread, NUMBERS_BY_NAME["futex"], ()).action is Action.ALLOW
        assert "fails with ENOSYS" in as_text([thread], EVERYTHING_THERE)
        assert set(layers.names(thread.layers)) == set(layers.VMM_NAMES.values())


def test_vcpu_thread_may_do_nothing_that_the_main_thread_may_not() -> None:
    # Both filters are in force in it: only so is its own table the whole truth.
    main, vcpu = of("vmm-main").policy, of("vmm-vcpu").policy
    assert main is not None
    assert vcpu is not None
    assert set(vcpu.table()) <= set(main.table())


# --- Simulated calls ------------------------------------------------------------------------------------

NUMBERS = st.one_of(st.sampled_from([0, 1, 9, 11, 12, 15, 60, 231]), st.integers(-1, (1 << 32) - 1))
ARGUMENTS = st.lists(
    st.one_of(st.sampled_from([3, 4, 0x22, -1, 0xFFFF_FFFF, 3 << 32]), st.integers(0, WORD)), max_size=6
)


@given(number=NUMBERS, arguments=ARGUMENTS, ipc=st.sampled_from(IPC_CHOICES))
def test_result_under_filter_is_that_of_the_policy(number: int, arguments: list[int], ipc: str) -> None:
    uart = of("uart", ipc=ipc)
    assert uart.policy is not None
    result = decide(uart, number, tuple(arguments))
    assert result.action is uart.policy.simulate(number, tuple(arguments))
    assert (result.rule is not None) == (result.action is Action.ALLOW)
    assert result.why


@given(number=NUMBERS, arguments=ARGUMENTS)
def test_result_under_strict_is_the_kernels_table(number: int, arguments: list[int]) -> None:
    action = decide(of("uart", seccomp="strict"), number, tuple(arguments)).action
    assert action is (Action.ALLOW if number in (0, 1, 15, 60) else Action.KILL)


@given(number=NUMBERS, arguments=ARGUMENTS)
def test_result_without_seccomp_allows(number: int, arguments: list[int]) -> None:
    assert decide(of("uart", seccomp="off"), number, tuple(arguments)).action is Action.ALLOW


def test_refusal_names_every_condition_that_fails_and_no_other() -> None:
    why = decide(of("uart"), 9, (0, 4096, 5, 0x22, 7)).why
    assert "prot is PROT_READ|PROT_EXEC, and the rule wants: prot is PROT_READ|PROT_WRITE" in why
    assert "fd is 7, and the rule wants: fd is -1" in why
    assert "flags" not in why


def test_refusal_of_a_call_without_rule_says_so() -> None:
    assert decide(of("uart"), 59, ()).why == "the 'device' policy has no rule for it"


def test_number_of_a_foreign_abi_is_killed_and_marked() -> None:
    result = decide(of("uart"), 1 << 30, ())
    assert (result.action, result.fatal) == (Action.KILL, True)
    assert "then: the kernel kills the process (SIGSYS)" in results_as_text("x", [(of("uart"), result)])
    other = decide(of("uart"), 59, ())
    assert not other.fatal
    assert "then: held by the kernel" in results_as_text("execve()", [(of("uart"), other)])


def test_two_rules_for_a_call_both_tell_why_they_do_not_match(monkeypatch: pytest.MonkeyPatch) -> None:
    from kvmbox.sandbox.policy import INT, Condition

    policy = Policy("two", tuple(Rule("write", 1, f"to {fd}", (Condition(0, fd, INT),)) for fd in (1, 2)))
    monkeypatch.setattr(process_policies, "VMM_THREADS", (("vmm-main", "main", policy),))
    main = of("vmm-main")
    why = decide(main, 1, (3,)).why
    assert why == "fd is 3, and the rule wants: fd is 1; or fd is 3, and the rule wants: fd is 2"
    assert decide(main, 1, (2,)).why == "to 2"


# --- The page --------------------------------------------------------------------------------------------


def test_page_shows_equal_processes_once() -> None:
    found = groups(confinements(TYPES))
    assert [[one.process for one in group] for group in found] == [
        ["uart", "pit"],
        ["spawner"],
        ["vmm-main"],
        ["vmm-vcpu"],
        ["vmm-main-disk"],
        ["vmm-vcpu-disk"],
    ]
    page = as_text(confinements(TYPES), EVERYTHING_THERE)
    assert page.count("the next request") == 1


def test_page_has_every_rule_with_its_reason_and_every_layer_and_limit() -> None:
    page = " ".join(as_text([of("uart")], EVERYTHING_THERE).split())
    for rule in DEVICE_POLICY.rules:
        assert re.search(rf"\b{rule.name} ", page)
    assert "the way out: the channel was closed" in page
    for name in (*layers.NAMES.values(), *dict(process_policies.device_limits())):
        assert name in page
    assert "anything else: held by the kernel" in page


def test_page_is_at_most_100_columns_wide() -> None:
    for seccomp in process_policies.SECCOMP_CHOICES:
        page = as_text(confinements(TYPES, seccomp=seccomp), {"landlock": "no Landlock"})
        assert max(map(len, page.splitlines())) <= 100


def test_page_tells_a_reason_that_rules_in_a_row_share_once(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = Policy(
        "vmm", (Rule("poll", 7, "waits"), Rule("ppoll", 271, "waits"), Rule("futex", 202, "locks"))
    )
    monkeypatch.setattr(process_policies, "VMM_THREADS", (("vmm-main", "main", policy),))
    page = as_text([of("vmm-main")], EVERYTHING_THERE)
    assert [line.split() for line in page.splitlines() if "always" in line] == [
        ["poll", "always", "waits"],
        ["ppoll", "always"],
        ["futex", "always", "locks"],
    ]


def test_page_breaks_long_conditions_between_flags() -> None:
    lines = as_text([of("vmm-main")], EVERYTHING_THERE).splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith("  clone "))
    assert "flags & (CLONE_THREAD|" in lines[start]
    assert "is CLONE_THREAD" in " ".join(" ".join(lines[start : start + 6]).split())


def test_page_marks_a_layer_that_this_host_lacks() -> None:
    page = as_text([of("uart")], {**EVERYTHING_THERE, "landlock": "no Landlock"})
    (line,) = [line for line in page.splitlines() if line.startswith("  landlock ")]
    assert "NOT ON THIS HOST: no Landlock" in line
    assert page.count("NOT ON THIS HOST") == 1


def test_page_of_strict_and_off_say_what_becomes_of_the_rest() -> None:
    strict = as_text([of("uart", seccomp="strict")], EVERYTHING_THERE)
    assert "SIGKILL" in strict
    assert "RDTSC" in strict
    off = as_text([of("uart", seccomp="off")], EVERYTHING_THERE)
    assert "anything: allowed: no system call is looked at" in off
    assert "  seccomp " not in off


def test_answer_puts_processes_of_one_answer_together() -> None:
    answers = [(one, decide(one, 0, (3,))) for one in confinements(TYPES)]
    text = results_as_text("read(3)", answers)
    assert text.splitlines()[:3] == ["read(3)", "  allowed: uart, pit", "    rule: read, fd is 3"]
    assert "allowed: spawner" in text.replace("spawner, vmm-main", "spawner")


# --- For programs ----------------------------------------------------------------------------------------


def test_data_of_every_choice_is_json_and_complete() -> None:
    for seccomp in process_policies.SECCOMP_CHOICES:
        for one in confinements(TYPES, seccomp=seccomp):
            data = json.loads(json.dumps(as_data(one, EVERYTHING_THERE)))
            assert data["process"] == one.process
            assert len(data["rules"]) == (len(one.policy.rules) if one.policy else 0)
            assert data["otherwise"] == one.rest.value
            assert [layer["name"] for layer in data["layers"]] == layers.names(one.layers)


def test_data_of_a_rule_has_its_condition_as_hexadecimal_text_and_in_words() -> None:
    mmap = next(rule for rule in DEVICE_POLICY.rules if rule.name == "mmap")
    assert rule_as_data(mmap)["conditions"] == [
        {"argument": 2, "name": "prot", "bits": 64, "mask": "0xffffffffffffffff", "value": "0x3",
         "words": "prot is PROT_READ|PROT_WRITE"},
        {"argument": 3, "name": "flags", "bits": 64, "mask": "0xffffffffffffffff", "value": "0x22",
         "words": "flags is MAP_PRIVATE|MAP_ANONYMOUS"},
        {"argument": 4, "name": "fd", "bits": 32, "mask": "0xffffffff", "value": "0xffffffff",
         "words": "fd is -1"},
    ]  # fmt: skip


def test_pfc_names_every_call_of_the_policy() -> None:
    code = policy_as_pfc(DEVICE_POLICY)
    assert re.findall(r'filter for syscall "(\w+)"', code) == [rule.name for rule in DEVICE_POLICY.rules]
    assert code.count("action ALLOW;") == len(DEVICE_POLICY.rules)
    assert code.isascii()


@pytest.mark.parametrize(
    ("number", "argument", "fatal"), [(3, 5, True), (3, 4, False), (3, 5 | 1 << 32, True), (46, 5, True)]
)
def test_call_of_the_start_is_killed_and_no_other(number: int, argument: int, fatal: bool) -> None:
    result = decide(of("uart"), number, (argument,))
    assert (result.action, result.fatal) == (Action.KILL if fatal else Action.NOTIFY, fatal)
    assert not decide(of("uart", seccomp="strict"), number, (argument,)).fatal
