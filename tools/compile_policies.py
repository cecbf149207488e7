#!/usr/bin/env python3
"""Write kvmbox/sandbox/compiled_filters.py: the BPF of every policy, compiled by libseccomp.

Run it after each change of a policy in kvmbox/sandbox/policy.py or vmm_policy.py, in the virtual environment:

    .venv/bin/python tools/compile_policies.py

The file is also what a test compares with the policies and with whatever libseccomp is installed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from kvmbox.sandbox.policy import DEVICE_POLICY, DEVICE_POLICY_PIPES, Policy
from kvmbox.sandbox.seccomp import compile_policy
from kvmbox.sandbox.vmm_policy import MAIN_POLICY, VCPU_POLICY

OUTPUT: Final = Path(__file__).parent.parent / "kvmbox" / "sandbox" / "compiled_filters.py"
INSTRUCTIONS_PER_LINE: Final = 5
LINE_LENGTH: Final = 110

HEAD: Final = '''"""The filters of every policy, compiled ahead by tools/compile_policies.py; do not edit.

`sandbox.seccomp` uses one only if its table equals the policy's, so a stale one costs time and nothing else.
Each group of 16 digits is one struct sock_filter as it lies in memory: code (2 bytes), jt, jf, k (4 bytes).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kvmbox.lean import Value

if TYPE_CHECKING:
    from kvmbox.sandbox.policy import Table


class CompiledFilter(Value):
    """BPF, and what it was made from: the table, and the action (by value) for the rest."""

    table: Table
    bpf: bytes
    rest: str


'''


def source(compiled: dict[str, tuple[Policy, bytes]]) -> str:
    """The text of the module."""
    parts = [HEAD, "FILTERS: Final = {\n"]
    for name, (policy, bpf) in compiled.items():
        parts.append(f'    "{name}": CompiledFilter(\n        (\n')
        for number, conditions in policy.table():
            texts = [f"({argument}, {value}, 0x{mask:X})" for argument, value, mask in conditions]
            inside = ", ".join(texts) + ("," if len(texts) == 1 else "")
            line = f"            ({number}, ({inside})),\n"
            if len(line) > LINE_LENGTH:  # as ruff formats it
                conditions_text = "".join(f"                    {text},\n" for text in texts)
                line = (
                    f"            (\n                {number},\n                (\n{conditions_text}"
                    "                ),\n            ),\n"
                )
            parts.append(line)
        parts.append("        ),\n        bytes.fromhex(\n")
        groups = [bpf[at : at + 8].hex() for at in range(0, len(bpf), 8)]
        for at in range(0, len(groups), INSTRUCTIONS_PER_LINE):
            line = " ".join(groups[at : at + INSTRUCTIONS_PER_LINE])
            space = " " if at + INSTRUCTIONS_PER_LINE < len(groups) else ""
            parts.append(f'            "{line}{space}"\n')
        parts.append(f'        ),\n        "{policy.default.value}",\n    ),\n')
    parts.append('}\n"""Policy name \N{RIGHTWARDS ARROW} its filter."""\n')
    return "".join(parts)


def main() -> None:
    """Compile and write."""
    policies = (DEVICE_POLICY, DEVICE_POLICY_PIPES, VCPU_POLICY, MAIN_POLICY)
    compiled = {policy.name: (policy, compile_policy(policy)) for policy in policies}
    OUTPUT.write_text(source(compiled), encoding="utf-8")
    for name, (_, bpf) in compiled.items():
        print(f"{name}: {len(bpf) // 8} instructions")


if __name__ == "__main__":
    main()
