#!/usr/bin/env python3
"""Write kvmbox/sandbox/filters.bin: the BPF of every policy, compiled by libseccomp.

Run it after each change of a policy in kvmbox/sandbox/policy.py or vmm_policy.py, in the virtual environment:

    .venv/bin/python tools/compile_policies.py

The file is also what a test compares with the policies and with whatever libseccomp is installed.
"""

from __future__ import annotations

from kvmbox.sandbox.libseccomp import compile_policy
from kvmbox.sandbox.policy import DEVICE_POLICY, DEVICE_POLICY_PIPES
from kvmbox.sandbox.seccomp import BPF_INSTRUCTION, SHIPPED, SIZES, source
from kvmbox.sandbox.vmm_policy import DISK_MAIN_POLICY, DISK_VCPU_POLICY, MAIN_POLICY, VCPU_POLICY


def main() -> None:
    """Compile and write."""
    filters = []
    vmm = (VCPU_POLICY, MAIN_POLICY, DISK_VCPU_POLICY, DISK_MAIN_POLICY)
    for policy in (DEVICE_POLICY, DEVICE_POLICY_PIPES, *vmm):
        made_from, bpf = source(policy), compile_policy(policy)
        filters += [SIZES.pack(len(made_from), len(bpf)), made_from, bpf]
        print(f"{policy.name}: {len(bpf) // BPF_INSTRUCTION.size} instructions")
    with open(SHIPPED, "wb") as file:
        file.writelines(filters)


if __name__ == "__main__":
    main()
