"""How a crashed device process is restarted: `--on-device-crash restart` and `all-ones`.

Theory of operation
-------------------

The state of a model depends only on its requests. So a standby process can reach the state of a lost process.
It restores the last snapshot and replays the requests since then (the journal of the channel). Its replies
must be the same as before. Then it gets the request that the lost process did not answer. The effects of
answered requests are not applied again. The effects of the open request are applied once. Guest time stands
still meanwhile. So a restart is invisible to the guest, whatever the cause: a signal, a forbidden call, a
broken protocol, or a hang.

A `Recovery` belongs to one channel. Its `rescue` runs under the lock of the channel, on the thread that found
the process broken. So the functions of the pool that it calls are thread-safe. A restart is queued for the
main thread, because only the main thread can find out how a process died. The main thread reports the
restart.

`Recovery` gives up in three cases, and the run then ends as with `fail`. First, the same request has broken
`POISONED` processes (poison: the next process would break as well). Second, `ATTEMPTS` replacements do not
reach the open request: the model is not deterministic, the snapshot was damaged, or something kills all
processes. Third, the budget of restarts is used up.

Why poison takes three. A death does not show its cause. For the channel, a model that dies of a request looks
the same as a process that is killed from outside during this request. A guest that waits for one reply sends
no other request, so random kills sometimes hit the same request twice. So two losses prove nothing, and the
third process decides.

A checkpoint takes snapshots through the same channel, under the same lock, and clears the journal. If a
process breaks during a checkpoint, its replacement gets the old snapshots and the whole journal. All parts of
a snapshot must come from one process, so the snapshot of the current device starts again.
"""

from __future__ import annotations

import binascii
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from kvmbox.base.errors import DeviceGoneError, DeviceProcessError, GivenUpError, ProtocolError, SandboxError
from kvmbox.base.value_classes import Value
from kvmbox.contract.device_spec import DeviceSpec
from kvmbox.parts.restart.replay_batches import Batch, batches
from kvmbox.remote.channel.connection import Channel
from kvmbox.remote.channel.deadlines import REPLY_SLICES, printable
from kvmbox.remote.channel.hello import hello_of
from kvmbox.remote.channel.journal import JOURNAL_LIMIT, MAX_SNAPSHOT, Journal, entry_of
from kvmbox.remote.channel.on_demand import NoProcess, Unused
from kvmbox.remote.process.crash_policy import ProcessControl, Survival
from kvmbox.remote.transport.interface import Opens
from kvmbox.wire import protocol
from kvmbox.wire.access_blocks import Block
from kvmbox.wire.protocol import HEADER, MAX_PAYLOAD, NO_DEADLINE, WORDS

ATTEMPTS: Final = 2
"""How many replacements may be lost before they come as far as the open request: one that was ready may have
died unnoticed."""

POISONED: Final = 3
"""How many processes in a row the same request must break to be poison."""

_Report = Callable[[DeviceProcessError], None]

SAMPLE: Final = 4096
"""How many recovery times are kept for statistics."""


class Restart(Value):
    """One restart. `used` is how many processes it replaced: more than one where a replacement was lost."""

    device_type: str
    used: int
    replayed: int
    duration: int
    """From the detection to the reply of the new process, in ns."""


class Standby(Protocol):
    """The source of replacements: the pool. Thread-safe."""

    def replace(self, name: str, error: DeviceProcessError) -> Opens:
        """Kill the process of `name`, lost for the reason given; return the link to a jailed one instead.

        Raises SandboxError where none can be had.
        """

    def pause_time(self) -> None:
        """Guest time stands still until `resume_time`."""

    def resume_time(self) -> None:
        """Guest time continues."""

    def restarted(self, restart: Restart) -> None:
        """A process was replaced. The main thread will report it."""

    def take_from_budget(self) -> bool:
        """Whether there may be one more restart."""


class Recovery(Survival):
    """Keeps the snapshots and the journal of a device process, and restarts the process."""

    def __init__(
        self,
        devices: Sequence[DeviceSpec],
        standby: Standby,
        process: ProcessControl | None = None,
        *,
        journal_limit: int = JOURNAL_LIMIT,
        journal: type[Journal] = Journal,
    ) -> None:
        super().__init__(process)
        self._devices = list(devices)
        self._standby = standby
        self._snapshots: dict[int, bytes] = {}
        self._suspect = b""  # the request that broke the last process, or the last few
        self._broken = 0  # how many in a row
        self._asked = 0  # the sequence number of our own requests
        self.restarts = 0
        self.journal: Journal = journal(journal_limit)
        self._channel: Channel

    def attach(self, channel: object) -> None:
        """See Survival."""
        assert isinstance(channel, Channel)
        self._channel = channel
        self.rescues = True

    # --- Keeping ------------------------------------------------------------------------------------------

    def journal_is_full(self) -> None:
        """See Survival. A snapshot of each device is taken, and the journal begins anew."""
        self._suspect = b""
        if isinstance(unused := self._channel.transport, NoProcess):
            self._shorten(unused)
            return
        # Only when all are here are the old ones out of date: until then they go with the whole journal.
        self._snapshots = {index: self._snapshot(index) for index in range(len(self._devices))}
        self.journal.clear()

    def _shorten(self, unused: NoProcess) -> None:
        """There is no process to take a snapshot of. What it will be told behind HELLO is little."""
        answer = Unused(self._devices).answer
        self.journal.clear()
        for sent in unused.told[1:]:
            self.journal.note(entry_of(sent, answer(sent)))

    def _snapshot(self, device: int) -> bytes:
        while True:
            state = self._parts(device)
            if state is not None:
                return state

    def _parts(self, device: int) -> bytes | None:
        """The snapshot of a device, or None if there is another process now, which begins again."""
        state = b""
        restarts = self.restarts
        while True:
            part = len(state) // MAX_PAYLOAD
            total, payload = self._channel.ask_under_lock(
                protocol.SNAPSHOT, device=device, offset=part, limit=MAX_SNAPSHOT
            )
            if self.restarts != restarts:
                if part:
                    return None
                restarts = self.restarts
            if len(payload) != min(MAX_PAYLOAD, total - len(state)):
                error = ProtocolError(
                    self._channel.device_type,
                    f"broke the protocol: part {part} of a snapshot of {total} bytes has {len(payload)}",
                )
                # Nothing is open but the snapshot itself: the reply to this is not looked at.
                self.rescue(error, protocol.Request(protocol.SNAPSHOT, device).encode())
                return None
            state += payload
            if len(state) == total:
                return state

    def overdue(self, late: bool) -> None:
        """See Survival."""
        # A process that hangs is found out after many slices: the guest sees no more than the first of them.
        if late:
            self._standby.pause_time()
        else:
            self._standby.resume_time()

    # --- Rescuing -----------------------------------------------------------------------------------------

    def rescue(self, error: DeviceProcessError, sent: bytes) -> bytes:
        """See Survival: another process's reply to the request."""
        began = time.monotonic_ns()
        channel = self._channel
        self._blame(error, sent)
        # The watchdog counted how long the lost process took. What follows has limits of its own.
        channel.waiting = 0
        self.being_connected = True
        self._standby.pause_time()
        try:
            used, replayed, reply = self._begin_again(error, sent)
        finally:
            self._standby.resume_time()
            self.being_connected = False
        self.restarts += 1
        duration = time.monotonic_ns() - began
        self._standby.restarted(Restart(channel.device_type, used, replayed, duration))
        return reply

    def _begin_again(self, error: DeviceProcessError, sent: bytes) -> tuple[int, int, bytes]:
        """How many processes that took, how many requests were replayed, and the reply to `sent`."""
        channel = self._channel
        lost = error
        no_other: SandboxError | None = None
        used = failed = 0
        while failed < ATTEMPTS:
            if not self._standby.take_from_budget():
                raise self._give_up(lost, f"the budget of restarts is used up; open was {show(sent)}")
            try:
                link = self._standby.replace(channel.device_type, lost)
                used += 1
                channel.connect(link)
                # A process that was lost at its HELLO has no past.
                replayed = self._replay() if sent[0] != protocol.HELLO else 0
            except DeviceProcessError as another:
                channel.forget_failure()
                lost, failed = another, failed + 1
                continue
            except SandboxError as another:
                no_other, failed = another, failed + 1
                continue
            try:
                return used, replayed, channel.exchange_raw(sent, REPLY_SLICES)
            except DeviceProcessError as another:
                channel.forget_failure()
                self._blame(another, sent)
                lost = another
        if no_other is not None:
            raise self._give_up(lost, f"there is no replacement: {no_other}") from no_other
        raise self._give_up(lost, f"{failed} replacements failed after the same loss")

    def _blame(self, error: DeviceProcessError, sent: bytes) -> None:
        """A process was lost while `sent` was open. Raises if the request is poison."""
        self._broken = self._broken + 1 if sent == self._suspect else 1
        self._suspect = sent
        if self._broken == POISONED:
            raise self._give_up(error, poison(sent))

    def _replay(self) -> int:
        """Bring a new process to the state of the lost one. Return the number of replayed requests."""
        for hello in hello_of(self._devices):
            self._ask(
                hello.kind, hello.value, offset=hello.offset, payload=hello.payload, good=protocol.VERSION
            )
        for device, state in self._snapshots.items():
            for part in range(max(1, -(-len(state) // MAX_PAYLOAD))):
                piece = state[part * MAX_PAYLOAD : (part + 1) * MAX_PAYLOAD]
                self._ask(protocol.RESTORE, len(state), device=device, offset=part, payload=piece, good=1)
        replayed = 0
        for batch in batches(self.journal):
            self._replay_batch(batch)
            replayed += batch.count
        return replayed

    def _ask(
        self, kind: int, value: int, *, payload: bytes, good: int, device: int = 0, offset: int = 0
    ) -> None:
        # In shared memory a frame is new if its first word is: the number has to change.
        self._asked = (self._asked + 1) & protocol.SEQUENCE_MASK or 1
        sent = protocol.Request(kind, device, 0, self._asked, 0, value, offset, payload).encode()
        frame = self._channel.exchange_raw(sent, REPLY_SLICES)
        reply, _, result, _ = WORDS.unpack_from(frame) if len(frame) >= HEADER.size else (0, 0, 0, 0)
        if reply & 0xFF == protocol.ERROR:
            raise self._unlike(f"it failed: {printable(frame[HEADER.size :])}")
        if reply != WORDS.unpack_from(sent)[0] | protocol.REPLY or result != good:
            name = protocol.KIND_NAMES[kind]
            raise self._unlike(f"to {name} it answered {result:#x}, not {good:#x}, in {len(frame)} bytes")

    def _replay_batch(self, batch: Batch) -> None:
        if batch.alone:
            frame = self._channel.exchange_raw(batch.frames, REPLY_SLICES)
            if binascii.crc32(frame) != batch.checksum:  # also what is no reply, or an error
                raise self._unlike(f"another reply to {show(batch.frames)}")
            return
        self._ask(protocol.REPLAY, 0, payload=batch.frames, good=batch.checksum)

    def _unlike(self, what: str) -> DeviceProcessError:
        return ProtocolError(
            self._channel.device_type, f"did not answer the replay as the lost process did: {what}"
        )

    def _give_up(self, error: DeviceProcessError, why: str) -> DeviceProcessError:
        self.rescues = False
        return self._channel.fail(GivenUpError(error, why))


def all_ones(request: bytes) -> bytes:
    """The reply of a missing device: all ones to a read, the version to HELLO, and 0 otherwise."""
    first, _, _, _ = WORDS.unpack_from(request)
    kind, size = first & 0xFF, first >> 16 & 0xFF
    value, payload = 0, b""
    if kind in protocol.STEADY_KINDS:
        value = (1 << 8 * size) - 1
    elif kind == protocol.READ_STRING:
        payload = b"\xff" * (size * Block(protocol.decode_request(request)).count)
    elif kind == protocol.HELLO:
        value = protocol.VERSION
    return WORDS.pack(first | protocol.REPLY, NO_DEADLINE, value, len(payload) << 32) + payload


def poison(request: bytes) -> str:
    """The reason to give up on a request that broke `POISONED` processes."""
    return f"the same request had broken the {POISONED - 1} processes before it: {show(request)}"


def show(frame: bytes) -> str:
    """A request for a person: one line, bounded."""
    request = protocol.decode_request(frame)
    name = protocol.KIND_NAMES.get(request.kind, f"kind {request.kind:#x}")
    text = f"{name} device {request.device} offset {request.offset:#x} size {request.size}"
    if request.kind in (protocol.WRITE, protocol.WRITE_WIDE, protocol.WRITE_LIST):
        text += f" value {request.value:#x}"
    if request.kind == protocol.READ_STRING:
        text += f" count {request.value}"
    if request.payload:
        text += f" payload {request.payload[:16].hex()}" + ("…" if len(request.payload) > 16 else "")
    return f"{text} at {request.now} ns"


class AllOnes(Survival):
    """After the loss of its process the channel answers like a missing device. Calls `report` once.

    But the loss of a write to one of the devices `verdicts` is final: it may have said that the guest failed,
    and a clean end that came later would hide that.
    """

    def __init__(
        self, report: _Report, process: ProcessControl | None = None, verdicts: Sequence[int] = ()
    ) -> None:
        super().__init__(process)
        self._report = report
        self._verdicts = verdicts
        self._reported = False
        self._channel: Channel

    def attach(self, channel: object) -> None:
        """See Survival."""
        assert isinstance(channel, Channel)
        self._channel = channel
        self.rescues = True

    def rescue(self, error: DeviceProcessError, sent: bytes) -> bytes:
        """See Survival. Raises GivenUpError."""
        if sent[0] in protocol.WRITE_KINDS and sent[1] in self._verdicts:
            self.rescues = False
            raise self._channel.fail(GivenUpError(error, f"a verdict of the guest was lost: {show(sent)}"))
        if not self._reported:
            self._reported = True
            # One that only lied must not be heard again: neither it nor what it left behind.
            if not isinstance(error, DeviceGoneError):
                self.process.killer()(error)
            self._channel.disconnect()
            self._report(error)
        return all_ones(sent)
