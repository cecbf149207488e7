"""A device "process" that is a thread: it serves as one, ends as one, and owns the device's descriptors."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest

from kvmbox.base.errors import DeviceProcessError
from kvmbox.contract.device_spec import DeviceSpec
from kvmbox.devices.debug.model import PostPort
from kvmbox.remote.channel.connection import Channel
from kvmbox.remote.channel.grants import Grants
from kvmbox.remote.channel.hello import greet
from kvmbox.remote.process.device_pool import Design, DevicePool
from kvmbox.remote.process.device_thread import ENDED, DeviceThread
from kvmbox.remote.transport.interface import Link
from kvmbox.remote.transport.ipc_table import IPC_CHOICES, make_link
from kvmbox.wire import protocol
from tests.support.patience import patience

PATIENCE_S = patience(30.0)
DEVICES = [DeviceSpec("POST", "debug", "post"), DeviceSpec("debugcon", "debug", "debugcon")]


class Served:
    """A thread that serves, and the channel to it."""

    def __init__(self, ipc: str) -> None:
        self.outputs: list[bytes] = []
        self.link: Link = make_link(ipc)
        self.thread = DeviceThread("debug", self.link)
        grants = [Grants("POST"), Grants("debugcon", output=self.outputs.append)]
        self.channel: Channel = Channel("debug", self.link, grants, now=lambda: 5)

    def ended(self) -> bool:
        """Whether it has ended within reason."""
        self.thread.join(PATIENCE_S)
        return self.thread.wait_status == ENDED


@pytest.fixture(params=IPC_CHOICES)
def served(request: pytest.FixtureRequest) -> Iterator[Served]:
    served = Served(request.param)
    yield served
    served.channel.close()
    assert served.ended()
    for descriptor in served.link.device:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)


def test_thread_serves_as_a_process_does(served: Served) -> None:
    assert greet(served.channel, DEVICES) == protocol.VERSION
    write, read = (protocol.request_word(kind, 0, 1) for kind in (protocol.WRITE, protocol.READ))
    served.channel.access(write, 0, 0x42, 0)
    assert served.channel.access(read, 0, 0, 0xFF) in range(256)
    served.channel.transact(protocol.WRITE_RUN, 1, 0, b"text")
    assert served.outputs == [b"text"]
    assert served.thread.wait_status is None


def test_thread_serves_on_the_cpu_that_it_was_given() -> None:
    link = make_link("socketpair")
    cpu = max(os.sched_getaffinity(0))
    thread = DeviceThread("debug", link, cpu=cpu)
    channel = Channel("debug", link, [Grants("POST"), Grants("debugcon")], now=lambda: 5)
    greet(channel, DEVICES)
    assert os.sched_getaffinity(thread.pid) == {cpu}
    assert os.sched_getaffinity(0) >= {cpu}  # nobody else was bound
    channel.close()
    thread.join(PATIENCE_S)


def test_thread_on_a_cpu_that_is_not_to_be_had_serves_elsewhere() -> None:
    link = make_link("socketpair")
    thread = DeviceThread("debug", link, cpu=1023)
    channel = Channel("debug", link, [Grants("POST"), Grants("debugcon")], now=lambda: 5)
    assert greet(channel, DEVICES) == protocol.VERSION
    channel.close()
    thread.join(PATIENCE_S)


def test_thread_has_no_layer_and_no_forbidden_call(served: Served) -> None:
    assert (served.thread.layers, served.thread.listener) == (0, None)
    assert served.thread.take_forbidden_call() is None


def test_thread_that_owes_a_reply_and_is_ready_to_run_is_starved(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = DevicePool(Design(sandbox="thread"))
    seen: list[bool] = []

    def look(*_: object) -> None:  # on the thread itself, which is ready therefore
        seen.append(pool.channel("debug").survival.process.starvation()())

    monkeypatch.setattr(PostPort, "write", look)
    pool.launch(DEVICES[:1], b"", cpu=None)
    pool.connect({"POST": Grants("POST")}, now=lambda: 0, deadline_changed=lambda *_: None)
    pool.channel("debug").access(protocol.request_word(protocol.WRITE, 0, 1), 0, 0x42, 0)
    pool.close()
    assert seen == [True]


def test_thread_ends_after_shutdown(served: Served) -> None:
    served.channel.request(protocol.SHUTDOWN)
    assert served.ended()


def test_thread_whose_model_raises_says_so_and_ends(served: Served) -> None:
    greet(served.channel, DEVICES)
    with pytest.raises(DeviceProcessError, match="'debug' failed: FrameError"):
        served.channel.request(0x70)
    assert served.ended()


def requests_without_end(served: Served) -> None:
    while True:
        served.channel.request(protocol.ADVANCE)


def test_thread_that_is_killed_answers_once_more_at_most(served: Served) -> None:
    greet(served.channel, DEVICES)
    served.thread.kill()
    served.thread.kill()  # idempotent
    with pytest.raises(DeviceProcessError):
        requests_without_end(served)
    assert served.channel._sequence <= 4  # the greeting, one more, one that is not answered


def test_thread_killed_within_a_model_keeps_its_numbers_until_it_is_back(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def hang(*_arguments: int) -> None:
        inside.set()
        assert go_on.wait(PATIENCE_S)

    monkeypatch.setattr(PostPort, "write", hang)
    greet(served.channel, DEVICES)
    caught: list[BaseException] = []

    def write() -> None:
        try:
            served.channel.access(protocol.request_word(protocol.WRITE, 0, 1), 0, 0x42, 0)
        except DeviceProcessError as error:
            caught.append(error)

    vcpu_thread = threading.Thread(target=write, daemon=True)
    vcpu_thread.start()
    assert inside.wait(PATIENCE_S)
    served.thread.kill()
    vcpu_thread.join(PATIENCE_S)
    assert len(caught) == 1
    # What is opened now must not get the reply that is still to come.
    others = [os.open(os.devnull, os.O_RDONLY) for _ in range(8)]
    assert set(others) & set(served.link.device) == set()
    go_on.set()
    for descriptor in others:
        os.close(descriptor)
    assert served.ended()


def test_kill_of_a_thread_that_has_ended_touches_no_descriptor(served: Served) -> None:
    served.channel.request(protocol.SHUTDOWN)
    assert served.ended()
    # The numbers may be somebody else's by now.
    taken = os.open(os.devnull, os.O_RDONLY)
    served.thread.kill()
    os.fstat(taken)
    os.close(taken)
