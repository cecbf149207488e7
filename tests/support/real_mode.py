"""Guests as bytes: flat real-mode images (`--boot real`), put together from these fragments."""

from __future__ import annotations

from kvmbox.base import layout

COM1 = layout.COM_PORTS["COM1"]
COM2 = layout.COM_PORTS["COM2"]
DEBUGCON = layout.DEBUGCON_PORTS[0]


def out(port: int, value: int, size: int = 1) -> bytes:
    """mov dx,port; mov al/ax/eax,value; out dx,al/ax/eax."""
    load, write = {1: (b"\xb0", b"\xee"), 2: (b"\xb8", b"\xef"), 4: (b"\x66\xb8", b"\x66\xef")}[size]
    return b"\xba" + port.to_bytes(2, "little") + load + value.to_bytes(size, "little") + write


def say(text: bytes, port: int = COM1) -> bytes:
    """Write `text` to `port`, byte by byte: mov dx,port; then mov al,byte; out dx,al for each."""
    return b"\xba" + port.to_bytes(2, "little") + b"".join(b"\xb0%c\xee" % byte for byte in text)


def say_much(text: bytes, port: int = COM1) -> bytes:
    """Write up to some 32,000 bytes: call over the text; pop si; mov cx,size; mov dx,port; cld; rep outsb."""
    size = len(text).to_bytes(2, "little")
    send = b"\x5e\xb9" + size + b"\xba" + port.to_bytes(2, "little") + b"\xfc\xf3\x6e"
    return b"\xe8" + size + text + send


SCREEN_SEGMENT = bytes.fromhex("b800b8 8ec0")  # mov ax,0xb800; mov es,ax


def show(text: bytes, row: int = 0, column: int = 0) -> bytes:
    """Put `text` on the screen: mov di,place; then mov word es:[di],character; add di,2 for each."""
    place = 2 * (80 * row + column)
    return (
        SCREEN_SEGMENT
        + b"\xbf"
        + place.to_bytes(2, "little")
        + b"".join(bytes((0x26, 0xC7, 0x05, code, 0x07, 0x83, 0xC7, 0x02)) for code in text)
    )


def wait_input(port: int = COM1) -> bytes:
    """mov dx,LSR; poll: in al,dx; test al,1; jz poll; mov dx,RBR; in al,dx. The byte is in AL."""
    poll = b"\xba" + (port + 5).to_bytes(2, "little") + bytes.fromhex("ec a801 74fb")
    return poll + b"\xba" + port.to_bytes(2, "little") + b"\xec"


def echo(port: int = COM1) -> bytes:
    """Send everything back, for ever."""
    body = wait_input(port) + b"\xee"  # DX still names the data port: out dx,al
    return body + b"\xeb%c" % (256 - len(body) - 2)


def debug_exit(value: int, size: int = 1) -> bytes:
    """The guest's verdict."""
    return out(layout.DEBUG_EXIT_PORT, value, size)


SHUTDOWN = say(b"Shutdown", layout.SHUTDOWN_PORT)
MASK_IRQS = bytes.fromhex("b0ff e621 e6a1")  # mov al,0xff; out 0x21,al; out 0xa1,al
IDLE = MASK_IRQS + bytes.fromhex("fb f4 ebfc")  # sti; hlt; and again: no exit, and no CPU time either
SPIN = b"\xeb\xfe"  # jmp to itself
FLOOD = b"\xba" + COM1.to_bytes(2, "little") + bytes.fromhex("b041 ee ebfd")  # 'A' for ever
HALT_FOR_EVER = b"\xfa\xf4"  # cli; hlt
# call next; next: pop bx; lidt cs:[bx+18]; CR0.PE = 1 (in real mode KVM's emulator minds no IDT limit); ud2;
# jmp to itself; and the six bytes of an IDT without entries.
TRIPLE_FAULT = bytes.fromhex("e80000 5b 2e0f015f12 0f20c0 0c01 0f22c0 0f0b ebfe") + bytes(6)
RESET_8042 = out(layout.I8042_COMMAND_PORT, 0xFE) + IDLE
RESET_92 = out(layout.SYSTEM_CONTROL_A_PORT, 0x01) + IDLE
JUMP_TO_RESET = bytes.fromhex("ea0000ffff")  # ljmp 0xffff:0
POPCNT = bytes.fromhex("f30fb8c0")  # popcnt ax,ax: KVM's emulator does not know it, processors do
