"""The PC16550D UART (16550A): the serial ports of a PC.

`model` has the registers, between a receiver and a transmitter. Whatever is on the other end of the line is
`host.console`.
"""
