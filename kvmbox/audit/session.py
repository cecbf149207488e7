"""One spawner, one set of layers, one device type: run probes, each in a fresh device process.

    with Session(conditions, "uart", scene) as session:
        for probe, result in session.run(probes): ...

Attacks are made one after the other, so that what the scene shows is the doing of one; the next processes
are being made meanwhile.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import select
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from kvmbox.audit import payload, wire
from kvmbox.audit.probes import Probe
from kvmbox.audit.result import Ended, Result
from kvmbox.audit.scene import SIGNAL_PATIENCE_MS, Scene
from kvmbox.errors import DeviceProcessError, SandboxError
from kvmbox.remote.spawner_client import ANY_LANDLOCK, DeviceProcess, SpawnerClient
from kvmbox.sandbox import landlock, layers
from kvmbox.sandbox.descriptors import CHANNEL_FD, REPLY_FD
from kvmbox.sandbox.linux import SECCOMP_MODE_DISABLED, SECCOMP_MODE_FILTER
from kvmbox.sandbox.passing import socket_pair
from kvmbox.sandbox.seccomp import device_filter

AHEAD: Final = 3
"""How many device processes are made ahead."""

PATIENCE_MS: Final = 10_000
"""How long an attack may take: the longest takes a tenth of a second of CPU."""

NS_PER_MS: Final = 1_000_000
SIGUSR1: Final = 10
PAGES: Final = 16


@dataclass(frozen=True, slots=True)
class Conditions:
    """What is in force: the seccomp mode (linux.SECCOMP_MODE_*), the layers left out, the ipc."""

    seccomp: int = SECCOMP_MODE_FILTER
    without: int = 0
    ipc: str = "socketpair"

    @property
    def mode(self) -> int:
        """The seccomp mode that results."""
        return SECCOMP_MODE_DISABLED if self.without & layers.SECCOMP else self.seccomp

    @property
    def landlock_limit(self) -> int:
        """The highest Landlock ABI that has none of the layers left out."""
        allowed = [
            version
            for version in range(landlock.NEWEST_KNOWN_ABI + 1)
            if not landlock.layers_of(version) & self.without
        ]
        return ANY_LANDLOCK if allowed[-1] == landlock.NEWEST_KNOWN_ABI else allowed[-1]


class _Subject:
    """A device process with the payload, and audit's ends of its channel."""

    def __init__(
        self, client: SpawnerClient, device_type: str, ipc: str, bpf: bytes, *, planted: bool = False
    ) -> None:
        """`planted`: leave one more descriptor open in it, which leads to /dev/null."""
        self.client = client
        self.device_type = device_type
        self.planted = planted
        if ipc == "socketpair" or planted:
            self._write, theirs = socket_pair()
            self._read = self._write
            channel = [theirs]
            if planted:
                channel.append(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC))
        else:
            request, self._write = os.pipe()
            self._read, answer = os.pipe()
            channel = [request, answer]
        if ipc == "shm" and not planted:
            memory = os.memfd_create("kvmbox-audit")
            os.ftruncate(memory, PAGES * mmap.PAGESIZE)
            channel.append(memory)
        self._received = b""
        try:
            self.process: DeviceProcess = client.spawn(device_type, channel, bpf, entry=payload.ENTRY)
        except BaseException:
            self.close()
            raise

    @property
    def given(self) -> dict[str, str]:
        """What the attack must know of its descriptors."""
        if self.planted:
            return {"channel": str(CHANNEL_FD), "answer": str(CHANNEL_FD)}
        if self._read == self._write:
            return {"channel": str(CHANNEL_FD)}
        return {"channel": f"{CHANNEL_FD},{REPLY_FD}"}

    def attack(self, name: str, given: dict[str, str]) -> Result:
        """Make the attack, and wait for its end."""
        self.client.wait_ready(self.process)
        os.write(self._write, wire.encode_request(name, given))
        begun = False
        poll = select.poll()
        poll.register(self._read, select.POLLIN)
        poll.register(self.process.pidfd, select.POLLIN)
        listener = self.process.listener
        if listener is not None:
            poll.register(listener.fileno(), select.POLLIN)
        deadline = time.monotonic_ns() + PATIENCE_MS * NS_PER_MS
        while True:
            frame = wire.decode_frame(self._received)
            if frame is not None:
                kind, number, call, evidence, self._received = frame
                if kind == wire.BEGUN:
                    begun = True
                    continue
                ended = Ended.FINISHED if kind == wire.DONE else Ended.FAILED
                return self._result(ended, call, number, evidence)
            left = (deadline - time.monotonic_ns()) // NS_PER_MS
            events = dict(poll.poll(max(0, left)))
            if not events:
                return self._result(Ended.SILENT)
            if events.get(self._read, 0) & select.POLLIN:
                data = self._receive()
                if data:
                    self._received += data
                    continue
            if self._read in events:
                poll.unregister(self._read)
            call_held = self.process.take_forbidden_call()
            if call_held is not None:
                return self._result(Ended.FORBIDDEN if begun else Ended.UNBEGUN, call_held.name)
            if listener is not None and events.get(listener.fileno(), 0) & (select.POLLHUP | select.POLLERR):
                poll.unregister(listener.fileno())
                listener = None
            if self.process.pidfd in events:
                # What it said before it died was read first: everything that is readable comes at once.
                return self._death(begun=begun)

    def _receive(self) -> bytes:
        try:
            return os.read(self._read, wire.MAXIMUM_FRAME)
        except ConnectionResetError:
            return b""

    def _result(self, ended: Ended, call: str = "", number: int = 0, evidence: bytes = b"") -> Result:
        return Result(
            ended, self.process.layers, call=call, number=number, evidence=evidence, pid=self.process.pid
        )

    def _death(self, *, begun: bool) -> Result:
        status = self.wait_status(PATIENCE_MS)
        if status is None:
            return self._result(Ended.SILENT)
        if not begun:
            return self._result(Ended.UNBEGUN)
        if os.WIFSIGNALED(status):
            return self._result(Ended.KILLED, number=os.WTERMSIG(status))
        return self._result(Ended.EXITED, number=os.WEXITSTATUS(status))

    def wait_status(self, milliseconds: int) -> int | None:
        """How the process died, or None if it has not within so long."""
        poll = select.poll()
        poll.register(self.client.fileno(), select.POLLIN)
        deadline = time.monotonic_ns() + milliseconds * NS_PER_MS
        while True:
            self.client.poll_deaths()
            if self.process.wait_status is not None:
                return self.process.wait_status
            left = (deadline - time.monotonic_ns()) // NS_PER_MS
            if left <= 0 or not poll.poll(left):
                return None

    def close(self) -> None:
        """End the process, and close the channel."""
        if hasattr(self, "process"):
            self.process.kill()
        for descriptor in {self._read, self._write}:
            if descriptor >= 0:
                os.close(descriptor)
        self._read = self._write = -1


class Session:
    """See the module. A context manager; belongs to the main thread."""

    def __init__(
        self, conditions: Conditions, device_type: str, scene: Scene, *, bpf: bytes | None = None
    ) -> None:
        """Start the spawner, which takes a while to be up. `bpf` stands in for the device filter.

        Raises SandboxError.
        """
        self.conditions = conditions
        self._type = device_type
        self._scene = scene
        self._bpf = device_filter(pipes=conditions.ipc != "socketpair") if bpf is None else bpf
        self._client = SpawnerClient.start(
            entries=(payload.ENTRY,),
            seccomp=conditions.seccomp,
            without=conditions.without,
            landlock_limit=conditions.landlock_limit,
        )
        self.layers = 0
        """The layers in force in the last device process, once there was one."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close(grace_ns=0)

    def run(self, probes: Iterable[Probe]) -> Iterator[tuple[Probe, Result]]:
        """Make each attack in a process of its own, in order. Raises SandboxError."""
        with contextlib.ExitStack() as stack:
            waiting: deque[tuple[Probe, _Subject, _Subject | None]] = deque()
            for probe in probes:
                bystander = self._subject(stack) if probe.sibling else None
                planted = probe.plants and bool(self.conditions.without & layers.CLOSED_DESCRIPTORS)
                waiting.append((probe, self._subject(stack, planted=planted), bystander))
                if len(waiting) > AHEAD:
                    yield self._one(*waiting.popleft())
            while waiting:
                yield self._one(*waiting.popleft())

    def _subject(self, stack: contextlib.ExitStack, *, planted: bool = False) -> _Subject:
        subject = _Subject(self._client, self._type, self.conditions.ipc, self._bpf, planted=planted)
        stack.callback(subject.close)
        return subject

    def _one(self, probe: Probe, subject: _Subject, bystander: _Subject | None) -> tuple[Probe, Result]:
        self._scene.prepare()
        given = {**self._scene.given, **subject.given, **probe.given(self._scene)}
        try:
            if bystander is not None:
                given |= self._expose(bystander)
            result = subject.attack(probe.attack, given)
            if bystander is None:
                effective = probe.effective(self._scene, result)
            else:
                effective = self._reached(bystander, result)
        except wire.WireError:
            result, effective = Result(Ended.SILENT, subject.process.layers), False
        except DeviceProcessError as error:
            raise SandboxError(f"probe '{probe.name}': {error}") from error
        finally:
            subject.close()
            if bystander is not None:
                bystander.close()
        self.layers = subject.process.layers
        return probe, replace(result, effective=effective)

    def _expose(self, bystander: _Subject) -> dict[str, str]:
        """Give a sibling a secret; returns where it is."""
        told = bystander.attack("bystander", {"secret": self._scene.secret})
        if told.ended is not Ended.FINISHED:
            raise SandboxError(f"cannot start the device process that others are to reach: it {told}")
        return {"pid": str(_inner_pid(bystander.process.pid)), "address": told.evidence.decode()}

    def _reached(self, bystander: _Subject, result: Result) -> bool:
        if result.ended is not Ended.FINISHED:
            return False
        if self._scene.secret.encode() in result.evidence:
            return True
        status = bystander.wait_status(SIGNAL_PATIENCE_MS)
        return status is not None and os.WIFSIGNALED(status) and os.WTERMSIG(status) == SIGUSR1


def _inner_pid(pid: int) -> int:
    """The pid of a process in its own pid namespace, by which siblings would name it."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("NSpid:"):
                return int(line.split()[-1])
    return pid
