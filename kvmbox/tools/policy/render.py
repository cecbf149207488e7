"""Confinements as a page for people and as data for programs. Pure: it makes strings, and prints nothing."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from typing import Any, Final

from kvmbox.jail import layers, setup_calls
from kvmbox.sandbox.policy import INT, Action, Rule
from kvmbox.sandbox.purposes import PURPOSES
from kvmbox.sandbox.syscall_names import NAMES
from kvmbox.tools.policy.process_policies import CallResult, Confinement, conditions_in_words
from kvmbox.tools.policy.words import argument_name, condition_in_words, value_in_words

WIDTH: Final = 100
CALL_WIDTH: Final = 17
CONDITION_WIDTH: Final = 35

REST: Final = {
    Action.NOTIFY: "held by the kernel; the VMM names the call and kills the process (status 8)",
    Action.KILL: "the kernel kills the process (SIGKILL), and nobody is told which call it was (status 8)",
    Action.REFUSE: "fails with ENOSYS, as if this kernel did not have it; the run ends with status 14",
    Action.ALLOW: "allowed: no system call is looked at",
}
"""What becomes of a call that no rule allows."""

FOREIGN: Final = {
    "filter": "the kernel kills the process (SIGSYS)",
    "strict": "the kernel kills the process (SIGKILL), but for i386's own read, write, exit and sigreturn",
}
"""What becomes of calls of the x32 and i386 ABIs, and of those of a start, by the choice of seccomp."""


_LIMIT_WORDS: Final = {
    "RLIMIT_NOFILE": "descriptor numbers below {}: nothing new can be opened",
    "RLIMIT_NPROC": "{} new processes or threads",
    "RLIMIT_FSIZE": "{} bytes written to any file",
    "RLIMIT_CORE": "{} bytes of core dump",
    "RLIMIT_AS": "address space of {}",
    "RLIMIT_MEMLOCK": "{} bytes of locked memory",
    "RLIMIT_MSGQUEUE": "{} bytes in message queues",
    "RLIMIT_NICE": "no better nice value",
    "RLIMIT_RTPRIO": "no real-time priority",
}


def groups(confinements: Iterable[Confinement]) -> list[list[Confinement]]:
    """Confinements that differ in name only, together, in the order of the first of each."""
    found: dict[Confinement, list[Confinement]] = {}
    for one in confinements:
        found.setdefault(one.replaced(process="", about=""), []).append(one)
    return list(found.values())


def as_text(confinements: Sequence[Confinement], available: dict[str, str | None]) -> str:
    """The page: for each group of equal processes its system calls, layers and limits.

    `available` has, by layer name, None where this host has it, or what it lacks.
    """
    blocks = ["\n".join(_group_lines(group, available)) for group in groups(confinements)]
    return "\n\n\n".join(blocks)


def _group_lines(group: Sequence[Confinement], available: dict[str, str | None]) -> Iterator[str]:
    one = group[0]
    width = max(len(member.process) for member in group)
    for member in group:
        yield from _wrapped(member.about, f"{member.process:<{width}}  ")
    yield ""
    yield f"Holds: {one.channel}"
    yield ""
    yield f"System calls (seccomp: {one.seccomp})"
    if one.policy is not None:
        yield f"  {'call':<{CALL_WIDTH}} {'allowed if':<{CONDITION_WIDTH}} why"
        reason = ""
        for rule in one.policy.rules:
            # A reason that several rules in a row share is told once.
            yield from _rule_lines(rule, rule.reason if rule.reason != reason else "")
            reason = rule.reason
        yield from _wrapped(REST[one.rest], "  anything else: ")
        yield from _wrapped(FOREIGN[one.seccomp], "  calls of x32 and i386: ")
        if one.rest is Action.NOTIFY:
            text = f"{FOREIGN[one.seccomp]}: {_calls_of_the_start()}"
            yield from _wrapped(text, "  calls of its own start: ")
        if one.seccomp == "strict":
            yield "  RDTSC: faults (SIGSEGV), because the mode takes the time stamp counter away"
    else:
        yield f"  anything: {REST[Action.ALLOW]}"
    yield ""
    yield "Layers"
    width = max(len(name) for name in layers.NAMES.values())
    for bit, name, purpose in _layers_of(one):
        missing = available.get(name)
        text = purpose + (f" (NOT ON THIS HOST: {missing})" if missing else "")
        kind = "required" if layers.REQUIRED & bit else "if there"
        yield from _wrapped(text, f"  {name:<{width}} {kind}  ")
    if one.limits:
        yield ""
        yield "Limits"
        for limit, value in one.limits:
            yield f"  {limit:<{width}} {limit_in_words(limit, value)}"


def _layers_of(confinement: Confinement) -> Iterator[tuple[int, str, str]]:
    """Bit, name and purpose of each layer."""
    for bit, name in (layers.NAMES | layers.VMM_NAMES).items():
        if confinement.layers & bit:
            yield bit, name, PURPOSES[bit]


def _rule_lines(rule: Rule, reason: str) -> Iterator[str]:
    conditions = [
        line
        for one in rule.conditions
        for line in _broken(condition_in_words(rule.name, one), CONDITION_WIDTH)
    ] or ["always"]
    why = textwrap.wrap(reason, WIDTH - CALL_WIDTH - CONDITION_WIDTH - 4)
    for name, condition, words in zip_longest([rule.name], conditions, why, fillvalue=""):
        yield f"  {name:<{CALL_WIDTH}} {condition:<{CONDITION_WIDTH}} {words}".rstrip()


def _broken(text: str, width: int) -> Iterator[str]:
    """`text` in lines of `width`, broken at spaces and between flags; what follows is indented."""
    line = ""
    for piece in re.findall(r"[^ |]*[ |]?", text):
        if len(line) + len(piece.rstrip()) > width and line:
            yield line.rstrip()
            line = "  "
        line += piece
    yield line.rstrip()


def _wrapped(text: str, lead: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=lead, subsequent_indent=" " * len(lead))


def limit_in_words(limit: str, value: int) -> str:
    """What the resource limit means."""
    size = f"{value >> 20} MiB" if limit == "RLIMIT_AS" else str(value)
    return _LIMIT_WORDS.get(limit, "{}").format(size)


def call_in_words(name: str, arguments: Sequence[int]) -> str:
    """The call as strace would show it: 'mmap(0, 4096, PROT_READ|PROT_WRITE, …)'."""
    words = [
        value_in_words(name, argument_name(name, index), argument & (1 << 64) - 1)
        for index, argument in enumerate(arguments)
    ]
    return f"{name}({', '.join(words)})"


def results_as_text(call: str, results: Sequence[tuple[Confinement, CallResult]]) -> str:
    """The answer of --simulate: the call, then for each different answer who gives it, and why."""
    by_answer: dict[tuple[CallResult, str], list[str]] = {}
    for confinement, result in results:
        by_answer.setdefault((result, confinement.seccomp), []).append(confinement.process)
    lines = [call]
    for (result, seccomp), processes in by_answer.items():
        word = "allowed" if result.action is Action.ALLOW else "refused"
        lines += _wrapped(", ".join(processes), f"  {word}: ")
        if result.rule is not None:
            rule = f"{result.rule.name}, {conditions_in_words(result.rule)}"
            lines += _wrapped(rule, "    rule: ")
        lines += _wrapped(result.why, "    why:  ")
        if result.action is not Action.ALLOW:
            lines += _wrapped(FOREIGN[seccomp] if result.fatal else REST[result.action], "    then: ")
    return "\n".join(lines)


def _calls_of_the_start() -> str:
    return ", ".join(
        f"{NAMES[number]} if {argument_name(NAMES[number], 0)} is {argument}"
        for number, argument in setup_calls.CALLS
    )


def as_data(confinement: Confinement, available: dict[str, str | None]) -> dict[str, Any]:
    """A confinement for JSON. Masks and values are hexadecimal text: they need 64 bits."""
    policy = confinement.policy
    return {
        "process": confinement.process,
        "about": confinement.about,
        "holds": confinement.channel,
        "seccomp": confinement.seccomp,
        "policy": policy.name if policy is not None else None,
        "rules": [rule_as_data(rule) for rule in policy.rules] if policy is not None else [],
        "otherwise": confinement.rest.value,
        "foreign_abi": (Action.ALLOW if policy is None else Action.KILL).value,
        "layers": [
            {
                "name": name,
                "required": bool(layers.REQUIRED & bit),
                "on_this_host": available.get(name) is None,
                "purpose": purpose,
            }
            for bit, name, purpose in _layers_of(confinement)
        ],
        "limits": dict(confinement.limits),
    }


def rule_as_data(rule: Rule) -> dict[str, Any]:
    """A rule for JSON."""
    return {
        "call": rule.name,
        "number": rule.number,
        "reason": rule.reason,
        "conditions": [
            {
                "argument": one.argument,
                "name": argument_name(rule.name, one.argument),
                "bits": 32 if one.mask == INT else 64,
                "mask": hex(one.mask),
                "value": hex(one.value),
                "words": condition_in_words(rule.name, one),
            }
            for one in rule.conditions
        ],
    }


def result_as_data(confinement: Confinement, result: CallResult) -> dict[str, Any]:
    """An answer of --simulate for JSON."""
    return {
        "process": confinement.process,
        "verdict": result.action.value,
        "rule": rule_as_data(result.rule) if result.rule is not None else None,
        "why": result.why,
    }
