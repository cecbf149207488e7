"""How long the main thread waits: for a reply, for another thread that waits, and what it does after that."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from kvmbox.base.errors import DeviceGoneError, DeviceProcessError, KvmboxError
from kvmbox.parts.restart.recovery import all_ones
from kvmbox.remote.channel.connection import Channel
from kvmbox.remote.channel.deadlines import REPLY_SLICES, START_SLICES
from kvmbox.remote.channel.effect_calls import CanWait, FollowUp
from kvmbox.remote.channel.grants import Grants
from kvmbox.remote.process.crash_policy import ProcessControl, Survival
from kvmbox.wire import protocol
from kvmbox.wire.protocol import NO_DEADLINE, WORDS, request_word
from tests.support.far_end import FarEnd

READ = request_word(protocol.READ, 0, 1)


class PatientLock:
    """A lock; at one of the tries to take it with a time-out, as the main thread does, something happens."""

    def __init__(self, *, tries: int, then: Callable[[], None]) -> None:
        self._lock = threading.Lock()
        self._tries = tries
        self._then = then
        self.release = self._lock.release

    def acquire(self, *, timeout: float = -1) -> bool:
        if timeout >= 0:
            self._tries -= 1
            if self._tries == 0:
                self._then()
        return self._lock.acquire(timeout=timeout)

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class Rescue(Survival, ProcessControl):
    """Answers for the lost process, if it `rescues`; notes what is overdue. Also the process itself."""

    def __init__(self) -> None:
        super().__init__(self)
        self.rescued: list[DeviceProcessError] = []
        self.killed: list[DeviceProcessError] = []
        self.heard: list[bool] = []
        self.waiters: list[int] = []
        self.end: Callable[[], None]
        self.is_starved: Callable[[], bool] = lambda: False
        self.meanwhile: Callable[[], None] = lambda: None

    def rescue(self, error: DeviceProcessError, sent: bytes) -> bytes:
        self.rescued.append(error)
        self.being_connected = True
        self.meanwhile()
        self.being_connected = False
        return all_ones(sent)

    def overdue(self, late: bool) -> None:
        self.heard.append(late)

    def killer(self) -> Callable[[DeviceProcessError], None]:
        generation = len(self.rescued)

        def kill(cause: DeviceProcessError) -> None:
            if generation == len(self.rescued):
                self.killed.append(cause)
                self.end()

        return kill

    def starvation(self, waiter: int = 0) -> Callable[[], bool]:
        self.waiters.append(waiter)
        return self.is_starved


class Silent:
    """A channel whose process answers nothing; a vCPU thread can be made to wait for it."""

    def __init__(self, lock: PatientLock | None = None) -> None:
        far = FarEnd()
        self.device_end = far.socket
        self.survival = Rescue()
        self.survival.end = self.device_end.close
        self.channel = Channel(
            "uart",
            far.link,
            [Grants("COM1")],
            now=lambda: 5,
            survival=self.survival,
            lock=lock,  # type: ignore[arg-type]  # a fake
            slice_ms=1,
        )
        self.threads = ThreadPoolExecutor(1)

    def vcpu_waits(self) -> Callable[[], int]:
        """Returns when the vCPU thread waits for a reply, with what gives the result of its access."""
        self.thread = self.threads.submit(threading.get_ident).result()
        future = self.threads.submit(self.channel.access, READ, 5, 0, 0xFF)
        self.device_end.recv(8192)
        return future.result

    def replace_process(self) -> None:
        """The process that a thread waits for ends. The rescue of that thread finds another silent one."""
        far = FarEnd()
        lost, self.device_end = self.device_end, far.socket
        self.survival.end = self.device_end.close
        links = [far.link]
        self.survival.meanwhile = lambda: self.channel.connect(links.pop()) if links else None
        lost.close()

    def reply(self, kind: int, sequence: int, value: int = 0) -> None:
        size = 1 if kind == protocol.READ else 0
        word = kind | protocol.REPLY | size << 16 | sequence << 32
        self.device_end.send(WORDS.pack(word, NO_DEADLINE, value, 0))

    def close(self) -> None:
        self.device_end.close()
        self.threads.shutdown()
        self.channel.close()


@pytest.fixture
def silent() -> Iterator[Silent]:
    peer = Silent()
    yield peer
    peer.close()


def test_request_that_finds_a_hung_access_kills_and_is_answered_by_the_rescue(silent: Silent) -> None:
    silent.survival.rescues = True
    value = silent.vcpu_waits()
    assert silent.channel.request(protocol.ADVANCE) == (0, b"")
    assert value() == 0xFF
    (killed,) = silent.survival.killed
    assert "is hung: no reply within" in str(killed)
    assert isinstance(silent.survival.rescued[0], DeviceGoneError)
    assert silent.channel.failure is None


def test_request_that_finds_a_hung_access_fails_where_nobody_is_rescued(silent: Silent) -> None:
    value = silent.vcpu_waits()
    with pytest.raises(DeviceProcessError, match="is hung"):
        silent.channel.request(protocol.ADVANCE)
    assert silent.survival.killed == []
    silent.device_end.close()
    with pytest.raises(DeviceProcessError, match="is hung"):
        value()


def test_request_waits_for_an_access_that_is_answered_in_time(silent: Silent) -> None:
    silent.survival.rescues = True
    value = silent.vcpu_waits()
    slices = []

    def is_starved() -> bool:
        # The last moment: the reply to the access, and the one to the request that waits for it.
        slices.append(1)
        if len(slices) == 1:
            silent.reply(protocol.READ, 1, 0x60)
            silent.reply(protocol.ADVANCE, 2)
        return True

    silent.survival.is_starved = is_starved
    assert silent.channel.request(protocol.ADVANCE) == (0, b"")
    assert value() == 0x60
    assert silent.survival.killed == []
    assert silent.survival.waiters[0] == silent.thread  # it may be the one that is starved


def test_request_waits_for_a_rescue_for_longer_than_for_a_reply() -> None:
    # A replacement may have to be forked and jailed first: the main thread must not kill it for that.
    begun, finish = threading.Event(), threading.Event()

    def meanwhile() -> None:
        begun.set()
        finish.wait()

    silent = Silent(PatientLock(tries=3 * REPLY_SLICES, then=finish.set))
    silent.survival.rescues = True
    silent.survival.meanwhile = meanwhile
    value = silent.vcpu_waits()
    silent.device_end.close()
    begun.wait()
    assert silent.channel.request(protocol.ADVANCE) == (0, b"")
    assert value() == 0xFF
    assert silent.survival.killed == []
    silent.close()


def test_request_a_replacement_that_hangs_in_its_turn_is_killed_as_well() -> None:
    # The vCPU thread is served by the replacement, and asks it again before the lock is free for the request.
    def change_process() -> None:
        silent.replace_process()
        waits.append(silent.vcpu_waits())

    silent = Silent(PatientLock(tries=REPLY_SLICES // 2, then=change_process))
    silent.survival.rescues = True
    waits = [silent.vcpu_waits()]
    assert silent.channel.request(protocol.ADVANCE) == (0, b"")
    assert [value() for value in waits] == [0xFF, 0xFF]
    (killed,) = silent.survival.killed
    assert "is hung: no reply within" in str(killed)
    assert silent.channel.failure is None
    silent.close()


@pytest.mark.parametrize("excuses", [0, 1, 7])
def test_request_an_excused_process_gets_more_slices(silent: Silent, excuses: int) -> None:
    left = [excuses]

    def is_starved() -> bool:
        left[0] -= 1
        return left[0] >= 0

    silent.survival.is_starved = is_starved
    with pytest.raises(DeviceProcessError, match="is hung: no reply within"):
        silent.channel.request(protocol.ADVANCE)
    assert left[0] == -1


def test_request_no_excuse_lasts_for_ever(silent: Silent) -> None:
    asked = []

    def is_starved() -> bool:
        asked.append(1)
        return True

    silent.survival.is_starved = is_starved
    with pytest.raises(DeviceProcessError, match="is hung"):
        silent.channel.request(protocol.ADVANCE, slices=2)
    assert len(asked) == START_SLICES


def test_request_waits_for_a_thread_that_has_its_reply_and_does_what_it_asks_for() -> None:
    begun, finish = threading.Event(), threading.Event()

    def act() -> list[FollowUp | CanWait]:
        begun.set()
        finish.wait()
        return []

    silent = Silent(PatientLock(tries=REPLY_SLICES + 5, then=finish.set))
    at_work = silent.threads.submit(silent.channel.serve, act)
    begun.wait()
    silent.reply(protocol.ADVANCE, 1)
    try:
        assert silent.channel.request(protocol.ADVANCE) == (0, b"")
    finally:
        finish.set()
    at_work.result()
    silent.close()


@pytest.mark.parametrize("rescues", [False, True])
def test_request_behind_a_thread_that_never_ends_its_own_work_blames_kvmbox(rescues: bool) -> None:
    begun, finish = threading.Event(), threading.Event()

    def act() -> list[FollowUp | CanWait]:
        begun.set()
        finish.wait()
        return []

    silent = Silent(PatientLock(tries=2 * START_SLICES, then=lambda: pytest.fail("the request waits on")))
    silent.survival.rescues = rescues
    at_work = silent.threads.submit(silent.channel.serve, act)
    begun.wait()
    try:
        with pytest.raises(KvmboxError, match="is stuck in its work for device process") as caught:
            silent.channel.request(protocol.ADVANCE)
        assert caught.value.exit_status == 14
        assert silent.survival.killed == []
    finally:
        finish.set()
    at_work.result()
    silent.close()


def test_request_tells_that_a_reply_is_overdue_once(silent: Silent) -> None:
    with pytest.raises(DeviceProcessError, match="is hung"):
        silent.channel.request(protocol.ADVANCE)
    assert silent.survival.heard == [True, False]


def test_request_that_is_answered_at_once_is_not_overdue(silent: Silent) -> None:
    silent.reply(protocol.ADVANCE, 1)
    silent.channel.request(protocol.ADVANCE)
    assert silent.survival.heard == []


def test_request_does_not_wait_for_ever_for_a_rescue_that_does_not_end() -> None:
    begun, finish = threading.Event(), threading.Event()

    def meanwhile() -> None:
        begun.set()
        finish.wait()

    silent = Silent(PatientLock(tries=5 * START_SLICES, then=lambda: pytest.fail("the request waits on")))
    silent.survival.rescues = True
    silent.survival.meanwhile = meanwhile
    value = silent.vcpu_waits()
    silent.device_end.close()
    begun.wait()
    try:
        with pytest.raises(DeviceProcessError, match="is hung: no reply within 10000 ms"):
            silent.channel.request(protocol.ADVANCE)
        assert silent.channel.failure is not None
    finally:
        finish.set()
    assert value() == 0xFF
    silent.close()


def test_reply_that_comes_between_the_last_slice_and_the_look_at_the_process_counts(silent: Silent) -> None:
    def answered_by_now() -> bool:
        silent.reply(protocol.ADVANCE, 2)
        return False  # and waits for the next request: it is not starved

    value = silent.vcpu_waits()
    silent.reply(protocol.READ, 1, 0x60)
    assert value() == 0x60
    silent.survival.is_starved = answered_by_now
    assert silent.channel.request(protocol.ADVANCE) == (0, b"")
    assert silent.channel.failure is None
    assert silent.survival.waiters == [0]  # the thread that waits is this one, and runs
