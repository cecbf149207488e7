"""`kvmbox doctor`: what this host can do, a line each, with a remedy where something is missing."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator

import click

from kvmbox.base.errors import KvmError, SandboxError, UsageError
from kvmbox.base.value_classes import Value
from kvmbox.cli.click_options import JSON, takes
from kvmbox.cli.json_files import for_people, open_output, write_data
from kvmbox.host.files import descriptor_limit
from kvmbox.run.options.definition import FLAG, Option


class Finding(Value):
    """One line. `needed` says whether `kvmbox run` works without it."""

    name: str
    good: bool
    detail: str
    needed: bool = True
    remedy: str | None = None

    @property
    def state(self) -> str:
        """Of what it is about, in a word."""
        return "ok" if self.good else "MISSING" if self.needed else "absent"

    def as_json(self) -> dict[str, object]:
        """The finding as data."""
        remedy = None if self.good else self.remedy
        return {"name": self.name, "state": self.state.lower(), "detail": self.detail, "remedy": remedy}


@click.command("doctor", short_help="check this host, and show remedies")
@takes(
    Option(
        "cpu",
        "List the features of the CPU: whether host and KVM have each, and whether a guest can use it.",
        kind=FLAG,
    ),
    JSON,
)
def command(cpu: bool, json_path: str | None) -> int:
    """Check whether 'kvmbox run' works on this host, and show a remedy for each problem.

    \b
    Exit status:
      0    'kvmbox run' works
      4    something that 'kvmbox run' needs is missing
    """
    if cpu:
        if json_path is not None:
            raise UsageError("--json has the findings, and not the list of --cpu")
        from kvmbox.cli.doctor.cpu_features import feature_lines

        for line in feature_lines():
            click.echo(line)
        return 0
    json_file = open_output(json_path)
    findings = []
    with for_people(json_path):
        for finding in _examine():
            findings.append(finding)
            click.echo(f"{finding.state:<8} {finding.name:<24} {finding.detail}")
            if not finding.good and finding.remedy:
                click.echo(f"{'':<8} remedy: {finding.remedy}")
    works = all(one.good or not one.needed for one in findings)
    write_data(json_path, json_file, {"works": works, "findings": [one.as_json() for one in findings]})
    return 0 if works else 4


def _examine() -> Iterator[Finding]:
    version = platform.python_version()
    yield Finding("python", True, f"{version} ({platform.python_implementation()})")
    yield Finding("kernel", True, f"{platform.system()} {platform.release()} {platform.machine()}")
    yield _hot_path()
    yield from _kvm()
    yield _libseccomp()
    yield from _layers()
    yield _cpus()
    enough, files = descriptor_limit.enough()
    yield Finding("open files", enough, files, remedy=descriptor_limit.REMEDY)
    yield _guests()


def _hot_path() -> Finding:
    from kvmbox.base import compiled

    remedy = None
    if compiled.why_not_built():
        remedy = "install a C compiler and Python's headers (python3-dev), then build or install kvmbox anew"
    return Finding("hot path", compiled.is_compiled(), compiled.describe(), needed=False, remedy=remedy)


def _kvm() -> Iterator[Finding]:
    from kvmbox.kvm.system import Kvm

    try:
        kvm = Kvm.open()
    except KvmError as error:
        yield Finding("/dev/kvm", False, str(error), remedy=error.hint)
        return
    with kvm:
        backend = kvm.backend()
        words = {
            "vmx": "Intel VT-x: the processor runs guest code",
            "svm": "AMD-V: the processor runs guest code",
            "pvm": "PVM, without hardware virtualization: kernel-mode guest code is emulated: slow, "
            "without SSE, and without IRET and paging in 32-bit code",
        }.get(backend, "of an unknown kind")
        yield Finding("/dev/kvm", True, f"API version {kvm.api_version}, backend {backend}: {words}")
        absent = kvm.missing_capabilities()
        yield Finding(
            "KVM capabilities",
            not absent,
            "all that are needed" if not absent else f"missing: {', '.join(absent)}",
            remedy="use a newer kernel" if absent else None,
        )


def _libseccomp() -> Finding:
    from kvmbox.sandbox.libseccomp import compile_policy
    from kvmbox.sandbox.policy import DEVICE_POLICY
    from kvmbox.sandbox.seccomp import compiled_ahead

    try:
        filter_ = compile_policy(DEVICE_POLICY)
    except SandboxError as error:
        # A run uses the filter that was compiled ahead; then libseccomp only tells forbidden calls' names.
        needed = compiled_ahead(DEVICE_POLICY) is None
        return Finding("libseccomp", False, str(error), needed=needed, remedy=error.hint)
    return Finding("libseccomp", True, f"the device filter compiles to {len(filter_) // 8} BPF instructions")


def _layers() -> Iterator[Finding]:
    from kvmbox.sandbox.host_support import probe

    for layer in probe():
        yield Finding(
            f"layer {layer.name}",
            layer.available,
            f"{layer.purpose} ({layer.detail})",
            needed=layer.required,
            remedy=layer.remedy,
        )


def _cpus() -> Finding:
    from kvmbox.remote.transport.ipc_table import AUTO, ipc_of

    allowed = sorted(os.sched_getaffinity(0))
    return Finding(
        "CPUs",
        True,
        f"{len(allowed)} allowed: a machine's first vCPU and its device processes share one, chosen by --pin;"
        " further vCPUs (--cpus) run where there is room; --ipc auto is "
        + ipc_of(AUTO, can_spin=len(allowed) > 1),
    )


def _guests() -> Finding:
    from kvmbox.boot import bundled

    count = len(bundled.catalogue())
    return Finding(
        "bundled guests",
        count > 0,
        f"{count} in {bundled.DIRECTORY}",
        needed=False,
        remedy="in a source tree: make guests",
    )
