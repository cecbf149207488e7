"""The start of a process at the first use of its devices, without processes: servers that are called."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from kvmbox.base import layout
from kvmbox.base.errors import DeviceGoneError, DeviceProcessError, SandboxError
from kvmbox.contract.device_spec import DeviceSpec
from kvmbox.devices.pc_board import BoardOptions, pc_board
from kvmbox.jail.server import DeviceServer
from kvmbox.parts.restart.recovery import AllOnes, Recovery, Restart
from kvmbox.remote.channel.connection import Channel
from kvmbox.remote.channel.deadlines import REPLY_SLICES
from kvmbox.remote.channel.grants import Grants
from kvmbox.remote.channel.hello import greet
from kvmbox.remote.channel.journal import JOURNAL_LIMIT
from kvmbox.remote.channel.on_demand import NoProcess
from kvmbox.remote.process.crash_policy import Survival
from kvmbox.remote.transport.interface import Opens
from kvmbox.wire import protocol
from kvmbox.wire.protocol import HEADER, NO_DEADLINE, WORDS, request_word
from tests.support.calling import CallingTransport, GoneError
from tests.support.patience import patience

READ, WRITE = request_word(protocol.READ, 0, 4), request_word(protocol.WRITE, 0, 2)
PM_TIMER, PM_ENABLE = 8, 2
SPECS = [DeviceSpec("PM", "pm", "acpi_pm", natural_sizes=frozenset({2, 4}), on_demand=True)]
SECOND = 1_000_000_000
TICKS = 3_579_545
"""Of the PM timer, in a second."""

Lie = Callable[[bytes, bytes], bytes]


class Process:
    """A device process as its channel sees it. `lie` may change or refuse any reply."""

    def __init__(self, lie: Lie = lambda _frame, reply: reply) -> None:
        self.server = DeviceServer()
        self.lie = lie
        self.asked: list[bytes] = []

    def answer(self, frame: bytes) -> bytes:
        self.asked.append(frame)
        return self.lie(frame, self.server.handle(frame))


class Bench:
    """A channel whose process is not there yet, and the pool that starts it."""

    SPECS: ClassVar = SPECS

    def __init__(self, *processes: Process, survival: Survival | None = None, **options: Any) -> None:
        self.name = self.SPECS[0].device_type
        self.processes = list(processes) or [Process()]
        self.log: list[str] = []
        self.time = 0
        self.fails: SandboxError | None = None
        self.while_starting: Callable[[], None] = lambda: None
        self.waiting: list[int] = []
        self.links: list[CallingTransport] = []
        self.told: list[tuple[int, int]] = []
        starts: Any = self
        self.levels: list[tuple[int, int]] = []
        none = NoProcess(starts, self.SPECS)
        self.channel = Channel(
            self.name,
            none,
            [Grants(self.SPECS[0].name, irq_lines=[lambda *change: self.levels.append(change)])],
            now=lambda: self.time,
            deadline_changed=lambda deadline, now: self.told.append((deadline, now)),
            survival=survival,
            **options,
        )
        none.attach(self.channel)
        assert greet(self.channel, self.SPECS) == protocol.VERSION

    # --- The pool -----------------------------------------------------------------------------------------

    def start(self, name: str) -> Opens:
        assert name == self.name
        self.waiting.append(self.channel.waiting)
        assert self.channel.survival.being_connected
        self.log.append("start")
        self.while_starting()
        if self.fails is not None:
            raise self.fails
        return self._next()

    def _next(self) -> CallingTransport:
        self.links.append(CallingTransport(self.processes[len(self.links)].answer))
        return self.links[-1]

    def pause_time(self) -> None:
        self.log.append("pause")

    def resume_time(self) -> None:
        self.log.append("resume")

    # --- The pool, where lost processes are replaced ------------------------------------------------------

    def replace(self, name: str, error: DeviceProcessError) -> Opens:
        self.log.append(f"replace: {error}")
        return self._next()

    def restarted(self, restart: Restart) -> None:
        self.log.append(f"restarted, {restart.replayed} requests again")

    def take_from_budget(self) -> bool:
        return True

    # --- The guest ----------------------------------------------------------------------------------------

    def ticks(self) -> int:
        return self.channel.access(READ, PM_TIMER, 0, 0xFFFF_FFFF)


class Rescuing(Bench):
    """The same with restarts."""

    def __init__(self, *processes: Process, journal_limit: int = JOURNAL_LIMIT) -> None:
        super().__init__(*processes, survival=Recovery(self.SPECS, self, journal_limit=journal_limit))


class Ticks(Bench):
    """A timer that nobody has programmed: its line rises 18 times a second."""

    SPECS: ClassVar = [device for device in pc_board(BoardOptions((), 0, layout.MIB)) if device.name == "PIT"]

    def tick(self, until: int) -> None:
        """Tell the time at each deadline, until there is none before `until`, in ns."""
        while self.channel.deadline <= until:
            self.time = self.channel.deadline
            self.channel.request(protocol.ADVANCE)

    def status(self) -> int:
        """Of counter 0: read-back, then the byte."""
        self.channel.access(request_word(protocol.WRITE, 0, 1), 3, 0xE2, 0)
        return self.channel.access(request_word(protocol.READ, 0, 1), 0, 0, 0xFF)


class RescuedTicks(Rescuing, Ticks):
    """The same with restarts."""


def test_process_of_a_device_that_is_not_used_does_not_start() -> None:
    bench = Bench()
    for now in (SECOND, 2 * SECOND):
        bench.time = now
        assert bench.channel.request(protocol.ADVANCE) == (0, b"")
        assert bench.channel.request(protocol.RESET) == (0, b"")
    assert not bench.channel.is_started
    assert bench.log == []
    assert bench.channel.deadline == NO_DEADLINE
    bench.channel.close()
    assert bench.log == []


@pytest.mark.parametrize("first", ["access", "transact", "request"])
def test_first_use_of_any_kind_starts_it_and_is_answered_by_it(first: str) -> None:
    bench = Bench()
    bench.time = SECOND
    if first == "access":
        assert bench.ticks() == TICKS
    elif first == "transact":
        bench.channel.transact(protocol.WRITE_RUN, 0, PM_ENABLE, b"\1")
    else:
        bench.channel.request(protocol.WRITE_RUN, offset=PM_ENABLE, payload=b"\1")
    assert bench.log == ["pause", "start", "resume"]
    assert bench.channel.is_started
    assert not bench.channel.survival.being_connected
    assert [frame[0] for frame in bench.processes[0].asked[:-1]] == [protocol.HELLO]
    assert bench.ticks() == TICKS
    assert bench.log == ["pause", "start", "resume"]


def test_started_process_is_told_the_last_reset_at_its_time_and_nothing_that_it_need_not_know() -> None:
    bench = Bench()
    told = (protocol.ADVANCE, protocol.RESET, protocol.RESET, protocol.ADVANCE, protocol.ADVANCE)
    for number, kind in enumerate(told, 1):
        bench.time = number * SECOND
        bench.channel.request(kind)
    bench.time = 9 * SECOND
    assert bench.ticks() == 9 * TICKS % (1 << 24)
    asked = [protocol.decode_request(frame) for frame in bench.processes[0].asked]
    assert [(request.kind, request.now) for request in asked] == [
        (protocol.HELLO, 0),
        (protocol.RESET, 3 * SECOND),
        (protocol.ADVANCE, 5 * SECOND),
        (protocol.READ, 9 * SECOND),
    ]
    assert len({request.sequence for request in asked}) == 4  # in shared memory a new frame must look new


def test_deadline_of_the_first_use_is_told() -> None:
    bench = Bench()
    bench.channel.access(WRITE, PM_ENABLE, 1, 0)
    carry = -(-(1 << 23) * SECOND // TICKS)
    assert bench.told[-1] == (carry, 0)
    assert bench.channel.deadline == carry


def test_watchdog_does_not_count_the_start_but_the_request_behind_it() -> None:
    bench = Bench()
    seen: list[int] = []

    def look(frame: bytes, reply: bytes) -> bytes:
        if frame[0] == protocol.READ:
            seen.append(bench.channel.waiting)
        return reply

    bench.processes[0].lie = look
    bench.ticks()
    assert bench.waiting == [0]
    assert seen == [WORDS.unpack_from(bench.processes[0].asked[-1])[0] >> 32]
    assert bench.channel.waiting == 0


class Contended:
    """A lock that says when somebody comes to it who has to wait."""

    def __init__(self) -> None:
        self.waits = threading.Event()
        self._lock = threading.Lock()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        if not self._lock.acquire(blocking=False):
            self.waits.set()
            return self._lock.acquire(blocking, timeout)
        return True

    def release(self) -> None:
        self._lock.release()


def test_two_cpus_that_are_first_at_once_start_one_process() -> None:
    lock = Contended()
    bench = Bench(lock=lock)
    bench.time = SECOND
    found: list[int] = []
    second = threading.Thread(target=lambda: found.append(bench.ticks()))

    def another_comes() -> None:
        second.start()
        assert lock.waits.wait(patience(10))

    bench.while_starting = another_comes
    found.append(bench.ticks())
    second.join()
    assert found == [TICKS, TICKS]
    assert bench.log == ["pause", "start", "resume"]


def test_main_thread_waits_for_a_start_for_longer_than_for_a_reply() -> None:
    lock = Contended()
    bench = Bench(lock=lock, slice_ms=1)
    asked: list[object] = []
    main = threading.Thread(target=lambda: asked.append(bench.channel.request(protocol.ADVANCE)))

    def take_long() -> None:
        main.start()
        # More than the slices that a reply may take: the lock is asked for again and again.
        for _ in range(3 * REPLY_SLICES):
            assert lock.waits.wait(patience(10))
            lock.waits.clear()

    bench.while_starting = take_long
    assert bench.ticks() == 0
    main.join()
    assert asked == [(0, b"")]


def test_recording_has_each_exchange_once_and_as_the_process_would_have_answered() -> None:
    recorded: list[tuple[bytes, bytes]] = []
    bench = Bench(record=lambda sent, frame: recorded.append((sent, frame)))
    bench.time = SECOND
    for kind in (protocol.RESET, protocol.ADVANCE):
        bench.channel.request(kind)
    bench.ticks()
    bench.ticks()
    kinds = [protocol.HELLO, protocol.RESET, protocol.ADVANCE, protocol.READ, protocol.READ]
    assert [sent[0] for sent, _ in recorded] == kinds
    fresh = DeviceServer()
    assert [fresh.handle(sent) for sent, _ in recorded] == [frame for _, frame in recorded]


def test_start_that_fails_is_a_loss_with_the_reason_and_the_hint() -> None:
    bench = Bench()
    bench.fails = SandboxError("cannot start device process 'pm': no more processes", hint="end some")
    with pytest.raises(DeviceProcessError) as caught:
        bench.ticks()
    assert str(caught.value) == "device process 'pm' did not start when it was needed: no more processes"
    assert caught.value.hint == "end some"
    assert bench.log == ["pause", "start", "resume"]
    assert (bench.channel.waiting, bench.channel.survival.being_connected) == (0, False)
    # Nobody tries again.
    with pytest.raises(DeviceProcessError):
        bench.ticks()
    assert bench.log == ["pause", "start", "resume"]


def change(place: int, value: int, kind: int) -> Lie:
    """Another value in one field of the header of each reply to `kind`."""

    def lie(frame: bytes, reply: bytes) -> bytes:
        fields = list(HEADER.unpack_from(reply))
        fields[place] = value
        return HEADER.pack(*fields) + reply[HEADER.size :] if frame[0] == kind else reply

    return lie


def error(frame: bytes, reply: bytes) -> bytes:
    return protocol.ERROR.to_bytes(4, "little") + frame[4:8] + bytes(HEADER.size - 8) + b"no such model"


@pytest.mark.parametrize(
    ("lie", "words"),
    [
        (change(6, 99, protocol.HELLO), "broke the protocol: to hello it did not answer as a device that is"),
        (change(5, 1, protocol.RESET), "broke the protocol: to reset it did not answer as a device that is"),
        (change(3, 1, protocol.RESET), "broke the protocol: to reset it did not answer as a device that is"),
        (
            change(0, 0x84, protocol.RESET),
            "broke the protocol: a reply of kind 0x84 to a request of kind 0x6",
        ),
        (change(4, 77, protocol.HELLO), "broke the protocol: reply 77 to request 1"),
        (lambda _frame, _reply: b"", "broke the protocol: reply 0 to request 1"),
        (lambda _frame, reply: reply + b"x", "broke the protocol: to hello it did not answer"),
        (error, "failed: no such model"),
    ],
)
def test_process_that_does_not_answer_as_was_answered_for_it_is_found_out(lie: Lie, words: str) -> None:
    bench = Bench(Process(lie))
    bench.channel.request(protocol.RESET)
    with pytest.raises(DeviceProcessError, match=words):
        bench.ticks()
    assert bench.log == ["pause", "start", "resume"]
    assert protocol.READ not in [frame[0] for frame in bench.processes[0].asked]


def die(_frame: bytes, _reply: bytes) -> bytes:
    raise GoneError


def test_process_that_is_lost_at_its_start_is_gone() -> None:
    bench = Bench(Process(die))
    with pytest.raises(DeviceGoneError):
        bench.ticks()


@pytest.mark.parametrize("lie", [die, change(6, 99, protocol.HELLO)])
def test_process_that_is_lost_at_its_start_is_replaced_by_one_that_knows_as_much(lie: Lie) -> None:
    bench = Rescuing(Process(lie), Process())
    bench.time = SECOND
    bench.channel.request(protocol.RESET)
    bench.time = 2 * SECOND
    assert bench.ticks() == 2 * TICKS
    assert [line.partition(":")[0] for line in bench.log] == [
        *("pause", "start", "resume"),
        *("pause", "replace", "resume", "restarted, 1 requests again"),
    ]
    kinds = [frame[0] for frame in bench.processes[1].asked]
    assert kinds == [protocol.HELLO, protocol.REPLAY, protocol.READ]


def test_start_that_fails_is_replaced_where_losses_are() -> None:
    bench = Rescuing()
    bench.fails = SandboxError("cannot start device process 'pm': no more processes")
    bench.time = SECOND
    assert bench.ticks() == TICKS
    assert "did not start when it was needed: no more processes" in bench.log[4]
    assert bench.log[-1] == "restarted, 0 requests again"


def test_process_that_is_lost_after_its_start_is_replaced_as_any_other() -> None:
    def dies_later(frame: bytes, reply: bytes) -> bytes:
        if frame[0] == protocol.READ:
            raise GoneError
        return reply

    bench = Rescuing(Process(dies_later), Process())
    bench.channel.access(WRITE, PM_ENABLE, 1, 0)
    bench.time = SECOND
    assert bench.ticks() == TICKS
    kinds = [frame[0] for frame in bench.processes[1].asked]
    assert kinds == [protocol.HELLO, protocol.REPLAY, protocol.READ]
    assert bench.channel.deadline != NO_DEADLINE


def test_ports_of_a_process_that_does_not_start_read_as_ones_where_that_is_wanted() -> None:
    told: list[DeviceProcessError] = []
    bench = Bench(survival=AllOnes(told.append))
    bench.fails = SandboxError("cannot start device process 'pm': no more processes")
    assert bench.ticks() == 0xFFFF_FFFF
    assert bench.ticks() == 0xFFFF_FFFF
    assert [str(error) for error in told] == [
        "device process 'pm' did not start when it was needed: no more processes"
    ]
    assert bench.log == ["pause", "start", "resume"]


def test_full_journal_starts_no_process() -> None:
    bench = Rescuing(Process(die), Process(), journal_limit=3)
    for bench.time in (1, 2, 3, 4, SECOND):
        bench.channel.request(protocol.RESET)
    assert not bench.channel.is_started
    assert len(bench.channel.survival.journal or ()) < 3
    bench.time = 2 * SECOND
    assert bench.ticks() == 2 * TICKS  # by the replacement, which is told as much as the first process
    assert bench.log[-1] == "restarted, 1 requests again"


def test_time_of_the_last_reset_is_known_while_there_is_no_process() -> None:
    bench = Bench()
    none = bench.channel.transport
    assert isinstance(none, NoProcess)
    assert none.reset_at is None
    for bench.time in (SECOND, 3 * SECOND):
        bench.channel.request(protocol.RESET)
    bench.time = 5 * SECOND
    bench.channel.request(protocol.ADVANCE)
    assert none.reset_at == 3 * SECOND


# --- A device whose line runs by itself -------------------------------------------------------------------

RISES, FALLS = (1, 0), (0, 0)
HALF, PERIOD = 27_462_701, 54_925_402
"""Of 65536 pulses at 1,193,182 Hz, in ns."""
OUT_HIGH, OUT_LOW = 0x86, 0x06


def test_line_that_runs_by_itself_needs_no_process() -> None:
    bench = Ticks()
    bench.tick(SECOND)
    assert bench.levels == [RISES, FALLS] * 18 + [RISES]
    assert bench.told[:3] == [(HALF, 0), (PERIOD, HALF), (PERIOD + HALF - 1, PERIOD)]
    assert bench.log == []
    bench.channel.request(protocol.RESET)  # while the line is low
    assert bench.channel.deadline == bench.time + HALF
    assert not bench.channel.is_started


def test_line_that_runs_by_itself_goes_low_at_a_reset_and_begins_anew() -> None:
    bench = Ticks()
    bench.tick(60_000_000)
    bench.channel.request(protocol.RESET)
    assert bench.levels == [RISES, FALLS, RISES, FALLS]  # the last one by the reset
    assert bench.channel.deadline == bench.time + HALF


def test_first_use_finds_the_line_as_it_runs() -> None:
    bench = Ticks()
    bench.tick(60_000_000)
    assert bench.levels.pop() == RISES
    assert bench.status() == OUT_HIGH
    assert bench.log == ["pause", "start", "resume"]
    asked = [protocol.decode_request(frame) for frame in bench.processes[0].asked]
    assert [(request.kind, request.now) for request in asked[:-2]] == [
        (protocol.HELLO, 0),
        (protocol.ADVANCE, PERIOD),
    ]
    bench.levels.clear()
    bench.tick(120_000_000)
    assert bench.levels == [FALLS, RISES]
    bench.time = 150_000_000
    assert bench.status() == OUT_LOW
    assert bench.levels == [FALLS, RISES, FALLS]


@pytest.mark.parametrize("kind", [protocol.HELLO, protocol.RESET, protocol.ADVANCE])
def test_process_whose_line_runs_otherwise_is_found_out(kind: int) -> None:
    bench = Ticks(Process(change(5, 1, kind)))
    bench.channel.request(protocol.RESET)
    bench.tick(30_000_000)
    with pytest.raises(DeviceProcessError, match=f"to {protocol.KIND_NAMES[kind]} it did not answer as a"):
        bench.status()


@pytest.mark.parametrize("lost", [protocol.HELLO, protocol.ADVANCE, protocol.WRITE, protocol.READ])
def test_process_whose_line_runs_by_itself_is_replaced_before_and_after_its_first_use(lost: int) -> None:
    def dies(frame: bytes, reply: bytes) -> bytes:
        return die(frame, reply) if frame[0] == lost else reply

    bench, undisturbed = RescuedTicks(Process(dies), Process()), Ticks()
    for one in (bench, undisturbed):
        one.tick(40_000_000)
        one.channel.request(protocol.RESET)
        one.tick(300_000_000)
        assert one.status() == OUT_LOW
        one.tick(SECOND)
    assert bench.log[-1].startswith("restarted, ")
    assert (bench.levels, bench.told) == (undisturbed.levels, undisturbed.told)


def test_journal_of_a_line_that_runs_by_itself_starts_no_process() -> None:
    def dies(frame: bytes, reply: bytes) -> bytes:
        return die(frame, reply) if frame[0] == protocol.READ else reply

    bench, undisturbed = RescuedTicks(Process(dies), Process(), journal_limit=7), Ticks()
    for one in (bench, undisturbed):
        one.tick(SECOND)
        one.channel.request(protocol.RESET)
        one.tick(4 * SECOND)
        assert not one.channel.is_started
        assert one.status() == OUT_LOW
    assert bench.log[-1] == "restarted, 6 requests again"  # of 146
    assert (bench.levels, bench.told) == (undisturbed.levels, undisturbed.told)
