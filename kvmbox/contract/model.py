"""The contract between a device model and its caller.

Theory of operation
-------------------
A model is the state machine of one chip and nothing else. It is a function of its state, its input and
`now`: it never reads a clock, calls anybody or raises on guest input. The driver (a sandboxed device
process, a test, the qtest server) calls `read`, `write`, `advance`, `receive` and `reset`, then collects
what the call caused with `take_effects`, in order, and asks `next_deadline` when it must call `advance`
next. Effects are an ordered list, because a pulse between two calls would vanish if only the last level
of a line were compared.

`now` is guest time in nanoseconds since power-on and never decreases; a model clamps a smaller value to
the largest that it has seen. `advance(now)` costs O(1) for any jump. Every access advances the model to
its `now` first, so that `advance` at more points in between never changes what the guest reads; only how
many interrupts were folded into one may differ.

`offset` is relative to the model's first port or address, `size` is 1, 2, 4 or 8 bytes and `value` is an
unsigned integer of that size. The bus splits wide accesses into bytes, low byte first, unless the
board says that the model's registers have that size. Whatever arrives, a model answers: a read of an
unknown offset gives all ones of the size asked, a write of it is dropped, a value is masked to its size.

What disks and virtio devices need besides is in `bulk_data`.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final, Protocol, TypeAlias

    Ranges: TypeAlias = Sequence[tuple[int, int]]
else:
    Protocol = object

NANOSECONDS: Final = 1_000_000_000
"""Nanoseconds in a second: the unit of guest time."""

NO_RISE: Final = (1 << 64) - 1
"""The time of an announcement that takes one back."""


class Effect:
    """Base of effects: values that compare and print by their fields. Not to be changed once made."""

    __slots__ = ()
    __match_args__: tuple[str, ...] = ()

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.__match_args__)

    __hash__ = None  # type: ignore[assignment]  # nobody needs it, and it differs from run to run

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__match_args__)
        return f"{type(self).__name__}({fields})"


class IrqLine(Effect):
    """An interrupt output (a model-local pin) took a level.

    `coalesced` counts rising edges that a late host made the model fold into this one; it is 0 unless
    `level` is 1.
    """

    __slots__ = ("coalesced", "level", "pin")
    __match_args__ = ("pin", "level", "coalesced")

    def __init__(self, pin: int, level: int, coalesced: int = 0) -> None:
        self.pin = pin
        self.level = level
        self.coalesced = coalesced


class RisesAt(Effect):
    """Output `pin` will rise at guest time `at`, in ns, unless an access prevents it; `NO_RISE`: it may not.

    An announcement. It holds until the next one for the pin, or until the rise. At `at`, or at the first call
    that is later, the model's effects have a rising edge of the pin, before which there may be a falling one.
    So the VMM may raise the line at `at` and tell the model afterwards. Each model that announces has the
    parameter `announce`.
    """

    __slots__ = ("at", "pin")
    __match_args__ = ("pin", "at")

    def __init__(self, pin: int, at: int) -> None:
        self.pin = pin
        self.at = at


class HostOutput(Effect):
    """Bytes for the host side of the device: what a UART or the debug console transmits."""

    __slots__ = ("data",)
    __match_args__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data


class InputRoom(Effect):
    """`receive` would now accept `count` bytes, after it had accepted less than it was offered."""

    __slots__ = ("count",)
    __match_args__ = ("count",)

    def __init__(self, count: int) -> None:
        self.count = count


PULSES: Final = 2
"""See LateWrites."""


class LateWrites(Effect):
    """Whether byte writes to `register` may reach the model late from now on, in order: `allowed` is 1 or 0.

    They may after a reset, and wherever nothing that the guest sees before its next access to the device can
    depend on them. With `PULSES` they may if the VMM lets pin 0 fall, where it is high, and rise at each of
    them, as the model would. The board says which registers this is asked for (`device_spec.LateWrites`).
    """

    __slots__ = ("allowed", "register")
    __match_args__ = ("register", "allowed")

    def __init__(self, register: int, allowed: int) -> None:
        self.register = register
        self.allowed = allowed


class Reset(Effect):
    """The guest asked for a reset of the machine."""

    __slots__ = ()


class Stop(Effect):
    """The guest asked to stop, or says that it has failed. The VMM knows the value that it forwarded."""

    __slots__ = ()


class TakeLine(Effect):
    """While `taken` is 1, output `pin` alone drives its interrupt line, whatever other devices do.

    What the other devices ask for is kept: the line is theirs again, at their level, when `taken` is 0.
    """

    __slots__ = ("pin", "taken")
    __match_args__ = ("pin", "taken")

    def __init__(self, pin: int, taken: int) -> None:
        self.pin = pin
        self.taken = taken


class Suspend(Effect):
    """The guest asked to suspend to memory (S3) until one of `wakes` happens: the sum of `WAKE_BY_RTC`, …"""

    __slots__ = ("wakes",)
    __match_args__ = ("wakes",)

    def __init__(self, wakes: int) -> None:
        self.wakes = wakes


class MemoryRead(Effect):
    """The bytes of `ranges`, (address, size) pairs in guest memory, are wanted: `memory` brings them.

    `tag` is the model's own name for the question. The ranges are read in order and their bytes joined; they
    may overlap, and one of no bytes is good wherever it is.
    """

    __slots__ = ("ranges", "tag")
    __match_args__ = ("tag", "ranges")

    def __init__(self, tag: int, ranges: Ranges) -> None:
        self.tag = tag
        self.ranges = ranges


class MemoryWrite(Effect):
    """`data` is to be written to guest memory at `address`.

    With a `tag` other than 0 `complete` tells what became of it. Without one, what cannot be written is
    dropped, as on a bus where nobody answers.
    """

    __slots__ = ("address", "data", "tag")
    __match_args__ = ("address", "data", "tag")

    def __init__(self, address: int, data: bytes, tag: int = 0) -> None:
        self.address = address
        self.data = data
        self.tag = tag


class ContentRead(Effect):
    """`size` bytes of a resource, from `offset` on, are wanted: `memory` brings them.

    `tag` is the model's own name for the question; `resource` counts the device's resources as `Transfer`
    does. For resources that the VMM holds in its own memory (the `Content` grant), which end in zeros.
    """

    __slots__ = ("offset", "resource", "size", "tag")
    __match_args__ = ("tag", "resource", "offset", "size")

    def __init__(self, tag: int, resource: int, offset: int, size: int) -> None:
        self.tag = tag
        self.resource = resource
        self.offset = offset
        self.size = size


class Transfer(Effect):
    """The host is to move bytes between a resource, from `offset` on, and `ranges` in guest memory, in order.

    They never pass through the device: `complete` tells when it is done. `resource` counts the device's
    `Resource` and `Content` grants. `to_guest` is 1 for bytes that go into guest memory, 0 for those that
    come from it.
    """

    __slots__ = ("offset", "ranges", "resource", "tag", "to_guest")
    __match_args__ = ("tag", "resource", "offset", "ranges", "to_guest")

    def __init__(self, tag: int, resource: int, offset: int, ranges: Ranges, to_guest: int) -> None:
        self.tag = tag
        self.resource = resource
        self.offset = offset
        self.ranges = ranges
        self.to_guest = to_guest


WAKE_BY_RTC: Final = 1 << 0
"""The alarm of the clock: its interrupt line is high."""

# How a transfer, or a write that was to be told of, went.
DONE: Final = 0
BAD_ADDRESS: Final = 1  # a range is not guest memory as a whole: nothing was moved
BEYOND_END: Final = 2  # the resource ends before that: nothing was moved
FAILED: Final = 3  # the host's file gave an error
NO_SPACE: Final = 4  # the host's disk is full: some of it may have been written
BUSY: Final = 5  # too many transfers of this device wait already: nothing was moved
MOVED: Final = 6  # the guest has read, or written, the last byte of a window


class SnapshotError(ValueError):
    """`restore` was given bytes that are no snapshot of this model; the model's state is unchanged."""


class DeviceModel(Protocol):
    """One chip. See the module's theory of operation."""

    def read(self, now: int, offset: int, size: int) -> int:
        """The value the guest reads, unsigned, within `size` bytes."""

    def write(self, now: int, offset: int, size: int, value: int) -> None:
        """The guest writes `value`."""

    def advance(self, now: int) -> None:
        """Let guest time pass up to and including `now` (ns). O(1) for any jump."""

    def next_deadline(self) -> int | None:
        """The guest time (ns) at which `advance` must be called next, or None if nothing is pending."""

    def receive(self, now: int, data: bytes) -> int:
        """Take host input; returns how many leading bytes of `data` were accepted. 0 where there is none."""

    def reset(self, now: int) -> None:
        """The machine's reset line: registers as after power-on, but what a battery keeps is kept."""

    def take_effects(self) -> list[Effect]:
        """The effects since the last call, in order; the caller owns the list."""

    def snapshot(self) -> bytes:
        """The whole state, versioned. Pending effects must have been taken."""

    def restore(self, state: bytes) -> None:
        """Become what `snapshot` saw; raises SnapshotError for anything malformed, without effect."""


class ModelBase:
    """Base of models that append what they cause to `_effects`."""

    __slots__ = ("_effects",)

    def __init__(self) -> None:
        self._effects: list[Effect] = []

    def take_effects(self) -> list[Effect]:
        """See DeviceModel."""
        effects, self._effects = self._effects, []
        return effects


class TimelessModel(ModelBase):
    """Base of models that only accesses change: `now` is accepted everywhere and not used."""

    __slots__ = ()

    def advance(self, now: int) -> None:
        """See DeviceModel. Time changes nothing."""

    def next_deadline(self) -> int | None:
        """See DeviceModel. Never."""
        return None

    def receive(self, now: int, data: bytes) -> int:
        """See DeviceModel. There is no host input."""
        return 0


class RunModel(DeviceModel, Protocol):
    """A model that takes a run of writes at once. Others get each byte by `write`."""

    def write_run(self, now: int, offset: int, data: bytes) -> None:
        """The same as `write` of each byte of `data`, in order, to the register at `offset`.

        There is at least one byte. Host output may be joined to one effect.
        """


class StringModel(DeviceModel, Protocol):
    """A model that makes the writes of a string at once. Others get each by `write`."""

    def write_string(self, now: int, offset: int, size: int, data: bytes) -> int:
        """The same as `write` of each value of `size` bytes in `data`, in order, to the register at `offset`:
        up to the first one that has an effect. How many were made; 0 leaves them to `write`.
        """


class SteadyModel(DeviceModel, Protocol):
    """A model that tells which values stay: the VMM then answers further reads by itself, for that long."""

    def steady(self, offset: int, size: int, value: int) -> int:
        """How long `value`, which was just read, stays: `steady_for` of that time, or 0.

        Asked after a read without effects. The answer is good only if the read had no effect at all, so that
        the model cannot tell whether it happens again, and if every such read gives the same value during
        that time, as long as there is no other request to the model than reads that are steady as well.
        The answer `first_behind_late_writes` is good although the read had an effect: see there.
        """


def steady_for(nanoseconds: int, *, over_late_writes: bool = False) -> int:
    """What `SteadyModel.steady` answers: 50 ms at most (`wire.protocol`). `over_late_writes`: the value also
    stays whatever writes come that may be late (`LateWrites`).
    """
    return min(nanoseconds // 1000, 50_000) << 2 | over_late_writes


def first_behind_late_writes(nanoseconds: int) -> int:
    """What `SteadyModel.steady` answers if the first read behind each late write gives this value, too.

    The model gets such a read only if no late write follows it: it makes no difference otherwise.
    """
    return steady_for(nanoseconds) | 2


class MemoryModel(DeviceModel, Protocol):
    """A model that was granted guest memory or resources: what it asked for comes back by these calls.

    An answer belongs to the question with its tag. A reset may lie between the two, so a model ignores a tag
    that it does not wait for.
    """

    def memory(self, now: int, tag: int, data: bytes | None) -> None:
        """The bytes that a `MemoryRead` or a `ContentRead` asked for; None if a range is not guest memory."""

    def complete(self, now: int, tag: int, status: int) -> None:
        """How a `Transfer`, or a `MemoryWrite` with a tag, went: `DONE`, `BAD_ADDRESS`, …

        The same for a `Window`, a `Flush` and a `ChainTransfer`, whose tag is the handle of the chain.
        """
