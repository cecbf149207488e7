"""The exception tree: what kvmbox can report, each error with an exit status and an optional hint.

    KvmboxError                 14  kvmbox itself failed (also the fallback for bugs)
    ├── UsageError               2  the command line, or a call of the Python API, is not valid
    ├── StartError               4  could not start: /dev/kvm, the image, a sandbox layer
    │   ├── ImageError           4  the guest image is damaged, or has an unsupported format
    │   ├── KvmError             4  /dev/kvm is missing, not permitted, or refuses a call
    │   ├── SandboxError         4  a required sandbox layer is not available
    │   ├── SnapshotFileError    4  a snapshot is damaged, of another version, or of another kind of host
    │   └── RecordingError       4  a recording is damaged, or has an unsupported version
    ├── DeviceProcessError       8  a device process died, hung or broke the protocol
    │   ├── DeviceGoneError      8  its channel ended; the spawner knows the cause
    │   ├── ProtocolError        8  a frame from it is malformed or not permitted
    │   └── GivenUpError         8  it is not restarted (any more)
    ├── UnknownExitError        10  KVM_INTERNAL_ERROR, or an exit that kvmbox does not know
    ├── ExpectError             12  a text was not seen in time, or not before the guest ended
    ├── HostOutputError         14  the guest's output cannot be written
    ├── StartTimeoutError      124  --timeout ran out before the guest ran
    └── WaitTimeoutError       124  the guest runs on when the time to wait for its end is over

A subclass exists where a caller reacts differently or the exit status differs (design: "Exit status of
`kvmbox run`"). Every message says what failed, on what, and why, in one line; the hint says what to do.
"""

from __future__ import annotations

from typing import ClassVar


class KvmboxError(Exception):
    """Base of all errors that kvmbox reports. `hint` is one line of advice, or None."""

    exit_status: ClassVar[int] = 14

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(KvmboxError):
    """Something is asked for that cannot be. Options are named as the command line spells them: what
    `--serial-limit` is to `kvmbox run` is the parameter `serial_limit` of `kvmbox.Machine`.
    """

    exit_status: ClassVar[int] = 2


class StartError(KvmboxError):
    """The run could not start."""

    exit_status: ClassVar[int] = 4


class ImageError(StartError):
    """The guest image is damaged, or has an unsupported format."""


class KvmError(StartError):
    """/dev/kvm is missing, not permitted, or refuses a call that kvmbox needs."""


class SandboxError(StartError):
    """A required sandbox layer is not available on this host."""


class SnapshotFileError(StartError):
    """A snapshot cannot be read or written, is damaged, or does not fit this kvmbox or this host."""


class RecordingError(StartError):
    """A recording is damaged, or has a version that this kvmbox does not support."""


class DeviceProcessError(KvmboxError):
    """A device process died, hung or broke the protocol. `device_type` names it."""

    exit_status: ClassVar[int] = 8

    def __init__(self, device_type: str, message: str, *, hint: str | None = None) -> None:
        super().__init__(f"device process '{device_type}' {message}", hint=hint)
        self.device_type = device_type


class DeviceGoneError(DeviceProcessError):
    """The channel of a device process ended. The main loop asks the spawner how the process died."""


class ProtocolError(DeviceProcessError):
    """A frame from a device process is malformed, out of sequence, or has an effect that was not granted."""


class GivenUpError(DeviceProcessError):
    """A device process is not restarted. `cause` is the last error, `why` the reason for giving up."""

    def __init__(self, cause: DeviceProcessError, why: str) -> None:
        text = str(cause).removeprefix(f"device process '{cause.device_type}' ")
        super().__init__(cause.device_type, f"{text}; {why}", hint=cause.hint)
        self.cause = cause
        self.why = why


class UnknownExitError(KvmboxError):
    """KVM reported an internal error, or an exit that kvmbox does not know."""

    exit_status: ClassVar[int] = 10


class ExpectError(KvmboxError):
    """A text was not seen in time, or not before the guest ended. `output` is what was printed, as far as it
    is kept.
    """

    exit_status: ClassVar[int] = 12

    def __init__(self, message: str, *, output: bytes = b"", hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.output = output


class HostOutputError(KvmboxError):
    """The output of the guest cannot be written: closed, full, or broken."""


class StartTimeoutError(KvmboxError):
    """`--timeout` ran out before the guest ran."""

    exit_status: ClassVar[int] = 124


class WaitTimeoutError(KvmboxError):
    """The guest runs on when the time to wait for its end is over."""

    exit_status: ClassVar[int] = 124
