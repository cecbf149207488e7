"""The channel of `--sandbox none`: the models of one device type in this process, called by who asks.

No process, no frame, no system call: what remains of a channel is the lock, the clock and the grants of
effects, which are the same as everybody's. Where somebody listens in (`recorder`), and for every request
that is not a plain access, requests become frames and replies are checked as a device process's are, so a
recorder or a test cannot tell the difference. What is lost is the protection: a model that raises is still
named, one that hangs or corrupts memory is not kept away from anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from kvmbox.board import DeviceSpec, by_type
from kvmbox.channel.channel import Channel, Grants, printable
from kvmbox.channel.greeting import greet
from kvmbox.devices.model import Effect
from kvmbox.errors import DeviceProcessError
from kvmbox.jailed.server import DeviceServer, error_frame
from kvmbox.wire.protocol import HEADER, INDEXED_READ, NO_DEADLINE, READ, WORDS, request_word


class DirectChannel(Channel):
    """A `Channel` without a process. It has no descriptor, nobody waits, nothing hangs on another process."""

    def __init__(
        self,
        device_type: str,
        grants: Sequence[Grants],
        *,
        now: Callable[[], int],
        deadline_changed: Callable[[int, int], None] | None = None,
    ) -> None:
        """As `Channel`; the models are made here, by the HELLO request."""
        super().__init__(device_type, grants, now=now, deadline_changed=deadline_changed)
        self._server = DeviceServer()
        self._routes = self._server.routes
        self._acquire = self._lock.acquire
        self._release = self._lock.release
        self._deadlines: list[int | None] = []

    def access(self, word: int, offset: int, value: int, limit: int) -> int:
        """See Channel."""
        result: int
        self._acquire()
        try:
            if self._failure is not None:
                raise self._failure
            now = self._now()
            route = self._routes.get(word)
            if route is None or self.recorder is not None:
                sequence = self._sequence = (self._sequence + 1) & 0xFFFF_FFFF or 1
                sent = WORDS.pack(word | sequence << 32, now, value, offset)
                result = self._finish(sent, self._exchange(sent, None), limit)
                self._follow_up(None)
            else:
                kind, read, write, size, _, next_deadline, take_effects = route
                try:
                    if kind == READ:
                        result = read(now, offset, size)
                    elif kind == INDEXED_READ:
                        write(now, value >> 32, 1, value & 0xFF)
                        result = read(now, offset, size)
                    else:
                        write(now, offset, size, value)
                        result = 0
                    deadline = next_deadline()
                    effects = take_effects()
                except Exception as error:
                    raise self._raised(error) from error
                if result > limit:
                    raise self._break(f"value {result:#x} where at most {limit:#x} can be")
                self._apply(word, now, value, offset, deadline, effects)
                if not effects:
                    return result
        finally:
            self._release()
        if self.settle is not None:
            self.settle()
        return result

    def access_for(self, word: int) -> Callable[[int, int, int, int], int]:
        """See Channel. A read of one kind, with all that is known of it bound: it is the common case, and a
        virtual CPU's exit leaves caches and branch predictors cold, so each step counts twice.
        """
        route = self._routes.get(word)
        if route is None or route[0] != READ:
            return self.access
        _, read, _, size, device, next_deadline, take_effects = route
        access, acquire, release, clock = self.access, self._acquire, self._release, self._now
        deadlines, indexed_word = self._deadlines, request_word(INDEXED_READ, device, size)

        def read_access(asked: int, offset: int, value: int, limit: int) -> int:
            if self.recorder is not None or self._failure is not None or asked == indexed_word:
                return access(asked, offset, value, limit)
            acquire()
            try:
                now = clock()
                try:
                    result: int = read(now, offset, size)
                    deadline = next_deadline()
                    effects = take_effects()
                except Exception as error:
                    raise self._raised(error) from error
                if result <= limit and not effects and deadline == deadlines[device]:
                    return result
                if result > limit:
                    raise self._break(f"value {result:#x} where at most {limit:#x} can be")
                self._apply(asked, now, value, offset, deadline, effects)
            finally:
                release()
            if effects and self.settle is not None:
                self.settle()
            return result

        return read_access

    def _apply(
        self, word: int, now: int, value: int, offset: int, deadline: int | None, effects: list[Effect]
    ) -> None:
        """The effects of an access, and its device's deadline."""
        device = word >> 8 & 0xFF
        if effects:
            self._apply_all([(device, effect) for effect in effects], WORDS.pack(word, now, value, offset))
        if deadline != self._deadlines[device]:
            self._deadlines[device] = deadline
            self._set_deadline(self._earliest(), now)
        if self._follow_ups:
            self._follow_up(None)

    def _earliest(self) -> int:
        return min((deadline for deadline in self._deadlines if deadline is not None), default=NO_DEADLINE)

    def _exchange(self, sent: bytes, slices: int | None) -> bytes:
        try:
            frame = self._server.handle(sent)
        except Exception as error:  # noqa: BLE001 - whatever a model raises is its answer, as in `serve`
            frame = error_frame(HEADER.unpack_from(sent)[4], error)
        self._deadlines[:] = [model.next_deadline() for model in self._server.models]
        return frame

    def _raised(self, error: Exception) -> DeviceProcessError:
        text = printable(error_frame(0, error)[HEADER.size :])
        return self.fail(DeviceProcessError(self.device_type, f"failed: {text}"))


def direct_channels(
    board: Sequence[DeviceSpec],
    grants: Mapping[str, Grants],
    *,
    now: Callable[[], int],
    deadline_changed: Callable[[str, int, int], None],
) -> list[tuple[DirectChannel, list[DeviceSpec]]]:
    """A channel per device type of `board`, greeted, with its devices in index order.

    `grants` are by device name. Raises DeviceProcessError where a model refuses its parameters.
    """
    channels = []
    for device_type, devices in by_type(board).items():
        channel = DirectChannel(
            device_type,
            [grants[device.name] for device in devices],
            now=now,
            deadline_changed=partial(deadline_changed, device_type),
        )
        greet(channel, devices)
        channels.append((channel, devices))
    return channels
