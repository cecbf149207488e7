"""Snapshots of the 16550A UART: round trips, and everything that `restore` must reject."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from kvmbox.contract.model import HostOutput, IrqLine, SnapshotError
from kvmbox.devices.uart import snapshot
from kvmbox.devices.uart.model import Uart16550A
from kvmbox.devices.uart.registers import LONGEST_CHARACTER, NEVER
from kvmbox.devices.uart.snapshot import UartState

THR, IER, FCR, LCR, MCR = 0, 1, 2, 3, 4


def state_of(uart: Uart16550A) -> UartState:
    return snapshot.unpack(
        uart.snapshot(), paced=bool(struct.unpack_from("<H", uart.snapshot(), 2)[0] & 1), modem_inputs=0xB0
    )


def paced_uart() -> Uart16550A:
    """Fifos on, three characters in the receiver (one with an error), one going out and two queued."""
    uart = Uart16550A(pace_transmit=True)
    for offset, value in ((LCR, 0x03), (FCR, 0x81), (IER, 0x03), (MCR, 0x08)):
        uart.write(5, offset, 1, value)
    uart.receive(5, b"ab")
    uart.receive_damaged(5, 0x63, 0x04)
    for character in b"xyz":
        uart.write(6, THR, 1, character)
    uart.take_effects()
    return uart


def test_snapshot_restored_gives_the_same_snapshot() -> None:
    uart, other = paced_uart(), Uart16550A(pace_transmit=True)

    other.restore(uart.snapshot())

    assert other.snapshot() == uart.snapshot()
    assert other.take_effects() == []
    assert other.next_deadline() == uart.next_deadline()


def test_snapshot_restored_continues_with_the_level_of_the_line() -> None:
    uart, other = Uart16550A(), Uart16550A()
    uart.write(0, MCR, 1, 0x08)
    uart.write(0, IER, 1, 0x02)
    uart.take_effects()

    other.restore(uart.snapshot())
    other.write(0, THR, 1, 0x41)

    assert other.take_effects() == [IrqLine(0, 0), HostOutput(b"A"), IrqLine(0, 1)]


def test_snapshot_restored_replaces_what_was_pending() -> None:
    uart = Uart16550A()
    blank = uart.snapshot()
    uart.write(0, THR, 1, 0x41)

    uart.restore(blank)

    assert uart.take_effects() == []


@pytest.mark.parametrize("cut", [0, 1, 10, -1])
def test_restore_of_a_truncated_snapshot_is_rejected(cut: int) -> None:
    uart = Uart16550A()

    with pytest.raises(SnapshotError, match="bytes, expected"):
        uart.restore(uart.snapshot()[:cut])


def test_restore_of_a_snapshot_with_a_tail_is_rejected() -> None:
    uart = Uart16550A()

    with pytest.raises(SnapshotError, match="bytes, expected"):
        uart.restore(uart.snapshot() + b"\0")


def test_restore_of_another_version_is_rejected() -> None:
    uart = Uart16550A()

    with pytest.raises(SnapshotError, match="version 2, expected 1"):
        uart.restore(b"\2" + uart.snapshot()[1:])


@pytest.mark.parametrize("other", [Uart16550A(pace_transmit=True), Uart16550A(modem_inputs=0)])
def test_restore_of_another_configuration_is_rejected(other: Uart16550A) -> None:
    with pytest.raises(SnapshotError, match="another configuration"):
        Uart16550A().restore(other.snapshot())


PACED = snapshot.PACED

# What is changed in the state of paced_uart(), and what the message must name.
MALFORMED: dict[str, tuple[Callable[[UartState], UartState], str]] = {
    "unknown flag": (lambda s: s._replace(flags=s.flags | 0x8000), "unknown flags"),
    "ier": (lambda s: s._replace(ier=0x10), "IER"),
    "fcr without enable": (lambda s: s._replace(fcr=0x80), "FCR"),
    "fcr not sticky": (lambda s: s._replace(fcr=0x83), "FCR"),
    "lcr unwritten": (lambda s: s._replace(flags=s.flags & ~snapshot.LCR_WRITTEN), "LCR"),
    "mcr": (lambda s: s._replace(mcr=0x28), "MCR"),
    "modem lines": (lambda s: s._replace(msr=0x70), "modem lines"),
    "loop lines": (lambda s: s._replace(mcr=0x18), "modem lines"),
    "time": (lambda s: s._replace(now=1 << 63), "guest time"),
    "rx count": (lambda s: s._replace(rx_count=17), "RCVR FIFO"),
    "rx padding": (lambda s: s._replace(rx=bytes(15) + b"\1"), "RCVR FIFO"),
    "rx without fifo": (lambda s: s._replace(fcr=0), "RBR|RCVR FIFO"),
    "errors of none": (lambda s: s._replace(rx_errors=bytes(3) + b"\4"), "RCVR FIFO errors"),
    "errors at the top": (lambda s: s._replace(rx_errors=b"\4\0\4"), "RCVR FIFO errors"),
    "errors of lsr": (lambda s: s._replace(rx_errors=b"\0\0\2"), "RCVR FIFO errors"),
    "dr": (lambda s: s._replace(lsr=s.lsr & ~0x01), "LSR DR"),
    "fifo error": (lambda s: s._replace(lsr=s.lsr & ~0x80), "LSR FIFO error"),
    "no time-out": (lambda s: s._replace(timeout_at=NEVER), "character time-out"),
    "both time-outs": (lambda s: s._replace(flags=s.flags | snapshot.TIMEOUT_PENDING), "character time"),
    "past time-out": (lambda s: s._replace(timeout_at=s.now), "character time-out"),
    "far time-out": (lambda s: s._replace(timeout_at=s.now + 4 * LONGEST_CHARACTER + 1), "character time"),
    "tx count": (lambda s: s._replace(tx_count=17), "XMIT FIFO"),
    "tx padding": (lambda s: s._replace(tx=s.tx[:-1] + b"\1"), "XMIT FIFO"),
    "tx idle": (lambda s: s._replace(shift_done_at=NEVER), "XMIT FIFO"),
    "past shift": (lambda s: s._replace(shift_done_at=s.now), "shift register"),
    "far shift": (lambda s: s._replace(shift_done_at=s.now + LONGEST_CHARACTER + 1), "shift register"),
    "temt": (lambda s: s._replace(lsr=s.lsr | 0x40), "LSR TEMT"),
    "thre": (lambda s: s._replace(lsr=s.lsr | 0x20), "LSR THRE"),
    "thre delay": (lambda s: s._replace(thre_at=s.now + 1), "THRE delay"),
    "thre pending": (lambda s: s._replace(flags=s.flags | snapshot.THRE_PENDING), "THRE interrupt"),
    "break": (lambda s: s._replace(break_at=s.now + 1), "break"),
    "polls": (lambda s: s._replace(flags=s.flags | snapshot.POLLED_LSR), "polls"),
    "not listening": (lambda s: s._replace(flags=s.flags & ~snapshot.LISTENING), "listening"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_restore_of_a_malformed_snapshot_is_rejected_without_effect(name: str) -> None:
    change, message = MALFORMED[name]
    malformed = snapshot.pack(change(state_of(paced_uart())))
    uart = paced_uart()
    before = uart.snapshot()

    with pytest.raises(SnapshotError, match=message):
        uart.restore(malformed)

    assert uart.snapshot() == before


UNPACED_MALFORMED: dict[str, tuple[Callable[[UartState], UartState], str]] = {
    "queue": (lambda s: s._replace(tx_count=1, lsr=0x00, shift_done_at=9), "XMIT FIFO"),
    "shift register": (lambda s: s._replace(shift=1), "shift register"),
    "burst": (lambda s: s._replace(flags=s.flags | snapshot.TX_BURST), "XMIT burst"),
    "fifo error without fifo": (lambda s: s._replace(lsr=0xE0), "LSR FIFO error"),
    "character without rbr": (lambda s: s._replace(rx_count=1, rx=b"a", lsr=0x61), "RBR"),
    "refused": (
        lambda s: s._replace(flags=s.flags | snapshot.INPUT_REFUSED | snapshot.LISTENING),
        "input refused",
    ),
}


@pytest.mark.parametrize("name", UNPACED_MALFORMED)
def test_restore_of_a_malformed_unpaced_snapshot_is_rejected(name: str) -> None:
    change, message = UNPACED_MALFORMED[name]
    malformed = snapshot.pack(change(state_of(Uart16550A())))

    with pytest.raises(SnapshotError, match=message):
        Uart16550A().restore(malformed)
