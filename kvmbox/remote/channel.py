"""The VMM's connection to one device process: requests out, replies checked, effects applied.

One lock per channel covers stamping `now`, the request, the reply and applying its effects. So `now` never
decreases on a channel and effects keep the order of replies, whichever thread asked.

Who waits, and for how long
---------------------------
The vCPU thread blocks in `access` without a time-out of its own: `waiting` tells the watchdog (the main
thread) which request is open, and the watchdog kills a process that does not answer, which ends the read.
The main thread itself uses `request`, which waits in slices of `WAIT_SLICE_MS` and gives up after
`REPLY_SLICES` of them. Slices are counted, not clocks compared: a VMM that was suspended (Ctrl-Z) for an
hour has used up one slice, not its patience.

Where the time goes in `access` (an uncontended lock, two system calls and the switch to the device process
between them; the rest is one pack, one unpack and two comparisons): a reply without effects is one compare
against the request's own first eight bytes, so a wrong sequence number, kind, device or size is caught by
the same instruction that lets a good reply pass.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from struct import Struct
from typing import Final

from kvmbox.devices.model import HostOutput, InputRoom, IrqLine, Reset, Stop
from kvmbox.errors import DeviceGoneError, DeviceProcessError, ProtocolError
from kvmbox.remote import protocol
from kvmbox.remote.protocol import HEADER, MAX_FRAME, NO_DEADLINE, FrameError
from kvmbox.sandbox import passing

WAIT_SLICE_MS: Final = 50
"""How long one slice of waiting for a device process is, in milliseconds of a running VMM."""

REPLY_SLICES: Final = 10
"""After how many unanswered slices a device process counts as hung (0.5 s)."""

START_SLICES: Final = 200
"""The same for the first reply of a process, which includes its start on a busy host (10 s)."""

# The header as four words: kind, device, size, count and sequence number are the first.
_WORDS: Final = Struct("<QQQQ")
_REPLY_BIT: Final = protocol.REPLY
_COUNT_MASK: Final = 0xFF00_0000


def request_word(kind: int, device: int, size: int) -> int:
    """The first eight bytes of a request as an integer, without its sequence number."""
    return kind | device << 8 | size << 16


@dataclass(frozen=True, slots=True)
class Grants:
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
        descriptor: int,
        grants: Sequence[Grants],
        *,
        now: Callable[[], int],
        deadline_changed: Callable[[int, int], None] | None = None,
    ) -> None:
        """`descriptor` is the VMM's end; `deadline_changed(deadline, now)` hears of each new deadline."""
        self.device_type = device_type
        self.descriptor = descriptor
        self.deadline = NO_DEADLINE
        self.waiting = 0
        """Sequence number of the request that the vCPU thread waits on, or 0: read by the watchdog."""
        self.settle: Callable[[], None] | None = None
        """Called by `access`, after the lock is released, when a reply had effects: back-pressure."""
        self.recorder: Callable[[bytes, bytes], None] | None = None
        """Called under the lock with each request and what came back for it, before that is checked."""
        self._grants = list(grants)
        self._now = now
        self._deadline_changed = deadline_changed
        self._lock = threading.Lock()
        self._sequence = 0
        self._failure: DeviceProcessError | None = None

    # --- The vCPU thread's way: one access, as short as it can be ------------------------------------

    def access(self, word: int, offset: int, value: int, limit: int) -> int:
        """One guest access; returns the reply's value, at most `limit`.

        `word` is `request_word(...)` of the access. Raises DeviceProcessError.
        """
        with self._lock:
            if self._failure is not None:
                raise self._failure
            sequence = self._sequence = (self._sequence + 1) & 0xFFFF_FFFF or 1
            first = word | sequence << 32
            now = self._now()
            descriptor = self.descriptor
            sent = _WORDS.pack(first, now, value, offset)
            self.waiting = sequence
            try:
                os.write(descriptor, sent)
                frame = os.read(descriptor, MAX_FRAME + 1)
            except OSError as error:
                frame = self._last_words(error)
            finally:
                self.waiting = 0
            if self.recorder is not None:
                self.recorder(sent, frame)
            if len(frame) == HEADER.size:
                reply, deadline, result, rest = _WORDS.unpack(frame)
                if reply == first | _REPLY_BIT and result <= limit and not rest:
                    if deadline != self.deadline:
                        self._set_deadline(deadline, now)
                    return result  # type: ignore[no-any-return]  # struct's words are ints
            request = protocol.Request(
                word & 0xFF, word >> 8 & 0xFF, word >> 16 & 0xFF, sequence, now, value, offset
            )
            result, _ = self._accept(frame, request, limit)
        if self.settle is not None:
            self.settle()
        return result

    # --- The main thread's way: any request, waiting in counted slices -------------------------------

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
        """One request of any kind; returns the reply's value, at most `limit`, and its payload.

        Raises DeviceProcessError: also when the reply, or another thread's that holds the channel, does not
        come within `slices` slices.
        """
        wait = WAIT_SLICE_MS / 1000
        if not any(self._lock.acquire(timeout=wait) for _ in range(slices)):
            raise self.fail(hung_error(self.device_type, slices))
        try:
            if self._failure is not None:
                raise self._failure
            self._sequence = (self._sequence + 1) & 0xFFFF_FFFF or 1
            now = self._now()
            request = protocol.Request(kind, device, 0, self._sequence, now, value, offset, payload)
            sent = request.encode()
            try:
                self._send_now(sent)
                if not self._wait_readable(slices):
                    if self.recorder is not None:
                        self.recorder(sent, b"")
                    raise self.fail(hung_error(self.device_type, slices))
                frame = os.read(self.descriptor, MAX_FRAME + 1)
            except OSError as error:
                frame = self._last_words(error)
            if self.recorder is not None:
                self.recorder(sent, frame)
            return self._accept(frame, request, limit)
        finally:
            self._lock.release()

    def _send_now(self, frame: bytes) -> None:
        # Never waits for room: the main thread is the watchdog, and nobody watches it. A process that has
        # answered every request has read every request, so there is room unless it lies.
        try:
            passing.send(self.descriptor, frame, wait=False)
        except BlockingIOError:
            raise self._break("it answers requests that it has not read") from None

    def _wait_readable(self, slices: int) -> bool:
        poll = select.poll()
        poll.register(self.descriptor, select.POLLIN)
        return any(poll.poll(WAIT_SLICE_MS) for _ in range(slices))

    # --- Checking what came back ------------------------------------------------------------------------

    def _accept(self, frame: bytes, request: protocol.Request, limit: int) -> tuple[int, bytes]:
        """Check a whole reply and apply its effects; returns its value and payload."""
        if not frame:
            # A packet of no bytes reads like the end of the channel, but only the end hangs up.
            if passing.hung_up(self.descriptor):
                raise self._gone("its channel ended")
            raise self._break("an empty frame")
        if len(frame) < HEADER.size or len(frame) > MAX_FRAME:
            raise self._break(f"a frame of {len(frame)} bytes")
        kind, device, size, count, sequence, deadline, value, zero, length = HEADER.unpack_from(frame)
        if len(frame) != HEADER.size + length:
            raise self._break(f"a frame of {len(frame)} bytes announces a payload of {length}")
        if kind == protocol.ERROR:
            text = printable(frame[HEADER.size :])
            raise self.fail(DeviceProcessError(self.device_type, f"failed: {text}"))
        if sequence != request.sequence:
            raise self._break(f"reply {sequence} to request {request.sequence}")
        if (kind, device, size) != (request.kind | _REPLY_BIT, request.device, request.size) or zero:
            raise self._break(f"a reply of kind {kind:#x} to a request of kind {request.kind:#x}")
        if value > limit:
            raise self._break(f"value {value:#x} where at most {limit:#x} can be")
        try:
            effects, payload = protocol.decode_effects(count, frame[HEADER.size :])
        except FrameError as error:
            raise self._break(str(error)) from error
        if payload and request.kind != protocol.SNAPSHOT:
            raise self._break(f"{len(payload)} stray bytes after its effects")
        granted: list[Callable[[], None]] = []
        for index, effect in effects:
            if index >= len(self._grants):
                raise self._break(f"an effect of device {index}, it has {len(self._grants)}")
            grants = self._grants[index]
            match effect:
                case IrqLine(pin, level, coalesced) if pin < len(grants.irq_lines):
                    granted.append(partial(grants.irq_lines[pin], level, coalesced))
                case HostOutput(data) if grants.output is not None:
                    granted.append(partial(grants.output, data))
                case InputRoom(room) if grants.input_room is not None:
                    granted.append(partial(grants.input_room, room))
                case Reset() if (
                    grants.reset is not None and request.kind == protocol.WRITE and request.device == index
                ):
                    granted.append(grants.reset)
                case Stop() if (
                    grants.stop is not None and request.kind == protocol.WRITE and request.device == index
                ):
                    granted.append(partial(grants.stop, request.offset, request.size, request.value))
                case _:
                    raise self._break(f"effect {type(effect).__name__} of {grants.name}: not granted")
        # Models that were all told `now` have no business left at or before it: a process that says
        # otherwise would make the timer spin. (In other replies a sibling's deadline may be overdue.)
        if request.kind == protocol.ADVANCE and deadline <= request.now:
            raise self._break(f"deadline {deadline} ns is not after {request.now} ns")
        # The reply is good as a whole: only now is any of it used.
        for apply in granted:
            apply()
        # After an advance also an unchanged deadline is told: the timer has forgotten it.
        self._set_deadline(deadline, request.now, tell=request.kind == protocol.ADVANCE)
        return value, payload

    def _set_deadline(self, deadline: int, now: int, *, tell: bool = False) -> None:
        # Under the lock, so that deadlines reach the timer in the order of the replies.
        if deadline == self.deadline and not tell:
            return
        self.deadline = deadline
        if self._deadline_changed is not None:
            self._deadline_changed(deadline, now)

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

    def _last_words(self, error: OSError) -> bytes:
        """The frame that the process left behind when it died with a request unread, or DeviceGoneError.

        The kernel reports the reset before it hands out what was queued; a process that failed says why.
        """
        try:
            return os.read(self.descriptor, MAX_FRAME + 1)
        except OSError:
            raise self._gone(error.strerror) from error

    def _gone(self, why: str | None) -> DeviceProcessError:
        return self.fail(DeviceGoneError(self.device_type, f"is gone: {why}"))

    def _break(self, what: str) -> DeviceProcessError:
        return self.fail(ProtocolError(self.device_type, f"broke the protocol: {what}"))

    def close(self) -> None:
        """Close the VMM's end: the device process reads end of file and leaves."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def hung_error(device_type: str, slices: int = REPLY_SLICES) -> DeviceProcessError:
    """The error of a process that did not answer within `slices` slices."""
    milliseconds = WAIT_SLICE_MS * slices
    return DeviceProcessError(device_type, f"is hung: no reply within {milliseconds} ms")


def printable(data: bytes, limit: int = 500) -> str:
    """Text from a hostile process, fit for one line of a terminal: control characters are escaped."""
    text = data[:limit].decode("utf-8", "replace")
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
