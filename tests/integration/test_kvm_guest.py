"""The binding on the real /dev/kvm: tiny real-mode guests, written as bytes."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from kvmbox.base import layout
from kvmbox.base.errors import KvmError
from kvmbox.base.memory import GuestMemory
from kvmbox.kvm import (
    InternalErrorExit,
    IoExit,
    Kvm,
    MmioExit,
    ShutdownExit,
    Vcpu,
    Vm,
    cpu_mode,
    decode_exit,
    format_registers,
    uapi,
)

pytestmark = pytest.mark.kvm

CODE = 0x1000


class Guest:
    """A VM with 64 KiB or more of RAM and one vCPU in real mode at 0000:1000, where `code` lies."""

    def __init__(self, stack: ExitStack, code: str, *, irqchip: bool = False, size: int = 0x10000) -> None:
        self.memory = GuestMemory(size)
        stack.callback(self.memory.close)
        kvm = stack.enter_context(Kvm.open())
        self.vm: Vm = stack.enter_context(kvm.create_vm())
        self.vm.map_memory(self.memory.regions)
        self.vm.set_identity_map_address(layout.KVM_IDENTITY_MAP_ADDRESS)
        self.vm.set_tss_address(layout.KVM_TSS_ADDRESS)
        if irqchip:
            self.vm.create_irqchip()
        self.vcpu: Vcpu = self.vm.create_vcpu(0)
        self.memory.write(CODE, bytes.fromhex(code))
        sregs = self.vcpu.get_sregs()
        for segment in (sregs.cs, sregs.ds, sregs.es, sregs.ss):
            segment.base = segment.selector = 0
        self.vcpu.set_sregs(sregs)
        self.vcpu.set_regs(uapi.kvm_regs(rip=CODE, rsp=0x8000, rflags=2))

    def next_exit(self) -> object:
        assert self.vcpu.run() == 0
        return decode_exit(self.vcpu.bytes)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as exit_stack:
        yield exit_stack


def test_out_gives_a_pio_exit_with_its_byte_and_packed_words(stack: ExitStack) -> None:
    guest = Guest(stack, "b041 baf803 ee f4")  # mov al,'A'; mov dx,0x3f8; out dx,al; hlt
    vcpu = guest.vcpu

    event = guest.next_exit()

    assert event == IoExit(True, 1, 0x3F8, 1, 0x1000)
    assert vcpu.bytes[0x1000] == ord("A")
    assert vcpu.words32[2] == uapi.KVM_EXIT_IO
    assert vcpu.words64[4] == 1 << 32 | 0x3F8 << 16 | 1 << 8 | uapi.KVM_EXIT_IO_OUT
    assert guest.vcpu.run() == 0
    assert vcpu.words32[2] == uapi.KVM_EXIT_HLT


def test_registers_of_the_last_look_are_kept_but_those_of_a_reset_are_not(stack: ExitStack) -> None:
    guest = Guest(stack, "90 e6f4 f4")  # nop; out 0xf4,al; hlt
    vcpu = guest.vcpu
    fresh = guest.vm.create_vcpu(1)
    assert (fresh.get_regs().rip, fresh.get_sregs().cs.base) == (0xFFF0, 0xFFFF_0000)
    assert (fresh.last_regs, fresh.last_sregs) == (None, None)
    assert vcpu.last_regs is not None
    assert vcpu.last_regs.rip == CODE
    vcpu.show_rip()
    guest.next_exit()
    assert vcpu.words64[uapi.RUN_SYNC_RIP // 8] in (CODE + 1, CODE + 3)  # at the instruction, or behind it
    vcpu.run()
    assert vcpu.get_regs().rip == CODE + 4
    assert vcpu.last_regs.rip == CODE + 4


@pytest.mark.parametrize(("code", "size"), [("ec", 1), ("ed", 2), ("66ed", 4)])
def test_in_of_each_size_reads_what_the_data_area_holds(stack: ExitStack, code: str, size: int) -> None:
    guest = Guest(stack, f"bae4cc {code} f4")  # mov dx,0xcce4; in al/ax/eax,dx; hlt
    event = guest.next_exit()
    assert event == IoExit(False, size, 0xCCE4, 1, 0x1000)

    guest.vcpu.bytes[0x1000:0x1004] = b"\x78\x56\x34\x12"

    assert guest.vcpu.run() == 0
    mask = (1 << 8 * size) - 1
    assert guest.vcpu.get_regs().rax & mask == 0x12345678 & mask


def test_string_io_of_any_count_delivers_all_bytes_in_order(stack: ExitStack) -> None:
    # mov si,0x2000; mov cx,5; mov dx,0x3f8; cld; rep outsb; mov di,0x3000; mov cx,5; rep insb; hlt
    guest = Guest(stack, "be0020 b90500 baf803 fc f36e bf0030 b90500 f36c f4")
    guest.memory.write(0x2000, b"hello")
    sent, to_send, counts = b"", b"WORLD", []

    while isinstance(event := guest.next_exit(), IoExit):
        data = slice(event.data_offset, event.data_offset + event.size * event.count)
        counts.append(event.count)
        if event.is_write:
            sent += bytes(guest.vcpu.bytes[data])
        else:
            # KVM may ask for a batch; what the guest does not want of it is dropped.
            guest.vcpu.bytes[data], to_send = to_send[: event.count], to_send[event.count :]

    assert sent == b"hello"
    assert guest.memory.read(0x3000, 5) == b"WORLD"
    assert max(counts) > 1


def test_store_to_unmapped_address_gives_an_mmio_exit(stack: ExitStack) -> None:
    guest = Guest(
        stack, "66b878563412 66a30080 66a10080 f4"
    )  # mov eax,0x12345678; mov [0x8000],eax; and back
    guest.vm.set_user_memory_region(0, 0, 0, guest.memory.regions[0].host_address)
    guest.vm.set_user_memory_region(0, 0, 0x8000, guest.memory.regions[0].host_address)

    assert guest.next_exit() == MmioExit(0x8000, 4, True, b"\x78\x56\x34\x12")
    assert guest.next_exit() == MmioExit(0x8000, 4, False, b"")

    guest.vcpu.bytes[uapi.RUN_MMIO_DATA : uapi.RUN_MMIO_DATA + 4] = b"\xef\xbe\xad\xde"
    assert guest.vcpu.run() == 0
    assert guest.vcpu.get_regs().rax & 0xFFFFFFFF == 0xDEADBEEF


def test_store_to_read_only_slot_exits_and_load_does_not(stack: ExitStack) -> None:
    guest = Guest(stack, "a00080 a20180 f4")  # mov al,[0x8000]; mov [0x8001],al; hlt
    host = guest.memory.regions[0].host_address
    guest.memory.write(0x8000, b"R")
    guest.vm.set_user_memory_region(0, 0, 0, host)
    guest.vm.set_user_memory_region(0, 0, 0x8000, host)
    guest.vm.set_user_memory_region(1, 0x8000, 0x1000, host + 0x8000, read_only=True)

    assert guest.next_exit() == MmioExit(0x8001, 1, True, b"R")


def test_triple_fault_is_a_shutdown_exit(stack: ExitStack) -> None:
    # In protected mode with an empty IDT, any exception is a triple fault: lidt [0x2000]; mov cr0,eax; ud2
    guest = Guest(stack, "0f011e0020 0f20c0 0c01 0f22c0 0f0b")

    assert guest.next_exit() == ShutdownExit()
    sregs = guest.vcpu.get_sregs()
    assert isinstance(format_registers(guest.vcpu.get_regs(), sregs), str)


def test_fetch_from_nowhere_stops_with_an_exit_that_can_be_told(stack: ExitStack) -> None:
    guest = Guest(stack, "f4")
    sregs = guest.vcpu.get_sregs()
    sregs.cs.base, sregs.cs.selector = 0xD0000, 0xD000
    guest.vcpu.set_sregs(sregs)

    event = guest.next_exit()

    # KVM cannot fetch code from where there is no memory, and which way it says so depends on the host.
    assert isinstance(event, (InternalErrorExit, ShutdownExit, MmioExit))


def test_registers_set_are_the_registers_read(stack: ExitStack) -> None:
    vcpu = Guest(stack, "f4").vcpu
    names = [name for name, *_ in uapi.kvm_regs._fields_ if name not in ("rip", "rflags")]
    values = {name: 0x1111_0000_0000_0000 + number for number, name in enumerate(names)}

    vcpu.set_regs(uapi.kvm_regs(rip=0x1234, rflags=0x246, **values))

    regs = vcpu.get_regs()
    assert {name: getattr(regs, name) for name in names} == values
    assert (regs.rip, regs.rflags) == (0x1234, 0x246)
    assert cpu_mode(regs, vcpu.get_sregs()) == "real mode"


def test_state_that_was_read_can_be_written_back_unchanged(stack: ExitStack) -> None:
    guest = Guest(stack, "f4", irqchip=True)
    vcpu, vm = guest.vcpu, guest.vm
    for get, put in (
        (vcpu.get_sregs, vcpu.set_sregs),
        (vcpu.get_fpu, vcpu.set_fpu),
        (vcpu.get_debugregs, vcpu.set_debugregs),
        (vcpu.get_vcpu_events, vcpu.set_vcpu_events),
    ):
        before = get()
        put(before)  # type: ignore[arg-type]  # each pair fits, which mypy cannot see
        assert bytes(get()) == bytes(before)
    for chip in (uapi.KVM_IRQCHIP_PIC_MASTER, uapi.KVM_IRQCHIP_PIC_SLAVE, uapi.KVM_IRQCHIP_IOAPIC):
        state = vm.get_irqchip(chip)
        vm.set_irqchip(state)
        assert bytes(vm.get_irqchip(chip)) == bytes(state)
    vcpu.set_lapic(vcpu.get_lapic())
    vcpu.set_mp_state(uapi.KVM_MP_STATE_HALTED)
    assert vcpu.get_mp_state() == uapi.KVM_MP_STATE_HALTED
    vm.set_clock(5_000_000_000)
    assert vm.get_clock() >= 5_000_000_000


def test_msrs_set_are_read_and_a_refused_one_is_named(stack: ExitStack) -> None:
    vcpu = Guest(stack, "f4").vcpu
    sysenter_cs, efer = 0x174, 0xC0000080

    vcpu.set_msrs({sysenter_cs: 0x10})

    assert vcpu.get_msrs([sysenter_cs, efer]) == {sysenter_cs: 0x10, efer: 0}
    assert vcpu.get_msrs([sysenter_cs, 0x12345678, efer]) == {sysenter_cs: 0x10}
    with pytest.raises(KvmError, match="cannot set MSR 0x12345678 of vCPU 0"):
        vcpu.set_msrs({sysenter_cs: 0, 0x12345678: 1, efer: 0})


def test_cpuid_given_is_what_the_guest_reads(stack: ExitStack) -> None:
    guest = Guest(stack, "66 31c0 0fa2 f4")  # xor eax,eax; cpuid; hlt
    with Kvm.open() as kvm:
        leaves = kvm.supported_cpuid()
    assert any(leaf.function == 1 for leaf in leaves)
    vendor = next(leaf for leaf in leaves if leaf.function == 0)
    vendor.ebx, vendor.edx, vendor.ecx = (
        int.from_bytes(part, "little") for part in (b"kvmb", b"ox c", b"pu!!")
    )

    guest.vcpu.set_cpuid(leaves)

    assert guest.vcpu.run() == 0
    regs = guest.vcpu.get_regs()
    text = b"".join((r & 0xFFFFFFFF).to_bytes(4, "little") for r in (regs.rbx, regs.rdx, regs.rcx))
    assert text == b"kvmbox cpu!!"


def test_real_mode_translation_is_the_identity(stack: ExitStack) -> None:
    assert Guest(stack, "f4").vcpu.translate(0x1234) == 0x1234


def test_guest_reaches_memory_above_the_hole_and_the_hole_exits(stack: ExitStack) -> None:
    guest = Guest(stack, "", size=3 * layout.GIB + layout.MIB)
    # Long mode, so that addresses above 4 GiB can be written: one PML4, a PDPT whose entries share page
    # directories of 2 MiB pages at 0, 3 GiB (the hole) and 4 GiB.
    memory, vcpu = guest.memory, guest.vcpu
    present = 0x7
    memory.write(0x2000, (0x3000 | present).to_bytes(8, "little"))
    for gib, directory in ((0, 0x4000), (3, 0x5000), (4, 0x6000)):
        memory.write(0x3000 + 8 * gib, (directory | present).to_bytes(8, "little"))
        memory.write(directory, (gib << 30 | 0x80 | present).to_bytes(8, "little"))
    # movabs rbx,0x100000000; mov byte [rbx],0x5a; movabs rbx,0xc0000000; mov byte [rbx],0xa5; hlt
    # KVM refuses long mode where CPUID does not promise it; not all backends look.
    with Kvm.open() as kvm:
        vcpu.set_cpuid(kvm.supported_cpuid())
    memory.write(CODE, bytes.fromhex("48bb0000000001000000 c6035a 48bb000000c000000000 c603a5 f4"))
    sregs = vcpu.get_sregs()
    sregs.cr3, sregs.cr4, sregs.cr0, sregs.efer = 0x2000, 0x20, 0x80000011, 0x500
    for segment in (sregs.cs, sregs.ds, sregs.es, sregs.ss):
        segment.type, segment.present, segment.s, segment.g, segment.db, segment.l = 3, 1, 1, 1, 1, 0
        segment.limit, segment.base, segment.selector, segment.dpl = 0xFFFFFFFF, 0, 0x10, 0
    sregs.cs.type, sregs.cs.l, sregs.cs.db, sregs.cs.selector = 11, 1, 0, 8
    vcpu.set_sregs(sregs)

    event = guest.next_exit()

    assert event == MmioExit(3 * layout.GIB, 1, True, b"\xa5")
    assert memory.read(4 * layout.GIB, 1) == b"\x5a"
    assert vcpu.translate(4 * layout.GIB + 5) == 4 * layout.GIB + 5
    assert vcpu.translate(2 * layout.GIB) is None


def test_coalesced_port_writes_do_not_exit_and_lie_in_the_ring(stack: ExitStack) -> None:
    with Kvm.open() as kvm:
        if not kvm.check_extension(uapi.KVM_CAP_COALESCED_PIO):
            pytest.skip("no KVM_CAP_COALESCED_PIO")
    guest = Guest(stack, "b041 e6e9 b042 e6e9 f4")  # mov al,'A'; out 0xe9,al; mov al,'B'; out 0xe9,al; hlt
    guest.vm.register_coalesced(0xE9, 1, pio=True)

    assert guest.vcpu.run() == 0

    assert guest.vcpu.words32[2] == uapi.KVM_EXIT_HLT
    ring = uapi.KVM_COALESCED_MMIO_PAGE_OFFSET * layout.PAGE_SIZE
    assert struct.unpack_from("<II", guest.vcpu.bytes, ring) == (0, 2)  # first, last
    writes = [struct.unpack_from("<QIIB", guest.vcpu.bytes, ring + 8 + 24 * i) for i in (0, 1)]
    assert writes == [(0xE9, 1, 1, 0x41), (0xE9, 1, 1, 0x42)]  # address, length, pio, data


def test_unregistered_coalesced_zone_exits_again(stack: ExitStack) -> None:
    guest = Guest(stack, "e6e9 f4")
    guest.vm.register_coalesced(0xE9, 1, pio=True)
    guest.vm.unregister_coalesced(0xE9, 1, pio=True)

    assert guest.next_exit() == IoExit(True, 1, 0xE9, 1, 0x1000)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 0x123, 0x1000), "cannot set memory slot 0 (0x1000 bytes at guest address 0x123)"),
        ((1, 0x1000, 0x1000), "cannot set memory slot 1 (0x1000 bytes at guest address 0x1000)"),  # overlaps
    ],
)
def test_bad_memory_slot_is_refused_with_its_numbers(
    stack: ExitStack, arguments: tuple[int, int, int], message: str
) -> None:
    guest = Guest(stack, "f4")
    slot, address, size = arguments

    with pytest.raises(KvmError) as caught:
        guest.vm.set_user_memory_region(slot, address, size, guest.memory.regions[0].host_address)

    assert message in str(caught.value)
    assert "ioctl KVM_SET_USER_MEMORY_REGION" in str(caught.value)


def test_second_vcpu_of_the_same_number_is_refused_and_leaks_nothing(stack: ExitStack) -> None:
    guest = Guest(stack, "f4")
    before = set(os.listdir("/proc/self/fd"))

    with pytest.raises(KvmError, match="cannot create vCPU 0: ioctl KVM_CREATE_VCPU: File exists"):
        guest.vm.create_vcpu(0)

    assert set(os.listdir("/proc/self/fd")) == before


def test_closing_everything_leaves_no_descriptor_and_no_mapping() -> None:
    def kvm_mappings() -> int:
        with open("/proc/self/maps", encoding="ascii") as maps:
            return sum("kvm-vcpu" in line for line in maps)

    before = set(os.listdir("/proc/self/fd"))
    with ExitStack() as stack:
        guest = Guest(stack, "e680", irqchip=True)
        assert isinstance(guest.next_exit(), IoExit)
        assert kvm_mappings() == 1
        vm, vcpu = guest.vm, guest.vcpu

    assert set(os.listdir("/proc/self/fd")) == before
    assert kvm_mappings() == 0
    vm.close()
    vcpu.close()
    vcpu.kick()  # after close: nothing, rather than a signal to a stranger


def test_descriptors_are_not_inherited(stack: ExitStack) -> None:
    Guest(stack, "f4")

    links = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            links[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:  # the listing's own descriptor
            continue
    ours = {fd: link for fd, link in links.items() if "kvm" in link}

    assert set(ours.values()) == {"/dev/kvm", "anon_inode:kvm-vm", "anon_inode:kvm-vcpu:0"}
    assert not any(os.get_inheritable(fd) for fd in ours)


def test_close_with_a_slice_still_held_says_so_but_closes_the_descriptors(stack: ExitStack) -> None:
    guest = Guest(stack, "f4")
    held = guest.vcpu.bytes[:4]
    before = len(os.listdir("/proc/self/fd"))

    with pytest.raises(BufferError):
        guest.vm.close()

    assert len(os.listdir("/proc/self/fd")) == before - 2  # the VM's and the vCPU's; the mapping has one too
    held.release()


def test_backend_is_one_that_is_known() -> None:
    with Kvm.open() as kvm:
        assert kvm.backend() in ("vmx", "svm", "pvm")
        assert kvm.vcpu_mmap_size >= 3 * layout.PAGE_SIZE
        assert kvm.missing_capabilities() == []
