"""The template of spawners by itself: whom it kills, and that nobody else is lost by that."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import closing
from typing import Final

import pytest

from kvmbox.base.errors import StartError
from kvmbox.jail import descriptor_passing
from kvmbox.remote.process import interpreter
from kvmbox.remote.process.spawner_client import INTERPRETER_FLAGS, device_entry
from kvmbox.tools.warm import frames
from kvmbox.tools.warm.client import TemplateClient
from tests.support.waiting import wait_readable

KILLED = int(signal.SIGKILL)


@pytest.fixture
def template() -> Iterator[TemplateClient]:
    """One that is ready."""
    with closing(TemplateClient.start_spawners()) as started:
        assert next_kind(started) == frames.READY
        yield started


FAILING: Final = f"""
import errno, os
from kvmbox.jail import linux, spawner
from kvmbox.tools.warm.spawner_template import main

clone, clones = linux.clone, []

def failing(flags):
    clones.append(None)
    if len(clones) <= 2:
        raise BlockingIOError(errno.EAGAIN, "no more processes")
    pid = clone(flags)
    if pid == 0 and len(clones) == 3:
        spawner.isolate = None
    return pid

linux.clone = failing
main(os.getppid(), {(device_entry(),)!r})
"""
"""A template that cannot clone its first spawner, and whose second one fails."""


@pytest.fixture
def failing() -> Iterator[TemplateClient]:
    """One of these, ready."""
    process = interpreter.start("a template", FAILING, INTERPRETER_FLAGS, {}, StartError)
    with closing(TemplateClient(*process)) as started:
        assert next_kind(started) == frames.READY
        yield started


@pytest.fixture
def vmm() -> Iterator[subprocess.Popen[bytes]]:
    """A process that lives until it is killed."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def next_kind(template: TemplateClient) -> int:
    """What the template says next."""
    wait_readable(template.fileno(), "the template of spawners")
    news = template.take_news()
    assert news is not None
    return news.kind


class Ends:
    """What a boot process has of the spawner that is ordered for it."""

    def __init__(self, template: TemplateClient, vmm: int, *, is_gone: bool = False) -> None:
        self.control, control = descriptor_passing.socket_pair()
        self.lifeline, lifeline = descriptor_passing.socket_pair()
        process = os.pidfd_open(vmm)
        if is_gone:
            os.close(self.lifeline)
        assert template.order(vmm, [control, lifeline, process])
        for descriptor in (control, lifeline, process):
            os.close(descriptor)

    def wait_end(self) -> None:
        """Until the spawner has closed its socket."""
        while True:
            wait_readable(self.control, "the end of a spawner")
            message = descriptor_passing.receive(self.control)
            if message is None:
                return
            for descriptor in message[1]:
                os.close(descriptor)

    def status(self) -> int:
        """How the spawner has ended, as the template tells it."""
        wait_readable(self.lifeline, "the wait status of a spawner")
        message = descriptor_passing.receive(self.lifeline)
        assert message is not None
        kind, _, status, _ = frames.unpack(message[0])
        assert kind == frames.DIED
        return status

    def close(self) -> None:
        """Both."""
        os.close(self.control)
        os.close(self.lifeline)


def test_spawner_whose_vmm_is_gone_before_it_is_there_is_the_only_one_that_ends(
    template: TemplateClient, vmm: subprocess.Popen[bytes]
) -> None:
    lost = Ends(template, vmm.pid, is_gone=True)
    with closing(Ends(template, vmm.pid)) as other:
        assert [next_kind(template), next_kind(template)] == [frames.BORN, frames.BORN]
        lost.wait_end()
        os.close(lost.control)
        descriptor_passing.send(other.lifeline, b"end it")
        assert os.waitstatus_to_exitcode(other.status()) == -KILLED


def test_spawner_ends_with_its_vmm_though_others_have_the_sockets(
    template: TemplateClient, vmm: subprocess.Popen[bytes]
) -> None:
    with closing(Ends(template, vmm.pid)) as given_away:
        assert next_kind(template) == frames.BORN
        vmm.kill()
        assert os.waitstatus_to_exitcode(given_away.status()) == -KILLED
        given_away.wait_end()


def test_boot_process_whose_spawner_cannot_be_made_is_told_so_and_no_other_is_lost(
    failing: TemplateClient, vmm: subprocess.Popen[bytes]
) -> None:
    for _ in ("none", "one that fails"):
        with closing(Ends(failing, vmm.pid)) as without:
            assert next_kind(failing) == frames.BORN
            assert os.waitstatus_to_exitcode(without.status()) == 1
            without.wait_end()
    with closing(Ends(failing, vmm.pid)) as other:
        assert next_kind(failing) == frames.BORN
        descriptor_passing.send(other.lifeline, b"end it")
        assert os.waitstatus_to_exitcode(other.status()) == -KILLED
