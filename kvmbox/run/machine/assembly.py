"""The machine of a run, put together: virtual machine, console, main loop and devices, none of which runs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING

from kvmbox.host.process.signals import Wakeup
from kvmbox.kvm.system import Kvm
from kvmbox.remote.bus.machine_buses import Buses
from kvmbox.run.loop.main_loop import MainLoop
from kvmbox.run.machine.console_setup import console_of
from kvmbox.run.machine.device_services import DeviceServices
from kvmbox.run.machine.device_set import Devices
from kvmbox.run.machine.guest_vm import GuestVm
from kvmbox.run.machine.loop_implementations import guest_clock, interrupt_router
from kvmbox.run.machine.reboot import GuestFactory, close_unused
from kvmbox.run.part import Standing
from kvmbox.run.parts import prepare_report, window_of
from kvmbox.run.vcpu.late_writes import LateWrites

if TYPE_CHECKING:
    from kvmbox.base.memory import GuestMemory
    from kvmbox.host.console.serial_ports import Console
    from kvmbox.host.disk.transfers import TransferThread
    from kvmbox.run.preparation import Prepared
    from kvmbox.run.result.stage_times import Timeline


def assemble(
    prepared: Prepared, timeline: Timeline, cleanup: ExitStack
) -> tuple[Standing, GuestVm, GuestFactory]:
    """Build the machine of a run that was `prepared`. `cleanup` takes it apart.

    Raises StartError, SandboxError, DeviceProcessError.
    """
    opening, origin, parts = prepared.opening, prepared.origin, prepared.parts
    config, caller, judge, say = opening.config, opening.caller, opening.judge, opening.say
    board, source, cpu = opening.board, opening.source, prepared.placement.cpu
    memory = origin.memory(config.memory_size)
    if origin.memory_stage:
        timeline.mark(origin.memory_stage)
    users: list[Callable[[], bool]] = []  # what tells whether a thread still uses the guest's memory
    cleanup.callback(close_unused, memory.close, users)
    kvm = cleanup.enter_context(Kvm.open(config.kvm_path))
    factory = GuestFactory(kvm, memory, source, config.cpus, config.cpu, caller.waits_for_kernel)
    guest = factory.first(origin)
    cleanup.callback(close_unused, guest.close, users)
    if guest.not_hidden:
        say(f"--cpu {config.cpu}: this host's KVM shows all the same: {', '.join(guest.not_hidden)}")
    if guest.boot.without_bios:
        say(guest.boot.without_bios)
    timeline.mark("virtual machine built")
    prepare_report()  # while device processes jail themselves
    wakeup = Wakeup()
    cleanup.callback(wakeup.close)
    console = console_of(config, judge, caller, has_bios=source.has_bios, say=say, wake=wakeup.wake)
    cleanup.callback(console.close)
    started, summon = timeline.started, parts.guest_ends
    loop = MainLoop(config, judge, console, wakeup, caller, cpu=cpu, started=started, summon=summon, say=say)
    users.append(lambda: loop.has_live_vcpu)
    cleanup.callback(loop.close)
    try:
        devices = _devices(prepared, memory, console, loop, cleanup)
    except BaseException:
        console.finish()
        raise
    if devices.transfers is not None:
        cleanup.callback(_end_transfers, devices.transfers, say)
    timeline.mark("devices ready")
    files, part = prepared.files, parts.summon
    standing = Standing(config, judge, say, kvm, board, source, files, memory, devices, console, loop, part)
    return standing, guest, factory


def _devices(
    prepared: Prepared, memory: GuestMemory, console: Console, loop: MainLoop, cleanup: ExitStack
) -> Devices:
    """Connect the device processes. Raises SandboxError, DeviceProcessError."""
    opening, pool = prepared.opening, prepared.pool
    clock = guest_clock()
    router = interrupt_router(clock)
    cleanup.callback(router.close)
    buses = Buses(opening.board, memory, router.source, console.note)
    late = LateWrites(exact=opening.exact)
    host = DeviceServices(
        opening.judge,
        console,
        router,
        buses,
        memory,
        opening.stores,
        loop.wakeup.wake,
        reset=loop.ends.reset_requested,
        suspend=loop.ends.suspend_requested,
        late=late,
        aperture=lambda index, effect: window_of(loop, devices).check(index, effect),
    )
    loop.prepare(opening.loss_policy, pool, clock)
    devices = Devices(
        opening.board,
        pool,
        clock,
        router,
        buses,
        host,
        late=late,
        deadline_changed=loop.deadline_changed,
        wait_for_output=console.wait_for_room,
        shims=opening.shims,
        disks=opening.disks,
        exact=opening.exact,
    )
    loop.take_devices(devices)
    return devices


def _end_transfers(transfers: TransferThread, say: Callable[[str], None]) -> None:
    if not transfers.close():
        # Guest memory may be closed now: what the thread would still write to it is refused, and ends there.
        say("a transfer of a device does not end: its file does not answer")
    if transfers.problem is not None:
        say(transfers.problem)
