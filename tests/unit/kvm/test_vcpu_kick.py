"""The kick's signal, as far as it needs no KVM."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Iterator

import pytest

from kvmbox.kvm import KICK_SIGNAL, Vcpu, install_kick_signal


@pytest.fixture
def vcpu() -> Iterator[Vcpu]:
    """A vCPU bound to this thread, on a file in place of KVM's descriptor."""
    found = signal.getsignal(KICK_SIGNAL)
    install_kick_signal()
    descriptor = os.memfd_create("vcpu")
    os.truncate(descriptor, resource.getpagesize())
    with Vcpu(descriptor, 0, resource.getpagesize()) as vcpu:
        vcpu.bind_thread()
        yield vcpu
    signal.signal(KICK_SIGNAL, found)


@pytest.fixture
def full_queue() -> Iterator[None]:
    """No real-time signal can be queued any more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_SIGPENDING)
    signal.pthread_sigmask(signal.SIG_BLOCK, {KICK_SIGNAL})
    resource.setrlimit(resource.RLIMIT_SIGPENDING, (0, hard))
    yield
    resource.setrlimit(resource.RLIMIT_SIGPENDING, (soft, hard))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {KICK_SIGNAL})


@pytest.mark.usefixtures("full_queue")
def test_kick_with_a_full_queue_of_signals_still_ends_the_next_run(vcpu: Vcpu) -> None:
    vcpu.kick()
    assert vcpu.immediate_exit
