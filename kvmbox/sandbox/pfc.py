"""A policy as Pseudo Filter Code: libseccomp's own rendering of the filter that it generates, as text.

It is the filter as compiled, not as written, which is what an auditor wants to read. libseccomp 2.5 has no
word for the action "notify" and prints its number, 0x7fc00000.
"""

from __future__ import annotations

from kvmbox.sandbox.libseccomp import export
from kvmbox.sandbox.policy import Policy


def policy_as_pfc(policy: Policy) -> str:
    """The Pseudo Filter Code of `policy`, lines with line feeds. Raises SandboxError without libseccomp."""
    return export(policy, "export_pfc").decode("utf-8")
