"""Surviving the death of a device process: `--on-device-crash restart` and `all-ones`.

Theory of operation
-------------------
A model is a function of its requests. So a process that is lost can be had again: another one, which stands
ready, takes the last snapshot, lives through the requests since (the channel's journal) and must give the
same replies; then it is asked what the lost one did not answer. Effects of requests that were answered are
not applied again, those of the open one are applied once. Guest time stands still meanwhile. So the guest
cannot tell, whatever the process died of: a signal, a forbidden call, a broken protocol, a hang that the
watchdog ended.

`Recovery` belongs to one channel. Its `rescue` runs under the channel's lock, on whichever thread found the
process broken; so what it asks of the pool is safe on any thread. What happened is queued for the main
thread, which alone finds out how a process died, and tells.

It gives up, and the run ends as with `fail`, when the same request breaks two processes (poison: the third
would break as well), when a replay gives other replies than before (the model is not deterministic, or the
snapshot was damaged), and when the budget of restarts is used up.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from kvmbox.board import DeviceSpec
from kvmbox.errors import DeviceProcessError, ProtocolError, SandboxError
from kvmbox.lean import Value
from kvmbox.remote import protocol
from kvmbox.remote.channel import JOURNAL_LIMIT, REPLY_SLICES, START_SLICES, Channel
from kvmbox.remote.greeting import board_description
from kvmbox.remote.journal import MAX_SNAPSHOT, Batch, batches
from kvmbox.remote.links import Link, adopt
from kvmbox.remote.protocol import HEADER, MAX_PAYLOAD, NO_DEADLINE, WORDS

DEFAULT_BUDGET: Final = 16
"""How many restarts a run may have before a device that keeps dying ends it."""

ATTEMPTS: Final = 2
"""How many processes one failure may use up: the second may be lost to what took the first."""

_SAMPLE: Final = 1024
"""How many recovery times are kept for statistics."""


class Restart(Value):
    """What one restart was about. `error` is what was seen; how the old process died is found out later."""

    device_type: str
    error: DeviceProcessError
    number: int
    replayed: int
    duration: int
    """From the detection to the reply of the new process, in ns."""


class Standby(Protocol):
    """Where processes come from: the pool. Safe on any thread."""

    def replace(self, name: str) -> Link:
        """Kill the process of `name`, put a jailed one in its place and return the link to it."""
        ...

    def pause_time(self) -> None:
        """Guest time stands still until `resume_time`."""
        ...

    def resume_time(self) -> None:
        """Guest time goes on."""
        ...

    def restarted(self, restart: Restart) -> None:
        """A process was replaced: the main thread will tell."""
        ...

    def take_from_budget(self) -> bool:
        """Whether there may be one more restart."""
        ...


class Recovery:
    """Keeps what a device process would need to begin again, and lets another one do it."""

    def __init__(self, channel: Channel, devices: Sequence[DeviceSpec], standby: Standby) -> None:
        """From now on `channel` is journaled and rescued. It has been greeted, and asked nothing else."""
        self._channel = channel
        self._devices = list(devices)
        self._standby = standby
        self._snapshots: dict[int, bytes] = {}
        self._suspect = b""  # the request that broke the last process
        self.restarts = 0
        self.durations: list[int] = []
        """How long the last restarts took, in ns."""
        channel.journal = []
        channel.journal_full = self._checkpoint
        channel.rescue = self.rescue

    # --- Keeping ------------------------------------------------------------------------------------------

    def _checkpoint(self) -> None:
        """Take a snapshot of each device: the journal begins anew."""
        channel = self._channel
        journal = channel.journal
        assert journal is not None
        taken = {index: self._snapshot(index) for index in range(len(self._devices))}
        self._snapshots = taken
        journal.clear()

    def _snapshot(self, device: int) -> bytes:
        state = b""
        part = 0
        while True:
            total, payload = self._channel.ask_under_lock(
                protocol.SNAPSHOT, device=device, offset=part, limit=MAX_SNAPSHOT
            )
            if len(payload) != min(MAX_PAYLOAD, total - len(state)):
                raise self._channel.fail(
                    ProtocolError(
                        self._channel.device_type,
                        f"broke the protocol: part {part} of a snapshot of {total} bytes has {len(payload)}",
                    )
                )
            state += payload
            part += 1
            if len(state) == total:
                return state

    # --- Rescuing -----------------------------------------------------------------------------------------

    def rescue(self, error: DeviceProcessError, sent: bytes) -> bytes:
        """Another process's reply to the open request `sent`. Raises DeviceProcessError, for good."""
        began = time.monotonic_ns()
        channel = self._channel
        if sent == self._suspect:
            raise self._give_up(error, f"the request that broke it broke its replacement too: {show(sent)}")
        self._suspect = sent
        self._standby.pause_time()
        try:
            replayed, reply = self._begin_again(error, sent)
        finally:
            self._standby.resume_time()
        self.restarts += 1
        duration = time.monotonic_ns() - began
        if len(self.durations) < _SAMPLE:
            self.durations.append(duration)
        self._standby.restarted(Restart(channel.device_type, error, self.restarts, replayed, duration))
        return reply

    def _begin_again(self, error: DeviceProcessError, sent: bytes) -> tuple[int, bytes]:
        """How many requests were replayed, and the reply to `sent`."""
        channel = self._channel
        attempt = 1
        while True:
            if not self._standby.take_from_budget():
                raise self._give_up(error, "it was restarted too often")
            try:
                adopt(channel, self._standby.replace(channel.device_type))
                return self._live_through(), channel.exchange_raw(sent, REPLY_SLICES)
            except (DeviceProcessError, SandboxError) as another:
                channel.forget_failure()
                if attempt == ATTEMPTS:
                    raise self._give_up(error, f"its replacement failed as well: {another}") from another
                attempt += 1

    def _live_through(self) -> int:
        """Bring a fresh process to where the lost one was; returns how many requests that took."""
        description = board_description(self._devices)
        self._ask(protocol.HELLO, protocol.VERSION, payload=description, good=protocol.VERSION)
        for device, state in self._snapshots.items():
            for part in range(max(1, -(-len(state) // MAX_PAYLOAD))):
                piece = state[part * MAX_PAYLOAD : (part + 1) * MAX_PAYLOAD]
                self._ask(protocol.RESTORE, len(state), device=device, offset=part, payload=piece, good=1)
        replayed = 0
        for batch in batches(self._channel.journal or ()):
            self._replay(batch)
            replayed += batch.count
        return replayed

    def _ask(
        self, kind: int, value: int, *, payload: bytes, good: int, device: int = 0, offset: int = 0
    ) -> None:
        request = protocol.Request(kind, device, 0, 1, 0, value, offset, payload)
        frame = self._channel.exchange_raw(request.encode(), START_SLICES)
        reply, _, value, _ = WORDS.unpack_from(frame) if len(frame) >= HEADER.size else (0, 0, 0, 0)
        if reply & 0xFF != kind | protocol.REPLY or value != good:
            raise self._unlike(f"kind {kind:#x} was answered with {frame[:64]!r}")

    def _replay(self, batch: Batch) -> None:
        if batch.alone:
            frame = self._channel.exchange_raw(batch.frames, REPLY_SLICES)
            if zlib.crc32(frame) != batch.checksum:
                raise self._unlike(f"another reply to {show(batch.frames)}")
            return
        self._ask(protocol.REPLAY, 0, payload=batch.frames, good=batch.checksum)

    def _unlike(self, what: str) -> DeviceProcessError:
        return ProtocolError(
            self._channel.device_type, f"did not live through its past in the same way again: {what}"
        )

    def _give_up(self, error: DeviceProcessError, why: str) -> DeviceProcessError:
        self._channel.rescue = None
        prefix = f"device process '{self._channel.device_type}' "
        text = str(error).removeprefix(prefix)
        return self._channel.fail(
            DeviceProcessError(self._channel.device_type, f"{text}; {why}", hint=error.hint)
        )


def all_ones(request: bytes) -> bytes:
    """What a missing device answers: ones to a read, nothing to anything else."""
    first, _, _, _ = WORDS.unpack_from(request)
    kind, size = first & 0xFF, first >> 16 & 0xFF
    value = (1 << 8 * size) - 1 if kind in (protocol.READ, protocol.INDEXED_READ) else 0
    return WORDS.pack(first | protocol.REPLY, NO_DEADLINE, value, 0)


def show(frame: bytes) -> str:
    """A request for a person: one line, bounded."""
    request = protocol.decode_request(frame)
    name = protocol.KIND_NAMES.get(request.kind, f"kind {request.kind:#x}")
    text = f"{name} device {request.device} offset {request.offset:#x} size {request.size}"
    if request.kind == protocol.WRITE:
        text += f" value {request.value:#x}"
    if request.payload:
        text += f" payload {request.payload[:16].hex()}" + ("…" if len(request.payload) > 16 else "")
    return f"{text} at {request.now} ns"


def install_all_ones(channel: Channel, tell: Callable[[DeviceProcessError], None]) -> None:
    """Let `channel` answer as if nobody were there once its process is lost; `tell` hears of it, once."""
    told: list[DeviceProcessError] = []

    def rescue(error: DeviceProcessError, sent: bytes) -> bytes:
        if not told:
            told.append(error)
            tell(error)
        return all_ones(sent)

    channel.rescue = rescue


assert JOURNAL_LIMIT % 2 == 0
