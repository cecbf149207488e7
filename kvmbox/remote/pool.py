"""All device processes of one machine: started together, named when they fail, ended together.

    pool = DevicePool(Design())            # the spawner starts; nothing else has been opened yet
    pool.launch(board, bpf, cpu=0)         # one process per device type, in parallel
    pool.connect(grants, now, changed)     # jailed, greeted, ready for requests
    ...
    pool.close()                           # no process and no zombie is left

The `Design` says where models run and how they are reached. What is different about `--sandbox none` and
`thread` ends here: everybody else sees channels.

Belongs to the main thread, but for the channels, which any thread may use.
"""

from __future__ import annotations

import select
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from kvmbox.board import DeviceSpec, by_type
from kvmbox.errors import DeviceGoneError, DeviceProcessError, SandboxError
from kvmbox.lean import Value
from kvmbox.remote import protocol
from kvmbox.remote.channel import REPLY_SLICES, START_SLICES, WAIT_SLICE_MS, Channel, Grants
from kvmbox.remote.direct import DirectChannel, greet
from kvmbox.remote.links import SOCKETPAIR, Link, channel_on, make_link
from kvmbox.remote.spawner_client import DeviceProcess, SpawnerClient, describe_wait_status
from kvmbox.remote.spin import SpinGrants
from kvmbox.sandbox import layers
from kvmbox.sandbox.linux import SECCOMP_MODE_DISABLED, SECCOMP_MODE_FILTER, SECCOMP_MODE_STRICT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kvmbox.remote.device_thread import DeviceThread

NONE, THREAD, PROCESS, PER_DEVICE = "none", "thread", "process", "per-device"
SANDBOX_CHOICES = (NONE, THREAD, PROCESS, PER_DEVICE)

SECCOMP_MODES = {"filter": SECCOMP_MODE_FILTER, "strict": SECCOMP_MODE_STRICT, "off": SECCOMP_MODE_DISABLED}

JOIN_SECONDS = 1.0


class Design(Value):
    """The three choices of the RFC, and the layers to leave out (a mask of `sandbox.layers`)."""

    sandbox: str = PROCESS
    seccomp: str = "filter"
    ipc: str = SOCKETPAIR
    without: int = 0

    @property
    def has_processes(self) -> bool:
        """Whether models run in processes of their own."""
        return self.sandbox in (PROCESS, PER_DEVICE)

    @property
    def filters(self) -> bool:
        """Whether the device processes need a compiled filter."""
        return self.has_processes and self.seccomp == "filter"

    def __str__(self) -> str:
        if self.sandbox == NONE:
            return "none: models run in the vCPU thread"
        return f"{self.sandbox}, {self.seccomp if self.has_processes else 'no seccomp'}, {self.ipc}"


class PoolMember:
    """One process: its devices in index order, how it lives, and its channel once connected."""

    def __init__(
        self,
        device_type: str,
        devices: list[DeviceSpec],
        process: DeviceProcess | DeviceThread | None,
        link: Link | None,
    ) -> None:
        """`process` and `link` are None where the models run in the vCPU thread."""
        self.device_type = device_type
        self.devices = devices
        self.process = process
        self.link = link
        self.channel: Channel | None = None

    @property
    def layers(self) -> int:
        """The sandbox layers in force (`sandbox.layers`)."""
        return self.process.layers if self.process is not None else 0


class DevicePool:
    """The device processes of a machine, by device type, or by device where each has its own."""

    def __init__(self, design: Design = Design()) -> None:  # noqa: B008 - it cannot be changed
        """Start the spawner, if the design has processes: before /dev/kvm is opened, in the main thread.

        Raises SandboxError.
        """
        self.design = design
        self.spawner: SpawnerClient | None = None
        if design.has_processes:
            mode = SECCOMP_MODES[design.seccomp]
            without = design.without | (layers.SECCOMP if mode == SECCOMP_MODE_DISABLED else 0)
            self.spawner = SpawnerClient.start(seccomp=mode, without=without)
        self.members: dict[str, PoolMember] = {}
        self.spin: SpinGrants | None = None
        self.recorder_of: Callable[[str], Callable[[bytes, bytes], None]] | None = None
        """What gives each channel its recorder, by device type; to be set before `connect`."""

    def launch(
        self,
        board: Sequence[DeviceSpec],
        bpf: bytes,
        *,
        cpu: int | None,
        spare_cpu: int | None = None,
        may_spin: bool = False,
        require: int = 0,
    ) -> None:
        """Ask for a process for each device type of `board`; returns before they run. Raises SandboxError.

        With shared memory, and `may_spin`, the one that is asked most spins on `spare_cpu`, if there is one,
        or anywhere.
        """
        ipc = self.design.ipc
        for name, devices in by_type(board, per_device=self.design.sandbox == PER_DEVICE).items():
            link: Link | None = None
            process: DeviceProcess | DeviceThread | None = None
            if self.design.sandbox == THREAD:
                from kvmbox.remote.device_thread import DeviceThread

                link = make_link(ipc)
                process = DeviceThread(name, link)
            elif self.spawner is not None:
                link = make_link(ipc)
                process = self.spawner.spawn(name, link.device, bpf, cpu=cpu, require=require)
            self.members[name] = PoolMember(name, devices, process, link)
        if may_spin and self.spawner is not None:
            self.spin = SpinGrants(cpu, spare_cpu, pid_of=self._pid_of)

    def _pid_of(self, name: str) -> int:
        process = self.members[name].process
        return process.pid if process is not None else 0

    def wait_ready(self) -> None:
        """Wait until every process is jailed and serves; SandboxError if one does not come to that."""
        for member in self.members.values():
            if self.spawner is not None and isinstance(member.process, DeviceProcess):
                self.spawner.wait_ready(member.process)

    def connect(
        self,
        grants: Mapping[str, Grants],
        *,
        now: Callable[[], int],
        deadline_changed: Callable[[str, int, int], None],
    ) -> None:
        """Wait for the processes and greet them. `grants` are by device name; SandboxError if one fails."""
        self.wait_ready()
        for member in self.members.values():
            changed = partial(deadline_changed, member.device_type)
            granted = [grants[device.name] for device in member.devices]
            channel: Channel
            if member.link is None:
                channel = DirectChannel(member.device_type, granted, now=now, deadline_changed=changed)
            else:
                channel = channel_on(
                    member.link,
                    member.device_type,
                    granted,
                    now=now,
                    deadline_changed=changed,
                    spin=self.spin,
                )
            if self.recorder_of is not None:
                channel.recorder = self.recorder_of(member.device_type)
            member.channel = channel
            try:
                version = greet(channel, member.devices, slices=START_SLICES)
            except DeviceProcessError as error:
                raise self.explain(error) from error
            if version != protocol.VERSION:
                raise SandboxError(
                    f"device process '{member.device_type}' speaks protocol {version}, "
                    f"this kvmbox speaks {protocol.VERSION}",
                    hint="two versions of kvmbox are mixed on this system: install it anew",
                )

    @property
    def channels(self) -> list[Channel]:
        """All channels, connected."""
        return [member.channel for member in self.members.values() if member.channel is not None]

    def channel(self, name: str) -> Channel:
        """The channel of a process that is connected."""
        channel = self.members[name].channel
        assert channel is not None
        return channel

    def watch(self, poll: select.poll) -> None:
        """Register what tells that a process died or called what it must not."""
        if self.spawner is not None:
            poll.register(self.spawner.fileno(), select.POLLIN)
        for member in self.members.values():
            if member.process is not None and member.process.listener is not None:
                poll.register(member.process.listener.fileno(), select.POLLIN)

    def check(self) -> DeviceProcessError | None:
        """Why a device process is of no use any more, if one is; never blocks."""
        for member in self.members.values():
            error = self._forbidden_call(member)
            if error is not None:
                return error
        if self.spawner is not None:
            try:
                self.spawner.poll_deaths()
            except DeviceProcessError as error:
                return error
        for member in self.members.values():
            if member.process is not None and member.process.wait_status is not None:
                return self._death(member)
        return None

    def kill(self, name: str) -> None:
        """SIGKILL: whoever waits for a reply of the process reads the end of its channel."""
        process = self.members[name].process
        if process is not None:
            process.kill()

    def explain(self, error: DeviceProcessError) -> DeviceProcessError:
        """The error with the cause that only the spawner knows: how the process died, and on which call."""
        member = self.members.get(error.device_type)
        if member is None or member.process is None or self.spawner is None:
            return error
        # A process that is held in a forbidden call looks hung to whoever waits for its reply.
        found = self._forbidden_call(member)
        if found is not None or not isinstance(error, DeviceGoneError):
            return found or error
        poll = select.poll()
        self.watch(poll)
        for _ in range(REPLY_SLICES):
            found = self._forbidden_call(member)
            if found is not None:
                return found
            try:
                self.spawner.poll_deaths()
            except DeviceProcessError as spawner_error:
                return spawner_error
            if member.process.wait_status is not None:
                return self._death(member)
            for descriptor, mask in poll.poll(WAIT_SLICE_MS):
                if not mask & select.POLLIN:
                    # The listener of a dead process hangs up: it would end all slices at once, before the
                    # spawner has told how the process died.
                    poll.unregister(descriptor)
        return error

    @staticmethod
    def _forbidden_call(member: PoolMember) -> DeviceProcessError | None:
        call = member.process.take_forbidden_call() if member.process is not None else None
        if call is None:
            return None
        return DeviceProcessError(
            member.device_type,
            f"was killed (SIGKILL): it called {call}, which its seccomp filter forbids",
            hint="its model is broken or was taken over by the guest: please report it",
        )

    def _death(self, member: PoolMember) -> DeviceProcessError:
        assert member.process is not None
        status = member.process.wait_status
        assert status is not None
        told = member.channel.told() if member.channel is not None else None
        if told is not None or self.spawner is None:
            return told or DeviceGoneError(member.device_type, "has ended")
        how = describe_wait_status(status)
        if self.design.seccomp == "strict" and how.endswith("(SIGKILL)"):
            how += ", as a forbidden system call under strict seccomp is, too"
        return DeviceProcessError(member.device_type, how)

    def close(self) -> None:
        """End all processes. Idempotent, never raises."""
        for member in self.members.values():
            if member.channel is not None:
                member.channel.close()
            elif member.link is not None:
                member.link.close_vmm_end()
            member.link = None
        if self.spawner is not None:
            self.spawner.close()
        elif self.design.sandbox == THREAD:
            for member in self.members.values():
                if member.process is not None and not isinstance(member.process, DeviceProcess):
                    member.process.join(JOIN_SECONDS)
