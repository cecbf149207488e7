"""The PC16550D UART (16550A): the serial ports of a PC."""
