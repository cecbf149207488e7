"""One device process with the payload, and audit's end of its channel: ask for an attack, and see it end."""

from __future__ import annotations

import contextlib
import os
import select
from pathlib import Path
from typing import Final

from kvmbox.jail import descriptor_passing
from kvmbox.jail.fixed_descriptors import CHANNEL_FD, REPLY_FD
from kvmbox.remote.process.spawner_client import DeviceProcess, SpawnerClient
from kvmbox.remote.transport.interface import Link
from kvmbox.remote.transport.ipc_table import make_link
from kvmbox.remote.transport.stream import SocketTransport
from kvmbox.tools.audit import payload, payload_frames
from kvmbox.tools.audit.attack_result import Ended, Result
from kvmbox.tools.audit.attacks.processes import LIMITED
from kvmbox.tools.audit.interruption import let_signals_in

PATIENCE_MS: Final = 10_000
"""How long an attack may take: the longest takes a tenth of a second of CPU. Waits are of so many slices: a
pause of the whole host costs one.
"""

SLICE_MS: Final = 100
"""How long a signal that asks for the end may have to wait."""


class Subject:
    """See the module. Belongs to the main thread."""

    def __init__(
        self,
        client: SpawnerClient,
        device_type: str,
        ipc: str,
        bpf: bytes,
        *,
        planted: bool = False,
        entry: str = payload.ENTRY,
    ) -> None:
        """`planted`: leave one more descriptor open in it, a pipe, which SELinux lets through as well as a
        channel. Raises SandboxError.
        """
        self._client = client
        self._planted = planted
        self._received = b""
        self._begun = False
        self._own_layers = 0
        self._pipe = -1
        if planted:
            ours, theirs = descriptor_passing.socket_pair()
            self._pipe, writable = os.pipe2(os.O_CLOEXEC)
            self.link = Link(SocketTransport, (ours,), (theirs, writable))
        else:
            self.link = make_link(ipc)
        self._open = True
        try:
            self.process: DeviceProcess = client.spawn(device_type, self.link.device, bpf, entry=entry)
        except BaseException:
            self._close_ends()
            raise

    @property
    def given(self) -> dict[str, str]:
        """What the attack must know of its descriptors."""
        if self._planted:
            return {"channel": str(CHANNEL_FD), "answer": str(CHANNEL_FD)}
        if len(self.link.vmm) == 1:
            return {"channel": str(CHANNEL_FD)}
        return {"channel": f"{CHANNEL_FD},{REPLY_FD}"}

    @property
    def inner_pid(self) -> int:
        """Its pid in its own pid namespace, by which siblings would name it."""
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
                if line.startswith("NSpid:"):
                    return int(line.split()[-1])
        return self.process.pid

    @property
    def layers(self) -> int:
        """In force: those of the process, and those that the payload has taken itself."""
        return self.process.layers | self._own_layers

    @property
    def limited(self) -> bool:
        """Whether somebody has limited its memory to next to nothing, as `limit_sibling` does."""
        with contextlib.suppress(OSError):  # it is dead
            # Not prlimit(2), which not even root may ask here without CAP_SYS_RESOURCE.
            for line in Path(f"/proc/{self.process.pid}/limits").read_text().splitlines():
                if line.startswith("Max address space"):
                    return line.split()[3] == str(LIMITED)
        return False

    def attack(self, name: str, given: dict[str, str]) -> Result:
        """Make the attack, and wait for its end. Raises SandboxError, WireError."""
        return self.begin(name, given) or self._wait()

    def begin(self, name: str, given: dict[str, str]) -> Result | None:
        """Have the attack begin; returns how it failed to, or None. Raises SandboxError, WireError."""
        self._client.wait_ready(self.process)
        os.write(self.link.vmm[0], payload_frames.encode_request(name, given))
        result = self._wait()
        return None if self._begun and result.ended is Ended.UNBEGUN else result

    def _wait(self) -> Result:
        """The next thing that the payload says or dies of; Ended.UNBEGUN stands for its BEGUN."""
        replies, listener = self.link.vmm[-1], self.process.listener
        poll = select.poll()
        poll.register(replies, select.POLLIN)
        poll.register(self.process.pidfd, select.POLLIN)
        if listener is not None:
            poll.register(listener.fileno(), select.POLLIN)
        left = PATIENCE_MS
        while True:
            frame = payload_frames.decode_frame(self._received)
            if frame is not None:
                return self._said(*frame)
            let_signals_in()
            events = dict(poll.poll(SLICE_MS))
            if not events:
                left -= SLICE_MS
                if left > 0:
                    continue
                return self._result(Ended.SILENT)
            if events.get(replies, 0) & select.POLLIN and self._receive(replies):
                continue
            if replies in events:
                poll.unregister(replies)
            held = self.process.take_forbidden_call()
            if held is not None:
                return self._result(Ended.FORBIDDEN if self._begun else Ended.UNBEGUN, held.name)
            if listener is not None and events.get(listener.fileno(), 0) & (select.POLLHUP | select.POLLERR):
                poll.unregister(listener.fileno())
                listener = None
            if self.process.pidfd in events:
                return self._death()  # what it said before was read first

    def _receive(self, descriptor: int) -> bool:
        try:
            data = os.read(descriptor, payload_frames.MAXIMUM_FRAME)
        except ConnectionResetError:
            return False
        self._received += data
        return bool(data)

    def _said(self, kind: int, number: int, call: str, evidence: bytes, rest: bytes) -> Result:
        self._received = rest
        if kind == payload_frames.BEGUN:
            self._begun = True
            self._own_layers = number
            return self._result(Ended.UNBEGUN)
        return self._result(
            Ended.FINISHED if kind == payload_frames.DONE else Ended.FAILED, call, number, evidence
        )

    def _result(self, ended: Ended, call: str = "", number: int = 0, evidence: bytes = b"") -> Result:
        return Result(ended, self.layers, call=call, number=number, evidence=evidence, pid=self.process.pid)

    def _death(self) -> Result:
        status = self.wait_status(PATIENCE_MS)
        if status is None:
            return self._result(Ended.SILENT)
        if not self._begun:
            return self._result(Ended.UNBEGUN)
        if os.WIFSIGNALED(status):
            return self._result(Ended.KILLED, number=os.WTERMSIG(status))
        return self._result(Ended.EXITED, number=os.WEXITSTATUS(status))

    def wait_status(self, milliseconds: int) -> int | None:
        """How the process died, or None if it has not within so long."""
        poll = select.poll()
        poll.register(self._client.fileno(), select.POLLIN)
        while True:
            self._client.poll_deaths()
            if self.process.wait_status is not None or milliseconds <= 0:
                return self.process.wait_status
            if not poll.poll(SLICE_MS):
                milliseconds -= SLICE_MS

    def give_away_link(self) -> Link:
        """The VMM's end, to be closed by whoever takes it."""
        self._open = False
        return self.link

    def close(self) -> None:
        """End the process, and close the channel."""
        self.process.kill()
        self._close_ends()

    def _close_ends(self) -> None:
        if self._open:
            self.link.close_vmm_end()
        self._open = False
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1
