"""The builder: from a configuration to devices on their buses, and to one virtual machine per boot.

`Devices` exist as long as the run: processes, channels, buses, clock. A `GuestVm` exists from one reset to
the next, because a new VM with new interrupt controllers is the most reliable reset that KVM has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from collections.abc import Mapping as ZoneMap

from kvmbox import layout
from kvmbox.board import BoardOptions, DeviceSpec, Resource, StopValue, pc_board
from kvmbox.boot.compressed import decompressed
from kvmbox.boot.image import read_image, read_module
from kvmbox.boot.load import BootOptions, load_image
from kvmbox.boot.plan import BootPlan
from kvmbox.boot.state import CpuState
from kvmbox.bus import Bus, Mapping
from kvmbox.channel.grants import bind
from kvmbox.channel.guest_memory import Submit
from kvmbox.channel.proxy import DeviceProxy
from kvmbox.errors import UsageError
from kvmbox.firmware.platform import Platform
from kvmbox.host.clock import GuestClock
from kvmbox.host.console import Console
from kvmbox.host.interrupts import InterruptRouter
from kvmbox.kvm import uapi
from kvmbox.kvm.system import Kvm, is_pvm
from kvmbox.kvm.vcpu import Vcpu
from kvmbox.kvm.vm import Vm
from kvmbox.lean import Value
from kvmbox.machine.choice import guest_clock
from kvmbox.machine.coalescing import CoalescedRing, OutputRoom
from kvmbox.machine.config import RunConfig
from kvmbox.memory import GuestMemory
from kvmbox.outcome import CLEAN, Decision, Outcome, debug_exit_status
from kvmbox.processes.pool import DevicePool, SurvivalOf, fails

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kvmbox.host.transfers import Store, TransferThread

    Stores = ZoneMap[str, Store]

PORT_BITS = 16
ADDRESS_BITS = 52  # the most that an x86 physical address can have


def board_of(config: RunConfig) -> list[DeviceSpec]:
    """The devices of this run. Raises UsageError if two devices claim the same port."""
    board = pc_board(
        BoardOptions(
            serial_ports=tuple(config.serial),
            rtc_base=config.rtc_base,
            memory_size=config.memory_size,
            debug_exit_port=config.debug_exit_port,
            uart_pace=config.uart_pace,
            cpus=config.cpus,
            testdev=config.testdev,
        )
    )
    board += config.devices
    # The only devices that the user puts somewhere.
    for device in board:
        if device.granted(StopValue):
            for other in board:
                if other is not device and _overlap(device, other):
                    raise UsageError(f"--debug-exit {config.debug_exit_port:#x} belongs to {other.name}")
    for device in config.devices:
        for other in board:
            if other is not device and (other.name == device.name or _overlap(device, other)):
                raise UsageError(f"device {device.name} is in the place of {other.name}")
        for grant in device.granted(Resource):
            if grant.name not in config.resources:
                raise UsageError(f"device {device.name} needs a resource '{grant.name}'")
    return board


def _overlap(one: DeviceSpec, other: DeviceSpec) -> bool:
    return any(
        mine.first < theirs.first + theirs.count and theirs.first < mine.first + mine.count
        for mine_all, theirs_all in ((one.ports, other.ports), (one.mmio, other.mmio))
        for mine in mine_all
        for theirs in theirs_all
    )


class RunHost:
    """What a run does for its devices: see `channel.grants.Host`."""

    def __init__(
        self,
        router: InterruptRouter,
        console: Console,
        decision: Decision,
        reset: Callable[[], None],
        ram: GuestMemory,
        stores: Stores,
        wake: Callable[[], None],
    ) -> None:
        self.irq_source = router.source
        self.output = console.sink
        self.input_room = console.room
        self.ask_for_reset = reset
        self.ram = ram
        self.transfer_thread: TransferThread | None = None
        """What moves bulk data, if a device may have some moved."""
        self._decision = decision
        self._stores = stores
        self._wake = wake

    def transfers(self, device: str, grant: Resource) -> Submit:
        """Transfers are done by a thread, which starts when the VMM is confined."""
        from kvmbox.host.transfers import Order, TransferThread

        if self.transfer_thread is None:
            self.transfer_thread = TransferThread(self.ram, self._wake)
        thread, store = self.transfer_thread, self._stores[grant.name]

        def submit(tag: int, offset: int, ranges: Sequence[tuple[int, int]], to_guest: bool) -> bool:
            order = Order(device, tag, store, grant.size, offset, ranges, to_guest)
            return thread.submit(order, grant.max_pending)

        return submit

    def stop(self, value: int | None) -> None:
        """The guest ends the run: with `value` at the debug-exit port, or cleanly (None)."""
        if value is None:
            outcome = Outcome(CLEAN, "the guest shut down")
        else:
            outcome = Outcome(debug_exit_status(value), f"the guest wrote {value:#x} to the debug-exit port")
        self._decision.decide(outcome)


class Devices:
    """All devices of a run: launched, wired, and connected to two buses."""

    def __init__(
        self,
        board: list[DeviceSpec],
        pool: DevicePool,
        console: Console,
        decision: Decision,
        *,
        reset: Callable[[], None],
        deadline_changed: Callable[[str, int, int], None],
        ram: GuestMemory,
        stores: Stores,
        wake: Callable[[], None],
        prepare: Callable[[DevicePool, GuestClock], SurvivalOf] = lambda _pool, _clock: fails,
    ) -> None:
        """Wire `board`, whose processes `pool` has launched. `reset` is called when a device asks for one.
        `prepare` is called, with `pool` and the clock, before there is any channel, and gives each of them
        its survival.

        `stores` are the resources of the host that devices were granted, by name; `wake` wakes the main
        thread, which tells devices what has become of their transfers.
        """
        self.board = board
        self.pool = pool
        self.clock = guest_clock()
        self.router = InterruptRouter()
        self.ports = Bus(PORT_BITS)
        self.mmio = Bus(ADDRESS_BITS)
        self.proxies: list[DeviceProxy] = []
        self.coalesced: dict[int, tuple[DeviceProxy, int]] = {}
        """Device and register of each port whose writes may come late."""
        host = RunHost(self.router, console, decision, reset, ram, stores, wake)
        grants = {device.name: bind(device, host) for device in board}
        self.transfers = host.transfer_thread
        pool.connect(
            grants,
            now=self.clock.now,
            deadline_changed=deadline_changed,
            wait_for_output=console.wait_for_room,
            survival_of=prepare(pool, self.clock),
        )
        for member in pool.members.values():
            channel = pool.channel(member.device_type)
            for index, device in enumerate(member.devices):
                self._attach(device, DeviceProxy(channel, index, device.name, device.natural_sizes))

    def _attach(self, device: DeviceSpec, proxy: DeviceProxy) -> None:
        self.proxies.append(proxy)
        for bus, ranges in ((self.ports, device.ports), (self.mmio, device.mmio)):
            for addresses in ranges:
                bus.attach(Mapping(addresses.first, addresses.count, proxy, addresses.offset, direct=proxy))
        for port in device.coalesced:
            mapping = self.ports.find(port)
            assert mapping is not None
            self.coalesced[port] = (proxy, port - mapping.first + mapping.offset)


def platform_of(config: RunConfig) -> Platform:
    """The machine as its firmware describes it."""
    return Platform(
        config.memory_size, config.cpus, tuple(one for one in config.serial if one in layout.COM_PORTS)
    )


class BootSource(Value):
    """The image and the modules. They are read once, so that a reboot loads the same bytes."""

    load: Callable[[GuestMemory], BootPlan]

    @classmethod
    def read(cls, config: RunConfig) -> BootSource:
        """Read the image and the modules; ImageError if one cannot be read."""
        image = decompressed(read_image(config.guest))
        modules = tuple(read_module(spec.path, spec.arguments) for spec in config.modules)
        options = BootOptions(
            command_line=config.append or None,
            modules=modules,
            initrd=None if config.initrd is None else read_module(config.initrd),
            boot=config.boot,
            load_address=config.load_address,
            entry=config.entry,
            segments=config.segments,
            firmware_tables=config.firmware_tables != "none",
        )
        platform = platform_of(config)
        return cls(lambda memory: load_image(image, memory, options, platform))


class GuestVm:
    """One virtual machine from reset to reset: memory, interrupt controllers, vCPUs, a loaded guest.

    The first vCPU is the bootstrap processor. The others wait for INIT and a start-up IPI.
    """

    def __init__(self, kvm: Kvm, memory: GuestMemory, source: BootSource, *, cpus: int = 1) -> None:
        """Raises ImageError and KvmError."""
        self._coalesces = kvm.check_extension(uapi.KVM_CAP_COALESCED_PIO) > 0
        self.boot = source.load(memory)
        self.memory = memory
        self.vm: Vm = kvm.create_vm()
        try:
            self.vm.set_identity_map_address(layout.KVM_IDENTITY_MAP_ADDRESS)
            self.vm.set_tss_address(layout.KVM_TSS_ADDRESS)
            # Before the interrupt controllers: KVM then builds its routing once.
            self.vm.map_memory(memory.regions)
            self.vm.create_irqchip()
            self.vcpus: list[Vcpu] = [self.vm.create_vcpu(index) for index in range(cpus)]
            for vcpu in self.vcpus:
                vcpu.set_cpuid(own_cpuid(kvm.supported_cpuid(), vcpu.index))
            apply_state(self.vcpus[0], self.boot.state)
            self.is_pvm = is_pvm(self.vcpus[0])
        except BaseException:
            self.vm.close()
            raise

    def coalesce(
        self, zones: ZoneMap[int, tuple[DeviceProxy, int]], room: OutputRoom
    ) -> CoalescedRing | None:
        """Coalesce writes to these ports, if KVM can do this: the writes do not exit, but go to the ring."""
        if not self._coalesces or not zones:
            return None
        for port in zones:
            self.vm.register_coalesced(port, 1, pio=True)
        # The ring belongs to the VM: KVM maps the same page behind each vCPU.
        vcpu = self.vcpus[0]
        alone = len(self.vcpus) == 1
        return CoalescedRing(vcpu.words64, vcpu.words32, vcpu.bytes, zones, room=room, carries=alone)

    def close(self) -> None:
        """Close the VM and its vCPUs; the memory stays."""
        self.vm.close()


def own_cpuid(entries: list[uapi.kvm_cpuid_entry2], index: int) -> list[uapi.kvm_cpuid_entry2]:
    """What the guest's CPUID says: the host's, but for the APIC id, which is the vCPU's own.

    KVM passes on the id of the host CPU that it was asked on (Intel SDM vol. 2, CPUID: leaf 1 EBX 31..24,
    leaves 0xb and 0x1f EDX): two runs would differ.
    """
    for entry in entries:
        if entry.function == 1:
            entry.ebx = entry.ebx & 0x00FF_FFFF | index << 24
        elif entry.function in (0xB, 0x1F):
            entry.edx = index
    return entries


def apply_state(vcpu: Vcpu, state: CpuState) -> None:
    """Give a vCPU its first registers."""
    sregs = vcpu.get_sregs()
    for name in ("cs", "ds", "es", "fs", "gs", "ss", "tr", "ldt"):
        source, target = getattr(state, name), getattr(sregs, name)
        for field in ("base", "limit", "selector", "type", "present", "dpl", "db", "s", "l", "g", "avl"):
            setattr(target, field, getattr(source, field))
        target.unusable = 0 if source.present else 1
    for name in ("gdt", "idt"):
        source, table = getattr(state, name), getattr(sregs, name)
        table.base, table.limit = source.base, source.limit
    sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer = state.cr0, state.cr3, state.cr4, state.efer
    vcpu.set_sregs(sregs)
    regs = uapi.kvm_regs()
    for name, _ in uapi.kvm_regs._fields_:
        setattr(regs, name, getattr(state, name))
    vcpu.set_regs(regs)
