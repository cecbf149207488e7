"""`kvmbox doctor --cpu`: who has each CPU feature, whether a guest can use it and whether a guest sees it."""

from __future__ import annotations

from collections.abc import Iterator

from kvmbox.kvm.cpuid.backend_limits import PVM
from kvmbox.kvm.cpuid.cpu_models import FOLLOWED
from kvmbox.kvm.cpuid.features import canonical
from kvmbox.kvm.system import Kvm, cpu_flags
from kvmbox.tools.cpu_probe import FeatureState, Trial, examine_features

_ROW = "{:<20} {:<5} {:<5} {:<32} {}"


def feature_lines() -> Iterator[str]:
    """A heading, and a line for each feature. Raises KvmError."""
    host = {canonical(flag) for flag in cpu_flags()}
    with Kvm.open() as kvm:
        states = examine_features(kvm, "host")
    yield _ROW.format("feature", "host", "KVM", "in a guest's ring 0", "a guest sees it (--cpu host)")
    for state in states:
        tried = "-" if state.trial is None else state.trial.value
        yield _ROW.format(
            state.name, _yes(state.name in host), _yes(state.claimed), tried, _seen(state)
        ).rstrip()


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _seen(state: FeatureState) -> str:
    if state.name in FOLLOWED:
        return f"{_yes(state.shown)}: {FOLLOWED[state.name]}"
    if state.shown and not state.claimed:
        return "yes: this KVM shows it whatever it is told"
    if state.shown and state.trial not in (None, Trial.RUNS):
        return "yes: although it does not run"
    if not state.shown and state.claimed:
        return f"no: {PVM.get(state.name, 'this KVM does not show it')}"
    return _yes(state.shown)
