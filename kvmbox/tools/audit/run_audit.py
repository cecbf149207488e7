"""The audit itself: which sessions are run, and what their results are together.

    control   without any layer, each probe must succeed, or its being stopped proves nothing
    main      as asked, for each device type
    alone     with one layer only, for what the main results do not tell by themselves who stopped it
    less      as main, one layer less, for what was stopped in a manner of which no layer alone is capable
    removed   (matrix) the same, for all probes
    threads   the threads of the VMM, by a stand-in that confines itself: control, main and alone, with the
              layers that the VMM has

A layer that cannot do without another has that one beside it in `alone`: no-new-privs always, which stops
none of the probes by itself; the older parts of Landlock below the newer ones; and, where it is an ordinary
user who audits, the user namespace, without which there is no other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from kvmbox.base.errors import SandboxError
from kvmbox.base.value_classes import Value
from kvmbox.jail import landlock, layers
from kvmbox.jail.linux import SECCOMP_MODE_DISABLED, SECCOMP_MODE_FILTER, SECCOMP_MODE_STRICT
from kvmbox.remote.transport.ipc_table import IPC_CHOICES
from kvmbox.tools.audit.attack_result import (
    BAD,
    Ended,
    ProbeVerdict,
    Result,
    direct_layers,
    stopped_by,
    without_dependents,
)
from kvmbox.tools.audit.audit_setup import Scene
from kvmbox.tools.audit.interruption import undisturbed
from kvmbox.tools.audit.probe_catalogue import CATALOGUE, NOTHING, OF_VMM, Probe
from kvmbox.tools.audit.trial import Conditions, Trial

EVERY_LAYER: Final = sum(layers.NAMES)
ESCAPED_STATUS: Final = 12

Progress = Callable[[str], None]


class Options(Value):
    """What to audit. `without` is a mask of layers, `types` the device types, in order, `threads` those of
    the VMM (`substitute_process.THREADS`).

    `bpf` stands in for the filter of device processes; None for the real one. `probes` names those to run,
    all of them if it is empty.
    """

    types: Sequence[str]
    seccomp: int = SECCOMP_MODE_FILTER
    ipc: str = IPC_CHOICES[0]
    without: int = 0
    control: bool = False
    matrix: bool = False
    bpf: bytes | None = None
    probes: Sequence[str] = ()
    threads: Sequence[str] = ()

    @property
    def conditions(self) -> Conditions:
        """What the main sessions run under."""
        without = self.without | (EVERY_LAYER if self.control else 0)
        return Conditions(self.seccomp, without, self.ipc)


class Finding(Value):
    """One result, what it means, and the layers (a mask) whose doing it is.

    Each of these would stop it alone; or, if it took them `together`, none would in this manner.
    """

    result: Result
    verdict: ProbeVerdict
    stopped_by: int
    together: bool = False


@dataclass(slots=True)
class ProbeReport:
    """All that is known of one probe."""

    probe: Probe
    control: Result | None = None
    findings: dict[str, Finding] = field(default_factory=dict)
    """By device type or thread of the VMM; empty where the probe does not apply."""
    thread_controls: dict[str, Result] = field(default_factory=dict)
    """By thread of the VMM, without any layer."""
    alone: dict[int, Result] = field(default_factory=dict)
    """By layer, with no other."""
    removed: dict[int, Finding] = field(default_factory=dict)
    """By layer, with all but it."""

    def control_of(self, target: str) -> Result | None:
        """How it ended without any layer, in that device type or thread."""
        return self.thread_controls.get(target, self.control)

    @property
    def verdict(self) -> ProbeVerdict:
        """The worst of all device types."""
        found = {finding.verdict for finding in self.findings.values()}
        return next((verdict for verdict in _WORST_FIRST if verdict in found), ProbeVerdict.INAPPLICABLE)


_WORST_FIRST: Final = (
    ProbeVerdict.ESCAPED,
    ProbeVerdict.UNCLEAR,
    ProbeVerdict.OPEN,
    ProbeVerdict.IMPOSSIBLE,
    ProbeVerdict.CONTAINED,
)


@dataclass(slots=True)
class Report:
    """The audit's outcome."""

    options: Options
    probes: list[ProbeReport]
    layers: int = 0
    """In force in the device processes of the main sessions."""
    vmm_layers: int = 0
    """In force in the stand-in for the VMM."""
    kept: int = 0
    """In force although the control run left everything out: these cannot be left out."""
    also_gone: dict[int, int] = field(default_factory=dict)
    """By layer that was removed: the others that went with it, as a mask."""
    beside: dict[int, int] = field(default_factory=dict)
    """By layer that was tried alone: those that it cannot do without (a mask), no-new-privs apart."""
    inseparable: dict[int, str] = field(default_factory=dict)
    """By layer without which, or with which alone, no device process starts: why."""

    @property
    def status(self) -> int:
        """12 if anything got out, or may have; else 0. A control run has nothing to get out of."""
        if self.options.control:
            return 0
        return ESCAPED_STATUS if any(report.verdict in BAD for report in self.probes) else 0

    def removable(self, in_force: int) -> list[int]:
        """The layers of the mask `in_force` that can be left out."""
        return [layer for layer in layers.NAMES if layer & in_force & ~self.kept]

    def count(self, verdict: ProbeVerdict) -> int:
        """How many probes have this verdict."""
        return sum(report.verdict is verdict for report in self.probes)


def run_audit(options: Options, progress: Progress = lambda _text: None) -> Report:
    """Run all sessions that `options` asks for. Belongs to the main thread. Raises SandboxError.

    `progress` is called after each probe, and may raise to end it all. Signals are let in between two steps.
    """
    chosen = [probe for probe in CATALOGUE if not options.probes or probe.name in options.probes]
    report = Report(options, [ProbeReport(probe) for probe in chosen])
    with undisturbed(), Scene() as scene:
        _Audit(report, scene, progress).run()
        scene.prepare()  # raises if the decoy died of the last of them
    return report


class _Audit:
    """One audit under way."""

    def __init__(self, report: Report, scene: Scene, progress: Progress) -> None:
        self._report = report
        self._options = report.options
        self._scene = scene
        self._progress = progress
        self._by_name = {one.probe.name: one for one in report.probes}
        self._less: dict[tuple[Conditions, tuple[str, ...]], dict[str, int]] = {}

    def run(self) -> None:
        if self._options.types:
            self._run_types()
        for thread in self._options.threads:
            self._run_thread(thread)

    def _run_thread(self, thread: str) -> None:
        probes = [one.probe for one in self._report.probes if one.probe.name in OF_VMM]

        def session(of_vmm: int, which: Sequence[Probe] = probes) -> tuple[dict[str, Result], int]:
            return self._session(Conditions(without=EVERY_LAYER, of_vmm=of_vmm), thread, which)

        controls, _ = session(layers.VMM)
        without = layers.VMM if self._options.control else self._options.without & layers.VMM
        results, had = (controls, 0) if self._options.control else session(without)
        self._report.vmm_layers = had & layers.VMM
        unknown = [
            probe
            for probe in probes
            if controls[probe.name].effective
            and not results[probe.name].effective
            and not direct_layers(results[probe.name], SECCOMP_MODE_DISABLED)
        ]
        alone: dict[str, dict[int, Result]] = {probe.name: {} for probe in probes}
        for layer in layers.VMM_NAMES:
            if unknown and layer & had:
                for name, result in session(layers.VMM & ~layer, unknown)[0].items():
                    alone[name][layer] = result
        for probe in probes:
            result, control = results[probe.name], controls[probe.name]
            stoppers = stopped_by(result, SECCOMP_MODE_DISABLED, alone[probe.name])
            one = self._by_name[probe.name]
            one.thread_controls[thread] = control
            one.findings[thread] = Finding(result, judge(probe, result, control, stoppers), stoppers)

    def _run_types(self) -> None:
        main = self._options.conditions
        first, *others = self._options.types
        everything = [one.probe for one in self._report.probes]
        control, self._report.kept = self._session(
            Conditions(main.seccomp, EVERY_LAYER, main.ipc, careless=True), first, everything
        )
        for name, result in control.items():
            self._by_name[name].control = result
        results: dict[str, dict[str, Result]] = {}
        if self._options.control:
            results[first] = control
            self._report.layers = self._report.kept
        else:
            for device_type in (first, *others):
                applicable = [probe for probe in everything if self._applies(probe, main, device_type)]
                results[device_type], self._report.layers = self._session(main, device_type, applicable)
        unattributed = self._unattributed(results.values(), main)
        self._run_alone(everything if self._options.matrix else unattributed)
        for device_type, by_name in results.items():
            findings = self._find_all(by_name, main, self._report.layers)
            for name, finding in findings.items():
                self._by_name[name].findings[device_type] = finding
        if self._options.matrix:
            self._run_removed(main, first)

    @staticmethod
    def _applies(probe: Probe, conditions: Conditions, device_type: str) -> bool:
        if probe.forgery is not None and probe.forgery.device_type != device_type:
            return False
        return not probe.strict_only or conditions.mode == SECCOMP_MODE_STRICT

    def _possible(self, name: str) -> bool:
        control = self._by_name[name].control
        return control is None or control.effective

    def _session(
        self, conditions: Conditions, device_type: str, probes: Iterable[Probe]
    ) -> tuple[dict[str, Result], int]:
        """(results by probe, layers in force) of one session, whose payload is proved to work first."""
        bpf = self._options.bpf
        with Trial(conditions, device_type, self._scene, bpf=bpf) as session:
            results: dict[str, Result] = {}
            for probe, result in session.run([NOTHING, *probes]):
                self._progress(f"{device_type}: {probe.name}")
                if probe is not NOTHING:
                    results[probe.name] = result
                elif not result.effective:
                    raise SandboxError(
                        f"the payload does not run in device process '{device_type}': {result}"
                    )
            return results, session.layers

    def _unattributed(self, results: Iterable[Mapping[str, Result]], conditions: Conditions) -> list[Probe]:
        names = {
            name
            for by_name in results
            for name, result in by_name.items()
            if not result.effective
            and result.ended is not Ended.REFUSED
            and self._possible(name)
            and not direct_layers(result, conditions.mode)
        }
        return [one.probe for one in self._report.probes if one.probe.name in names]

    def _run_alone(self, probes: Sequence[Probe]) -> None:
        probes = [probe for probe in probes if probe.open_reason is None]
        if not probes:
            return
        for layer in self._report.removable(self._report.layers):
            for beside in (_BELOW[layer], _BELOW[layer] | layers.USER_NS):
                without = EVERY_LAYER & ~(layer | layers.NO_NEW_PRIVS | beside)
                conditions = Conditions(self._options.seccomp, without, self._options.ipc, careless=True)
                try:
                    results, had = self._session(conditions, self._options.types[0], probes)
                except SandboxError as error:
                    self._report.inseparable[layer] = f"not alone: {error}"
                    break
                if had & layer:
                    self._report.beside[layer] = beside
                    for name, result in results.items():
                        self._by_name[name].alone[layer] = result
                    break

    def _run_removed(self, main: Conditions, device_type: str) -> None:
        for layer in self._report.removable(self._report.layers):
            conditions = Conditions(main.seccomp, main.without | layer, main.ipc)
            applicable = [
                one.probe
                for one in self._report.probes
                if self._applies(one.probe, conditions, device_type) and one.probe.open_reason is None
            ]
            try:
                results, had = self._session(conditions, device_type, applicable)
            except SandboxError as error:
                self._report.inseparable[layer] = f"not without it: {error}"
                continue
            self._report.also_gone[layer] = self._report.layers & ~had & ~layer
            for name, finding in self._find_all(results, conditions, had).items():
                self._by_name[name].removed[layer] = finding

    def _find_all(
        self, results: Mapping[str, Result], conditions: Conditions, in_force: int
    ) -> dict[str, Finding]:
        """What `results`, of one session under `conditions`, mean."""
        stoppers = {}
        for name, result in results.items():
            # What does not succeed without any layer either is stopped by none, but for what is beyond doubt.
            alone = self._by_name[name].alone if self._possible(name) else {}
            stoppers[name] = without_dependents(
                stopped_by(result, conditions.mode, alone), self._report.beside
            )
        unknown = [probe for probe in self._unattributed([results], conditions) if not stoppers[probe.name]]
        together: dict[str, int] = {}
        if unknown and not self._options.control:
            together = self._run_less(conditions, in_force, unknown, results)
            stoppers |= together
        findings = {}
        for name, result in results.items():
            one = self._by_name[name]
            verdict = judge(one.probe, result, one.control, stoppers[name])
            findings[name] = Finding(result, verdict, stoppers[name], together=name in together)
        return findings

    def _run_less(
        self,
        conditions: Conditions,
        in_force: int,
        probes: Sequence[Probe],
        results: Mapping[str, Result],
    ) -> dict[str, int]:
        """By probe, the layers (a mask) without any one of which it ends in another manner."""
        key = (conditions, tuple(probe.name for probe in probes))
        if key in self._less:
            return self._less[key]
        found = dict.fromkeys(key[1], 0)
        for layer in self._report.removable(in_force):
            less = conditions.replaced(without=conditions.without | layer)
            try:
                changed, _ = self._session(less, self._options.types[0], probes)
            except SandboxError:
                continue  # the others need it
            for name, result in changed.items():
                if result.effective or result.manner != results[name].manner:
                    found[name] |= layer
        self._less[key] = found
        return found


def judge(probe: Probe, result: Result, control: Result | None, stoppers: int) -> ProbeVerdict:
    """What `result` means, given the same probe's without any layer, and the layers that stopped it."""
    if result.effective:
        return ProbeVerdict.ESCAPED if probe.open_reason is None else ProbeVerdict.OPEN
    if result.ended in (Ended.SILENT, Ended.UNBEGUN):
        return ProbeVerdict.UNCLEAR
    if control is not None and not control.effective:
        return ProbeVerdict.IMPOSSIBLE
    if result.ended in (Ended.KILLED, Ended.EXITED) and not stoppers:
        return ProbeVerdict.UNCLEAR  # it broke down; that is nobody's merit
    return ProbeVerdict.CONTAINED


def _below(layer: int) -> int:
    """The layers without which `layer` cannot be had: the older parts of Landlock, and `layers.PARTS`."""
    if layer in layers.PARTS and layer & layers.ISOLATION:
        return layers.PARTS[layer]
    for version in range(1, landlock.NEWEST_KNOWN_ABI + 1):
        had = landlock.layers_of(version)
        if had & layer:
            return had & ~layer
    return 0


_BELOW: Final = {layer: _below(layer) for layer in layers.NAMES}
