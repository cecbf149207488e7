"""Lets out what the guest had written before an event that is held, so that it is judged first (`judge`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kvmbox.base.judge import Judge
from kvmbox.run.loop.vcpu_pause import Visitor
from kvmbox.run.vcpu.run_state import VcpuControl


class OutputDrain(Visitor):
    """Keeps the vCPUs standing still while an event is held, and settles it."""

    def __init__(self, judge: Judge, steps: Sequence[Callable[[], None]]) -> None:
        """`steps` let out what was written, while the machine stands still. They raise DeviceProcessError."""
        self._judge = judge
        self._steps = steps

    @property
    def wants(self) -> bool:
        """See `Visitor`."""
        return self._judge.is_unsettled

    def holds(self, _vcpu: VcpuControl) -> bool:
        """See `Visitor`: a trigger may still be at work."""
        return self._judge.is_held

    def visit(self) -> None:
        """All vCPUs stand still. Raises DeviceProcessError."""
        for step in self._steps:
            step()
        self._judge.settle()

    def end(self) -> None:
        """The vCPUs have ended: settle what is held. Raises DeviceProcessError."""
        if not self._judge.is_held:
            return
        for step in self._steps:
            step()
        self._judge.settle(finally_=True)
