"""The VMM's connection to the models of one device process: requests out, replies checked, effects applied.

What is the same for every way of reaching them is here; `stream` (a socket or two pipes), `shared` (memory)
and `direct` (no process at all) are the ways, each with an `access` of its own, which is the hot path.

One lock per channel covers stamping `now`, the request, the reply and applying its effects. So `now` never
decreases on a channel and effects keep the order of replies, whichever thread asked.

Who waits, and for how long
---------------------------
The vCPU thread blocks in `access` and `transact` without a time-out of its own: `waiting` tells the watchdog
(the main thread) which request is open, and the watchdog kills a process that does not answer, which ends
the wait. The main thread itself uses `request`, which waits in slices of `WAIT_SLICE_MS` and gives up after
`REPLY_SLICES` of them. Slices are counted, not clocks compared: a VMM that was suspended (Ctrl-Z) for an
hour has used up one slice, not its patience.

Surviving
---------
With a `journal` every request that was answered well is kept, with its reply. Whatever then goes wrong is
given to `rescue`, which may put another process in place of the broken one and answer the open request
again; see `recovery`.
"""

from __future__ import annotations

import select
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from kvmbox.channel.follow_up import MAX_FOLLOW_UPS, Application, FollowUp
from kvmbox.devices.model import Effect, HostOutput, InputRoom, IrqLine, Reset, Stop
from kvmbox.errors import DeviceGoneError, DeviceProcessError, ProtocolError
from kvmbox.lean import Value
from kvmbox.wire import protocol
from kvmbox.wire.protocol import EFFECT, EFFECT_HOST_OUTPUT, HEADER, MAX_FRAME, NO_DEADLINE, WORDS, FrameError

WAIT_SLICE_MS: Final = 50
"""How long one slice of waiting for a device process is, in milliseconds of a running VMM."""

REPLY_SLICES: Final = 10
"""After how many unanswered slices a device process counts as hung (0.5 s)."""

START_SLICES: Final = 200
"""The same for the first reply of a process, which includes its start on a busy host (10 s)."""

_REPLY_BIT: Final = protocol.REPLY
_REPLY_AND_ONE_EFFECT: Final = protocol.REPLY | 1 << 24
_ONE_EFFECT: Final = HEADER.size + EFFECT.size
_SENT_ONLY: Final = (protocol.SNAPSHOT, protocol.HELLO)  # change no model's state: not for the journal
_NO_EFFECTS: Final = frozenset(
    (protocol.HELLO, protocol.SNAPSHOT, protocol.RESTORE, protocol.REPLAY, protocol.SHUTDOWN)
)
"""Requests that no device of the guest's sees: a model has no cause to ask for anything."""


class Grants(Value):
    """What the effects of one device may do, each None or empty where it may not.

    irq_lines: by pin, called with (level, coalesced). output: host output bytes. input_room: how many bytes
    the device would accept now. reset: the machine's reset line. stop: called with the (offset, size, value)
    of the write that the VMM forwarded, because the device's word does not count for an exit status. Both
    are valid only in the reply to a write of the guest to that very device.
    """

    name: str
    irq_lines: Sequence[Callable[[int, int], None]] = ()
    output: Callable[[bytes], None] | None = None
    input_room: Callable[[int], None] | None = None
    reset: Callable[[], None] | None = None
    stop: Callable[[int, int, int], None] | None = None


class Channel:
    """One device process, as the VMM sees it. Thread-safe; see the module's theory of operation."""

    def __init__(
        self,
        device_type: str,
        grants: Sequence[Grants],
        *,
        now: Callable[[], int],
        deadline_changed: Callable[[int, int], None] | None = None,
    ) -> None:
        """`deadline_changed(deadline, now)` hears of each new deadline."""
        self.device_type = device_type
        self.deadline = NO_DEADLINE
        self.waiting = 0
        """Sequence number of the request that the vCPU thread waits on, or 0: read by the watchdog."""
        self.settle: Callable[[], None] | None = None
        """Called by `access`, after the lock is released, when a reply had effects: back-pressure."""
        self.recorder: Callable[[bytes, bytes], None] | None = None
        """Called under the lock with each request and what came back for it: before that is checked, or
        after it was found good where there is a `rescue`."""
        self.journal: list[Any] | None = None
        """An entry for each request: see `journal`."""
        self.journal_is_full: Callable[[], None] = lambda: None
        """Called under the lock when the journal has got `JOURNAL_LIMIT` entries, or too many bytes: time
        for a snapshot."""
        self.journal_bytes = 0
        """What the frames in the journal hold beyond their headers."""
        self.being_rescued = False
        """Whether another process is just being put in place: who waits for the lock has to be patient."""
        self.rescue: Callable[[DeviceProcessError, bytes], bytes] | None = None
        """Called under the lock with what went wrong and the open request: gives another reply to it."""
        self.excuse: Callable[[], Callable[[], bool]] | None = None
        """Asked when a reply is overdue: gives what tells, slice by slice, whether the process is excused."""
        self.overdue: Callable[[bool], None] | None = None
        """Hears when a reply has been due for a whole slice, and when nobody waits for it any more."""
        self.kill: Callable[[DeviceProcessError], None] | None = None
        """Kills the process, for the reason given; for whoever is not the thread that waits for it."""
        self._grants = list(grants)
        self._outputs = [device.output for device in grants]
        self._now = now
        self._deadline_changed = deadline_changed
        self._lock = threading.Lock()
        self._sequence = 0
        self._failure: DeviceProcessError | None = None
        self._follow_ups: deque[FollowUp] = deque()
        self._asked_for = 0  # how many follow-ups the open request has caused

    # --- The three ways to ask ------------------------------------------------------------------------

    def access(self, word: int, offset: int, value: int, limit: int) -> int:
        """One guest access, by the vCPU thread; returns the reply's value, at most `limit`.

        `word` is `protocol.request_word(...)` of the access. Raises DeviceProcessError.
        """
        raise NotImplementedError

    def access_for(self, word: int) -> Callable[[int, int, int, int], int]:
        """What to call for accesses with this very `word`: `access`, or something faster."""
        del word
        return self.access

    def transact(self, kind: int, device: int, offset: int, payload: bytes) -> None:
        """A request with a payload by the vCPU thread, which waits as `access` does."""
        with self._lock:
            request = self._next(kind, device, 0, offset, payload)
            self.waiting = request.sequence
            try:
                self._answer(request, 0, None)
            finally:
                self.waiting = 0
            self._follow_up(None)
        if self.settle is not None:
            self.settle()

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
    ) -> tuple[int, bytes]:
        """One request of any kind by the main thread; returns the reply's value (≤ `limit`) and payload.

        Raises DeviceProcessError: also when the reply, or another thread's that holds the channel, does not
        come within `slices` slices.
        """
        while not self._acquires(slices):
            # The thread that holds the lock waits for a reply, and we are who would watch over that.
            error = hung_error(self.device_type, slices)
            if self.rescue is None or self.kill is None:
                raise self.fail(error)
            self.kill(error)  # the other thread's wait ends, and it is rescued
            slices = START_SLICES
        try:
            answer = self._answer(self._next(kind, device, value, offset, payload), limit, slices)
            self._follow_up(REPLY_SLICES)
            return answer
        finally:
            self._lock.release()

    def _acquires(self, slices: int) -> bool:
        """Take the lock from a thread that waits for a reply, with the patience that `_waits` has."""
        wait = WAIT_SLICE_MS / 1000
        return self._patiently(lambda: self._lock.acquire(timeout=wait), slices, for_another_thread=True)

    def _next(self, kind: int, device: int, value: int, offset: int, payload: bytes) -> protocol.Request:
        if self._failure is not None:
            raise self._failure
        self._sequence = (self._sequence + 1) & 0xFFFF_FFFF or 1
        return protocol.Request(kind, device, 0, self._sequence, self._now(), value, offset, payload)

    def _answer(self, request: protocol.Request, limit: int, slices: int | None) -> tuple[int, bytes]:
        """Send `request` and accept its reply, which may be another process's."""
        sent = request.encode()
        try:
            return self._accept(sent, self._exchange(sent, slices), limit)
        except DeviceProcessError as error:
            return self._survive(error, sent, limit)

    def _follow_up(self, slices: int | None) -> None:
        """Send what the effects of the request that was just answered have asked for; under the lock.

        `slices` is how long each may take; None: by the vCPU thread, which waits as `access` does.
        """
        try:
            while self._follow_ups:
                request = self._next(*self._follow_ups.popleft())
                if slices is None:
                    self.waiting = request.sequence
                self._answer(request, 0, slices)
        finally:
            self.waiting = 0
            self._follow_ups.clear()
            self._asked_for = 0

    def ask_under_lock(self, kind: int, *, device: int, offset: int, limit: int) -> tuple[int, bytes]:
        """A request from within another one, by whichever thread has the lock."""
        return self._answer(self._next(kind, device, 0, offset, b""), limit, REPLY_SLICES)

    def exchange_raw(self, sent: bytes, slices: int) -> bytes:
        """Whatever comes back for a frame; under the lock. Raises DeviceProcessError."""
        return self._exchange(sent, slices)

    def forget_failure(self) -> None:
        """What went wrong is somebody else's to report; under the lock."""
        self._failure = None

    def _exchange(self, sent: bytes, slices: int | None) -> bytes:
        """What comes back for `sent`, within `slices` slices or whenever. Raises DeviceProcessError."""
        raise NotImplementedError

    def _waits(self, poll: select.poll, slices: int) -> bool:
        """Wait for a descriptor for so many slices, and for as long as the process is excused."""
        return self._patiently(lambda: bool(poll.poll(WAIT_SLICE_MS)), slices)

    def _patiently(self, comes: Callable[[], bool], slices: int, *, for_another_thread: bool = False) -> bool:
        """Whether it `comes`, which takes a slice to tell, within so many slices, and some more as long as
        the process is excused, or another thread is just putting another one in its place.
        """
        if slices > 0 and comes():
            return True
        if self.overdue is not None:
            self.overdue(True)
        try:
            if any(comes() for _ in range(slices - 1)):
                return True
            excused = self.excuse() if self.excuse is not None else None
            for _ in range(START_SLICES):
                busy = for_another_thread and self.being_rescued
                if not busy and (excused is None or not excused()):
                    return False
                if comes():
                    return True
            return False
        finally:
            if self.overdue is not None:
                self.overdue(False)

    # --- Behind the hot path ----------------------------------------------------------------------------

    def _finish(self, sent: bytes, frame: bytes, limit: int) -> int:
        """The rest of an access whose reply is not the shortest possible; returns its value."""
        if _ONE_EFFECT < len(frame) <= MAX_FRAME and self.recorder is None:
            first, now, _, _ = WORDS.unpack(sent)
            words = WORDS.unpack_from(frame)
            if self._prints(first, limit, words, frame[HEADER.size :]):
                if words[1] != self.deadline:
                    self._set_deadline(words[1], now)
                if self.journal is not None:
                    self._note(sent, frame)
                return words[2]  # type: ignore[no-any-return]  # struct's words are ints
        return self._accept(sent, frame, limit)[0]

    def _prints(self, first: int, limit: int, words: tuple[int, int, int, int], payload: bytes) -> bool:
        """If the reply to `first` is good and carries one piece of host output: output it.

        That is what printing causes, at each character, so it is checked as fast as it can be. `words` are
        the reply's header, `payload` has at least the size of an effect.
        """
        tag, device, pin, level, length = EFFECT.unpack_from(payload)
        if (
            words[0] == first | _REPLY_AND_ONE_EFFECT
            and words[3] == len(payload) << 32
            and words[2] <= limit
            and tag == EFFECT_HOST_OUTPUT
            and length == len(payload) - EFFECT.size
            and not pin | level
            and device < len(self._outputs)
            and (output := self._outputs[device]) is not None
        ):
            output(payload[EFFECT.size :])
            return True
        return False

    def _survive(self, error: DeviceProcessError, sent: bytes, limit: int) -> tuple[int, bytes]:
        """Something is wrong with the process: another one's reply to the request, or the error."""
        while self.rescue is not None:
            self._failure = None
            try:
                frame = self.rescue(error, sent)
                return self._accept(sent, frame, limit)
            except DeviceProcessError as another:
                if self.rescue is None:
                    raise
                error = another
        raise error

    # --- Checking what came back ------------------------------------------------------------------------

    def _accept(self, sent: bytes, frame: bytes, limit: int) -> tuple[int, bytes]:
        """Check a whole reply and apply its effects; returns its value and payload."""
        if self.recorder is not None and self.rescue is None:
            self.recorder(sent, frame)
        size = len(frame)
        if not HEADER.size <= size <= MAX_FRAME:
            raise self._break(f"a frame of {size} bytes")
        first, deadline, value, rest = WORDS.unpack_from(frame)
        asked, now, _, _ = WORDS.unpack_from(sent)
        kind = asked & 0xFF
        if rest >> 32 != size - HEADER.size:
            raise self._break(f"a frame of {size} bytes announces a payload of {rest >> 32}")
        count = first >> 24 & 0xFF
        if first != asked | _REPLY_BIT | count << 24 or rest & 0xFFFF_FFFF:
            raise self._explain_header(first, asked, frame)
        if value > limit:
            raise self._break(f"value {value:#x} where at most {limit:#x} can be")
        if count and kind in _NO_EFFECTS:
            raise self._break(f"an effect in the reply to {protocol.KIND_NAMES[kind]}, which has none")
        try:
            effects, payload = protocol.decode_effects(count, frame[HEADER.size :])
        except FrameError as error:
            raise self._break(str(error)) from error
        if payload and kind != protocol.SNAPSHOT:
            raise self._break(f"{len(payload)} stray bytes after its effects")
        # Models that were all told `now` have no business left at or before it: a process that says
        # otherwise would make the timer spin. (In other replies a sibling's deadline may be overdue.)
        if kind == protocol.ADVANCE and deadline <= now:
            raise self._break(f"deadline {deadline} ns is not after {now} ns")
        self._apply_all(effects, sent)
        # After an advance also an unchanged deadline is told: the timer has forgotten it.
        self._set_deadline(deadline, now, tell=kind == protocol.ADVANCE)
        if self.recorder is not None and self.rescue is not None:
            self.recorder(sent, frame)  # not the exchanges that failed: they have not happened to the guest
        if self.journal is not None and kind not in _SENT_ONLY:
            self._note(sent, frame)
        return value, payload

    def _apply_all(self, effects: Sequence[tuple[int, Effect]], sent: bytes) -> None:
        """Apply the effects of the reply to `sent`, if all are granted; ProtocolError if one is not."""
        applications = [self.check_effect(index, effect, sent) for index, effect in effects]
        asked_for = self._asked_for
        for (index, _), application in zip(effects, applications, strict=True):
            asked_for += application.follow_ups
            if asked_for > MAX_FOLLOW_UPS:
                name = self._grants[index].name
                raise self._break(f"{name} asks for more than {MAX_FOLLOW_UPS} follow-ups of one request")
        # The reply is good as a whole: only now is any of it used.
        for apply, arguments, follow_ups in applications:
            asked = apply(*arguments)
            if follow_ups:
                assert len(asked) <= follow_ups
                self._follow_ups += asked
        self._asked_for = asked_for

    def _explain_header(self, first: int, asked: int, frame: bytes) -> DeviceProcessError:
        if first & 0xFF == protocol.ERROR:
            text = printable(frame[HEADER.size :])
            return self.fail(DeviceProcessError(self.device_type, f"failed: {text}"))
        if first >> 32 != asked >> 32:
            return self._break(f"reply {first >> 32} to request {asked >> 32}")
        return self._break(f"a reply of kind {first & 0xFF:#x} to a request of kind {asked & 0xFF:#x}")

    def check_effect(self, index: int, effect: Effect, sent: bytes) -> Application:
        """What an effect calls, with which arguments; ProtocolError if the device was not granted it.

        `sent` is the request that it is an effect of.
        """
        if index >= len(self._grants):
            raise self._break(f"an effect of device {index}, it has {len(self._grants)}")
        grants = self._grants[index]
        if isinstance(effect, HostOutput) and grants.output is not None:
            return Application(grants.output, (effect.data,))
        if isinstance(effect, IrqLine) and effect.pin < len(grants.irq_lines):
            return Application(grants.irq_lines[effect.pin], (effect.level, effect.coalesced))
        if isinstance(effect, InputRoom) and grants.input_room is not None:
            return Application(grants.input_room, (effect.count,))
        if sent[0] == protocol.WRITE and sent[1] == index:
            if isinstance(effect, Reset) and grants.reset is not None:
                return Application(grants.reset)
            if isinstance(effect, Stop) and grants.stop is not None:
                request = protocol.decode_request(sent)
                return Application(grants.stop, (request.offset, request.size, request.value))
        raise self._break(f"effect {type(effect).__name__} of {grants.name}: not granted")

    def _set_deadline(self, deadline: int, now: int, *, tell: bool = False) -> None:
        # Under the lock, so that deadlines reach the timer in the order of the replies.
        if deadline == self.deadline and not tell:
            return
        self.deadline = deadline
        if self._deadline_changed is not None:
            self._deadline_changed(deadline, now)

    def _note(self, sent: bytes, frame: bytes) -> None:
        """Journal a request that is done: its reply was good and its effects are applied.

        The hot paths do it themselves, for replies without effects.
        """
        assert self.journal is not None
        self.journal.append((sent, frame))
        self.journal_bytes += len(sent) + len(frame) - 2 * HEADER.size
        if len(self.journal) >= JOURNAL_LIMIT or self.journal_bytes > JOURNAL_BYTES:
            self.journal_is_full()

    # --- Failing ----------------------------------------------------------------------------------------

    @property
    def failure(self) -> DeviceProcessError | None:
        """Why the channel is of no use any more, or None."""
        return self._failure

    def fail(self, error: DeviceProcessError) -> DeviceProcessError:
        """Remember the first error of the channel and return it: every later request raises it."""
        if self._failure is None:
            self._failure = error
        return self._failure

    def told(self) -> DeviceProcessError | None:
        """What the process, now dead, did wrong before it died, if that is more than dying.

        A process that fails says why and exits: whoever reads its last frame is given a slice to do so.
        """
        if self._lock.acquire(timeout=WAIT_SLICE_MS / 1000):
            self._lock.release()
        return None if isinstance(self._failure, DeviceGoneError) else self._failure

    def _gone(self, why: str | None) -> DeviceProcessError:
        return self.fail(DeviceGoneError(self.device_type, f"is gone: {why}"))

    def _break(self, what: str) -> DeviceProcessError:
        return self.fail(ProtocolError(self.device_type, f"broke the protocol: {what}"))

    def close(self) -> None:
        """Close the VMM's end: the device process reads end of file and leaves. Idempotent."""


JOURNAL_LIMIT: Final = 1024
"""How many entries a journal gets. Bounds memory, and the time that a replay takes."""

JOURNAL_BYTES: Final = 1 << 20
"""The same for what its frames hold beyond their headers."""


def hung_error(device_type: str, slices: int = REPLY_SLICES) -> DeviceProcessError:
    """The error of a process that did not answer within `slices` slices."""
    milliseconds = WAIT_SLICE_MS * slices
    return DeviceProcessError(device_type, f"is hung: no reply within {milliseconds} ms")


def printable(data: bytes, limit: int = 500) -> str:
    """Text from a hostile process, fit for one line of a terminal: control characters are escaped."""
    text = data[:limit].decode("utf-8", "replace")
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
