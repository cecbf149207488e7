"""What one return of KVM_RUN means: kvm_run decoded into values, and told in words.

For the cold paths: the run loop reads the two or three words that it routes by itself. Pure: bytes in,
values out. The kernel writes kvm_run, so its fields are trusted to mean what they say, but a count, length
or offset that would reach outside the mapping gives a `MalformedExit`, never an exception or a wrong read.
"""

from __future__ import annotations

import struct
from typing import Final, TypeAlias, assert_never

from kvmbox.base.value_classes import Value
from kvmbox.kvm import uapi

EXIT_NAMES: Final[dict[int, str]] = {
    number: name
    for name, number in vars(uapi).items()
    if name.startswith("KVM_EXIT_") and not name.startswith("KVM_EXIT_IO_")
}
"""Exit reason → the C name of its constant."""

_SUBERRORS: Final = {
    uapi.KVM_INTERNAL_ERROR_EMULATION: "KVM's emulator does not know the instruction",
    uapi.KVM_INTERNAL_ERROR_SIMUL_EX: "two exceptions at the same time",
    uapi.KVM_INTERNAL_ERROR_DELIVERY_EV: "an exit while an event was being delivered",
    uapi.KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON: "an exit of the CPU that KVM did not expect",
}

_SYSTEM_EVENTS: Final = {
    uapi.KVM_SYSTEM_EVENT_SHUTDOWN: "shutdown",
    uapi.KVM_SYSTEM_EVENT_RESET: "reset",
    uapi.KVM_SYSTEM_EVENT_CRASH: "crash",
    uapi.KVM_SYSTEM_EVENT_WAKEUP: "wake-up",
    uapi.KVM_SYSTEM_EVENT_SUSPEND: "suspend",
    uapi.KVM_SYSTEM_EVENT_SEV_TERM: "SEV termination",
}

_MAX_DATA_WORDS: Final = 16  # internal.data and system_event.data
_MAX_INSTRUCTION: Final = 15
_IO_SIZES: Final = (1, 2, 4)
_SHOWN_WORDS: Final = 4

# What the unions hold at RUN_UNION, little-endian as on every x86.
_IO: Final = struct.Struct("<BBHIQ")
_MMIO: Final = struct.Struct("<Q8sIB")
_FAIL_ENTRY: Final = struct.Struct("<QI")
_HEAD_AND_COUNT: Final = struct.Struct("<II")
_EMULATION: Final = struct.Struct("<QB15s")
_MSR: Final = struct.Struct("<B7xIIQ")
_DEBUG: Final = struct.Struct("<I4xQQQ")

_MIN_VIEW: Final = uapi.RUN_UNION + uapi.RUN_UNION_SIZE


class IoExit(Value):
    """`count` port accesses of `size` bytes each, their data one behind the other at `data_offset`."""

    is_write: bool
    size: int
    port: int
    count: int
    data_offset: int


class MmioExit(Value):
    """An access of `length` bytes (1 to 8) to guest-physical `address`. `data` is what a write writes."""

    address: int
    length: int
    is_write: bool
    data: bytes


class HltExit(Value):
    """HLT; never seen with the interrupt controllers in the kernel."""


class IntrExit(Value):
    """A signal came (KVM_RUN itself returned EINTR)."""


class ShutdownExit(Value):
    """Triple fault."""


class FailEntryExit(Value):
    """The CPU refuses to enter the guest: `reason` is the hardware's number, on host CPU `cpu`."""

    reason: int
    cpu: int


class InternalErrorExit(Value):
    """KVM gave up. `data` are the 64-bit words that come with it.

    For suberror 1, `instruction` holds the bytes at RIP as far as KVM tells them, else it is empty.
    The instruction may be shorter.
    """

    suberror: int
    data: tuple[int, ...]
    instruction: bytes = b""


class SystemEventExit(Value):
    """The guest asked the hypervisor for a system event (KVM_SYSTEM_EVENT_*)."""

    event: int
    data: tuple[int, ...]


class DebugExit(Value):
    """A breakpoint or single step that user space asked for."""

    exception: int
    pc: int
    dr6: int
    dr7: int


class MsrExit(Value):
    """RDMSR or WRMSR that user space asked to see."""

    is_write: bool
    index: int
    data: int
    reason: int


class UnknownExit(Value):
    """An exit that has no decoder. `words` are the first 64-bit words of its union."""

    reason: int
    words: tuple[int, ...]


class MalformedExit(Value):
    """An exit whose fields contradict the size of the mapping; `problem` says how."""

    reason: int
    problem: str


Exit: TypeAlias = (
    IoExit
    | MmioExit
    | HltExit
    | IntrExit
    | ShutdownExit
    | FailEntryExit
    | InternalErrorExit
    | SystemEventExit
    | DebugExit
    | MsrExit
    | UnknownExit
    | MalformedExit
)


def exit_name(reason: int) -> str:
    """The C name of an exit reason, or "exit reason N"."""
    return EXIT_NAMES.get(reason, f"exit reason {reason}")


def decode_exit(view: memoryview | bytes | bytearray) -> Exit:
    """Decode the kvm_run at the start of `view`, the whole vCPU mapping as bytes.

    ValueError if `view` is too short to be one (our bug). All values are copies.
    """
    if len(view) < _MIN_VIEW:
        raise ValueError(f"{len(view)} bytes are no kvm_run")
    reason = int.from_bytes(view[uapi.RUN_EXIT_REASON : uapi.RUN_EXIT_REASON + 4], "little")
    if reason == uapi.KVM_EXIT_IO:
        return _decode_io(view)
    if reason == uapi.KVM_EXIT_MMIO:
        return _decode_mmio(view)
    if reason == uapi.KVM_EXIT_HLT:
        return HltExit()
    if reason == uapi.KVM_EXIT_INTR:
        return IntrExit()
    if reason == uapi.KVM_EXIT_SHUTDOWN:
        return ShutdownExit()
    if reason == uapi.KVM_EXIT_FAIL_ENTRY:
        return FailEntryExit(*_FAIL_ENTRY.unpack_from(view, uapi.RUN_FAIL_ENTRY_REASON))
    if reason == uapi.KVM_EXIT_INTERNAL_ERROR:
        return _decode_internal_error(view)
    if reason == uapi.KVM_EXIT_SYSTEM_EVENT:
        event, count = _HEAD_AND_COUNT.unpack_from(view, uapi.RUN_SYSTEM_EVENT_TYPE)
        words = _words(view, uapi.RUN_SYSTEM_EVENT_DATA, count)
        return _too_many(reason, count) if words is None else SystemEventExit(event, words)
    if reason == uapi.KVM_EXIT_DEBUG:
        return DebugExit(*_DEBUG.unpack_from(view, uapi.RUN_DEBUG_EXCEPTION))
    if reason in (uapi.KVM_EXIT_X86_RDMSR, uapi.KVM_EXIT_X86_WRMSR):
        _, why, index, data = _MSR.unpack_from(view, uapi.RUN_MSR_ERROR)
        return MsrExit(reason == uapi.KVM_EXIT_X86_WRMSR, index, data, why)
    return UnknownExit(reason, struct.unpack_from(f"<{_SHOWN_WORDS}Q", view, uapi.RUN_UNION))


def _decode_io(view: memoryview | bytes | bytearray) -> IoExit | MalformedExit:
    direction, size, port, count, offset = _IO.unpack_from(view, uapi.RUN_IO_DIRECTION)
    if size not in _IO_SIZES:
        return MalformedExit(uapi.KVM_EXIT_IO, f"a port access of {size} bytes")
    if direction not in (uapi.KVM_EXIT_IO_IN, uapi.KVM_EXIT_IO_OUT):
        return MalformedExit(uapi.KVM_EXIT_IO, f"a port access in direction {direction}")
    if count == 0 or offset < _MIN_VIEW or offset + size * count > len(view):
        return MalformedExit(
            uapi.KVM_EXIT_IO,
            f"{count} accesses of {size} bytes at {offset:#x} in a mapping of {len(view):#x}",
        )
    return IoExit(direction == uapi.KVM_EXIT_IO_OUT, size, port, count, offset)


def _decode_mmio(view: memoryview | bytes | bytearray) -> MmioExit | MalformedExit:
    address, data, length, is_write = _MMIO.unpack_from(view, uapi.RUN_MMIO_PHYS_ADDR)
    if not 1 <= length <= len(data):
        return MalformedExit(uapi.KVM_EXIT_MMIO, f"a memory access of {length} bytes")
    return MmioExit(address, length, bool(is_write), data[:length] if is_write else b"")


def _decode_internal_error(view: memoryview | bytes | bytearray) -> InternalErrorExit | MalformedExit:
    suberror, count = _HEAD_AND_COUNT.unpack_from(view, uapi.RUN_INTERNAL_SUBERROR)
    words = _words(view, uapi.RUN_INTERNAL_DATA, count)
    if words is None:
        return _too_many(uapi.KVM_EXIT_INTERNAL_ERROR, count)
    instruction = b""
    # Flags take one word, length and 15 bytes two more; ndata says whether they are there.
    if suberror == uapi.KVM_INTERNAL_ERROR_EMULATION and count >= 3:
        flags, length, code = _EMULATION.unpack_from(view, uapi.RUN_EMULATION_FLAGS)
        if flags & uapi.KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES:
            instruction = code[: min(length, _MAX_INSTRUCTION)]
    return InternalErrorExit(suberror, words, instruction)


def _words(view: memoryview | bytes | bytearray, offset: int, count: int) -> tuple[int, ...] | None:
    if count > _MAX_DATA_WORDS:
        return None
    return struct.unpack_from(f"<{count}Q", view, offset)


def _too_many(reason: int, count: int) -> MalformedExit:
    return MalformedExit(reason, f"{count} data words where {_MAX_DATA_WORDS} fit")


def describe(event: Exit) -> str:
    """The exit in words: one line, no full stop."""
    match event:
        case IoExit(is_write, size, port, count):
            times = "" if count == 1 else f", {count} times"
            return f"{size}-byte {'write to' if is_write else 'read of'} port {port:#x}{times}"
        case MmioExit(address, length, is_write, data):
            value = f" of {int.from_bytes(data, 'little'):#x}" if is_write else ""
            return f"{length}-byte {'write' if is_write else 'read'}{value} at guest address {address:#x}"
        case HltExit():
            return "the guest executed HLT"
        case IntrExit():
            return "interrupted by a signal"
        case ShutdownExit():
            return "triple fault"
        case FailEntryExit(reason, cpu):
            return f"the CPU refused to enter the guest: hardware reason {reason:#x} on host CPU {cpu}"
        case InternalErrorExit(suberror, data, instruction):
            what = _SUBERRORS.get(suberror, "of an unknown kind")
            code = f", code bytes {instruction.hex(' ')}" if instruction else _shown(data)
            return f"KVM internal error {suberror}: {what}{code}"
        case SystemEventExit(number, data):
            return f"system event {number}: {_SYSTEM_EVENTS.get(number, 'unknown')}{_shown(data)}"
        case DebugExit(exception, pc, dr6, _):
            return f"debug exception {exception} at {pc:#x}, DR6 {dr6:#x}"
        case MsrExit(is_write, index, data, _):
            return f"write of {data:#x} to MSR {index:#x}" if is_write else f"read of MSR {index:#x}"
        case UnknownExit(reason, words):
            return f"{exit_name(reason)}{_shown(words)}"
        case MalformedExit(reason, problem):
            return f"malformed {exit_name(reason)}: {problem}"
    assert_never(event)


def _shown(words: tuple[int, ...]) -> str:
    return ", data " + " ".join(f"{word:#x}" for word in words) if words else ""
