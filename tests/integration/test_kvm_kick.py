"""Kicks and interrupts across threads, on the real /dev/kvm.

No test sleeps: each waits for what must happen, with a time-out that only a bug can reach.
"""

from __future__ import annotations

import errno
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from kvmbox.base.errors import KvmError
from kvmbox.base.memory import GuestMemory
from kvmbox.kvm import KICK_SIGNAL, Kvm, Vcpu, Vm, install_kick_signal, uapi
from tests.support.patience import patience

pytestmark = pytest.mark.kvm

CODE = 0x1000
STUCK = patience(30.0)  # seconds: no test takes so long unless a kick was lost

# Real-mode programs at 0000:1000.
SPIN = "ebfe"  # jmp $
HALT = "fa f4 ebfc"  # cli; hlt; jmp to the hlt
# Program the 8259s (vectors from 0x08 and 0x70), unmask IRQ 4, say so on port 0x81 (the first command word
# forgets edges that came before it), then sti; hlt for ever. The handler writes to port 0x80 and sends EOI.
PIC = (
    "b011 e620 e6a0 b008 e621 b070 e6a1 b004 e621 b002 e6a1 b001 e621 e6a1"
    " b0ef e621 b0ff e6a1 e681 fb f4 ebfc"
)
HANDLER = "50 b020 e680 e620 58 cf"  # push ax; mov al,0x20; out 0x80,al; out 0x20,al; pop ax; iret
PORT_80_WRITE = 1 << 32 | 0x80 << 16 | 1 << 8 | uapi.KVM_EXIT_IO_OUT
PORT_81_WRITE = 1 << 32 | 0x81 << 16 | 1 << 8 | uapi.KVM_EXIT_IO_OUT


@pytest.fixture(params=["mask", "handler"])
def stack(request: pytest.FixtureRequest) -> Iterator[ExitStack]:
    # With "mask" the signal has its default action: a kick that comes through would end this process.
    if request.param == "handler":
        install_kick_signal()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with ExitStack() as exit_stack:
        yield exit_stack
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    signal.signal(KICK_SIGNAL, signal.SIG_DFL)


@pytest.fixture
def masks(request: pytest.FixtureRequest) -> bool:
    """Whether kicks end KVM_RUN by its signal mask."""
    return bool(request.node.callspec.params["stack"] == "mask")


def make_guest(stack: ExitStack, code: str, *, irqchip: bool) -> tuple[Vm, Vcpu, GuestMemory]:
    memory = GuestMemory(0x10000)
    stack.callback(memory.close)
    kvm = stack.enter_context(Kvm.open())
    vm = stack.enter_context(kvm.create_vm())
    vm.map_memory(memory.regions)
    if irqchip:
        vm.create_irqchip()
    vcpu = vm.create_vcpu(0)
    memory.write(CODE, bytes.fromhex(code))
    sregs = vcpu.get_sregs()
    for segment in (sregs.cs, sregs.ds, sregs.es, sregs.ss):
        segment.base = segment.selector = 0
    vcpu.set_sregs(sregs)
    vcpu.set_regs(uapi.kvm_regs(rip=CODE, rsp=0x8000, rflags=2))
    return vm, vcpu, memory


class VcpuThread:
    """Runs a vCPU until told to stop; calls `on_return(result)` after each return of KVM_RUN."""

    def __init__(self, vcpu: Vcpu, on_return: Callable[[int], bool]) -> None:
        self._vcpu = vcpu
        self._on_return = on_return
        self.bound = threading.Event()
        self.thread = threading.Thread(target=self._loop, daemon=True)
        self.thread.start()
        assert self.bound.wait(STUCK)

    def _loop(self) -> None:
        self._vcpu.bind_thread()
        self.bound.set()
        while self._on_return(self._vcpu.run()):
            pass
        self._vcpu.unbind_thread()

    def join(self) -> None:
        self.thread.join(STUCK)
        assert not self.thread.is_alive(), "a kick was lost"


@pytest.mark.parametrize(("code", "irqchip"), [(SPIN, False), (SPIN, True), (HALT, True)])
def test_kick_out_of_a_guest_without_exits_is_never_lost(stack: ExitStack, code: str, irqchip: bool) -> None:
    _, vcpu, _ = make_guest(stack, code, irqchip=irqchip)
    rounds = 300
    requests = 0
    seen: list[tuple[int, int]] = []
    answered = threading.Semaphore(0)

    def on_return(result: int) -> bool:
        # Clear first, look second: the other order loses a request that comes in between.
        vcpu.clear_kick()
        known = seen[-1][1] if seen else 0
        if requests > known:
            seen.append((result, requests))
            answered.release()
        return requests < rounds

    thread = VcpuThread(vcpu, on_return)
    for _ in range(rounds):
        requests += 1
        vcpu.kick()  # at any moment: before, within and after KVM_RUN
        assert answered.acquire(timeout=STUCK), "a kick was lost"
    thread.join()

    assert seen == [(-errno.EINTR, number) for number in range(1, rounds + 1)]


def test_kick_before_run_makes_the_first_run_return_at_once(stack: ExitStack) -> None:
    _, vcpu, _ = make_guest(stack, SPIN, irqchip=False)
    vcpu.bind_thread()

    vcpu.kick()

    assert vcpu.immediate_exit
    assert vcpu.run() == -errno.EINTR
    assert vcpu.run() == -errno.EINTR  # until it is taken back
    vcpu.clear_kick()
    assert not vcpu.immediate_exit


def test_kick_of_an_unbound_vcpu_sends_no_signal(stack: ExitStack) -> None:
    _, vcpu, _ = make_guest(stack, SPIN, irqchip=False)

    vcpu.kick()
    vcpu.bind_thread()
    vcpu.unbind_thread()
    vcpu.kick()

    assert KICK_SIGNAL not in signal.sigpending()
    assert vcpu.run() == -errno.EINTR


def test_clear_kick_takes_every_signal_that_is_queued(stack: ExitStack, masks: bool) -> None:
    _, vcpu, _ = make_guest(stack, SPIN, irqchip=False)
    vcpu.bind_thread()
    for _ in range(3):
        vcpu.kick()
    assert (KICK_SIGNAL in signal.sigpending()) is masks

    vcpu.clear_kick()

    assert KICK_SIGNAL not in signal.sigpending()


def test_kick_of_a_thread_that_has_ended_is_harmless(stack: ExitStack) -> None:
    _, vcpu, _ = make_guest(stack, SPIN, irqchip=False)
    thread = threading.Thread(target=vcpu.bind_thread)
    thread.start()
    thread.join()

    vcpu.kick()

    assert vcpu.immediate_exit


def test_kick_completes_a_pending_port_read_first(stack: ExitStack) -> None:
    _, vcpu, _ = make_guest(stack, "e460 ebfe", irqchip=False)  # in al,0x60; jmp $
    assert vcpu.run() == 0
    vcpu.bytes[0x1000] = 0x5A
    vcpu.immediate_exit = True

    assert vcpu.run() == -errno.EINTR

    regs = vcpu.get_regs()
    assert (regs.rax & 0xFF, regs.rip) == (0x5A, CODE + 2)


def test_bind_thread_blocks_the_signal_in_its_thread_alone(stack: ExitStack, masks: bool) -> None:
    _, vcpu, _ = make_guest(stack, SPIN, irqchip=False)
    found: list[set[int]] = []

    def thread_body() -> None:
        vcpu.bind_thread()
        found.append(set(signal.pthread_sigmask(signal.SIG_BLOCK, ())))

    before = signal.pthread_sigmask(signal.SIG_UNBLOCK, {KICK_SIGNAL})
    try:
        thread = threading.Thread(target=thread_body)
        thread.start()
        thread.join(STUCK)
        found.append(set(signal.pthread_sigmask(signal.SIG_BLOCK, ())))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    assert [KICK_SIGNAL in mask for mask in found] == [masks, False]


class InterruptedGuest:
    """A guest in `sti; hlt` whose IRQ 4 handler writes to port 0x80; counts the handler's runs."""

    def __init__(self, stack: ExitStack) -> None:
        self.vm, self.vcpu, memory = make_guest(stack, PIC, irqchip=True)
        memory.write(0x1100, bytes.fromhex(HANDLER))
        memory.write(4 * 0x0C, (0x1100).to_bytes(2, "little"))  # vector 8 + 4, segment 0
        self.ready = threading.Event()
        self.handled = threading.Semaphore(0)
        self.stop = False
        self.thread = VcpuThread(self.vcpu, self._on_return)
        stack.callback(self.end)  # also when an assertion failed: the VM is closed next
        assert self.ready.wait(STUCK)

    def _on_return(self, result: int) -> bool:
        access = self.vcpu.words64[4] if result == 0 else 0
        if access == PORT_81_WRITE:
            self.ready.set()
        if access == PORT_80_WRITE:
            self.handled.release()
        return not self.stop

    def end(self) -> None:
        self.stop = True
        self.vcpu.kick()
        self.thread.join()


def test_irq_line_each_rising_edge_runs_the_handler_once(stack: ExitStack) -> None:
    guest = InterruptedGuest(stack)
    for _ in range(50):
        guest.vm.irq_line(4, 1)
        assert guest.handled.acquire(timeout=STUCK)
        guest.vm.irq_line(4, 1)  # no edge
        guest.vm.irq_line(4, 0)
    guest.end()

    assert not guest.handled.acquire(blocking=False)


def test_irq_line_out_of_range_is_a_value_error(stack: ExitStack) -> None:
    vm, _, _ = make_guest(stack, HALT, irqchip=True)

    for gsi in (-1, 24):
        with pytest.raises(ValueError, match=f"interrupt line {gsi} is not in 0..23"):
            vm.irq_line(gsi, 1)


def test_irq_line_without_irqchip_is_a_kvm_error(stack: ExitStack) -> None:
    vm, _, _ = make_guest(stack, HALT, irqchip=False)

    with pytest.raises(KvmError, match="cannot set interrupt line 4: ioctl KVM_IRQ_LINE: "):
        vm.irq_line(4, 1)


def test_halted_guest_is_told_by_mp_state_flags_and_pending_events(stack: ExitStack) -> None:
    """What "halted for ever" is made of: kicked out of HLT, with IF clear and nothing pending."""
    _, vcpu, _ = make_guest(stack, HALT, irqchip=True)
    states: list[tuple[int, int, int]] = []

    def on_return(_result: int) -> bool:
        vcpu.clear_kick()
        events = vcpu.get_vcpu_events()
        states.append((vcpu.get_mp_state(), vcpu.get_regs().rflags & 0x200, events.nmi.pending))
        looked.release()
        return states[-1][0] != uapi.KVM_MP_STATE_HALTED

    looked = threading.Semaphore(0)
    thread = VcpuThread(vcpu, on_return)
    while thread.thread.is_alive():  # a kick may come before the guest's first instruction
        vcpu.kick()
        assert looked.acquire(timeout=STUCK)
        if states[-1][0] == uapi.KVM_MP_STATE_HALTED:
            break
    thread.join()

    assert states[-1] == (uapi.KVM_MP_STATE_HALTED, 0, 0)
