"""Restarts, without processes: real servers behind a channel that calls them, broken as each test wants."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest

from kvmbox.base.errors import DeviceGoneError, DeviceProcessError, GivenUpError, ProtocolError, SandboxError
from kvmbox.contract.device_spec import DeviceSpec
from kvmbox.contract.model import Effect, HostOutput, IrqLine, Reset, SnapshotError, Stop
from kvmbox.jail import server as server_module
from kvmbox.jail.server import DeviceServer
from kvmbox.parts.restart import recovery
from kvmbox.parts.restart.recovery import AllOnes, Recovery, Restart, all_ones, show
from kvmbox.remote.channel import journal as journal_module
from kvmbox.remote.channel.connection import Channel
from kvmbox.remote.channel.grants import Grants
from kvmbox.remote.channel.hello import greet
from kvmbox.remote.channel.journal import JOURNAL_BYTES, JOURNAL_LIMIT, MAX_SNAPSHOT, Journal
from kvmbox.remote.process.crash_policy import ProcessControl, Survival
from kvmbox.wire import protocol
from kvmbox.wire.effects import encode_reply
from kvmbox.wire.protocol import HEADER, MAX_PAYLOAD, NO_DEADLINE, WORDS, Request, request_word
from tests.support.calling import CallingTransport, GoneError
from tests.support.halves import Half
from tests.support.links import socket_link

READ, WRITE = request_word(protocol.READ, 0, 1), request_word(protocol.WRITE, 0, 1)
Peer = Callable[[bytes, bytes], bytes]


class Notebook:
    """A model that remembers all that was written to it, prints it, and raises an interrupt on each 7."""

    padding = 0
    """How much longer its snapshot is than it has to be."""

    def __init__(self) -> None:
        self.written = b""
        self.now = 0
        self._effects: list[Effect] = []

    def read(self, now: int, offset: int, size: int) -> int:
        self.now = now
        return len(self.written) & 0xFF if offset == 0 else 0x5A

    def write(self, now: int, offset: int, size: int, value: int) -> None:
        self.now = now
        self.written += bytes([value])
        self._effects.append(HostOutput(bytes([value])))
        if value == 7:
            self._effects += [IrqLine(0, 1), IrqLine(0, 0)]

    def advance(self, now: int) -> None:
        self.now = now

    def next_deadline(self) -> int | None:
        return self.now + 100

    def receive(self, now: int, data: bytes) -> int:
        self.written += data
        return len(data)

    def reset(self, now: int) -> None:
        self.written = b""

    def take_effects(self) -> list[Effect]:
        effects, self._effects = self._effects, []
        return effects

    def snapshot(self) -> bytes:
        return b"book" + self.now.to_bytes(8, "little") + self.written + b"\0" * self.padding

    def restore(self, state: bytes) -> None:
        if state[:4] != b"book":
            raise SnapshotError("not a notebook")
        self.now = int.from_bytes(state[4:12], "little")
        self.written = state[12:].rstrip(b"\0")


class Process:
    """A device process as its channel sees it. `lie` may change or refuse any reply, by the request."""

    def __init__(self, lie: Peer | None = None) -> None:
        self.server = DeviceServer(build=lambda _name, _parameters: Notebook())
        self.lie = lie
        self.asked: list[bytes] = []

    def kinds(self) -> list[int]:
        return [frame[0] for frame in self.asked]

    def answer(self, frame: bytes) -> bytes:
        self.asked.append(frame)
        if self.lie is die:
            raise GoneError
        reply = self.server.handle(frame)
        return self.lie(frame, reply) if self.lie is not None else reply


def die(_frame: bytes, _reply: bytes) -> bytes:
    raise GoneError


def on(kind: int, act: Peer, *, after: int = 0) -> Peer:
    """Do `act` at requests of `kind`, once there were `after` of them."""
    seen = 0

    def lie(frame: bytes, reply: bytes) -> bytes:
        nonlocal seen
        if frame[0] != kind:
            return reply
        seen += 1
        return act(frame, reply) if seen > after else reply

    return lie


class Way(CallingTransport):
    """The transport to a process of the test."""

    def __init__(self, process: Process) -> None:
        super().__init__(process.answer)
        self.process = process


class Bench:
    """A channel with a recovery, `processes` to run through, and all that came of it."""

    def __init__(
        self,
        *processes: Process,
        budget: int = 100,
        devices: int = 1,
        journal_limit: int = JOURNAL_LIMIT,
        survival: Survival | None = None,
        record: Callable[[bytes, bytes], None] | None = None,
    ) -> None:
        """`survival` instead of the recovery."""
        self.processes = processes
        self.output = b""
        self.interrupts: list[int] = []
        self.time = 0
        self.clock: list[str] = []
        self.losses: list[DeviceProcessError] = []
        self.restarts: list[Restart] = []
        self.budget = budget
        self._next = 0
        grants = [
            Grants(
                f"book {index}",
                irq_lines=[lambda level, _coalesced: self.interrupts.append(level)],
                output=self._print,
            )
            for index in range(devices)
        ]

        specs = [DeviceSpec(f"book {index}", "books", "notebook") for index in range(devices)]
        self.recovery = Recovery(specs, self, journal_limit=journal_limit)
        self.channel = Channel(
            "books",
            Way(processes[0]),
            grants,
            now=self._now,
            survival=survival or self.recovery,
            record=record,
        )
        greet(self.channel, specs)

    def _print(self, data: bytes) -> None:
        self.output += data

    def _now(self) -> int:
        self.time += 10
        return self.time

    def write(self, data: bytes, device: int = 0) -> None:
        for byte in data:
            self.channel.access(WRITE | device << 8, 0, byte, 0)

    def count(self) -> int:
        return self.channel.access(READ, 0, 0, 0xFF)

    @property
    def process(self) -> Process:
        assert isinstance(self.channel.transport, Way)
        return self.channel.transport.process

    @property
    def journal(self) -> Journal:
        return self.recovery.journal

    # --- Standby ---

    def replace(self, name: str, error: DeviceProcessError) -> Way:
        assert name == "books"
        assert self.clock.count("pause") > self.clock.count("resume")
        assert self.channel.waiting == 0
        self.losses.append(error)
        self._next += 1
        if self._next >= len(self.processes):
            raise SandboxError("no process can be had")
        return Way(self.processes[self._next])

    def pause_time(self) -> None:
        self.clock.append("pause")

    def resume_time(self) -> None:
        self.clock.append("resume")

    def restarted(self, restart: Restart) -> None:
        self.restarts.append(restart)

    def take_from_budget(self) -> bool:
        self.budget -= 1
        return self.budget >= 0


@pytest.fixture(autouse=True)
def notebooks() -> Iterator[None]:
    yield
    Notebook.padding = 0


SHORT = 10
"""The limit of a journal that is full soon."""


# --- Restarts that the guest cannot tell ------------------------------------------------------------------


@pytest.mark.parametrize("after", range(6))
def test_death_at_a_write_loses_and_doubles_nothing(after: int) -> None:
    bench = Bench(Process(on(protocol.WRITE, die, after=after)), Process())
    bench.write(b"ab\7c\7d")
    assert bench.count() == 6
    assert bench.output == b"ab\7c\7d"
    assert bench.interrupts == [1, 0, 1, 0]
    assert [restart.replayed for restart in bench.restarts] == [after]
    assert bench.restarts[0].used == 1
    assert bench.channel.failure is None


def test_death_before_an_answer_counts_the_request_as_open_though_the_model_had_done_it() -> None:
    # It wrote to its state, then died with the reply unsent: the replacement does it for the first time.
    first = Process(on(protocol.WRITE, die))
    bench = Bench(first, Process())
    bench.write(b"x")
    assert first.server.models[0].snapshot().endswith(b"x")
    assert bench.output == b"x"
    assert bench.count() == 1


def test_replacement_is_greeted_like_the_first_one_and_gets_the_past_in_one_request() -> None:
    second = Process()
    bench = Bench(Process(on(protocol.READ, die)), second, devices=2)
    bench.write(b"abc")
    bench.write(b"de", device=1)
    assert bench.count() == 3
    assert second.kinds() == [protocol.HELLO, protocol.REPLAY, protocol.READ]
    assert protocol.decode_board(second.asked[0][HEADER.size :]) == [("notebook", {}), ("notebook", {})]
    assert len(second.server.models) == 2
    assert second.server.models[1].snapshot().endswith(b"de")


def test_every_kind_of_loss_is_survived() -> None:
    def sequence(_frame: bytes, reply: bytes) -> bytes:
        return reply[:4] + b"\xff\xff\xff\x7f" + reply[8:]

    def raises(frame: bytes, _reply: bytes) -> bytes:
        return server_module.error_frame(HEADER.unpack_from(frame)[4], RuntimeError("a bug"))

    lies: list[Peer] = [
        die,
        sequence,
        raises,
        lambda _frame, reply: reply[:31],
        lambda _frame, reply: reply + bytes(5000),
        lambda _frame, _reply: b"\xa5" * 32,
        lambda _frame, reply: reply[:16] + b"\xff" * 8 + reply[24:],
        lambda frame, _reply: encode_reply(protocol.decode_request(frame), None, 0, [(0, Stop())]),
        lambda frame, _reply: encode_reply(protocol.decode_request(frame), None, 0, [(9, Reset())]),
    ]
    # The first read of each but the first is the one that it inherits.
    bench = Bench(*(Process(on(protocol.READ, lie, after=lie is not die)) for lie in lies), Process())
    for number in range(len(lies) + 1):
        assert bench.count() == number
        bench.write(b"x")
    assert len(bench.restarts) == len(lies)
    assert bench.output == b"x" * (len(lies) + 1)


def test_a_process_may_be_lost_again_and_again() -> None:
    bench = Bench(*(Process(on(protocol.WRITE, die, after=1)) for _ in range(20)), Process())
    bench.write(bytes(range(100, 120)))
    assert bench.output == bytes(range(100, 120))
    assert len(bench.restarts) == 19
    assert bench.recovery.restarts == 19


def test_requests_of_the_main_thread_are_survived_as_well() -> None:
    bench = Bench(Process(on(protocol.RECEIVE, die)), Process(on(protocol.ADVANCE, die)), Process())
    assert bench.channel.request(protocol.RECEIVE, payload=b"typed", limit=5) == (5, b"")
    bench.channel.request(protocol.ADVANCE)
    assert bench.count() == 5
    bench.channel.request(protocol.RESET)
    assert bench.count() == 0
    assert len(bench.restarts) == 2


def test_payloads_too_long_for_a_batch_are_replayed_in_their_place() -> None:
    second = Process()
    bench = Bench(Process(on(protocol.READ, die)), second)
    bench.write(b"a")
    bench.channel.request(protocol.RECEIVE, payload=b"b" * MAX_PAYLOAD, limit=MAX_PAYLOAD)
    bench.write(b"c")
    bench.count()
    assert second.kinds() == [
        *(protocol.HELLO, protocol.REPLAY, protocol.RECEIVE, protocol.REPLAY, protocol.READ)
    ]
    assert second.server.models[0].snapshot()[12:] == b"a" + b"b" * MAX_PAYLOAD + b"c"
    assert bench.restarts[0].replayed == 3


def test_guest_time_stands_still_from_the_loss_to_the_reply() -> None:
    bench = Bench(Process(on(protocol.WRITE, die)), Process())
    bench.write(b"x")
    assert bench.clock == ["pause", "resume"]


def test_no_two_neighbouring_frames_begin_alike() -> None:
    # In shared memory a request is new if its first word is.
    second, third = Process(on(protocol.READ, die)), Process()
    bench = Bench(Process(on(protocol.WRITE, die, after=1000)), second, third, devices=3)
    bench.write(b"." * 1001)
    bench.count()
    for process in (second, third):
        words = [frame[:8] for frame in process.asked]
        assert len(words) > 8
        assert all(one != next_one for one, next_one in pairwise(words))


def test_recorder_sees_what_happened_to_the_guest_and_nothing_else() -> None:
    seen: list[tuple[int, int]] = []
    bench = Bench(
        Process(on(protocol.WRITE, die, after=1)),
        Process(),
        record=lambda sent, frame: seen.append((sent[0], frame[0])),
    )
    assert [kind for kind, _ in seen] == [protocol.HELLO]
    seen.clear()
    bench.write(b"ab")
    assert seen == [(protocol.WRITE, protocol.WRITE | protocol.REPLY)] * 2


# --- Checkpoints ------------------------------------------------------------------------------------------


def test_checkpoint_clears_the_journal_and_the_replacement_begins_with_snapshots() -> None:
    second = Process()
    bench = Bench(Process(on(protocol.READ, die)), second, devices=2, journal_limit=SHORT)
    bench.write(b"x" * (SHORT + 3))
    assert len(bench.journal) == 3
    assert bench.count() == SHORT + 3
    restores = [protocol.RESTORE] * 2
    assert second.kinds() == [protocol.HELLO, *restores, protocol.REPLAY, protocol.READ]
    assert bench.restarts[0].replayed == 3
    assert bench.output == b"x" * (SHORT + 3)


def test_journal_is_bounded_by_what_its_frames_hold_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "JOURNAL_BYTES", 10_000)
    bench = Bench(Process())
    sizes = []
    for _ in range(20):
        bench.channel.request(protocol.RECEIVE, payload=bytes(1000), limit=1000)
        sizes.append(sum(len(request) + len(reply) for _, request, _, reply in bench.journal))
    assert max(sizes) < 12_000
    assert sizes.count(0) == 1
    assert bench.process.kinds().count(protocol.SNAPSHOT) > 1  # 10,000 bytes and more are some parts


def test_journal_limit_bounds_memory() -> None:
    assert 2 * JOURNAL_LIMIT * HEADER.size + JOURNAL_BYTES < 2 << 20


@pytest.mark.parametrize("after", range(3))
def test_death_in_a_checkpoint_is_survived_by_the_whole_journal(after: int) -> None:
    second = Process()
    bench = Bench(Process(on(protocol.SNAPSHOT, die, after=after)), second, devices=3, journal_limit=SHORT)
    bench.write(b"y" * SHORT)
    assert bench.restarts[0].replayed == SHORT
    assert bench.journal == []
    # The rest of the checkpoint is the replacement's, and good: a third process could begin with it.
    assert second.kinds().count(protocol.SNAPSHOT) == 3 - after
    assert bench.count() == SHORT
    assert bench.output == b"y" * SHORT


def test_death_between_the_parts_of_a_snapshot_begins_that_snapshot_again() -> None:
    Notebook.padding = 3 * MAX_PAYLOAD
    second = Process()
    bench = Bench(Process(on(protocol.SNAPSHOT, die, after=2)), second, Process(), journal_limit=SHORT)
    bench.write(b"z" * SHORT)
    offsets = [Request.offset for Request in map(protocol.decode_request, second.asked) if Request.kind == 7]
    assert offsets == [2, 0, 1, 2, 3]
    assert bench.journal == []
    second.lie = die
    assert bench.count() == SHORT
    assert bench.process.kinds() == [protocol.HELLO, *[protocol.RESTORE] * 4, protocol.READ]


def part_too_short(_frame: bytes, reply: bytes) -> bytes:
    fields = list(HEADER.unpack_from(reply))
    fields[8] -= 1
    return HEADER.pack(*fields) + reply[HEADER.size : -1]


def total_too_large(_frame: bytes, reply: bytes) -> bytes:
    fields = list(HEADER.unpack_from(reply))
    fields[6] = MAX_SNAPSHOT + 1
    return HEADER.pack(*fields) + reply[HEADER.size :]


def total_that_grows(frame: bytes, _reply: bytes) -> bytes:
    request = protocol.decode_request(frame)
    total = min((request.offset + 3) * MAX_PAYLOAD, MAX_SNAPSHOT + 1)
    return encode_reply(request, None, total, [], bytes(MAX_PAYLOAD))


@pytest.mark.parametrize("lie", [part_too_short, total_too_large, total_that_grows])
def test_lie_about_a_snapshot_is_a_loss_like_any_other(lie: Peer) -> None:
    bench = Bench(Process(on(protocol.SNAPSHOT, lie)), Process(), journal_limit=SHORT)
    bench.write(b"s" * SHORT)
    (error,) = bench.losses
    assert isinstance(error, ProtocolError)
    assert bench.journal == []
    assert bench.count() == SHORT
    assert bench.output == b"s" * SHORT


def test_lie_about_a_snapshot_by_three_in_a_row_is_poison() -> None:
    liars = [Process(on(protocol.SNAPSHOT, part_too_short)) for _ in range(recovery.POISONED)]
    bench = Bench(*liars, Process(), journal_limit=SHORT)
    with pytest.raises(
        GivenUpError, match=r"part 0 of a snapshot of 22 bytes has 21; the same request .*snap"
    ):
        bench.write(b"s" * SHORT)
    assert bench.output == b"s" * SHORT  # the write itself was done, once


def test_lies_about_snapshots_of_different_times_are_not_poison() -> None:
    liars = [Process(on(protocol.SNAPSHOT, part_too_short, after=after)) for after in (0, 2, 2)]
    bench = Bench(*liars, Process(), journal_limit=SHORT)
    bench.write(b"s" * 4 * SHORT)
    assert bench.count() == 4 * SHORT


def test_snapshot_that_is_refused_ends_in_giving_up() -> None:
    def damaged(frame: bytes, reply: bytes) -> bytes:
        request = protocol.decode_request(frame)
        return encode_reply(request, None, 4, [], b"boom")

    first = Process(on(protocol.SNAPSHOT, damaged))
    bench = Bench(first, *(Process() for _ in range(5)), journal_limit=SHORT)
    bench.write(b"s" * SHORT)
    first.lie = die
    with pytest.raises(GivenUpError, match="to restore it answered 0x0, not 0x1"):
        bench.count()
    assert len(bench.losses) == recovery.ATTEMPTS


# --- Giving up --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("losses", [1, 2])
@pytest.mark.parametrize("how", [die, lambda _frame, _reply: b"\0" * 32], ids=["killed", "stopped or lying"])
def test_processes_that_are_lost_at_the_same_request_by_chance_are_replaced(losses: int, how: Peer) -> None:
    victims = [Process(on(protocol.WRITE, how, after=1)), *(Process(on(protocol.WRITE, how)) for _ in "ab")]
    bench = Bench(*victims[:losses], Process())
    bench.write(b"a\7c\7")
    assert bench.count() == 4
    assert bench.output == b"a\7c\7"
    assert bench.interrupts == [1, 0, 1, 0]
    assert [restart.replayed for restart in bench.restarts] == [1] * len(bench.restarts)
    assert sum(restart.used for restart in bench.restarts) == len(bench.losses) == losses
    assert bench.budget == 100 - losses


def test_chance_at_one_request_is_forgotten_at_the_next() -> None:
    # Twice the write, then twice the read: four losses, none of them poison.
    write, read = on(protocol.WRITE, die), on(protocol.READ, die)
    bench = Bench(*map(Process, (write, write, read, read)), Process())
    bench.write(b"x")
    assert bench.count() == 1
    assert len(bench.losses) == 4


def test_request_that_breaks_three_processes_is_poison_and_is_shown() -> None:
    bench = Bench(
        Process(on(protocol.WRITE, die, after=1)), *(Process(on(protocol.WRITE, die)) for _ in "5678")
    )
    bench.write(b"a")
    with pytest.raises(GivenUpError) as caught:
        bench.write(b"b")
    assert len(bench.losses) == recovery.POISONED - 1
    assert bench.output == b"a"
    error = caught.value
    assert isinstance(error.cause, DeviceGoneError)
    assert error.exit_status == 8
    text = str(error)
    assert text.startswith("device process 'books' is gone: its channel ended; the same request had broken")
    assert "write device 0 offset 0x0 size 1 value 0x62 at 30 ns" in text
    assert "\n" not in text
    assert bench.channel.failure is error
    assert bench.clock == ["pause", "resume"]
    with pytest.raises(GivenUpError) as again:
        bench.count()
    assert again.value is error
    assert len(bench.losses) == recovery.POISONED - 1


@pytest.mark.parametrize(
    ("lie", "words"),
    [
        (lambda _frame, reply: reply[:31], "broke the protocol: a frame of 31 bytes"),
        (
            lambda frame, _reply: server_module.error_frame(HEADER.unpack_from(frame)[4], ValueError("no")),
            "failed: ValueError: no",
        ),
    ],
)
def test_request_that_makes_three_processes_lie_or_raise_is_poison(lie: Peer, words: str) -> None:
    bench = Bench(*(Process(on(protocol.READ, lie)) for _ in range(5)))
    with pytest.raises(GivenUpError) as caught:
        bench.count()
    assert words in str(caught.value)
    assert "read device 0 offset 0x0 size 1" in str(caught.value)
    assert len(bench.losses) == recovery.POISONED - 1


def test_budget_that_ends_at_a_poisoned_request_shows_the_request() -> None:
    bench = Bench(*(Process(on(protocol.WRITE, die)) for _ in range(5)), budget=1)
    with pytest.raises(
        GivenUpError, match=r"budget of restarts is used up; open was write device 0 .* value 0x62"
    ):
        bench.write(b"b")


def test_two_requests_that_break_a_process_each_are_not_poison() -> None:
    bench = Bench(Process(on(protocol.READ, die)), Process(on(protocol.READ, die, after=1)), Process())
    assert bench.count() == 0
    assert bench.count() == 0
    assert len(bench.restarts) == 2


def test_process_that_is_lost_at_its_greeting_is_replaced_by_one_without_a_past() -> None:
    bench = Bench(Process(on(protocol.HELLO, die)), Process())
    assert bench.process.kinds() == [protocol.HELLO]
    (restart,) = bench.restarts
    assert (restart.used, restart.replayed) == (1, 0)
    bench.write(b"a")
    assert bench.count() == 1


def test_greeting_that_three_in_a_row_do_not_live_through_is_poison() -> None:
    with pytest.raises(GivenUpError, match="had broken the 2 processes before it: hello"):
        Bench(*(Process(on(protocol.HELLO, die)) for _ in range(9)))


@pytest.mark.parametrize("kind", [protocol.HELLO, protocol.REPLAY])
def test_replacement_that_is_lost_before_the_open_request_is_replaced_once(kind: int) -> None:
    bench = Bench(Process(on(protocol.READ, die)), Process(on(kind, die)), Process())
    bench.write(b"abc")
    assert bench.count() == 3
    (restart,) = bench.restarts
    assert restart.used == 2
    assert bench.budget == 98
    assert bench.output == b"abc"


def test_replacements_that_are_lost_all_the_time_end_it() -> None:
    bench = Bench(Process(on(protocol.READ, die)), *(Process(on(protocol.HELLO, die)) for _ in range(9)))
    with pytest.raises(GivenUpError, match="2 replacements failed after the same loss"):
        bench.count()
    assert len(bench.losses) == recovery.ATTEMPTS
    assert bench.clock == ["pause", "resume"]


def test_replay_that_goes_another_way_ends_it() -> None:
    # A model that is not a function of its requests: the third process would not be either.
    def another(frame: bytes, reply: bytes) -> bytes:
        return reply[:16] + b"\x01" + reply[17:]

    bench = Bench(Process(on(protocol.READ, die)), *(Process(on(protocol.REPLAY, another)) for _ in range(9)))
    bench.write(b"abc")
    with pytest.raises(GivenUpError, match="did not answer the replay as the lost process did: to replay"):
        bench.count()
    assert bench.output == b"abc"


def test_replay_alone_that_goes_another_way_ends_it() -> None:
    def another(frame: bytes, reply: bytes) -> bytes:
        return reply[:8] + b"\x01" + reply[9:]

    bench = Bench(
        Process(on(protocol.READ, die)), *(Process(on(protocol.RECEIVE, another)) for _ in range(9))
    )
    bench.channel.request(protocol.RECEIVE, payload=bytes(MAX_PAYLOAD), limit=MAX_PAYLOAD)
    with pytest.raises(GivenUpError, match="another reply to receive device 0"):
        bench.count()


def test_replacement_that_raises_in_its_past_is_told_with_its_error() -> None:
    def raises(frame: bytes, _reply: bytes) -> bytes:
        return server_module.error_frame(HEADER.unpack_from(frame)[4], ValueError("no\x1b[2J"))

    bench = Bench(Process(on(protocol.READ, die)), *(Process(on(protocol.REPLAY, raises)) for _ in range(9)))
    bench.write(b"a")
    with pytest.raises(GivenUpError, match=r"the lost process did: it failed: ValueError: no\\x1b\[2J"):
        bench.count()


def test_budget_that_is_used_up_ends_it() -> None:
    bench = Bench(*(Process(on(protocol.WRITE, die, after=1)) for _ in range(9)), budget=3)
    with pytest.raises(GivenUpError, match="the budget of restarts is used up"):
        bench.write(b"abcdef")
    assert len(bench.losses) == 3
    assert bench.output == b"abcd"


def test_processes_that_cannot_be_had_end_it() -> None:
    bench = Bench(Process(on(protocol.WRITE, die)))
    with pytest.raises(GivenUpError, match="there is no replacement: no process can be had") as caught:
        bench.write(b"a")
    assert isinstance(caught.value.cause, DeviceGoneError)
    assert len(bench.losses) == recovery.ATTEMPTS


def test_overdue_replies_hold_guest_time() -> None:
    bench = Bench(Process())
    bench.recovery.overdue(True)
    assert bench.clock == ["pause"]
    bench.recovery.overdue(False)
    assert bench.clock == ["pause", "resume"]


# --- A request, for a person ------------------------------------------------------------------------------


def test_show_is_one_bounded_line() -> None:
    receive = Request(protocol.RECEIVE, 1, 0, 9, 5, 0, 0, b"\n\x1b" * 1000)
    assert show(receive.encode()) == f"receive device 1 offset 0x0 size 0 payload {'0a1b' * 8}… at 5 ns"
    assert show(Request(0x55).encode()) == "kind 0x55 device 0 offset 0x0 size 0 at 0 ns"
    assert len(show(Request(protocol.WRITE, 255, 255, 1, 1 << 63, 1 << 63, 1 << 31).encode())) < 120


# --- All ones ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "limit", "value"),
    [
        *(
            (request_word(protocol.READ, 1, size), (1 << 8 * size) - 1, (1 << 8 * size) - 1)
            for size in (1, 2, 4, 8)
        ),
        *((request_word(protocol.WRITE, 1, size), 0, 0) for size in (1, 2, 4, 8)),
        (request_word(protocol.INDEXED_READ, 0, 1), 0xFF, 0xFF),
        (request_word(protocol.READ_WIDE, 1, 4), 0xFFFF_FFFF, 0xFFFF_FFFF),
        (request_word(protocol.WRITE_WIDE, 1, 1), 0, 0),
    ],
)
def test_all_ones_is_a_good_reply_to_every_access(word: int, limit: int, value: int) -> None:
    told: list[DeviceProcessError] = []
    bench = Bench(Process(on(word & 0xFF, die)), devices=2, survival=AllOnes(told.append))
    for _ in range(3):
        assert bench.channel.access(word, 0, 0x12, limit) == value
    assert len(told) == 1


def test_all_ones_is_a_good_reply_to_string_instructions() -> None:
    bench = Bench(Process(on(protocol.READ_STRING, die)), survival=AllOnes(lambda _error: None))
    assert bench.channel.read_string(0, 3, 2, 700) == b"\xff" * 1400
    bench.channel.write_string(0, 3, 2, bytes(1400))


@pytest.mark.parametrize(
    "kind",
    [protocol.ADVANCE, protocol.RECEIVE, protocol.RESET, protocol.WRITE_RUN, protocol.SHUTDOWN],
)
def test_all_ones_is_a_good_reply_to_every_request(kind: int) -> None:
    bench = Bench(Process(on(kind, die)), survival=AllOnes(lambda _error: None))
    assert bench.channel.request(kind, payload=b"input", limit=5) == (0, b"")
    assert bench.channel.deadline == NO_DEADLINE


def test_all_ones_answers_a_greeting_with_our_version() -> None:
    told: list[DeviceProcessError] = []
    bench = Bench(Process(on(protocol.HELLO, die)), survival=AllOnes(told.append))
    assert len(told) == 1
    assert greet(bench.channel, []) == protocol.VERSION
    assert bench.count() == 0xFF


@pytest.mark.parametrize("is_ahead", [False, True])
def test_all_ones_lowers_a_line_and_gives_it_back(half: Half, is_ahead: bool) -> None:
    router = half.router(half.clock())
    levels: list[int] = []
    router.attach(lambda _gsi, level: levels.append(level))
    other, (source, take) = router.source(0), router.replacing_source(0)
    channel = half.channel(
        "timer",
        Way(Process(on(protocol.READ, die))),
        [Grants("timer", irq_lines=[source], rises={0: source}, takers={0: take})],
        now=lambda: 0,
        survival=AllOnes(lambda _error: None),
    )
    greet(channel, [DeviceSpec("timer", "books", "notebook")])
    take(1)
    if is_ahead:
        source.announce(5)
        source.raise_ahead()
    else:
        source(1, 0)
    assert levels == [1]
    assert channel.access(READ, 0, 0, 0xFF) == 0xFF
    assert levels == [1, 0]
    other(1, 0)
    assert levels == [1, 0, 1]
    router.close()


def test_all_ones_keeps_the_request_number() -> None:
    sent = Request(protocol.READ, 3, 2, 77, 5, 0, 9).encode()
    assert HEADER.unpack(all_ones(sent)) == (0x82, 3, 2, 0, 77, NO_DEADLINE, 0xFFFF, 0, 0)


def test_all_ones_never_listens_to_a_liar_again() -> None:
    # It lies once, has the replies to later requests ready, and would be believed.
    vmm_end, device_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    killed: list[DeviceProcessError] = []
    told: list[DeviceProcessError] = []

    class Liar(ProcessControl):
        def killer(self) -> Callable[[DeviceProcessError], None]:
            return killed.append

    channel = Channel(
        "uart",
        socket_link(vmm_end.detach()),
        [Grants("COM1")],
        now=lambda: 0,
        survival=AllOnes(told.append, Liar()),
    )
    for sequence in (77, 2, 3):
        device_end.send(WORDS.pack(READ | protocol.REPLY | sequence << 32, NO_DEADLINE, 0, 0))
    for _ in range(3):
        assert channel.access(READ, 0, 0, 0xFF) == 0xFF
    assert killed == told
    assert "reply 77 to request 1" in str(told)
    channel.close()
    device_end.close()
