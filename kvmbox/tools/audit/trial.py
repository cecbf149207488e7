"""One spawner, one set of layers, one device type: run probes, each in a fresh device process.

    with Trial(conditions, "uart", scene) as trial:
        for probe, result in trial.run(probes): ...

Attacks are made one after the other, so that what the scene shows is the doing of one; the next processes
are being made meanwhile.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from typing import TYPE_CHECKING, Final, Self

from kvmbox.base.errors import DeviceProcessError, SandboxError
from kvmbox.base.value_classes import Value
from kvmbox.jail import landlock, layers
from kvmbox.jail.linux import SECCOMP_MODE_DISABLED, SECCOMP_MODE_FILTER
from kvmbox.remote.process.spawner_client import ANY_LANDLOCK, SpawnerClient
from kvmbox.remote.transport.ipc_table import IPC_CHOICES, TRANSPORTS
from kvmbox.sandbox.seccomp import device_filter
from kvmbox.tools.audit import payload, payload_frames, substitute_process
from kvmbox.tools.audit.attack_result import Ended, Result
from kvmbox.tools.audit.attacked_device import PATIENCE_MS, Subject
from kvmbox.tools.audit.provoke import provoke

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from kvmbox.tools.audit.audit_setup import Scene
    from kvmbox.tools.audit.probe_catalogue import Probe

AHEAD: Final = 3
"""How many device processes are made ahead."""

SIGUSR1: Final = 10


class Conditions(Value):
    """What is in force: the seccomp mode (linux.SECCOMP_MODE_*), the layers left out, the ipc.

    `careless`: audit does not check what comes through the channel, as the VMM would. `of_vmm`: the layers (a
    mask) that a stand-in for the VMM leaves out, where it is one.
    """

    seccomp: int = SECCOMP_MODE_FILTER
    without: int = 0
    ipc: str = IPC_CHOICES[0]
    careless: bool = False
    of_vmm: int = 0

    @property
    def mode(self) -> int:
        """The seccomp mode that results."""
        return SECCOMP_MODE_DISABLED if self.without & layers.SECCOMP else self.seccomp

    @property
    def plants(self) -> bool:
        """Whether a descriptor may be left open; under a filter the jail needs to know them all."""
        return bool(self.without & layers.CLOSED_DESCRIPTORS) and self.mode != SECCOMP_MODE_FILTER

    @property
    def landlock_limit(self) -> int:
        """The highest Landlock ABI that has none of the layers left out."""
        allowed = [
            version
            for version in range(landlock.NEWEST_KNOWN_ABI + 1)
            if not landlock.layers_of(version) & self.without
        ]
        return ANY_LANDLOCK if allowed[-1] == landlock.NEWEST_KNOWN_ABI else allowed[-1]


class Trial:
    """See the module. A context manager; belongs to the main thread."""

    def __init__(
        self, conditions: Conditions, device_type: str, scene: Scene, *, bpf: bytes | None = None
    ) -> None:
        """Start the spawner, which takes a while to be up. `bpf` stands in for the device filter.

        Raises SandboxError.
        """
        self.conditions = conditions
        self._type = device_type
        self._stands_in = device_type in substitute_process.THREADS
        self._scene = scene
        self._bpf = bpf
        self._client = SpawnerClient.start(
            entries=(substitute_process.ENTRY if self._stands_in else payload.ENTRY,),
            seccomp=conditions.seccomp,
            without=conditions.without,
            landlock_limit=conditions.landlock_limit,
        )
        self.layers = 0
        """The layers in force in the last device process, once there was one."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._client.close()

    def run(self, probes: Iterable[Probe]) -> Iterator[tuple[Probe, Result]]:
        """Make each attack in a process of its own, in order. Raises SandboxError."""
        with contextlib.ExitStack() as stack:
            waiting: deque[tuple[Probe, Subject, Subject | None]] = deque()
            for probe in probes:
                bystander = self._subject(stack, probe) if probe.sibling else None
                waiting.append((probe, self._subject(stack, probe), bystander))
                if len(waiting) > AHEAD:
                    yield self._one(*waiting.popleft())
            while waiting:
                yield self._one(*waiting.popleft())

    def _subject(self, stack: contextlib.ExitStack, probe: Probe) -> Subject:
        ipc = probe.ipc or self.conditions.ipc
        bpf = self._bpf
        if bpf is None or probe.ipc is not None:
            bpf = device_filter(pipes=TRANSPORTS[ipc].uses_pipes)
        if self._stands_in:
            subject = Subject(self._client, self._type, IPC_CHOICES[0], b"", entry=substitute_process.ENTRY)
        else:
            planted = probe.plants and self.conditions.plants
            subject = Subject(self._client, self._type, ipc, bpf, planted=planted)
        stack.callback(subject.close)
        return subject

    def _one(self, probe: Probe, subject: Subject, bystander: Subject | None) -> tuple[Probe, Result]:
        self._scene.prepare()
        given = {**self._scene.given, **subject.given, **probe.given(self._scene)}
        if self._stands_in:
            given |= {"thread": self._type, "without": str(self.conditions.of_vmm)}
        try:
            if bystander is not None:
                given |= self._expose(bystander)
            if probe.on_channel:
                result = subject.begin(probe.attack, given) or provoke(
                    subject, probe.attack, careless=self.conditions.careless, forgery=probe.forgery
                )
            else:
                result = subject.attack(probe.attack, given)
            if bystander is None:
                effective = probe.effective(self._scene, result)
            else:
                effective = self._reached(bystander, result)
        except payload_frames.WireError:
            result, effective = Result(Ended.SILENT, subject.process.layers), False
        except DeviceProcessError as error:
            raise SandboxError(f"probe '{probe.name}': {error}") from error
        finally:
            subject.close()
            if bystander is not None:
                bystander.close()
        self.layers = subject.layers
        return probe, result.replaced(effective=effective)

    def _expose(self, bystander: Subject) -> dict[str, str]:
        """Give a sibling a secret; returns where it is."""
        result = bystander.attack("bystander", {"secret": self._scene.secret})
        if result.ended is not Ended.FINISHED:
            raise SandboxError(f"cannot start the device process that others are to reach: it {result}")
        return {"pid": str(bystander.inner_pid), "address": result.evidence.decode()}

    def _reached(self, bystander: Subject, result: Result) -> bool:
        if result.ended is not Ended.FINISHED:
            return False
        if self._scene.secret.encode() in result.evidence or bystander.limited:
            return True
        status = bystander.wait_status(PATIENCE_MS)
        return status is not None and os.WIFSIGNALED(status) and os.WTERMSIG(status) == SIGUSR1
