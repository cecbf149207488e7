"""Both halves of the hot path: the classes in pure Python, and those with compiled code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kvmbox.base.compiled import why_not_built
from kvmbox.devices.virtio.vmm import Virtqueues
from kvmbox.host.interrupt_lines import InterruptRouter
from kvmbox.host.time.guest_clock import GuestClock
from kvmbox.jail.page_port import PagePort
from kvmbox.jail.server import DeviceServer
from kvmbox.jail.serving_loop import serve
from kvmbox.jail.stream_port import StreamPort
from kvmbox.remote.channel.connection import Channel
from kvmbox.remote.channel.journal import Journal
from kvmbox.remote.published.data_window import DataWindow
from kvmbox.remote.transport.shared_page import PageTransport
from kvmbox.remote.transport.stream import PipeTransport, SocketTransport
from kvmbox.run.vcpu.coalesced_ring import CoalescedRing
from kvmbox.run.vcpu.run_loop import VcpuLoop
from kvmbox.run.vcpu.run_state import VcpuControl


def _pure_router(_clock: GuestClock) -> InterruptRouter:
    return InterruptRouter()


@dataclass(frozen=True)
class Half:
    """What a test makes its loop, its channel and its transports of."""

    loop: type[VcpuLoop] = VcpuLoop
    ring: type[CoalescedRing] = CoalescedRing
    clock: type[GuestClock] = GuestClock
    router: Callable[[Any], InterruptRouter] = _pure_router
    channel: type[Channel] = Channel
    journal: type[Journal] = Journal
    page: type[PageTransport] = PageTransport
    socket: type[SocketTransport] = SocketTransport
    pipe: type[PipeTransport] = PipeTransport
    page_port: Callable[..., Any] = PagePort
    stream_port: Callable[..., Any] = StreamPort
    serve: Callable[[Any, DeviceServer], int] = serve
    window: type[DataWindow] = DataWindow
    queues: type[Virtqueues] = Virtqueues

    def control(self, kick: Callable[[], None], notify: Callable[[], None] = lambda: None) -> VcpuControl:
        """The control of a vCPU that such a loop runs."""
        return VcpuControl(self.loop.attention_kind(), kick, notify)

    @property
    def is_compiled(self) -> bool:
        """Whether it has no seams: it touches real descriptors and real memory."""
        return self.loop is not VcpuLoop


def compiled_half() -> Half:
    """The compiled one. ImportError where it was not built."""
    from kvmbox.fast import compiled_channel as channels
    from kvmbox.fast import compiled_loop as machines
    from kvmbox.fast import serving
    from kvmbox.fast.compiled_queues import CompiledQueues
    from kvmbox.fast.compiled_window import CompiledWindow

    return Half(
        machines.CompiledLoop,
        machines.CompiledRing,
        machines.CompiledClock,
        machines.CompiledRouter,
        channels.CompiledChannel,
        channels.CompiledJournal,
        channels.CompiledPageTransport,
        channels.CompiledSocketTransport,
        channels.CompiledPipeTransport,
        serving.PagePort,
        serving.StreamPort,
        serving.serve,
        CompiledWindow,
        CompiledQueues,
    )


def built_halves() -> list[Half]:
    """The halves that are there."""
    return [half for half in map(half_of, ("pure", "compiled")) if half is not None]


def half_of(name: str) -> Half | None:
    """The half of that name, "pure" or "compiled"; None where it was not built."""
    if name == "pure":
        return Half()
    return None if why_not_built() else compiled_half()
