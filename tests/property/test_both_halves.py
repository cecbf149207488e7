"""The hot path in pure Python and the compiled one against each other: the same requests, exits and lies, and
what comes of them must be the same, down to the bytes and the words of errors.

Integers of C overflow where those of Python do not, so the numbers here are at the ends of their ranges.
"""

from __future__ import annotations

import mmap
import os
import socket
import struct
import threading
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvmbox.base.compiled import why_not_built
from kvmbox.base.errors import KvmboxError
from kvmbox.jail.server import DeviceServer
from kvmbox.kvm import uapi
from kvmbox.remote.bus.routing import Mapping
from kvmbox.remote.channel.journal import Journal
from kvmbox.remote.process.crash_policy import Survival
from kvmbox.remote.transport.interface import EndedError, Link
from kvmbox.remote.transport.shared_page import PageTransport
from kvmbox.wire import page_layout, protocol
from kvmbox.wire.access_blocks import BLOCKS
from kvmbox.wire.effect_kinds import EFFECT
from kvmbox.wire.effects import HOST_OUTPUT
from kvmbox.wire.protocol import HEADER, Request, hello_requests
from tests.support.halves import Half, built_halves
from tests.support.judge import ACCESSES, ASKS, NOW, Ask, grants, send
from tests.support.log import Calls
from tests.support.loop_rig import Device, Rig
from tests.support.scripted_vcpu import IN, OUT

HALVES: Final = built_halves()

pytestmark = pytest.mark.skipif(len(HALVES) < 2, reason=f"compiled: {why_not_built()}")

ENDS: Final = st.sampled_from([0, 1, 0x7F, 0x80, 0xFF, 0x100, (1 << 31) - 1, 1 << 31, (1 << 32) - 1])
LONG: Final = st.one_of(
    ENDS, st.sampled_from([1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1]), st.integers(0, 2**64 - 1)
)
BYTE: Final = st.integers(0, 0xFF)

MODELS: Final = ("uart_16550a", "pit_8254", "post", "debugcon", "i8042")
"""Models that need no parameters."""


# --- The serving loop ------------------------------------------------------------------------------------


def hello() -> list[bytes]:
    frames = []
    for sequence, request in enumerate(hello_requests([(model, {}) for model in MODELS]), 1):
        request.sequence = sequence
        frames.append(request.encode())
    return frames


REQUESTS: Final = st.builds(
    Request,
    st.sampled_from(
        [*ACCESSES, *BLOCKS] * 4
        + [protocol.ADVANCE, protocol.RECEIVE, protocol.WRITE_RUN, protocol.RESET, 0, 99]
    ),
    st.one_of(st.integers(0, len(MODELS)), BYTE),
    st.sampled_from([1] * 8 + [0, 2, 3, 4, 8, 0xFF]),
    st.integers(1, 2**32 - 1),
    LONG,
    LONG,
    st.one_of(st.integers(0, 9), ENDS.filter(lambda end: end < 1 << 32)),
    st.one_of(st.just(b""), st.just(b""), st.binary(max_size=30)),
).map(Request.encode)
FRAMES: Final = st.lists(
    st.one_of(REQUESTS, REQUESTS, REQUESTS, st.binary(min_size=1, max_size=70)), max_size=25
)


def over_a_socket(half: Half, frames: list[bytes]) -> tuple[object, list[bytes], list[bytes]]:
    """How the loop ends, its replies, and the requests that it has not read."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        for frame in frames:
            ours.send(frame)
        ours.shutdown(socket.SHUT_WR)
        status: object
        try:
            status = half.serve(half.stream_port(theirs.fileno(), theirs.fileno()), DeviceServer())
        except Exception as error:  # noqa: BLE001 - both must raise the same
            status = type(error)
        unread = list(iter(lambda: theirs.recv(8192), b""))
        theirs.shutdown(socket.SHUT_WR)
        return status, list(iter(lambda: ours.recv(8192), b"")), unread


def in_a_page(half: Half, frames: list[bytes], spins: bool) -> tuple[object, list[bytes]]:
    """The same in shared memory, as far as frames can be told from each other there."""
    page = mmap.mmap(-1, page_layout.SIZE)
    doorbell, bell_of_device = os.pipe()
    vmm_doorbell, bell_of_vmm = os.pipe()
    # The VMM may see a reply before it is rung for, and close: the bell goes nowhere then, in either half.
    held = os.dup(vmm_doorbell)
    status: list[object] = []

    def serve() -> None:
        options = {"alone": False} if half.is_compiled else {}
        port = half.page_port(page, doorbell, bell_of_vmm, **options)
        try:
            status.append(half.serve(port, DeviceServer()))
        except Exception as error:  # noqa: BLE001 - both must raise the same
            status.append(type(error))
        finally:
            os.close(bell_of_vmm)

    # The VMM's end in pure Python, for both.
    link = Link(HALVES[0].page, (bell_of_device, vmm_doorbell), (), page)
    transport = HALVES[0].page(link, "x", lambda poll, _slices: bool(poll.poll(30_000)))
    transport.allow_spinning(spins)
    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    replies: list[bytes] = []
    last = 0
    for frame in frames:
        words = struct.unpack_from("<Q", frame.ljust(8, b"\0"))[0]
        if words == last or len(frame) < HEADER.size or status:
            continue
        last = words
        try:
            replies.append(transport.exchange(frame, 10))
        except EndedError:
            break
        if replies[-1][0] == protocol.ERROR:
            break
    transport.close()
    thread.join(30)
    assert not thread.is_alive()
    os.close(doorbell)
    os.close(held)
    return status[0], replies


@settings(max_examples=150)
@given(FRAMES)
def test_serving_loops_answer_alike_over_a_socket(frames: list[bytes]) -> None:
    pure, compiled = (over_a_socket(half, hello() + frames) for half in HALVES)
    assert compiled == pure


@settings(max_examples=60)
@given(FRAMES, st.booleans())
def test_serving_loops_answer_alike_in_shared_memory(frames: list[bytes], spins: bool) -> None:
    pure, compiled = (in_a_page(half, hello() + frames, spins) for half in HALVES)
    assert compiled == pure


# --- The channel -----------------------------------------------------------------------------------------


@st.composite
def lies(draw: st.DrawFn) -> tuple[Ask, bytes]:
    """An access, and a reply to it that has a few things wrong, or none."""
    ask = draw(st.sampled_from([ask for ask in ASKS if ask.kind in ACCESSES]))
    printed = st.builds(
        lambda head, data: EFFECT.pack(*head, len(data)) + data,
        st.one_of(
            st.sampled_from([(HOST_OUTPUT, device, 0, 0) for device in (0, 0, 2, 3)]),
            st.tuples(BYTE, BYTE, BYTE, BYTE),
        ),
        st.sampled_from([b"x", b"\xff", b"xy"]),
    )
    body = draw(st.one_of(st.just(b""), printed, printed, st.binary(max_size=40)))
    fields = [
        ask.kind | protocol.REPLY,
        ask.device,
        ask.size,
        draw(st.sampled_from([1, 1, 0, 2])) if body else 0,
        1,
        draw(st.one_of(st.just(protocol.NO_DEADLINE), LONG)),
        draw(LONG) & ask.limit,
        0,
        len(body),
    ]
    if draw(st.sampled_from([False, False, True])):
        widths = (8, 8, 8, 8, 32, 64, 64, 32, 32)
        number = draw(st.integers(0, 8))
        fields[number] = draw(LONG) & (1 << widths[number]) - 1
    return ask, HEADER.pack(*fields) + body


class Keeping(Survival):
    """Keeps a journal, which is full after `limit` requests."""

    def __init__(self, journal: Journal) -> None:
        super().__init__()
        self.journal = journal
        self.full = 0

    def journal_is_full(self) -> None:
        self.full += 1


def lied_to(half: Half, ipc: str, ask: Ask, frame: bytes, journal_limit: int | None) -> tuple[object, ...]:
    """Everything that an access leaves behind whose reply is `frame`."""
    made: list[int] = []
    log = Calls()
    if "page" in ipc:
        page = mmap.mmap(-1, page_layout.SIZE)
        doorbell, bell_of_device = os.pipe()
        vmm_doorbell, bell_of_vmm = os.pipe()
        made = [doorbell, bell_of_vmm]
        link = Link(half.page, (bell_of_device, vmm_doorbell), (), page)
        page[page_layout.REPLY : page_layout.REPLY + len(frame)] = frame
        if frame[:8] == bytes(8):
            os.close(made.pop())  # which is no reply: the end of the channel
    else:
        link = (half.pipe if ipc == "pipe" else half.socket).connect([], None)
        made = list(link.device)
        os.write(made[-1], frame)
    heard: list[tuple[int, int]] = []
    survival = None if journal_limit is None else Keeping(half.journal(journal_limit))
    channel = half.channel(
        "fuzzed",
        link,
        grants(log),
        now=lambda: NOW,
        deadline_changed=lambda *what: heard.append(what),
        survival=survival,
    )
    if isinstance(channel.transport, PageTransport):
        channel.transport.allow_spinning(ipc == "page")
    try:
        result: object
        try:
            result = send(channel, ask)
        except KvmboxError as error:
            result = type(error), str(error)
        kept = None if survival is None else (list(survival.journal or ()), survival.full)
        state = channel.deadline, channel.waiting, str(channel.failure)
        return result, list(log), heard, kept, *state
    finally:
        channel.close()
        for descriptor in made:
            os.close(descriptor)


@settings(max_examples=300)
@given(st.sampled_from(["page", "sleeping page", "pipe", "socket"]), lies(), st.sampled_from([None, 1, 2]))
def test_channels_believe_the_same(ipc: str, lie: tuple[Ask, bytes], journal_limit: int | None) -> None:
    pure, compiled = (lied_to(half, ipc, *lie, journal_limit) for half in HALVES)
    assert compiled == pure


# --- The run loop ----------------------------------------------------------------------------------------

PORTS: Final = st.sampled_from([0x3F7, 0x3F8, 0x3FD, 0x3FF, 0x400, 0xF4, 0xF5, 0xF7, 0, 0xFFFF])
EXITS: Final = st.lists(
    st.one_of(
        st.tuples(
            st.just("port"),
            st.sampled_from([IN, OUT]),
            PORTS,
            st.sampled_from([1, 1, 1, 2, 4]),
            st.sampled_from([1, 1, 1, 3]),
        ),
        st.tuples(
            st.just("memory"),
            st.booleans(),
            st.sampled_from([0xD000_0000, 0xD000_0004, 0xD000_0007, 0xCFFF_FFFF, (1 << 52) - 1]),
            st.sampled_from([1, 1, 2, 4, 8]),
        ),
    ),
    max_size=40,
)


def looped(half: Half, exits: list[tuple[Any, ...]], seed: bytes) -> tuple[object, ...]:
    """Everything that a run of these exits leaves behind."""
    rig = Rig(half)
    wide = Device(frozenset({2, 4, 8}))
    rig.mmio.attach(Mapping(0xD000_0010, 16, wide, direct=wide))
    completions: list[bytes] = []
    for what, *details in exits * 2:
        if what == "port":
            direction, port, size, count = details
            rig.port(direction, port, size=size, count=count, data=(seed * 12)[: size * count])
        else:
            is_write, address, length = details
            rig.memory(address, length, (seed * 8)[:length] if is_write else None)
        rig.peek(lambda: completions.append(rig.data(16) + rig.data(8, at=uapi.RUN_MMIO_DATA)))
    for device in (rig.uart, rig.exit, rig.mmio_uart):
        device.values = []
    rig.play()
    routes = rig.loop.routes
    devices = (rig.uart, rig.exit, rig.mmio_uart, wide)
    # A string of reads has taught the compiled half the route of a single one: it may be on it sooner.
    assert [device.counted for device in devices] == [device.to_count for device in devices]
    return (
        [device.accesses for device in devices],
        completions,
        (routes.exit_count, routes.guest_exits, routes.mmio_exits, routes.port_exits),
        (rig.ports.unclaimed_reads, rig.ports.unclaimed_writes, rig.mmio.unclaimed_reads),
    )


@settings(max_examples=200)
@given(EXITS, st.binary(min_size=1, max_size=8))
def test_loops_handle_exits_alike(exits: list[tuple[Any, ...]], seed: bytes) -> None:
    pure, compiled = (looped(half, exits, seed) for half in HALVES)
    assert compiled == pure
