"""`kvmbox policy`: what each process of a run may do, and what would become of a system call."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import click

from kvmbox.base.errors import UsageError
from kvmbox.cli.click_options import IPC, JSON, SECCOMP, takes, transport
from kvmbox.cli.json_files import show
from kvmbox.run.options.definition import Option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kvmbox.tools.policy.process_policies import Confinement

MAX_ARGUMENTS: Final = 6  # of a system call
NOTIFY_ACTION: Final = "0x7fc00000"  # SECCOMP_RET_USER_NOTIF, which libseccomp's PFC has no word for


@click.command(
    "policy",
    short_help="show what each process may do, or simulate a system call",
    # An argument of a system call may be -1, which is no option.
    context_settings={"ignore_unknown_options": True},
)
@click.argument("words", nargs=-1, metavar="[PROCESS] [ARGUMENT]...")
@takes(
    Option(
        "simulate",
        "Show what would happen to this system call (a name or a number) with these ARGUMENTs. The call is "
        "not executed.",
        metavar="SYSCALL",
    ),
    Option(
        "form",
        "The output format. pfc: Pseudo Filter Code of libseccomp. apparmor, selinux: what root can load.",
        default="text",
        flag="--format",
        choices=("text", "pfc", "json", "apparmor", "selinux"),
    ),
    SECCOMP,
    IPC,
    JSON,
)
def command(
    words: tuple[str, ...], simulate: str | None, form: str, seccomp: str, ipc: str, json_path: str | None
) -> int:
    """Show what each process of a run may do: its system calls, sandbox layers and limits.

    PROCESS is a device type (uart, pit, rtc …), 'spawner', or a thread of kvmbox itself ('vmm-main',
    'vmm-vcpu', and the same of a run with disks: 'vmm-main-disk', 'vmm-vcpu-disk'). Without PROCESS, all are
    shown.

    \b
    kvmbox policy                                  all processes
    kvmbox policy uart --format pfc                one, as the compiled filter
    kvmbox policy --simulate write 1 0 5           would a write to descriptor 1 pass?
    kvmbox policy rtc --simulate mmap 0 4096 'PROT_READ|PROT_EXEC' 0x22 -1 0

    An ARGUMENT is a number (decimal or 0x…) or a name: PROT_READ|PROT_WRITE, MAP_PRIVATE, O_RDWR, AF_INET,
    AT_FDCWD, stdin, stdout, stderr, channel, own-pid (the pid of kvmbox) or spawner (the descriptor of kvmbox
    to the spawner). A missing ARGUMENT is 0.

    \b
    Exit status:
      0    shown; with --simulate also if the call would be refused
      2    usage error, or an unknown system call
      4    --format pfc needs libseccomp
    """
    from kvmbox.tools.policy.process_policies import confinements

    everybody = confinements(device_types(), seccomp=seccomp, ipc=transport(ipc))
    chosen, arguments = _split(words, everybody)
    if simulate is not None:
        if form not in ("text", "json"):
            raise UsageError(f"--simulate has no answer in --format {form}", hint="take text or json")
        answer, text = _simulate(chosen, simulate, arguments)
        show(json.dumps(answer, indent=2) if form == "json" else text, answer, json_path)
        return 0
    if arguments:
        raise UsageError(
            f"there is no process '{arguments[0]}'",
            hint=f"known: {', '.join(one.process for one in everybody)}",
        )
    show(_pages(chosen, form), {"processes": _data(chosen)}, json_path)
    return 0


def device_types() -> dict[str, str]:
    """The device types of a board with everything on it, and the devices in each."""
    from kvmbox.contract.device_spec import by_type
    from kvmbox.devices.every_device import board_of_every_device

    return {
        name: f"device process: {', '.join(device.name for device in devices)}"
        for name, devices in by_type(board_of_every_device()).items()
    }


def _split(words: tuple[str, ...], everybody: list[Confinement]) -> tuple[list[Confinement], tuple[str, ...]]:
    """The processes that are meant, and the arguments of a system call. A first word may name a process."""
    for word in words:
        if word.startswith("-") and not word[1:2].isdigit():
            raise click.NoSuchOption(word, ctx=click.get_current_context())
    named = [one for one in everybody if words and one.process == words[0]]
    return (named, words[1:]) if named else (everybody, words)


def _simulate(chosen: list[Confinement], call: str, texts: Sequence[str]) -> tuple[dict[str, Any], str]:
    """The answer as data, and in words."""
    from kvmbox.tools.policy.process_policies import decide
    from kvmbox.tools.policy.render import call_in_words, result_as_data, results_as_text
    from kvmbox.tools.policy.syscall_lookup import number_of
    from kvmbox.tools.policy.words import parse_argument

    if len(texts) > MAX_ARGUMENTS:
        raise UsageError(f"a system call has {MAX_ARGUMENTS} arguments at most, not {len(texts)}")
    name, number = number_of(call)
    try:
        arguments = tuple(parse_argument(text) for text in texts)
    except ValueError as error:
        raise UsageError(str(error)) from error
    results = [(one, decide(one, number, arguments)) for one in chosen]
    spelled = call_in_words(name, arguments)
    answers = [result_as_data(one, result) for one, result in results]
    data = {"call": name, "number": number, "spelled": spelled, "answers": answers}
    return data, results_as_text(spelled, results)


def _pages(chosen: list[Confinement], form: str) -> str:
    from kvmbox.tools.policy.render import as_text

    if form == "pfc":
        return _pfc(chosen)
    if form == "json":
        return json.dumps(_data(chosen), indent=2)
    if form in ("apparmor", "selinux"):
        from kvmbox.tools.policy.labels import as_policy

        return as_policy(form, chosen)
    return as_text(chosen, _missing_layers())


def _data(chosen: list[Confinement]) -> list[dict[str, Any]]:
    from kvmbox.tools.policy.render import as_data

    available = _missing_layers()
    return [as_data(one, available) for one in chosen]


def _missing_layers() -> dict[str, str | None]:
    """By layer: None where this host has it, or what it lacks."""
    from kvmbox.sandbox.host_support import probe

    return {status.name: None if status.available else status.detail for status in probe()}


def _pfc(chosen: list[Confinement]) -> str:
    from kvmbox.sandbox.pfc import policy_as_pfc
    from kvmbox.sandbox.policy import Action
    from kvmbox.tools.policy.render import groups

    parts = []
    for group in groups(chosen):
        policy = group[0].policy
        if group[0].seccomp == "filter" and policy is not None:
            heading = f"# processes: {', '.join(one.process for one in group)}"
            if group[0].rest is Action.NOTIFY:
                heading += f"\n# action {NOTIFY_ACTION} is NOTIFY: held, for the VMM to name and to kill"
            parts.append(f"{heading}\n{policy_as_pfc(policy).rstrip()}")
    if not parts:
        words = ", ".join(one.process for one in chosen)
        raise UsageError(
            f"there is no filter to show as PFC for: {words}",
            hint="--seccomp strict is a mode of the kernel, not a filter; the spawner has none either",
        )
    return "\n\n".join(parts)
