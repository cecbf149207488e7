"""What each process of a run may do, put together for people and programs: for `kvmbox policy`. Pure data.

A *confinement* is everything that one process has: its table of system calls, its layers, its limits. The
registry, `confinements`, builds those of all processes of a run with the given options from the same tables
that the sandbox itself uses, so that a description cannot drift from what is enforced.

`decide` tells what becomes of a call and which rule decided. It agrees with `Policy.simulate`, and through
that with the compiled filter; a test holds the three together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from kvmbox.base.value_classes import Value
from kvmbox.jail import layers, setup_calls
from kvmbox.jail import lock_up as jail
from kvmbox.remote.transport.ipc_table import IPC_CHOICES, TRANSPORTS
from kvmbox.sandbox.policy import DEVICE_POLICY, DEVICE_POLICY_PIPES, Action, Policy, Rule
from kvmbox.sandbox.vmm_policy import DISK_MAIN_POLICY, DISK_VCPU_POLICY, MAIN_POLICY, VCPU_POLICY
from kvmbox.tools.policy.words import condition_in_words, unmet_in_words

SECCOMP_CHOICES: Final = ("filter", "strict", "off")

VMM_HOLDS: Final = "/dev/kvm, guest memory, the streams and files of the run, the channels"

STRICT_POLICY: Final = Policy(
    name="strict",
    rules=(
        Rule("read", 0, "mode 1: the next request; nothing else is open"),
        Rule("write", 1, "mode 1: the reply to it; nothing else is open"),
        Rule("rt_sigreturn", 15, "mode 1: the end of a signal handler"),
        Rule("exit", 60, "mode 1: the way out"),
    ),
)
"""seccomp mode 1, `mode1_syscalls` in the kernel's seccomp.c: no condition, nothing to choose."""

SPAWNER_LAYERS: Final = (
    layers.CAPABILITIES
    | layers.NO_NEW_PRIVS
    | layers.NOT_DUMPABLE
    | layers.DEATH_SIGNAL
    | layers.EMPTY_ENVIRONMENT
    | layers.LANDLOCK
    | layers.LANDLOCK_NET
    | layers.LANDLOCK_SCOPES
    | layers.ISOLATION
    | layers.LABEL
)
"""What the spawner takes before it forks; its own descriptor is the control socket."""

VMM_THREADS: Final[tuple[tuple[str, str, Policy], ...]] = (
    (
        "vmm-main",
        "kvmbox itself, once it is set up: the main thread, and those that write output",
        MAIN_POLICY,
    ),
    ("vmm-vcpu", "kvmbox itself: the thread that runs the guest and handles its exits", VCPU_POLICY),
    ("vmm-main-disk", "the same as vmm-main, where the guest has a disk", DISK_MAIN_POLICY),
    ("vmm-vcpu-disk", "the same as vmm-vcpu, where the guest has a disk", DISK_VCPU_POLICY),
)
"""Threads of the VMM that have a filter of their own: name, what it is, policy. One line adds one.

The filter of vmm-main is in force in every thread, and that of vmm-vcpu on top of it; the second allows
nothing that the first does not, so it alone is the table of that thread.
"""


class Confinement(Value):
    """All that one process has.

    `channel` says what it holds, in words. `policy` is None where no system call is filtered; `rest` is the
    action for a call that no rule matches; `layers` is a mask of those taken where the kernel has them;
    `limits` are the resource limits, by name.
    """

    process: str
    about: str
    channel: str
    seccomp: str
    policy: Policy | None
    rest: Action
    layers: int
    limits: tuple[tuple[str, int], ...]


class CallResult(Value):
    """What becomes of a call: the action, the rule that allowed it, and the reason in words.

    `fatal` says that the kernel kills the process, and tells nobody which call it was.
    """

    action: Action
    rule: Rule | None
    why: str
    fatal: bool = False


def confinements(
    device_types: Mapping[str, str], *, seccomp: str = "filter", ipc: str = IPC_CHOICES[0]
) -> list[Confinement]:
    """The confinement of every process of a run, device processes first.

    `device_types` has what each device process holds, by device type. `seccomp` is that of
    `kvmbox run`, and `ipc` a transport.
    """
    policy, rest, mask = _device_calls(seccomp, ipc)
    found = [
        Confinement(name, about, TRANSPORTS[ipc].device_holds, seccomp, policy, rest, mask, device_limits())
        for name, about in device_types.items()
    ]
    found.append(
        Confinement(
            "spawner",
            "forks and kills the device processes; filters are inherited, so it has none; as root it keeps "
            "the capabilities to give them ids, over 63 ids that own nothing",
            "a socket to the VMM",
            "off",
            None,
            Action.ALLOW,
            SPAWNER_LAYERS,
            (),
        )
    )
    found += [
        Confinement(name, about, VMM_HOLDS, "filter", policy, policy.default, layers.VMM, ())
        for name, about, policy in VMM_THREADS
    ]
    return found


def _device_calls(seccomp: str, ipc: str) -> tuple[Policy | None, Action, int]:
    """Policy, action for the rest, and mask of layers of a device process."""
    every = sum(layers.NAMES)
    if seccomp == "off":
        return None, Action.ALLOW, every & ~layers.SECCOMP
    if seccomp == "strict":
        return STRICT_POLICY, Action.KILL, every
    policy = DEVICE_POLICY_PIPES if TRANSPORTS[ipc].uses_pipes else DEVICE_POLICY
    return policy, policy.default, every


def device_limits() -> tuple[tuple[str, int], ...]:
    """The resource limits of a device process: RLIMIT_ name and value, in bytes where it is a size."""
    import resource

    # RLIMIT_OFILE is BSD's name of RLIMIT_NOFILE.
    named = [name for name in dir(resource) if name.startswith("RLIMIT_") and name != "RLIMIT_OFILE"]
    names = {getattr(resource, name): name for name in named}
    return tuple((names[number], value) for number, value in jail.LIMITS)


def decide(confinement: Confinement, number: int, arguments: tuple[int, ...]) -> CallResult:
    """What becomes of system call `number` of the x86-64 ABI with up to six `arguments`, and why."""
    policy = confinement.policy
    if policy is None:
        return CallResult(Action.ALLOW, None, "no filter is in force; other layers may still refuse it")
    action = policy.simulate(number, arguments)
    if action is Action.KILL:
        return CallResult(action, None, "a number of the x32 ABI, which is foreign here", fatal=True)
    registers = tuple(argument & (1 << 64) - 1 for argument in arguments) + (0,) * (6 - len(arguments))
    named = [rule for rule in policy.rules if rule.number == number]
    if action is Action.ALLOW:
        rule = next(r for r in named if all(condition.holds(registers) for condition in r.conditions))
        return CallResult(action, rule, rule.reason)
    if confinement.rest is Action.NOTIFY and (number, registers[0] & 0xFFFF_FFFF) in setup_calls.CALLS:
        return CallResult(Action.KILL, None, "a call of its own start, which is over", fatal=True)
    if not named:
        return CallResult(confinement.rest, None, f"the '{policy.name}' policy has no rule for it")
    unmet = [
        " and ".join(
            unmet_in_words(rule.name, condition, registers)
            for condition in rule.conditions
            if not condition.holds(registers)
        )
        for rule in named
    ]
    return CallResult(confinement.rest, None, "; or ".join(unmet))


def conditions_in_words(rule: Rule) -> str:
    """The conditions of `rule`, joined; "always" where it has none."""
    return ", ".join(condition_in_words(rule.name, one) for one in rule.conditions) or "always"
