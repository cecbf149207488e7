"""What a device process may ask of the kernel: a table, with the reason of every rule. Pure data.

Theory of operation
-------------------
A device process blocks in one place, reading its channel, and everything else is computation. So the
table is short: read and write on the channel's descriptors, the three memory calls by which CPython's
allocators grow and shrink, and the ways out. A rule matches if all its conditions hold; a call that no
rule matches gets the default action: a notification to the VMM, which names the call and kills the
process. Where nobody listens the call fails; there is no way in which it succeeds.

A condition compares an argument under a mask. The kernel takes a descriptor as a 32-bit number and
ignores what else is in the register, and so does the mask; `prot` and `flags` of mmap are full words to
the kernel, so all their 64 bits are compared.

`simulate` decides as the compiled filter does, without a kernel, so that a test, `kvmbox policy` and a
reader can ask.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from kvmbox.base.light_typing import Enum
from kvmbox.base.value_classes import Value
from kvmbox.jail.fixed_descriptors import CHANNEL_FD, REPLY_FD

if TYPE_CHECKING:
    from collections.abc import Mapping

INT: Final = 0xFFFF_FFFF  # what the kernel looks at in an int argument
WORD: Final = 0xFFFF_FFFF_FFFF_FFFF

# <asm-generic/mman-common.h>, <linux/mman.h>
PROT_READ: Final = 0x1
PROT_WRITE: Final = 0x2
MAP_PRIVATE: Final = 0x02
MAP_ANONYMOUS: Final = 0x20

Table: TypeAlias = tuple[tuple[int, tuple[tuple[int, int, int], ...]], ...]
"""What a filter is made from: of each rule the call's number, of each condition (argument, value, mask)."""

ARCH_X86_64: Final = 0xC000_003E  # AUDIT_ARCH_X86_64, <linux/audit.h>
X32_BIT: Final = 0x4000_0000  # system calls of the x32 ABI come with the same arch and this bit


class Action(Enum):
    """What becomes of a system call."""

    ALLOW = "allow"
    NOTIFY = "notify"
    """The call is held, the VMM names it and kills the process."""
    KILL = "kill"
    """The kernel kills the process at once (SIGSYS): a call of a foreign ABI, whose numbers mean nothing."""
    REFUSE = "refuse"
    """The call fails with ENOSYS, as if this kernel did not have it: in the VMM, see `vmm_policy`."""


class Condition(Value):
    """Argument `argument` (0..5), under `mask`, equals `value`."""

    argument: int
    value: int
    mask: int = WORD

    def holds(self, arguments: tuple[int, ...]) -> bool:
        """Whether the condition holds for the six register values of a call."""
        return arguments[self.argument] & self.mask == self.value


class Rule(Value):
    """A system call, by name and x86-64 number, that is allowed if every condition holds."""

    name: str
    number: int
    reason: str
    conditions: tuple[Condition, ...] = ()


class Policy(Value):
    """An allow-list; whatever it does not name gets `default`."""

    name: str
    rules: tuple[Rule, ...]
    default: Action = Action.NOTIFY

    def bound(self, values: Mapping[int, int]) -> Policy:
        """The same policy with the placeholders among its values replaced, see `seccomp.bind`."""
        rules = tuple(
            Rule(
                rule.name,
                rule.number,
                rule.reason,
                tuple(
                    Condition(one.argument, values.get(one.value, one.value), one.mask)
                    for one in rule.conditions
                ),
            )
            for rule in self.rules
        )
        return Policy(self.name, rules, self.default)

    def table(self) -> Table:
        """The rules as bare numbers, in their order: policies with the same table have the same filter."""
        return tuple(
            (rule.number, tuple((one.argument, one.value, one.mask) for one in rule.conditions))
            for rule in self.rules
        )

    def simulate(self, number: int, arguments: tuple[int, ...] = (), *, arch: int = ARCH_X86_64) -> Action:
        """The action for system call `number` with up to six `arguments`, taken as 64-bit registers."""
        number &= INT
        # -1 is what a tracer leaves to skip a call: no x32 number
        if arch != ARCH_X86_64 or X32_BIT <= number < INT:
            return Action.KILL
        registers = tuple(argument & WORD for argument in arguments) + (0,) * (6 - len(arguments))
        for rule in self.rules:
            if rule.number == number and all(condition.holds(registers) for condition in rule.conditions):
                return Action.ALLOW
        return self.default


def _device_policy(name: str, reply_fd: int) -> Policy:
    """The table of a device process that reads from CHANNEL_FD and replies to `reply_fd`."""
    return Policy(
        name=name,
        rules=(
            Rule("read", 0, "the next request", (Condition(0, CHANNEL_FD, INT),)),
            Rule("write", 1, "the reply to it", (Condition(0, reply_fd, INT),)),
            Rule(
                "mmap",
                9,
                "CPython's object arenas: private, anonymous, readable and writable, never executable",
                (
                    Condition(2, PROT_READ | PROT_WRITE),
                    Condition(3, MAP_PRIVATE | MAP_ANONYMOUS),
                    Condition(4, INT, INT),
                ),
            ),
            Rule("munmap", 11, "CPython gives an empty arena back"),
            Rule("brk", 12, "malloc grows and trims its heap"),
            Rule("rt_sigreturn", 15, "the end of a signal handler"),
            Rule("exit", 60, "the way out of a thread"),
            Rule("exit_group", 231, "the way out: the channel was closed"),
        ),
    )


DEVICE_POLICY: Final = _device_policy("device", CHANNEL_FD)
"""The policy of every device process whose channel is one socket, whatever its type."""

DEVICE_POLICY_PIPES: Final = _device_policy("device-pipes", REPLY_FD)
"""The same where requests and replies have descriptors of their own: read on one, write on the other."""
