"""The spawners of warm boots: how far they are from their boot process, and that none outlives it."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from kvmbox.remote.process.spawner_client import MOST_DESCRIPTORS
from kvmbox.tools.warm import WarmPool
from tests.support.family import children_of, descendants_of, title_of
from tests.support.patience import patience
from tests.support.real_mode import debug_exit
from tests.support.runs import Images
from tests.support.waiting import until, wait_readable
from tests.support.warm import Beacon, running_boot, spawner_of, template_of

pytestmark = pytest.mark.kvm

POLL = bytes.fromhex("bafd03 ec ebfd")  # in al,LSR for ever
POLL_UNTIL_ONES = bytes.fromhex("bafd03 ec 3cff 75fb") + debug_exit(1)
"""The same, until it reads as where there is no device."""


@pytest.fixture
def busy(images: Images) -> Iterator[Beacon]:
    """A guest that goes on asking its UART."""
    with closing(Beacon(images, POLL)) as made:
        yield made


class Boot:
    """The processes of the one boot that runs."""

    def __init__(self, beacon: Beacon) -> None:
        beacon.wait()
        self.process = running_boot(os.getpid(), beacon.fifo)
        self.spawner = spawner_of(self.process)
        self.devices = {title_of(pid).removeprefix("kvmbox: "): pid for pid in children_of(self.spawner)}
        self._pidfds = [os.pidfd_open(pid) for pid in (self.process, self.spawner, *self.devices.values())]

    def later(self) -> list[int]:
        """The processes that its spawner has made since."""
        return [pid for pid in children_of(self.spawner) if pid not in self.devices.values()]

    def wait_end(self) -> None:
        """Until all of them have ended."""
        for pidfd in self._pidfds:
            wait_readable(pidfd, "the end of a process of the boot")
            os.close(pidfd)


def spawner_template() -> int:
    """That of the one pool of this process."""
    found = [pid for pid in descendants_of(os.getpid()) if title_of(pid) == "kvmbox: spawner template"]
    assert len(found) == 1
    return found[0]


def places(pid: int) -> dict[str, int]:
    """Where each file, the heap and the stack begin in the memory of a process."""
    found: dict[str, int] = {}
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        first, *_, name = line.split()
        if name.startswith(("/", "[heap", "[stack", "[vdso")):
            found.setdefault(name, int(first.partition("-")[0], 16))
    return found


def test_boot_process_may_open_as_few_files_as_another_vmm(busy: Beacon) -> None:
    with WarmPool(workers=1) as pool:
        pool.submit(busy.options)
        boot = Boot(busy)
        _, hard = resource.prlimit(boot.process, resource.RLIMIT_NOFILE)
        assert hard <= MOST_DESCRIPTORS < resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        pool.close(cancel=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="the maps of a process that is not dumpable are for root")
def test_device_processes_have_another_layout_of_memory_than_their_vmm(busy: Beacon) -> None:
    with WarmPool(workers=1) as pool:
        pool.submit(busy.options)
        boot = Boot(busy)
        vmm = places(boot.process)
        for pid in (boot.spawner, *boot.devices.values()):
            shared = {name: place for name, place in places(pid).items() if name in vmm}
            assert len(shared) > len(("heap", "stack", "vdso"))
            assert not [name for name, place in shared.items() if vmm[name] == place]
        pool.close(cancel=True)
        boot.wait_end()


def test_boot_process_that_dies_takes_a_stopped_spawner_along(busy: Beacon) -> None:
    with WarmPool(workers=2) as pool:
        pool.submit({"image": "spin"})  # so that the templates live on
        future = pool.submit(busy.options)
        boot = Boot(busy)
        os.kill(boot.spawner, signal.SIGSTOP)
        os.kill(boot.process, signal.SIGKILL)
        boot.wait_end()
        assert future.result().lost
        pool.close(cancel=True)


def test_killed_spawner_fails_its_boot_and_no_other(busy: Beacon) -> None:
    with WarmPool(workers=2) as pool:
        pool.submit({"image": "spin"})  # a template lives until its boots have ended
        future = pool.submit(busy.options)
        boot = Boot(busy)
        template = template_of(os.getpid())
        os.kill(boot.spawner, signal.SIGKILL)
        boot.wait_end()
        result = future.result()
        assert os.getsid(template) == template
        following = pool.submit({"image": "hello32"}).result()
        pool.close(cancel=True)

    assert (result.status, result.lost) == (8, False)
    assert "spawner" in result.reason
    assert "was killed by signal 9 (SIGKILL)" in result.reason
    assert following.status == 0


def test_stopped_spawner_that_does_not_kill_a_hung_device_process_is_killed(busy: Beacon) -> None:
    with WarmPool(workers=2) as pool:
        pool.submit({"image": "spin"})  # as above
        future = pool.submit(busy.options)
        boot = Boot(busy)
        os.kill(boot.spawner, signal.SIGSTOP)
        os.kill(boot.devices["uart"], signal.SIGSTOP)
        result = future.result()
        boot.wait_end()
        pool.close(cancel=True)

    assert (result.status, result.lost) == (8, False)
    assert "device process 'uart' is hung" in result.reason


def test_killed_spawner_template_loses_its_boots_and_is_replaced(busy: Beacon) -> None:
    with WarmPool(workers=1) as pool:
        future = pool.submit(busy.options)
        boot = Boot(busy)
        os.kill(spawner_template(), signal.SIGKILL)
        boot.wait_end()
        result = future.result()
        following = pool.submit({"image": "hello32"}).result()

    # The kernel ends its children as well: a boot may see its device processes die first.
    assert (result.status, result.lost) in ((14, True), (8, False))
    assert following.status == 0


def test_spawner_template_that_does_not_answer_is_replaced() -> None:
    with WarmPool(workers=1, grace=0.2) as pool:
        first = pool.submit({"image": "hello32"}).result()
        stopped = spawner_template()
        os.kill(stopped, signal.SIGSTOP)
        # The boot process that waits has its spawner. No other gets one.
        following = [pool.submit({"image": "hello32"}).result() for _ in range(3)]
        assert spawner_template() != stopped

    assert [result.status for result in (first, *following)] == [0, 0, 0, 0]
    assert not [pid for pid in children_of(os.getpid()) if title_of(pid).startswith("kvmbox")]


def test_spawner_template_has_no_environment_and_nothing_of_a_boot(busy: Beacon) -> None:
    with WarmPool(workers=1) as pool:
        pool.submit(busy.options)
        boot = Boot(busy)
        template = spawner_template()
        assert not Path(f"/proc/{template}/environ").read_bytes().strip(b"\0")
        kinds = {
            os.readlink(f"/proc/{template}/fd/{number}").partition(":")[0]
            for number in os.listdir(f"/proc/{template}/fd")
        }
        assert kinds <= {"/dev/null", "socket", "anon_inode"}
        pool.close(cancel=True)
        boot.wait_end()


@pytest.mark.parametrize(
    ("choice", "told"), [("restart", {"by_type": {"uart": 1}}), ("all-ones", {"never": ["uart"]})]
)
def test_boot_that_goes_on_without_a_device_process_is_the_last_of_its_templates(
    images: Images, choice: str, told: dict[str, Any]
) -> None:
    with WarmPool(workers=1) as pool, closing(Beacon(images, POLL_UNTIL_ONES)) as beacon:
        future = pool.submit(beacon.options | {"on_device_crash": choice, "timeout": patience(60)})
        boot = Boot(beacon)
        template = spawner_template()
        os.kill(boot.devices["uart"], signal.SIGKILL)
        if choice == "restart":
            until(boot.later, bool)  # the standby process has replaced the UART's, and this one the standby
            os.kill(boot.process, signal.SIGTERM)
        result = future.result()
        following = [pool.submit({"image": "hello32"}).result() for _ in range(3)]
        assert spawner_template() != template

    assert result.status == (130 if choice == "restart" else 3)
    assert result.statistics["restarts"].items() >= told.items()
    assert [one.status for one in following] == [0, 0, 0]
