"""Machines that a pool prepares before they are wanted: nobody can tell but by the time it takes."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest

from kvmbox.jail import layers
from kvmbox.tools.warm import WarmPool, WarmResult
from tests.support.family import children_of, descendants_of, pidfds_of, title_of
from tests.support.patience import patience
from tests.support.real_mode import SHUTDOWN, say
from tests.support.runs import Images
from tests.support.waiting import until, wait_readable
from tests.support.warm import Beacon, files_of, running_boot, template_of

pytestmark = [
    pytest.mark.kvm,
    pytest.mark.skipif(
        len(os.sched_getaffinity(0)) < 2, reason="nothing is prepared while a guest needs the CPU"
    ),
]

PREPARED: Final = "kvmbox: boot, prepared"


@pytest.fixture
def beacon(images: Images) -> Iterator[Beacon]:
    with closing(Beacon(images)) as made:
        yield made


def prepared(count: int = 1) -> list[int]:
    """So many boot processes of the one pool of this process, once they have prepared their machines."""
    template = template_of(os.getpid())
    return until(
        lambda: [pid for pid in children_of(template) if title_of(pid) == PREPARED],
        lambda found: len(found) >= count,
    )


class Busy:
    """A pool with one worker, whose guest runs until `end`."""

    def __init__(self, beacon: Beacon) -> None:
        self.pool = WarmPool(workers=1)
        self._beacon = beacon
        self._future = self.pool.submit(beacon.options | {"timeout": patience(60)})
        beacon.wait()

    def end(self) -> None:
        """Let the next boot have its turn."""
        os.kill(running_boot(os.getpid(), self._beacon.fifo), signal.SIGTERM)
        assert self._future.result().status == 130

    def close(self) -> None:
        self.pool.close(cancel=True)


@pytest.fixture
def busy(beacon: Beacon) -> Iterator[Busy]:
    with closing(Busy(beacon)) as made:
        yield made


def was_prepared(result: WarmResult) -> bool:
    return result.durations["devices ready"] == 0


@pytest.mark.parametrize("sandbox", ["process", "none", "per-device"])
def test_prepared_boot_ends_as_another_one_and_is_confined_alike(busy: Busy, sandbox: str) -> None:
    options = {"image": "smp", "cpus": 2, "sandbox": sandbox, "timeout": patience(60)}
    future = busy.pool.submit(options)
    (pid,) = prepared()
    assert any("kvm-vm" in file for file in files_of(pid))
    busy.end()
    ahead = future.result()
    with WarmPool(workers=1) as pool:
        plain = pool.submit(options).result()

    assert was_prepared(ahead)
    assert not was_prepared(plain)
    assert ahead.durations["confined"] > 0
    assert (ahead.status, ahead.output) == (plain.status, plain.output)
    assert set(ahead.statistics["vmm"]) >= set(layers.names(layers.VMM & ~layers.VMM_LABEL))
    for told in ("vmm", "sandbox"):
        assert ahead.statistics[told] == plain.statistics[told]


def test_guest_time_of_a_prepared_boot_begins_with_the_guest(busy: Busy) -> None:
    future = busy.pool.submit({"image": "clock", "timeout": patience(60)})
    prepared()
    busy.end()
    result = future.result()

    assert was_prepared(result)
    assert result.status == 0, result.reason  # it compares RTC and PIT
    assert 0 < result.statistics["guest_time"] <= result.durations["guest ended"]


def test_image_that_changes_is_booted_as_it_is_then(busy: Busy, images: Images) -> None:
    image = images.write(say(b"before"), SHUTDOWN)
    future = busy.pool.submit({"image": str(image), "boot": "real"})
    ended = [os.pidfd_open(pid) for pid in (*prepared(), template_of(os.getpid()))]
    image.write_bytes(say(b"after") + SHUTDOWN)
    busy.end()
    result = future.result()

    assert (result.status, result.output) == (0, b"after")
    assert not was_prepared(result)
    for pidfd in ended:
        wait_readable(pidfd, "the end of the process that had read the image, and of its template")
        os.close(pidfd)


def test_directory_that_was_replaced_is_looked_for_again(
    busy: Busy, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = images.write(say(b"before"), SHUTDOWN)
    here = images.directory / "here"
    here.mkdir()
    image.rename(here / "image")
    monkeypatch.chdir(here)
    future = busy.pool.submit({"image": "image", "boot": "real"})
    prepared()
    here.rename(images.directory / "there")
    here.mkdir()
    (here / "image").write_bytes(say(b"after") + SHUTDOWN)
    busy.end()
    result = future.result()

    assert (result.status, result.output) == (0, b"after")


def test_image_that_is_gone_is_the_reason(busy: Busy, images: Images) -> None:
    image = images.write(SHUTDOWN)
    future = busy.pool.submit({"image": str(image), "boot": "real"})
    prepared()
    image.unlink()
    busy.end()
    result = future.result()

    assert result.status == 4
    assert "cannot read" in result.reason


def test_order_that_cannot_be_prepared_fails_as_ever(busy: Busy, images: Images) -> None:
    image = images.write(b"no image of a known kind")
    future = busy.pool.submit({"image": str(image), "timeout": patience(60)})
    good = busy.pool.submit({"image": "hello32"})
    busy.end()

    assert future.result().status == 4
    assert good.result().status == 0


def test_order_that_recurs_is_prepared_and_another_one_is_not_lost() -> None:
    with WarmPool(workers=1) as pool:
        for _ in range(2):
            assert pool.submit({"image": "hello32"}).result().status == 0
        (pid,) = prepared()
        pidfd = os.pidfd_open(pid)
        other = pool.submit({"image": "hello64"}).result()
        wait_readable(pidfd, "the end of the process that prepared what nobody wants")
        os.close(pidfd)

    assert other.status == 0
    assert not was_prepared(other)


def test_prepared_process_that_dies_is_no_reason_to_give_up() -> None:
    with WarmPool(workers=1) as pool:
        for _ in range(2):
            assert pool.submit({"image": "hello32"}).result().status == 0
        (pid,) = prepared()
        os.kill(pid, signal.SIGKILL)
        results = [pool.submit({"image": "hello32"}).result() for _ in range(4)]

    assert results[0].lost or results[0].status == 0  # the pool may not have heard of the end
    assert [result.status for result in results[1:]] == [0] * 3


def test_nothing_is_prepared_while_guests_need_all_cpus(
    beacon: Beacon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0})
    with closing(Busy(beacon)) as busy:
        futures = [busy.pool.submit({"image": "hello32", "timeout": patience(60)}) for _ in range(3)]
        with WarmPool(workers=1) as another:  # which takes longer than a machine to be prepared
            assert another.submit({"image": "hello32"}).result().status == 0
        busy.end()
        results = [future.result() for future in futures]

    assert [result.status for result in results] == [0] * 3
    assert not any(was_prepared(result) for result in results)


def test_pool_that_ends_leaves_nothing_of_what_it_has_prepared() -> None:
    before = set(os.listdir("/proc/self/fd"))
    with WarmPool(workers=2) as pool:
        for _ in range(2):
            assert pool.submit({"image": "hello32"}).result().status == 0
        prepared(2)
        pidfds = pidfds_of(descendants_of(os.getpid()))
    for pidfd in pidfds:
        wait_readable(pidfd, "the end of a process of the pool")
        os.close(pidfd)

    assert set(os.listdir("/proc/self/fd")) == before


def test_prepared_process_computes_nothing_while_it_waits() -> None:
    with WarmPool(workers=1) as pool:
        for _ in range(2):
            assert pool.submit({"image": "hello32"}).result().status == 0
        (pid,) = prepared()
        for one in (pid, *children_of(pid)):
            # What sleeps for a time is no socket: poll with a limit, nanosleep, …
            assert Path(f"/proc/{one}/wchan").read_text() in WAITS


WAITS: Final = ("unix_stream_data_wait", "unix_stream_read_generic", "0")
"""Where a read of the pool's socket waits; "0" where the host does not tell."""
