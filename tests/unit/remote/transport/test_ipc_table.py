"""The ways to connect: what each is made of, what may not be done to it, and that nothing of it leaks."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator

import pytest

from kvmbox.base.errors import DeviceGoneError, SandboxError
from kvmbox.remote.channel.connection import Channel
from kvmbox.remote.channel.grants import Grants
from kvmbox.remote.channel.implementations import chosen
from kvmbox.remote.transport.interface import Link
from kvmbox.remote.transport.ipc_table import AUTO, IPC_CHOICES, TRANSPORTS, ipc_of, make_link
from kvmbox.wire import page_layout, protocol
from kvmbox.wire.effects import encode_reply
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


@pytest.mark.parametrize(("ipc", "kinds"), [("socketpair", "s"), ("pipe", "pp"), ("shm", "ppf")])
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


@pytest.mark.parametrize("ipc", ["pipe", "shm"])
def test_each_pipe_goes_one_way(ipc: str) -> None:
    link = make_link(ipc)
    ways = [fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE for descriptor in descriptors(link)[:4]]
    assert ways == [os.O_WRONLY, os.O_RDONLY, os.O_RDONLY, os.O_WRONLY]
    for descriptor in link.device:
        os.close(descriptor)
    link.close_vmm_end()


@pytest.mark.parametrize("ipc", ["socketpair", "pipe"])
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


@pytest.mark.parametrize("resize", [page_layout.SIZE - 1, 0, page_layout.SIZE + 1])
def test_shared_memory_cannot_be_resized_by_anyone(resize: int) -> None:
    link = make_link("shm")
    memory = link.device[2]
    with pytest.raises(PermissionError):
        os.ftruncate(memory, resize)
    with pytest.raises(PermissionError):
        os.pwrite(memory, b"x", page_layout.SIZE)
    with pytest.raises(PermissionError):
        fcntl.fcntl(memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
    assert os.fstat(memory).st_size == page_layout.SIZE
    for descriptor in link.device:
        os.close(descriptor)
    link.close_vmm_end()


def test_shared_memory_is_the_same_on_both_sides_and_empty_at_first() -> None:
    link = make_link("shm")
    assert link.page is not None
    assert link.page[:] == bytes(page_layout.SIZE)
    os.pwrite(link.device[2], b"here", 100)
    assert link.page[100:104] == b"here"
    for descriptor in link.device:
        os.close(descriptor)
    link.close_vmm_end()


def test_link_that_cannot_be_made_says_how_it_was_to_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*_arguments: object) -> tuple[int, int]:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "pipe2", none_left)
    for ipc in ("pipe", "shm"):
        with pytest.raises(SandboxError, match=f"by {ipc}: Too many open files"):
            make_link(ipc)


# --- Channels on links ----------------------------------------------------------------------------------


def test_channel_fits_its_link_and_closes_it(link: Link) -> None:
    channel = Channel("uart", link, [Grants("COM1")], now=lambda: 0)
    assert type(channel.transport) is link.kind
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
    channel = Channel("uart", link, [Grants("COM1")], now=lambda: 0)
    for _ in range(2):
        with pytest.raises(DeviceGoneError):
            channel.request(protocol.ADVANCE)
        with pytest.raises(DeviceGoneError):
            channel.access(protocol.request_word(protocol.READ, 0, 1), 0, 0, 0xFF)
    channel.close()


@pytest.mark.parametrize("ipc", IPC_CHOICES)
def test_connect_puts_another_device_end_behind_a_channel(ipc: str) -> None:
    first, second = make_link(ipc), make_link(ipc)
    channel = Channel("uart", first, [Grants("COM1")], now=lambda: 7)
    channel.connect(second)
    for descriptor in first.device:
        os.close(descriptor)
    request = Request(protocol.ADVANCE, sequence=1)
    reply = encode_reply(request, None, 0, [])
    if second.page is None:
        os.write(second.device[-1], reply)
    else:
        second.page[page_layout.REPLY : page_layout.REPLY + len(reply)] = reply
    channel.request(protocol.ADVANCE)
    request.now = 7
    sent = request.encode()
    if second.page is None:
        assert os.read(second.device[0], MAX_FRAME) == sent
    else:
        assert second.page[page_layout.REQUEST : page_layout.REQUEST + len(sent)] == sent
    channel.close()
    for descriptor in second.device:
        os.close(descriptor)


@pytest.mark.parametrize("ipc", IPC_CHOICES)
def test_disconnect_leaves_a_channel_with_nobody_at_its_other_end(ipc: str) -> None:
    link = make_link(ipc)
    channel = Channel("uart", link, [Grants("COM1")], now=lambda: 0)
    channel.disconnect()
    for descriptor in link.vmm:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)
    with pytest.raises(DeviceGoneError, match="its channel was disconnected"):
        channel.access(protocol.request_word(protocol.READ, 0, 1), 0, 0, 0xFF)
    channel.forget_failure()
    with pytest.raises(DeviceGoneError, match="its channel was disconnected"):
        channel.request(protocol.ADVANCE)
    channel.close()
    for descriptor in link.device:
        os.close(descriptor)


def test_table_is_where_a_transport_is_found() -> None:
    for ipc, kind in TRANSPORTS.items():
        link = make_link(ipc)
        assert link.kind is chosen(kind)
        assert kind.uses_pipes == (len(link.device) > 1)
        assert kind.spins == (link.page is not None)
        for descriptor in link.device:
            os.close(descriptor)
        link.close_vmm_end()


def test_auto_is_shared_memory_where_a_process_can_spin_and_pipes_elsewhere() -> None:
    assert ipc_of(AUTO, can_spin=True) == "shm"
    assert ipc_of(AUTO, can_spin=False) == "pipe"


@pytest.mark.parametrize("ipc", IPC_CHOICES)
@pytest.mark.parametrize("can_spin", [False, True])
def test_transport_that_was_chosen_is_that_one(ipc: str, can_spin: bool) -> None:
    assert ipc_of(ipc, can_spin=can_spin) == ipc
