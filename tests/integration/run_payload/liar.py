"""Device processes that misbehave at the first write of the guest, or at HELLO, and are honest until then."""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from kvmbox.contract.model import HostOutput, InputRoom, IrqLine, Reset, Stop
from kvmbox.devices.qcow2 import model as qcow2
from kvmbox.devices.vga.model import VgaText
from kvmbox.jail import notify
from kvmbox.jail.device_process import main
from kvmbox.jail.server import DeviceServer
from kvmbox.wire import protocol, spawner_frames
from kvmbox.wire.effects import encode_reply
from kvmbox.wire.protocol import HEADER, NO_DEADLINE

WRITES = (protocol.WRITE, protocol.WRITE_RUN)
SECCOMP_IOCTL_NOTIF_ID_VALID = 0x4008_2102
TIRES_AFTER = 280  # requests
SEQUENCE, COUNT, DEADLINE, VALUE, ZERO, LENGTH = 4, 3, 5, 6, 7, 8  # places in the header


def _serve(channel: int, lie: Callable[[bytes, bytes], None]) -> int:
    """Serve until the first write, then call `lie` with the request and the honest reply."""
    server = DeviceServer()
    while frame := os.read(channel, protocol.MAX_FRAME):
        reply = server.handle(frame)
        if frame[0] in WRITES:
            lie(frame, reply)
        else:
            os.write(channel, reply)
    return 0


def _change(channel: int, place: int, value: int) -> int:
    """Answer with one field of the header changed."""

    def lie(_frame: bytes, reply: bytes) -> None:
        fields = list(HEADER.unpack_from(reply))
        fields[place] = value
        os.write(channel, HEADER.pack(*fields) + reply[HEADER.size :])

    return _serve(channel, lie)


def _effect(channel: int, device: int, effect: IrqLine | HostOutput | InputRoom | Reset | Stop) -> int:
    """Answer with an effect of the liar's choice."""

    def lie(frame: bytes, _reply: bytes) -> None:
        request = protocol.decode_request(frame)
        os.write(channel, encode_reply(request, None, 0, [(device, effect)]))

    return _serve(channel, lie)


def greets(channel: int) -> int:
    """Print before the guest runs: in the reply to the first request, HELLO."""
    server = DeviceServer()
    frame = os.read(channel, protocol.MAX_FRAME)
    server.handle(frame)
    request = protocol.decode_request(frame)
    forged = (0, HostOutput(b"forged"))
    os.write(channel, encode_reply(request, None, protocol.VERSION, [forged]))
    return _serve(channel, lambda _frame, reply: _write(channel, reply))


def mute(channel: int) -> int:
    """Do not answer HELLO, nor anything else."""
    while os.read(channel, protocol.MAX_FRAME):
        pass
    return 0


def faints(channel: int) -> int:
    """Leave when HELLO comes."""
    os.read(channel, protocol.MAX_FRAME)
    return 3


def tires(channel: int) -> int:
    """Be honest, and leave in the middle of the work."""
    server = DeviceServer()
    for _ in range(TIRES_AFTER):
        if not (frame := os.read(channel, protocol.MAX_FRAME)):
            return 0
        os.write(channel, server.handle(frame))
    os.read(channel, protocol.MAX_FRAME)
    return 9


def deaf(channel: int) -> int:
    """Leave when host input comes for the third time: in the middle of a question about the map of a disk."""
    server = DeviceServer()
    left = 3
    while frame := os.read(channel, protocol.MAX_FRAME):
        left -= frame[0] == protocol.RECEIVE
        if not left:
            return 9
        os.write(channel, server.handle(frame))
    return 0


def stuck(channel: int) -> int:
    """Answer nothing any more when the place of other clusters than the first ones is asked for."""
    server = DeviceServer()
    while frame := os.read(channel, protocol.MAX_FRAME):
        request = protocol.decode_request(frame)
        if (
            request.kind == protocol.RECEIVE
            and request.payload[0] == qcow2.MAP
            and request.payload[1:9].strip(b"\0")
        ):
            return mute(channel)
        os.write(channel, server.handle(frame))
    return 0


def unborn(channel: int) -> int:
    """Be killed from outside before anything else."""
    return mute(channel)


def stillborn(*_: object) -> int:
    """Leave at once, over any ipc."""
    return 3


def sequence(channel: int) -> int:
    """Answer another request than the one asked."""
    return _change(channel, SEQUENCE, 0xABCD)


def kind(channel: int) -> int:
    """Answer a write as if it were a read."""
    return _change(channel, 0, protocol.READ | protocol.REPLY)


def count(channel: int) -> int:
    """Announce effects that are not there."""
    return _change(channel, COUNT, 200)


def deadline(channel: int) -> int:
    """Want to be told a time that is over."""
    return _change(channel, DEADLINE, 0)


def value(channel: int) -> int:
    """Answer a write with a value."""
    return _change(channel, VALUE, 1)


def zero(channel: int) -> int:
    """Put something where nothing may be."""
    return _change(channel, ZERO, 1)


def length(channel: int) -> int:
    """Announce a payload that is not there."""
    return _change(channel, LENGTH, 1 << 31)


def short(channel: int) -> int:
    """Answer with less than a header."""
    return _serve(channel, lambda _frame, reply: _write(channel, reply[: HEADER.size - 1]))


def empty(channel: int) -> int:
    """Answer with the bytes that mean nothing."""
    return _serve(channel, lambda _frame, _reply: _write(channel, bytes(HEADER.size)))


def long(channel: int) -> int:
    """Answer with more than a frame may hold."""
    return _serve(channel, lambda _frame, reply: _write(channel, reply + bytes(protocol.MAX_FRAME)))


def stray(channel: int) -> int:
    """Answer with bytes behind the effects."""

    def lie(frame: bytes, _reply: bytes) -> None:
        os.write(channel, encode_reply(protocol.decode_request(frame), None, 0, [], b"stray"))

    return _serve(channel, lie)


def twice(channel: int) -> int:
    """Answer, and answer again unasked."""

    def lie(_frame: bytes, reply: bytes) -> None:
        os.write(channel, reply)
        os.write(channel, reply)

    return _serve(channel, lie)


def never(channel: int) -> int:
    """Do not answer, but wait for more."""
    return _serve(channel, lambda _frame, _reply: None)


def spin(channel: int) -> int:
    """Do not answer, and keep the processor busy."""

    def lie(_frame: bytes, _reply: bytes) -> None:
        while True:
            pass

    return _serve(channel, lie)


def stop(channel: int) -> int:
    """Claim that the guest has ended."""
    return _effect(channel, 0, Stop())


def stop_of_another(channel: int) -> int:
    """Claim that the guest wrote to the debug-exit port, when it wrote to another device of the process."""
    return _effect(channel, 2, Stop())


def reset(channel: int) -> int:
    """Claim that the guest wants a reset."""
    return _effect(channel, 0, Reset())


def pin(channel: int) -> int:
    """Drive an interrupt pin that the device does not have."""
    return _effect(channel, 0, IrqLine(9, 1))


def output(channel: int) -> int:
    """Print on behalf of a device that has no output."""
    return _effect(channel, 0, HostOutput(b"forged"))


def stranger(channel: int) -> int:
    """Speak for a device that is not in this process."""
    return _effect(channel, 77, InputRoom(1))


def error(channel: int) -> int:
    """Report an error whose text would drive a terminal."""

    def lie(_frame: bytes, _reply: bytes) -> None:
        text = b"\x1b]0;owned\x07\r\nkvmbox: all is well" + b"\xff" * 500
        os.write(channel, HEADER.pack(protocol.ERROR, 0, 0, 0, 0, NO_DEADLINE, 0, 0, len(text)) + text)

    return _serve(channel, lie)


def raises(channel: int) -> int:
    """A model's bug, at its second write: the real server's way of telling it."""
    from kvmbox.jail.serving_loop import serve
    from kvmbox.jail.stream_port import StreamPort

    server = DeviceServer()

    def broken(*_: int) -> int:
        raise IndexError("register")

    def read(descriptor: int, size: int) -> bytes:
        frame = os.read(descriptor, size)
        if frame and frame[0] in WRITES:
            for word, (kind, _, *rest) in server.routes.items():
                server.routes[word] = (kind, broken, *rest)
        return frame

    return serve(StreamPort(channel, channel, read=read), server)


def _shows(channel: int, state: bytes) -> int:
    """Be honest until somebody asks for the state of the model: say that it is `state`."""
    server = DeviceServer()
    while frame := os.read(channel, protocol.MAX_FRAME):
        reply = server.handle(frame)
        if frame[0] == protocol.SNAPSHOT:
            request = protocol.decode_request(frame)
            reply = encode_reply(request, None, len(state), [], state)
        os.write(channel, reply)
    return 0


def shows_garbage(channel: int) -> int:
    """Say that the model is in a state in which no model can be."""
    return _shows(channel, b"\x1b]0;owned\x07" * 70)


def shows_all_ones(channel: int) -> int:
    """Say that each register of a VGA that takes all values is all ones."""
    vga = VgaText()
    for offset, count in ((0x1E, 9), (0x14, 5), (0x24, 25)):
        for index in (0x11, *range(count)):  # without protection first
            ones = 0x7F if offset == 0x24 and index == 0x11 else 0xFF
            vga.write(0, offset, 2, index | ones << 8)
    return _shows(channel, vga.snapshot())


def mute_about_state(channel: int) -> int:
    """Be honest until somebody asks for the state of the model, and say nothing more."""
    server = DeviceServer()
    while frame := os.read(channel, protocol.MAX_FRAME):
        reply = server.handle(frame)
        if frame[0] != protocol.SNAPSHOT:
            os.write(channel, reply)
    return 0


def leave(channel: int) -> int:
    """Return an exit status in the middle of a request."""
    server = DeviceServer()
    while frame := os.read(channel, protocol.MAX_FRAME):
        reply = server.handle(frame)
        if frame[0] in WRITES:
            return 7
        os.write(channel, reply)
    return 0


def struck(channel: int) -> int:
    """Die in the middle of a request as if somebody had killed the process. Needs --seccomp off."""
    return _serve(channel, lambda _frame, _reply: os.kill(os.getpid(), signal.SIGKILL))


def opens(channel: int) -> int:
    """Try to read a file of the host."""
    return _serve(channel, lambda _frame, _reply: os.close(os.open("/etc/passwd", os.O_RDONLY)))


def kills(channel: int) -> int:
    """Try to end the first process."""
    return _serve(channel, lambda _frame, _reply: os.kill(1, signal.SIGKILL))


def writes(channel: int) -> int:
    """Try to write to another descriptor."""
    return _serve(channel, lambda _frame, _reply: _write(2, b"forged"))


def _write(descriptor: int, data: bytes) -> None:
    os.write(descriptor, data)


def __getattr__(name: str) -> Callable[[int], int]:
    """What the spawner does to one process in place of the answer to the call that proves its filter: it
    kills it ("unheard_uart"), or stops it ("still_heard_uart"). "again_heard_uart" stops that process for a
    while, as a container that is frozen does, so that it has to be heard twice.
    """
    how, _, victim = name.partition("heard_")
    if not victim:
        raise AttributeError(name)
    ordered = [""]
    names: dict[int, str] = {}
    held = [0]
    unpack, pack = spawner_frames.unpack_spawn, spawner_frames.pack
    receive, respond = notify.receive, notify.respond

    def note_order(payload: bytes) -> tuple[int, str, bytes]:
        order = unpack(payload)
        ordered.append(order[1])
        return order

    def note_process(kind: int, *fields: Any, **more: Any) -> bytes:
        if kind == spawner_frames.PROCESS:
            names[fields[1]] = ordered[-1]
        return pack(kind, *fields, **more)

    def hear(listener: int) -> tuple[int, ...] | None:
        call = receive(listener)
        held.append(0 if call is None else call[1])
        return call

    def answer(listener: int, identifier: int, value: int) -> bool:
        if names.get(held[-1]) != victim:
            return respond(listener, identifier, value)
        os.kill(held[-1], signal.SIGKILL if how == "un" else signal.SIGSTOP)
        if how == "again_":
            del names[held[-1]]
            with suppress(FileNotFoundError):
                while True:  # until the call is held no more
                    fcntl.ioctl(listener, SECCOMP_IOCTL_NOTIF_ID_VALID, identifier.to_bytes(8, "little"))
            os.kill(held[-1], signal.SIGCONT)
            return respond(listener, identifier, value)
        return False

    spawner_frames.unpack_spawn, spawner_frames.pack = note_order, note_process
    notify.receive, notify.respond = hear, answer
    return main
