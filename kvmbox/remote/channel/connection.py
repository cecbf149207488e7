"""The VMM's connection to the models of one device process: send requests, check replies, apply effects.

A `Transport` reaches the models: `stream` (a socket or two pipes), `shared_page` (memory) or `direct` (no
process). The channel checks the replies of every transport.

One lock per channel covers stamping `now`, the request, the reply and the effects. So `now` never decreases
on a channel, and effects keep the order of the replies, whichever thread asks.

The cost of `access`, besides the transport, is an uncontended lock, the clock, one call and two comparisons.
For a reply without effects, one comparison with the first eight bytes of the request is enough. It detects a
wrong sequence number, kind, device or size.

Who waits, and for how long
---------------------------

The vCPU thread blocks in `access` and `transact` without a time-out. `waiting` tells the watchdog (the main
thread) which request is open: it ends when the reply is read, before that is used. If the process does not
answer, the watchdog kills it, and this ends the wait.
The main thread itself uses `request`. It waits in slices of `WAIT_SLICE_MS`, and gives up after
`REPLY_SLICES` slices. Slices are counted, and clocks are not compared. So a VMM that was suspended for an
hour (Ctrl-Z) has used up one slice.

Crash survival
--------------

The `Survival` of the channel gets every failure. It may replace the broken process and answer the open
request again; see `recovery`.
"""

from __future__ import annotations

import select
import threading
from collections import deque
from collections.abc import Callable, Sequence
from threading import get_ident
from typing import Any, Final

from kvmbox.base.errors import DeviceGoneError, DeviceProcessError, KvmboxError, ProtocolError
from kvmbox.contract.model import NO_RISE, Effect, HostOutput
from kvmbox.remote.channel.deadlines import REPLY_SLICES, START_SLICES, WAIT_SLICE_MS, hung_error, printable
from kvmbox.remote.channel.effect_calls import CAN_WAIT, MAX_FOLLOW_UPS, Application, CanWait, FollowUp
from kvmbox.remote.channel.grants import Grants, Rise, rise_slack
from kvmbox.remote.channel.journal import Entry, entry_of
from kvmbox.remote.channel.mutex import Mutex
from kvmbox.remote.channel.steady_reads import SteadyReads
from kvmbox.remote.process.crash_policy import Survival
from kvmbox.remote.transport.interface import (
    EndedError,
    MisusedError,
    Opens,
    OverdueError,
    Transport,
    TransportError,
    Words,
    frame_of,
)
from kvmbox.wire import protocol
from kvmbox.wire.access_blocks import BLOCKS, MAX_STRING, Block
from kvmbox.wire.effect_kinds import EFFECT
from kvmbox.wire.effects import HOST_OUTPUT, decode_effects
from kvmbox.wire.protocol import (
    HEADER,
    MAX_FRAME,
    MAX_PAYLOAD,
    MAX_STEADY,
    NO_DEADLINE,
    STEADY_KINDS,
    WORDS,
    FrameError,
    Request,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kvmbox.remote.published.bulk_grants import Media

_pack: Final = WORDS.pack
_REPLY_BIT: Final = protocol.REPLY
_REPLY_AND_ONE_EFFECT: Final = protocol.REPLY | 1 << 24
_SENT_ONLY: Final = (protocol.SNAPSHOT, protocol.HELLO)  # change no model's state: not for the journal
_PLAIN: Final = (protocol.COMPLETE, protocol.CHAINS, protocol.WRITE)
_TELL_ALL: Final = (protocol.ADVANCE, protocol.RESET)  # each model of the process is told the time
_NO_EFFECTS: Final = frozenset(
    (protocol.HELLO, protocol.SNAPSHOT, protocol.RESTORE, protocol.REPLAY, protocol.SHUTDOWN)
)
"""Requests that no device of the guest's sees: a model has no cause to ask for anything."""
_Slices = int | None


def output_has_room() -> None:
    """Do not wait: the output has no stream that could be full."""


class Channel:
    """One device process, as the VMM sees it. Thread-safe; see the module's theory of operation."""

    def __init__(
        self,
        device_type: str,
        link: Opens,
        grants: Sequence[Grants],
        *,
        now: Callable[[], int],
        deadline_changed: Callable[[int, int], None] = lambda _deadline, _now: None,
        wait_for_output: Callable[[], None] = output_has_room,
        record: Callable[[bytes, bytes], None] | None = None,
        survival: Survival | None = None,
        last_sequence: int = 0,
        lock: Mutex | None = None,
        steady: SteadyReads | None = None,
        slice_ms: int = WAIT_SLICE_MS,
    ) -> None:
        """Take over the VMM's end of `link`.

        `deadline_changed(deadline, now)` hears of each new deadline. `wait_for_output` is called by `access`
        and `transact`, after the lock is released, when a reply had effects: back-pressure. `record` is
        called under the lock with each request and what came back for it: before that is checked, or after
        it was found good where there is a rescue. The first request has the number after `last_sequence`.
        A slice of waiting is `slice_ms` long.
        """
        self.device_type = device_type
        self.deadline = NO_DEADLINE
        self.waiting = 0
        """Sequence number of the request that the vCPU thread waits on, or 0: read by the watchdog."""
        self.waiter = 0
        """The `ident` of the last thread that has waited so."""
        self.survival = survival or Survival()
        self._journal = self.survival.journal
        self._record = record
        self._grants = list(grants)
        self._outputs = [device.output for device in grants]
        self._rises = [rise for device in grants for rise in device.rises.values()]
        self._now = now
        self._slice_ms = slice_ms
        self._deadline_changed = deadline_changed
        self._wait_for_output = wait_for_output
        self._lock: Any = lock or threading.Lock()
        guarded: list[Rise | Media] = [*self._rises, *(one.media for one in grants if one.media is not None)]
        for one in guarded:
            one.guarded_by(self._lock)
        self.steady = steady or SteadyReads(now)
        self._sequence = last_sequence
        self._failure: DeviceProcessError | None = None
        self._follow_ups: deque[FollowUp | CanWait] = deque()
        self._asked_for = 0  # how many follow-ups the open request may cause, the sent ones included
        self._left = 0  # how many accesses of the last block the process has not made yet
        self.transport = Transport()
        self.connect(link)
        self.survival.attach(self)

    def connect(self, link: Opens) -> None:
        """Connect to another process. The caller holds the lock, or no other thread uses the channel."""
        self._reach_by(link.open(self.device_type, self._waits))

    def disconnect(self) -> None:
        """Disconnect from the process for good: its lines are low. The caller holds the lock."""
        for device in self._grants:
            for line in device.irq_lines:
                line(0, 0)
            for say in (*device.takers.values(), *device.late_writes.values()):
                say(0)
        for rise in self._rises:
            rise.announce(NO_RISE)
            rise.settle()
        self._forget_media()
        self._reach_by(Transport())

    def _reach_by(self, transport: Transport) -> None:
        self.steady.changed()
        self.transport.close()
        self.transport = transport
        self._exchange_words = transport.exchange_words

    # --- The three ways to ask ------------------------------------------------------------------------

    def access(self, word: int, offset: int, value: int, limit: int) -> int:
        """One guest access, by the vCPU thread; returns the reply's value, at most `limit`.

        `word` is `protocol.request_word(...)` of the access. Raises DeviceProcessError.
        """
        self._lock.acquire()
        try:
            if self._failure is not None:
                raise self._failure
            kind = word & 0xFF
            self.steady.begins(kind)
            sequence = self._sequence = (self._sequence + 1) & 0xFFFF_FFFF or 1
            first = word | sequence << 32
            now = self._now()
            self.waiter, self.waiting = get_ident(), sequence
            try:
                words = self._exchange_words(first, now, value, offset)
                self.waiting = 0
                reply, deadline, result, rest = words
                if (
                    reply == first | _REPLY_BIT
                    and result <= limit
                    and rest <= (MAX_STEADY if kind in STEADY_KINDS else 0)
                    and self._record is None
                ):
                    if deadline != self.deadline:
                        self._set_deadline(deadline, now)
                    if kind in STEADY_KINDS:
                        self.steady.ends((first, now, value, offset), words)
                    journal = self._journal
                    if journal is not None:
                        journal.append(((first, now, value, offset), b"", words, b""))
                        if len(journal) >= journal.limit:
                            self.survival.journal_is_full()
                    return result
                self.steady.changed()
                result = self._use((first, now, value, offset), words, limit)
            except (DeviceProcessError, TransportError) as error:
                self.steady.changed()
                result, _ = self._survive(error, _pack(first, now, value, offset), limit)
            finally:
                self.waiting = 0
            if self._asked_for:
                self._follow_up(None)
            if self._left:
                result = self._complete(word, offset, value, result)
        finally:
            self._lock.release()
        self._wait_for_output()
        return result

    def _use(self, asked: Words, words: Words, limit: int) -> int:
        """Use the reply to an access, `words` and what follows them, that changes more than what is read."""
        payload = self.transport.payload(words)
        if not self._prints(asked[0], limit, words, payload):
            return self._accept(_pack(*asked), frame_of(words, payload), limit)[0]
        if words[1] != self.deadline:
            self._set_deadline(words[1], asked[1])
        self._note((asked, b"", words, payload))
        return words[2]

    def transact(self, kind: int, device: int, offset: int, payload: bytes) -> None:
        """A request with a payload by the vCPU thread, which waits as `access` does."""
        with self._lock:
            request = self._next(kind, device, 0, offset, payload)
            self._wait_for(request)
            try:
                self._answer(request, 0, None)
            finally:
                self.waiting = 0
            self._follow_up(None)
        self._wait_for_output()

    def read_string(
        self, device: int, offset: int, size: int, count: int, *, until: Callable[[], bool] = lambda: False
    ) -> bytes:
        """What `count` reads of one register give, of `size` bytes each, by the vCPU thread. Fewer, if the
        process has answered some, and `until`, which is called under the lock, says so.
        """
        data = b""
        with self._lock:
            while len(data) < size * count and not (data and until()):
                more = min(count - len(data) // size, MAX_STRING // size)
                request = self._next(protocol.READ_STRING, device, more, offset, b"", size)
                data += self._ask_block(request, 0)[2]
        self._wait_for_output()
        return data

    def write_string(
        self,
        device: int,
        offset: int,
        size: int,
        data: bytes,
        slices: _Slices = None,
        *,
        until: Callable[[], bool] = lambda: False,
    ) -> int:
        """Write the values of `size` bytes each in `data` to one register; how many bytes that were: all,
        unless `until` says so, as in `read_string`. `slices` as `_follow_up`.
        """
        done = 0
        self._lock.acquire() if slices is None else self._take_lock(slices)
        try:
            while done < len(data) and not (done and until()):
                piece = data[done : done + MAX_STRING // size * size]
                request = self._next(protocol.WRITE_STRING, device, 0, offset, piece, size)
                done += len(piece) - self._ask_block(request, 0, slices)[0] * size
        finally:
            self._lock.release()
        if slices is None:
            self._wait_for_output()
        return done

    def write_wide(self, device: int, offset: int, data: bytes, slices: _Slices = None) -> None:
        """Write the bytes of `data`, 8 at most, to registers from `offset` on. `slices` as `_follow_up`."""
        if slices is None:
            word = protocol.request_word(protocol.WRITE_WIDE, device, len(data))
            self.access(word, offset, int.from_bytes(data, "little"), 0)
            return
        done = 0
        self._take_lock(slices)
        try:
            while done < len(data):
                value, left = int.from_bytes(data[done:], "little"), len(data) - done
                request = self._next(protocol.WRITE_WIDE, device, value, offset + done, b"", left)
                done += left - self._ask_block(request, 0, slices)[0]
        finally:
            self._lock.release()

    def _complete(self, word: int, offset: int, value: int, result: int) -> int:
        """The rest of a wide access, whose reply was for the first bytes only. Under the lock."""
        kind, device, left, self._left = word & 0xFF, word >> 8 & 0xFF, self._left, 0
        while left:
            done = (word >> 16 & 0xFF) - left
            rest = offset >> 4 * done if kind == protocol.WRITE_LIST else offset + done
            request = self._next(kind, device, value >> 8 * done, rest, b"", left)
            left, more, _ = self._ask_block(request, (1 << 8 * left) - 1)
            result |= more << 8 * done
        return result

    def _ask_block(self, asked: Request, limit: int, slices: _Slices = None) -> tuple[int, int, bytes]:
        """A block, under the lock; `slices` as `_follow_up`. How many accesses are left, value, payload."""
        sent = asked.encode()
        if slices is None:
            self._wait_for(asked)
        try:
            if asked.payload:
                frame = self.transport.exchange(sent, slices)
            else:  # as an access, which may be waited for by spinning
                words = self._exchange_words(*WORDS.unpack(sent))
                frame = frame_of(words, self.transport.payload(words))
            answer = self._accept(sent, frame, limit)
        except (DeviceProcessError, TransportError) as error:
            answer = self._survive(error, sent, limit)
        finally:
            self.waiting = 0
        self._follow_up(slices)
        left, self._left = self._left, 0
        return left, *answer

    def request(
        self,
        kind: int,
        *,
        device: int = 0,
        value: int = 0,
        offset: int = 0,
        payload: bytes = b"",
        limit: int = 0,
        slices: int = REPLY_SLICES,
        size: int = 0,
    ) -> tuple[int, bytes]:
        """One request of any kind by the main thread; returns the reply's value (≤ `limit`) and payload.

        Raises DeviceProcessError: also when the reply, or another thread's that holds the channel, does not
        come within `slices` slices. Where there is a rescue, the other thread gets more.
        """
        self._take_lock(slices)
        try:
            request = self._next(kind, device, value, offset, payload, size)
            if kind == protocol.RESET:
                self._forget_media()
            elif kind == protocol.ADVANCE:
                # The lines that this will raise, as far as that is known, without waiting for the reply.
                for rise in self._rises:
                    if rise.at <= request.now:
                        rise.raise_ahead()
            answer = self._answer(request, limit, slices)
            self._follow_up(REPLY_SLICES)
            return answer
        finally:
            self._lock.release()

    def _take_lock(self, slices: int) -> None:
        """Take the lock. The thread that holds it waits for a reply, and we are who would watch over that.

        Where there is a rescue, a process that keeps that thread waiting is killed. Its replacement may serve
        the thread and hang in its turn before the lock is ours: so each process gets `slices` slices.
        Raises DeviceProcessError, and KvmboxError if that thread waits for no reply, and does not come back.
        """
        tries = 0

        def comes(milliseconds: int) -> bool:
            nonlocal tries
            tries += 1
            return bool(self._lock.acquire(timeout=milliseconds / 1000))

        while tries < 2 * START_SLICES:
            kill, old = self.survival.process.killer(), tries
            if self._patiently(comes, slices, for_another=True):
                return
            if tries - old >= slices + START_SLICES and not (self.waiting or self.survival.being_connected):
                raise KvmboxError(f"kvmbox is stuck in its work for device process '{self.device_type}'")
            error = hung_error(self.device_type, slices)
            if not self.survival.rescues:
                raise self.fail(error)
            kill(error)  # the other thread's wait ends, and it is rescued; if it was already, nothing happens
        # Killing did not end the wait: whatever that thread waits for, it is not the process.
        raise self.fail(hung_error(self.device_type, START_SLICES))

    def _next(
        self, kind: int, device: int, value: int, offset: int, payload: bytes, size: int = 0
    ) -> Request:
        if self._failure is not None:
            raise self._failure
        self.steady.changed()
        self._sequence = (self._sequence + 1) & 0xFFFF_FFFF or 1
        return Request(kind, device, size, self._sequence, self._now(), value, offset, payload)

    def _wait_for(self, request: Request) -> None:
        """This thread is going to wait for the reply to `request`, and is watched. Under the lock."""
        self.waiter, self.waiting = get_ident(), request.sequence

    def _answer(self, request: Request, limit: int, slices: _Slices) -> tuple[int, bytes]:
        """Send `request` and accept its reply, which may be another process's."""
        sent = request.encode()
        try:
            return self._accept(sent, self.transport.exchange(sent, slices), limit)
        except (DeviceProcessError, TransportError) as error:
            return self._survive(error, sent, limit)

    def _follow_up(self, slices: _Slices) -> None:
        """Send what the effects of the request that was just answered have asked for; under the lock.

        `slices` is how long each may take; None: by the vCPU thread, which waits as `access` does.
        """
        try:
            while self._follow_ups:
                follow_up = self._follow_ups.popleft()
                if not isinstance(follow_up, FollowUp):
                    wanted = follow_up(self._asked_for < MAX_FOLLOW_UPS)
                    if wanted is None:
                        continue
                    self._asked_for += 1
                    self._follow_ups.append(follow_up)  # there may be more
                    follow_up = wanted
                self._tell(follow_up, slices)
        finally:
            self.waiting = 0
            self._follow_ups.clear()
            self._asked_for = 0

    def _tell(self, follow_up: FollowUp, slices: _Slices) -> None:
        request = self._next(*follow_up)
        if slices is None:
            self._wait_for(request)
        self._answer(request, 0, slices)

    def serve(self, act: Callable[[], Sequence[FollowUp | CanWait]], slices: _Slices = None) -> None:
        """Do something without a request: `act` is called under the lock, and what it asks for is sent.

        By the vCPU thread, or with `slices` by the main thread, which waits as in `request`.
        """
        self._lock.acquire() if slices is None else self._take_lock(slices)
        try:
            if follow_ups := act():
                self._follow_ups += follow_ups
                self._asked_for = len(follow_ups)
                self._follow_up(slices)
        finally:
            self._lock.release()
        if follow_ups and slices is None:
            self._wait_for_output()

    def media(self, device: int) -> Media | None:
        """The media, window and virtqueues of a device, if it has any."""
        return self._grants[device].media

    def _forget_media(self) -> None:
        for device in self._grants:
            if device.media is not None:
                device.media.forget()

    def ask_under_lock(self, kind: int, *, device: int, offset: int, limit: int) -> tuple[int, bytes]:
        """A request from within another one, by whichever thread has the lock."""
        return self._answer(self._next(kind, device, 0, offset, b""), limit, REPLY_SLICES)

    def exchange_raw(self, sent: bytes, slices: int) -> bytes:
        """Send a frame and return the unchecked reply. Under the lock. Raises DeviceProcessError."""
        try:
            return self.transport.exchange(sent, slices)
        except TransportError as error:
            raise self._not_answered(error) from error

    def forget_failure(self) -> None:
        """Clear the failure, which the caller reports. Under the lock."""
        self._failure = None

    def _waits(self, poll: select.poll, slices: int) -> bool:
        """Wait for a descriptor for so many slices, and for as long as the process is starved."""
        return self._patiently(lambda milliseconds: bool(poll.poll(milliseconds)), slices)

    def _patiently(self, comes: Callable[[int], bool], slices: int, *, for_another: bool = False) -> bool:
        """Whether it `comes`, which is told after so many milliseconds, within so many slices, and some more
        as long as the process is starved, or another thread that holds the lock, or that thread is just
        putting another process in its place, or doing what a reply asked for: that may be long in the host.
        """
        wait = self._slice_ms
        if slices > 0 and comes(wait):
            return True
        survival = self.survival
        survival.overdue(True)
        try:
            if any(comes(wait) for _ in range(slices - 1)):
                return True
            is_starved = survival.process.starvation(self.waiter if for_another else 0)
            for _ in range(START_SLICES):
                if not (for_another and (survival.being_connected or not self.waiting)) and not is_starved():
                    return comes(0)  # it may have answered just now, and wait for the next request
                if comes(wait):
                    return True
            return False
        finally:
            survival.overdue(False)

    # --- Behind the hot path ----------------------------------------------------------------------------

    def _prints(self, first: int, limit: int, words: Words, payload: bytes) -> bool:
        """If the reply to `first` is good and carries one piece of host output: output it.

        That is what printing causes, at each character, so it is checked as fast as it can be. `words` are
        the reply's header.
        """
        if not EFFECT.size < len(payload) <= MAX_PAYLOAD or self._record is not None:
            return False
        tag, device, pin, level, length = EFFECT.unpack_from(payload)
        if (
            words[0] == first | _REPLY_AND_ONE_EFFECT
            and first & 0xFF != protocol.READ_WIDE
            and words[3] == len(payload) << 32
            and words[2] <= limit
            and tag == HOST_OUTPUT
            and length == len(payload) - EFFECT.size
            and not pin | level
            and device < len(self._outputs)
            and (output := self._outputs[device]) is not None
        ):
            output(payload[EFFECT.size :])
            return True
        return False

    def _survive(
        self, error: DeviceProcessError | TransportError, sent: bytes, limit: int
    ) -> tuple[int, bytes]:
        """Something is wrong with the process: another one's reply to the request, or the error."""
        if isinstance(error, TransportError):
            if self._record is not None and not self.survival.rescues:
                self._record(sent, b"")
            error = self._not_answered(error)
        # An effect may ask another process, whose loss is its own: no rescue of this one helps.
        while self.survival.rescues and error.device_type == self.device_type:
            self._failure = None
            try:
                frame = self.survival.rescue(error, sent)
                return self._accept(sent, frame, limit)
            except DeviceProcessError as another:
                error = another
        raise error

    def _not_answered(self, error: TransportError) -> DeviceProcessError:
        match error:
            case EndedError():
                return self.fail(DeviceGoneError(self.device_type, f"is gone: {error}"))
            case OverdueError():
                return self.fail(hung_error(self.device_type, error.slices))
            case MisusedError():
                return self._break(str(error))
        raise error

    # --- Checking what came back ------------------------------------------------------------------------

    def _accept(self, sent: bytes, frame: bytes, limit: int) -> tuple[int, bytes]:
        """Check a whole reply and apply its effects; returns its value and payload."""
        self.waiting = 0
        if self._record is not None and not self.survival.rescues:
            self._record(sent, frame)
        size = len(frame)
        if not HEADER.size <= size <= MAX_FRAME:
            raise self._break(f"a frame of {size} bytes")
        first, deadline, value, rest = WORDS.unpack_from(frame)
        asked, now, _, _ = WORDS.unpack_from(sent)
        kind = asked & 0xFF
        is_plain = first == asked | _REPLY_BIT and not rest and size == HEADER.size and kind in _PLAIN
        if is_plain and value <= limit and self._record is None:  # what follows would find nothing to do
            self._set_deadline(deadline, now)
            self._note_frames(sent, frame)
            return value, b""
        if rest >> 32 != size - HEADER.size:
            raise self._break(f"a frame of {size} bytes announces a payload of {rest >> 32}")
        count = first >> 24 & 0xFF
        if first != asked | _REPLY_BIT | count << 24:
            raise self._explain_header(first, asked, frame)
        steady = rest & 0xFFFF_FFFF
        if steady and (steady > MAX_STEADY or count or kind not in STEADY_KINDS):
            raise self._break(f"a steady value ({steady:#x}) in the reply to {protocol.KIND_NAMES[kind]}")
        if value > limit:
            raise self._break(f"value {value:#x} where at most {limit:#x} can be")
        if count and kind in _NO_EFFECTS:
            raise self._break(f"an effect in the reply to {protocol.KIND_NAMES[kind]}, which has none")
        cause = sent  # the access that the last effects are of
        try:
            effects, payload = decode_effects(count, frame[HEADER.size :])
            if kind in BLOCKS:
                block = Block(protocol.decode_request(sent))
                made, payload = block.outcome(value, payload, has_effects=bool(count))
                cause, self._left = block.single(made - 1).encode(), block.count - made
                value = int.from_bytes(payload, "little") if kind == protocol.READ_WIDE else 0
            elif payload and kind != protocol.SNAPSHOT:
                raise FrameError(f"{len(payload)} stray bytes after its effects")
        except FrameError as error:
            raise self._break(str(error)) from error
        # Models that were all told `now` have no business left at or before it: a process that says
        # otherwise would make the timer spin. (In other replies a sibling's deadline may be overdue.)
        if kind == protocol.ADVANCE and deadline <= now:
            raise self._break(f"deadline {deadline} ns is not after {now} ns")
        self._apply_all(effects, cause)
        if kind in _TELL_ALL:
            for rise in self._rises:
                rise.settle()
        # After an advance also an unchanged deadline is told: the timer has forgotten it.
        self._set_deadline(deadline, now, tell=kind == protocol.ADVANCE)
        if self._record is not None and self.survival.rescues:
            self._record(sent, frame)  # not the exchanges that failed: they have not happened to the guest
        if kind not in _SENT_ONLY:
            self._note_frames(sent, frame)
        return value, payload

    def _apply_all(self, effects: Sequence[tuple[int, Effect]], sent: bytes) -> None:
        """Apply the effects of the reply to `sent`, if all are granted; ProtocolError if one is not."""
        if len(effects) == 1 and type(effects[0][1]) is HostOutput:  # what printing causes
            apply, arguments, _ = self.check_effect(*effects[0], sent)
            apply(*arguments)
            return
        applications = [self.check_effect(index, effect, sent) for index, effect in effects]
        asked_for = self._asked_for
        for number, application in enumerate(applications):
            asked_for += max(application[2], 0)
            if asked_for > MAX_FOLLOW_UPS:
                name = self._grants[effects[number][0]].name
                raise self._break(f"{name} asks for more than {MAX_FOLLOW_UPS} follow-ups of one request")
        # The reply is good as a whole: only now is any of it used.
        for apply, arguments, follow_ups in applications:
            asked = apply(*arguments)
            if follow_ups:
                assert follow_ups == CAN_WAIT or len(asked) <= follow_ups
                self._follow_ups += asked
        # Not 0 where something is to be sent: an access looks at this alone.
        self._asked_for = asked_for or int(bool(self._follow_ups))

    def _explain_header(self, first: int, asked: int, frame: bytes) -> DeviceProcessError:
        if first & 0xFF == protocol.ERROR:
            text = printable(frame[HEADER.size :])
            return self.fail(DeviceProcessError(self.device_type, f"failed: {text}"))
        if first >> 32 != asked >> 32:
            return self._break(f"reply {first >> 32} to request {asked >> 32}")
        return self._break(f"a reply of kind {first & 0xFF:#x} to a request of kind {asked & 0xFF:#x}")

    def refuse(self, sent: bytes, frame: bytes) -> DeviceProcessError:
        """The error of a frame that is not the reply to `sent` that alone is good. Under the lock."""
        first = WORDS.unpack_from(frame)[0] if len(frame) >= HEADER.size else 0
        asked = WORDS.unpack_from(sent)[0]
        if first & ~(0xFF << 24) != asked | _REPLY_BIT:  # but for the number of effects
            return self._explain_header(first, asked, frame)
        return self._break(f"to {protocol.KIND_NAMES[sent[0]]} it did not answer as a device that is unused")

    def check_effect(self, index: int, effect: Effect, sent: bytes) -> Application:
        """What an effect calls, with which arguments; ProtocolError if the device was not granted it.

        `sent` is the request that it is an effect of.
        """
        if index >= len(self._grants):
            raise self._break(f"an effect of device {index}, it has {len(self._grants)}")
        grants = self._grants[index]
        application = grants.check(index, effect, sent)
        if application is not None:
            return application
        raise self._break(f"effect {type(effect).__name__} of {grants.name}: not granted")

    def _set_deadline(self, deadline: int, now: int, *, tell: bool = False) -> None:
        # Under the lock, so that deadlines reach the timer in the order of the replies.
        if deadline == self.deadline and not tell:
            return
        self.deadline = deadline
        self._deadline_changed(deadline + rise_slack(deadline, now, self._rises), now)

    def _note_frames(self, sent: bytes, frame: bytes) -> None:
        if self._journal is not None:
            self._note(entry_of(sent, frame))

    def _note(self, entry: Entry) -> None:
        """Journal a request that is done: its reply was good and its effects are applied."""
        if self._journal is not None:
            self._journal.note(entry)
            if self._journal.is_full:
                self.survival.journal_is_full()

    # --- Failing ----------------------------------------------------------------------------------------

    @property
    def failure(self) -> DeviceProcessError | None:
        """The error that made the channel unusable, or None."""
        return self._failure

    @property
    def is_started(self) -> bool:
        """Whether its process has been started, or never has to be."""
        return self.transport.is_started

    def fail(self, error: DeviceProcessError) -> DeviceProcessError:
        """Store the first error of the channel, and return it. Every later request raises this error."""
        if self._failure is None:
            self._failure = error
        return self._failure

    def told(self) -> DeviceProcessError | None:
        """What the process, now dead, did wrong before it died, if that is more than dying.

        A process that fails sends its reason and exits. Reading this last frame takes one slice at most.
        """
        if self._lock.acquire(timeout=self._slice_ms / 1000):
            self._lock.release()
        return None if isinstance(self._failure, DeviceGoneError) else self._failure

    def _break(self, what: str) -> DeviceProcessError:
        return self.fail(ProtocolError(self.device_type, f"broke the protocol: {what}"))

    def close(self) -> None:
        """Close the VMM's end: the device process reads end of file and exits. Idempotent."""
        self.transport.close()
