"""Which half of the hot path is used, and how the choice reaches the device processes."""

from __future__ import annotations

import sys

import pytest

from kvmbox.base import compiled
from kvmbox.base.errors import StartError
from kvmbox.host.time.guest_clock import GuestClock
from kvmbox.remote.channel.connection import Channel
from kvmbox.remote.channel.implementations import channel_kind, chosen
from kvmbox.remote.process.spawner_client import COMPILED_ENTRY, DEFAULT_ENTRY, device_entry
from kvmbox.remote.transport.direct import DirectLink, DirectTransport
from kvmbox.remote.transport.ipc_table import TRANSPORTS
from kvmbox.run.machine.loop_implementations import guest_clock, loop_kind, ring_kind
from kvmbox.run.vcpu.coalesced_ring import CoalescedRing
from kvmbox.run.vcpu.run_loop import VcpuLoop


def everything() -> set[type]:
    """All that is chosen in the VMM."""
    transports: set[type] = {chosen(transport) for transport in TRANSPORTS.values()}
    transports.add(type(DirectLink().open("", lambda *_: True)))
    return {channel_kind(), loop_kind(), ring_kind(), type(guest_clock()), *transports}


PURE = {Channel, DirectTransport, VcpuLoop, CoalescedRing, GuestClock, *TRANSPORTS.values()}


def test_environment_that_says_pure_means_every_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(compiled.VARIABLE, "1")
    assert compiled.describe() == "pure Python (KVMBOX_PURE is set)"
    assert everything() == PURE
    assert device_entry() == DEFAULT_ENTRY


@pytest.mark.parametrize("value", [None, "", "0"])
def test_environment_that_does_not_leaves_what_was_built(
    monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    monkeypatch.delenv(compiled.VARIABLE, raising=False)
    if value is not None:
        monkeypatch.setenv(compiled.VARIABLE, value)
    if compiled.why_not_built():
        pytest.skip(f"compiled: {compiled.why_not_built()}")
    assert compiled.describe() == "compiled"
    assert everything() & PURE == set()
    assert device_entry() == COMPILED_ENTRY


def test_modules_that_were_not_built_mean_pure_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(compiled.VARIABLE, raising=False)
    monkeypatch.setattr(compiled, "EXTENSION_SUFFIXES", [".another-python.so"])
    assert compiled.describe() == "pure Python (it was not built for this Python)"
    assert everything() == PURE
    assert device_entry() == DEFAULT_ENTRY


def test_hot_path_of_another_version_is_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kvmbox.fast.compiled_loop", None)  # importing it is an ImportError
    with pytest.raises(StartError, match="does not fit these sources") as refused:
        compiled.compiled("loop", "CompiledClock")
    assert refused.value.hint == "build it again with 'make run', or set KVMBOX_PURE=1"
