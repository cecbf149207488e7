"""Serial ports on the board."""

from __future__ import annotations

from kvmbox.base import layout
from kvmbox.contract.device_spec import AddressRange, DeviceSpec, Input, Irq, LateWrites, Output
from kvmbox.contract.names import MMIO_UART


def serial_port(name: str, *, pace: bool) -> DeviceSpec:
    """Serial port `name`; `pace` as in `BoardOptions.uart_pace`."""
    ports: tuple[AddressRange, ...] = ()
    mmio: tuple[AddressRange, ...] = ()
    if name == MMIO_UART:
        mmio = (AddressRange(layout.MMIO_UART_BASE, layout.UART_PORT_COUNT),)
        irq = layout.MMIO_UART_IRQ
    else:
        ports = (AddressRange(layout.COM_PORTS[name], layout.UART_PORT_COUNT),)
        irq = layout.COM_IRQS[name]
    return DeviceSpec(
        name,
        "uart",
        "uart_16550a",
        ports=ports,
        mmio=mmio,
        parameters={"pace_transmit": int(pace)},
        grants=(Irq(irq), Output(name), Input(name), *(() if pace else (LateWrites(0),))),
    )
