"""`--cpu MODEL[,±FEATURE…]`: which features the guest is shown, of those that the host's KVM claims.

| model | shows |
|---|---|
| host | what KVM claims, less what is known not to run here (`backend_limits`) |
| max | what KVM claims |
| none | the features that every x86-64 processor has |

A feature that KVM does not claim cannot be added: the guest would find out by a crash.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from kvmbox.base.errors import KvmError, UsageError
from kvmbox.base.value_classes import Value
from kvmbox.kvm.cpuid.dependencies import LEAF_OF, fit_xsave, missing, with_dependents
from kvmbox.kvm.cpuid.features import FEATURES, REGISTERS, canonical, close_to, shown_in, where
from kvmbox.kvm.cpuid.leaves import EAX, EBX, ECX, EDX, FIRST_HYPERVISOR, LAST_HYPERVISOR, Leaf

HOST: Final = "host"
MAX: Final = "max"
NONE: Final = "none"
MODELS: Final = (HOST, MAX, NONE)

BASELINE: Final = frozenset(
    (
        *("fpu", "vme", "de", "pse", "tsc", "msr", "pae", "mce", "cx8", "apic", "sep", "mtrr", "pge", "mca"),
        *("cmov", "pat", "pse36", "clflush", "mmx", "fxsr", "sse", "sse2", "syscall", "nx", "lm"),
    )
)
"""What every x86-64 processor has (System V psABI for x86-64, "Micro-Architecture Levels", and what such a
processor cannot be without in system mode)."""

FOLLOWED: Final = {
    "ht": "it follows --cpus",
    "cmp_legacy": "it follows --cpus",
    "osxsave": "it follows the guest's CR4",
    "ospke": "it follows the guest's CR4",
}
"""Bits that say what the machine or the guest does: they are nobody's choice, with the reason."""

_COUNTING: Final = (0xA, 0x8000_001F, 0x8000_0022)  # performance counters, encrypted memory
_FEATURES_ONLY: Final = (0x6, 0x8000_0007, 0x8000_0021)  # leaves all of whose registers are features


class CpuModel(Value):
    """A model, and the features that are added to it (True) or taken away (False)."""

    base: str
    changes: Mapping[str, bool]


def parse_model(text: str) -> CpuModel:
    """Read 'host', 'max,-avx' or 'none,+popcnt,+cx16'. Raises UsageError."""
    base, *words = text.split(",")
    if base not in MODELS:
        raise UsageError(
            f"--cpu '{text}': '{base}' is none of {', '.join(MODELS)}",
            hint="a model comes first, then features: --cpu host,-avx512f",
        )
    changes: dict[str, bool] = {}
    for word in words:
        sign, name = word[:1], canonical(word[1:])
        if sign not in ("+", "-") or not name:
            raise UsageError(
                f"--cpu '{text}': '{word}' is not a feature with its sign", hint="write +NAME or -NAME"
            )
        if name not in FEATURES:
            close = close_to(name)
            raise UsageError(
                f"--cpu '{text}': there is no feature '{word[1:]}'",
                hint=f"close to it: {', '.join(close)}" if close else "'kvmbox doctor --cpu' lists them",
            )
        if name in FOLLOWED:
            raise UsageError(f"--cpu '{text}': {name} cannot be chosen: {FOLLOWED[name]}")
        if changes.setdefault(name, sign == "+") != (sign == "+"):
            raise UsageError(f"--cpu '{text}' adds {name} and takes it away")
    return CpuModel(base, changes)


def features_of(model: CpuModel, claimed: set[str], refused: set[str]) -> set[str]:
    """The features that `model` shows, of those that KVM claims; `refused` are those that do not run here.

    Raises KvmError for a feature that is to be added and that KVM does not claim, and UsageError for one that
    is to be added without what it is built on.
    """
    for name, added in model.changes.items():
        if added and name not in claimed:
            raise KvmError(
                f"--cpu +{name}: this host's KVM does not support {name} ({where(name)})",
                hint="'kvmbox doctor --cpu' lists what it supports",
            )
    if model.base == NONE:
        shown = claimed & (BASELINE | set(FOLLOWED))
    elif model.base == HOST:
        shown = claimed - with_dependents(refused)
    else:
        shown = set(claimed)
    wanted = {name for name, chosen in model.changes.items() if chosen}
    hidden = claimed - shown - wanted | {name for name, chosen in model.changes.items() if not chosen}
    for feature in sorted(wanted):
        bases = missing(feature, hidden & claimed)
        if bases:
            raise UsageError(
                f"--cpu +{feature}: {feature} is built on {', '.join(bases)}, and that is hidden",
                hint=f"--cpu {model.base},{','.join(f'+{base}' for base in bases)},+{feature}",
            )
    # What KVM claims without what it is built on is KVM's affair.
    return claimed - with_dependents(hidden & claimed)


def apply(model: CpuModel, claimed: Sequence[Leaf], refused: set[str]) -> list[Leaf]:
    """The leaves that KVM claims, as `model` shows them. Raises what `features_of` raises."""
    names = set(shown_in(claimed))
    shown = features_of(model, names, refused)
    hidden = names - shown
    if model.base == HOST:
        hidden |= with_dependents(refused) - shown
    if not hidden and model.base != NONE:
        return list(claimed)
    masks: dict[tuple[int, int, str], int] = {}
    for name in shown if model.base == NONE else hidden:
        function, index, register, bit = FEATURES[name]
        place = (function, index, register)
        masks[place] = masks.get(place, 0) | 1 << bit
    leaves = []
    for leaf in claimed:
        if FIRST_HYPERVISOR <= leaf.function <= LAST_HYPERVISOR and "hypervisor" not in shown:
            continue
        described = LEAF_OF.get(leaf.function)
        absent = described is not None and described not in shown
        if absent and (described in hidden or model.base == NONE):
            leaves.append(_zero(leaf))
        elif model.base == NONE:
            leaves.append(_only(leaf, masks))
        else:
            leaves.append(_without(leaf, masks))
    return fit_xsave(leaves, set(FEATURES) - shown if model.base == NONE else hidden)


def _zero(leaf: Leaf) -> Leaf:
    return leaf.with_registers(dict.fromkeys((EAX, EBX, ECX, EDX), 0))


def _without(leaf: Leaf, masks: Mapping[tuple[int, int, str], int]) -> Leaf:
    changes = {
        register: leaf.register(register) & ~mask
        for (function, index, register), mask in masks.items()
        if (function, index) == (leaf.function, leaf.index)
    }
    return leaf.with_registers(changes) if changes else leaf


def _only(leaf: Leaf, masks: Mapping[tuple[int, int, str], int]) -> Leaf:
    """The leaf with the features of `masks` and no others; bits without a name are features, too."""
    if leaf.function in _COUNTING:
        return _zero(leaf)
    place = (leaf.function, leaf.index)
    registers = [register for function, index, register in REGISTERS if (function, index) == place]
    if leaf.function in _FEATURES_ONLY or leaf.function == 0x7:
        # All of them, but for the number of subleaves.
        registers = [EBX, ECX, EDX] if leaf.function == 0x7 and not leaf.index else [EAX, EBX, ECX, EDX]
    return leaf.with_registers(
        {register: leaf.register(register) & masks.get((*place, register), 0) for register in registers}
    )


def still_shown(wanted: Sequence[Leaf], seen: Sequence[Leaf]) -> list[str]:
    """The features that the guest sees although they are not in `wanted`: this KVM cannot hide them."""
    hidden = set(shown_in(seen)) - set(shown_in(wanted)) - set(FOLLOWED)
    return [name for name in FEATURES if name in hidden]
