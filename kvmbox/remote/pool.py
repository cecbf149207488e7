"""All device processes of one machine: started together, named when they fail, ended together.

    pool = DevicePool()                    # the spawner starts; nothing else has been opened yet
    pool.launch(board, bpf, cpu=0)         # one process per device type, in parallel
    pool.connect(grants, now, changed)     # jailed, greeted, ready for requests
    ...
    pool.close()                           # no process and no zombie is left

Belongs to the main thread, but for the channels, which any thread may use.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from kvmbox.board import DeviceSpec, by_type
from kvmbox.errors import DeviceGoneError, DeviceProcessError, SandboxError
from kvmbox.remote import protocol
from kvmbox.remote.channel import REPLY_SLICES, START_SLICES, WAIT_SLICE_MS, Channel, Grants
from kvmbox.remote.spawner_client import DeviceProcess, SpawnerClient, describe_wait_status


@dataclass(slots=True)
class PoolMember:
    """One device type: its devices in index order, its process, and its channel once connected."""

    device_type: str
    devices: list[DeviceSpec]
    process: DeviceProcess
    vmm_end: int
    channel: Channel | None = None


class DevicePool:
    """The device processes of a machine, by device type."""

    def __init__(self) -> None:
        """Start the spawner: before /dev/kvm is opened, in the main thread. Raises SandboxError."""
        self.spawner = SpawnerClient.start()
        self.members: dict[str, PoolMember] = {}
        self.recorder_of: Callable[[str], Callable[[bytes, bytes], None]] | None = None
        """What gives each channel its recorder, by device type; to be set before `connect`."""

    def launch(self, board: Sequence[DeviceSpec], bpf: bytes, *, cpu: int | None, require: int = 0) -> None:
        """Ask for a process for each device type of `board`; returns before they run. Raises SandboxError."""
        for device_type, devices in by_type(board).items():
            vmm_end, device_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            process = self.spawner.spawn(device_type, [device_end.detach()], bpf, cpu=cpu, require=require)
            self.members[device_type] = PoolMember(device_type, devices, process, vmm_end.detach())

    def connect(
        self,
        grants: Mapping[str, Grants],
        *,
        now: Callable[[], int],
        deadline_changed: Callable[[str, int, int], None],
    ) -> None:
        """Wait for the processes and greet them. `grants` are by device name; SandboxError if one fails."""
        for member in self.members.values():
            self.spawner.wait_ready(member.process)
            channel = Channel(
                member.device_type,
                member.vmm_end,
                [grants[device.name] for device in member.devices],
                now=now,
                deadline_changed=partial(deadline_changed, member.device_type),
            )
            if self.recorder_of is not None:
                channel.recorder = self.recorder_of(member.device_type)
            member.channel = channel
            description = protocol.encode_board(
                [(device.model, dict(device.parameters)) for device in member.devices]
            )
            try:
                version, _ = channel.request(
                    protocol.HELLO,
                    value=protocol.VERSION,
                    payload=description,
                    limit=0xFFFF_FFFF,
                    slices=START_SLICES,
                )
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

    def channel(self, device_type: str) -> Channel:
        """The channel of a device type that is connected."""
        channel = self.members[device_type].channel
        assert channel is not None
        return channel

    def watch(self, poll: select.poll) -> None:
        """Register what tells that a process died or called what it must not."""
        poll.register(self.spawner.fileno(), select.POLLIN)
        for member in self.members.values():
            if member.process.listener is not None:
                poll.register(member.process.listener.fileno(), select.POLLIN)

    def check(self) -> DeviceProcessError | None:
        """Why a device process is of no use any more, if one is; never blocks."""
        for member in self.members.values():
            error = self._forbidden_call(member)
            if error is not None:
                return error
        try:
            self.spawner.poll_deaths()
        except DeviceProcessError as error:
            return error
        for member in self.members.values():
            if member.process.wait_status is not None:
                return self._death(member)
        return None

    def kill(self, device_type: str) -> None:
        """SIGKILL: whoever waits for a reply of the process reads the end of its channel."""
        self.members[device_type].process.kill()

    def explain(self, error: DeviceProcessError) -> DeviceProcessError:
        """The error with the cause that only the spawner knows: how the process died, and on which call."""
        member = self.members.get(error.device_type)
        if member is None:
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
        call = member.process.take_forbidden_call()
        if call is None:
            return None
        return DeviceProcessError(
            member.device_type,
            f"was killed (SIGKILL): it called {call}, which its seccomp filter forbids",
            hint="its model is broken or was taken over by the guest: please report it",
        )

    @staticmethod
    def _death(member: PoolMember) -> DeviceProcessError:
        status = member.process.wait_status
        assert status is not None
        told = member.channel.told() if member.channel is not None else None
        return told or DeviceProcessError(member.device_type, describe_wait_status(status))

    def close(self) -> None:
        """End all processes. Idempotent, never raises."""
        for member in self.members.values():
            if member.channel is not None:
                member.channel.close()
            elif member.vmm_end >= 0:
                os.close(member.vmm_end)
            member.vmm_end = -1
        self.spawner.close()
