"""The ways to connect: what each is made of, what may not be done to it, and that nothing of it leaks."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator

import pytest

from kvmbox.channel.channel import Grants
from kvmbox.channel.direct import DirectChannel
from kvmbox.channel.links import IPC_CHOICES, PIPE, SHM, SOCKETPAIR, Link, adopt, channel_on, make_link
from kvmbox.channel.shared import SharedChannel
from kvmbox.channel.stream import StreamChannel
from kvmbox.errors import DeviceGoneError, SandboxError
from kvmbox.wire import page_layout as layout
from kvmbox.wire import protocol
from kvmbox.wire.protocol import MAX_FRAME, Request


def descriptors(link: Link) -> tuple[int, ...]:
    return (*link.vmm, *link.device)


@pytest.fixture(params=IPC_CHOICES)
def link(request: pytest.FixtureRequest) -> Iterator[Link]:
    link = make_link(request.param)
    yield link
    for descriptor in descriptors(link):
        try:
            os.close(descriptor)
        except OSError:
            continue  # a channel had it
    if link.page is not None:
        link.page.close()


def test_link_survives_no_exec(link: Link) -> None:
    assert not any(os.get_inheritable(descriptor) for descriptor in descriptors(link))


@pytest.mark.parametrize(("ipc", "kinds"), [(SOCKETPAIR, "s"), (PIPE, "pp"), (SHM, "ppf")])
def test_device_gets_no_more_than_its_end(ipc: str, kinds: str) -> None:
    link = make_link(ipc)
    test = {"s": stat.S_ISSOCK, "p": stat.S_ISFIFO, "f": stat.S_ISREG}
    assert len(link.device) == len(kinds)
    for descriptor, kind in zip(link.device, kinds, strict=True):
        assert test[kind](os.fstat(descriptor).st_mode)
        os.close(descriptor)
    link.close_vmm_end()
    for descriptor in link.vmm:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)


@pytest.mark.parametrize("ipc", [PIPE, SHM])
def test_each_pipe_goes_one_way(ipc: str) -> None:
    link = make_link(ipc)
    ways = [fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE for descriptor in descriptors(link)[:4]]
    assert ways == [os.O_WRONLY, os.O_RDONLY, os.O_RDONLY, os.O_WRONLY]
    for descriptor in link.device:
        os.close(descriptor)
    link.close_vmm_end()


@pytest.mark.parametrize("ipc", [SOCKETPAIR, PIPE])
def test_frames_keep_their_boundaries(ipc: str) -> None:
    link = make_link(ipc)
    frames = [b"a" * 32, b"b", b"c" * MAX_FRAME, b"d" * 33]
    for source, target in ((link.vmm[0], link.device[0]), (link.device[-1], link.vmm[-1])):
        for frame in frames:
            os.write(source, frame)
        assert [os.read(target, MAX_FRAME + 1) for _ in frames] == frames
    for descriptor in link.device:
        os.close(descriptor)
    link.close_vmm_end()


@pytest.mark.parametrize("resize", [layout.SIZE - 1, 0, layout.SIZE + 1])
def test_shared_memory_cannot_be_resized_by_anyone(resize: int) -> None:
    link = make_link(SHM)
    memory = link.device[2]
    with pytest.raises(PermissionError):
        os.ftruncate(memory, resize)
    with pytest.raises(PermissionError):
        os.pwrite(memory, b"x", layout.SIZE)
    with pytest.raises(PermissionError):
        fcntl.fcntl(memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
    assert os.fstat(memory).st_size == layout.SIZE
    for descriptor in link.device:
        os.close(descriptor)
    link.close_vmm_end()


def test_shared_memory_is_the_same_on_both_sides_and_empty_at_first() -> None:
    link = make_link(SHM)
    assert link.page is not None
    assert link.page[:] == bytes(layout.SIZE)
    os.pwrite(link.device[2], b"here", 100)
    assert link.page[100:104] == b"here"
    for descriptor in link.device:
        os.close(descriptor)
    link.close_vmm_end()


def test_link_that_cannot_be_made_says_how_it_was_to_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*_arguments: object) -> tuple[int, int]:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "pipe2", none_left)
    for ipc in (PIPE, SHM):
        with pytest.raises(SandboxError, match=f"by {ipc}: Too many open files"):
            make_link(ipc)


# --- Channels on links ----------------------------------------------------------------------------------


def test_channel_fits_its_link_and_closes_it(link: Link) -> None:
    channel = channel_on(link, "uart", [Grants("COM1")], now=lambda: 0)
    assert type(channel) is (StreamChannel if link.page is None else SharedChannel)
    channel.close()
    channel.close()  # idempotent
    for descriptor in link.vmm:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)
    for descriptor in link.device:
        os.fstat(descriptor)  # not its own


@pytest.mark.parametrize("ipc", IPC_CHOICES)
def test_channel_to_a_device_end_that_nobody_holds_is_gone(ipc: str) -> None:
    link = make_link(ipc)
    for descriptor in link.device:
        os.close(descriptor)
    channel = channel_on(link, "uart", [Grants("COM1")], now=lambda: 0)
    for _ in range(2):
        with pytest.raises(DeviceGoneError):
            channel.request(protocol.ADVANCE)
        with pytest.raises(DeviceGoneError):
            channel.access(protocol.request_word(protocol.READ, 0, 1), 0, 0, 0xFF)
    channel.close()


@pytest.mark.parametrize("ipc", IPC_CHOICES)
def test_adopt_puts_another_device_end_behind_a_channel(ipc: str) -> None:
    first, second = make_link(ipc), make_link(ipc)
    channel = channel_on(first, "uart", [Grants("COM1")], now=lambda: 7)
    adopt(channel, second)
    for descriptor in first.device:
        os.close(descriptor)
    if ipc != SHM:
        reply = protocol.encode_reply(Request(protocol.ADVANCE, sequence=1), None, 0, [])
        os.write(second.device[-1], reply)
        channel.request(protocol.ADVANCE)
        assert os.read(second.device[0], MAX_FRAME) == Request(protocol.ADVANCE, sequence=1, now=7).encode()
    channel.close()
    for descriptor in second.device:
        os.close(descriptor)


def test_adopt_by_a_channel_without_a_process_is_refused() -> None:
    link = make_link(SOCKETPAIR)
    with pytest.raises(TypeError, match="DirectChannel"):
        adopt(DirectChannel("uart", [], now=lambda: 0), link)
    link.close_vmm_end()
    os.close(link.device[0])
