"""Landlock's scope of signals: from its start on, kvmbox may signal only itself and its children.

Landlock's scope for signals asks whether the target is in the same domain, or in one below. A spawner that
was started before is in neither. So the command that runs a guest takes this scope before it starts its
spawner: then the VMM can end the spawner, and the kernel can deliver the death signal by which the spawner
ends with the VMM, and to nobody else can a signal be sent. Later, `vmm.confine_main` takes the other parts
of Landlock on top of it.

Whoever uses kvmbox as a library keeps the right to signal the rest of the program: this is for a process that
is good for nothing but its run.
"""

from __future__ import annotations

from kvmbox.jail import landlock, linux

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

NOT_TAKEN: Final = "only the kvmbox command takes it, before anything else"


class Scope:
    """Of this process: whether it is in force, and why not."""

    def __init__(self) -> None:
        self.taken = False
        self.missing = NOT_TAKEN

    def take(self) -> None:
        """Take it, for good, in the only thread. Where it cannot be had, `missing` says why."""
        version = landlock.abi()
        if version < landlock.SCOPES_ABI:
            self.missing = landlock.why_missing(version)
            return
        try:
            linux.forbid_new_privileges()
            landlock.confine_signals(version)
        except OSError as error:
            self.missing = str(error.args[-1])
        else:
            self.taken = True


OWN: Final = Scope()
"""That of this process."""
