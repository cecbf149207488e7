"""The audit against the real sandbox: everything is contained, the probes are real, and holes are found.

What an ordinary user cannot try even without a sandbox is "not possible here"; root can try it all.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kvmbox.base.errors import SandboxError
from kvmbox.cli.main import run_command
from kvmbox.jail import layers
from kvmbox.jail.linux import SECCOMP_MODE_FILTER, SECCOMP_MODE_STRICT, seccomp_mode
from kvmbox.remote.process.spawner_client import SpawnerClient
from kvmbox.remote.published.medium import MediumAccess
from kvmbox.remote.transport.ipc_table import IPC_CHOICES
from kvmbox.sandbox.libseccomp import compile_policy
from kvmbox.sandbox.policy import DEVICE_POLICY, Policy, Rule
from kvmbox.tools.audit import trial as trial_module
from kvmbox.tools.audit.attack_result import Ended, ProbeVerdict
from kvmbox.tools.audit.forgeries import FORGERIES
from kvmbox.tools.audit.probe_catalogue import OF_VMM
from kvmbox.tools.audit.run_audit import EVERY_LAYER, Finding, Options, Report, run_audit
from kvmbox.tools.audit.substitute_process import THREADS
from tests.support.selection import first_per_commit

UNAME, SOCKET, MPROTECT = 63, 41, 10
ON_DESCRIPTORS = ("other-descriptors", "flood", "rewrite-page", "execve")
"""The probes for which it matters how the channel is made."""

NOT_ON_EVERY_HOST = {
    "leave-label",  # AppArmor or SELinux
    "io-port",  # a kernel with ioperm(2)
    "handle-signal",  # Linux 6.14
    "handle-namespace",  # Linux 6.18
}
OF_EACH_KIND = ("read-passwd", "memory", "mmap-exec", "kill", "connect-inet", "fork-bomb", "flood")
HARMLESS_VERDICTS = {
    ProbeVerdict.CONTAINED,
    ProbeVerdict.OPEN,
    ProbeVerdict.IMPOSSIBLE,
    ProbeVerdict.INAPPLICABLE,
}

needs_no_filter = pytest.mark.skipif(
    seccomp_mode() != 0, reason="strict mode cannot be entered where a filter is in force already"
)


@functools.cache
def audit(**options: Any) -> Report:
    """One audit of one device type; the same one is run once only."""
    return run_audit(Options(types=("uart",), **options))


def verdicts(report: Report) -> dict[str, ProbeVerdict]:
    return {one.probe.name: one.verdict for one in report.probes}


def escaped(report: Report) -> set[str]:
    return {name for name, verdict in verdicts(report).items() if verdict is ProbeVerdict.ESCAPED}


def stoppers(report: Report) -> dict[str, list[str]]:
    return {
        one.probe.name: layers.names(next(iter(one.findings.values())).stopped_by)
        for one in report.probes
        if one.findings
    }


# --- What must hold -------------------------------------------------------------------------------------


@pytest.mark.parametrize("ipc", first_per_commit(IPC_CHOICES))
def test_audit_with_all_layers_finds_nothing_that_gets_out(ipc: str) -> None:
    report = audit(ipc=ipc)

    harmful = {
        one.probe.name: {
            name: f"{found.verdict.value}: it {found.result}" for name, found in one.findings.items()
        }
        for one in report.probes
        if one.verdict not in HARMLESS_VERDICTS
    }
    assert harmful == {}
    assert report.status == 0
    assert report.layers & layers.REQUIRED == layers.REQUIRED


@needs_no_filter
def test_audit_of_strict_mode_finds_nothing_that_gets_out_and_no_clock() -> None:
    report = audit(seccomp=SECCOMP_MODE_STRICT)

    assert {name for name, verdict in verdicts(report).items() if verdict not in HARMLESS_VERDICTS} == set()
    assert verdicts(report)["rdtsc"] is ProbeVerdict.CONTAINED
    assert verdicts(report)["clock"] is ProbeVerdict.CONTAINED
    assert report.status == 0


def disks(*types: str, **options: Any) -> dict[str, Finding]:
    """What becomes of a disk that is taken over, by probe."""
    report = run_audit(
        Options(
            types=types or ("ide", "vblk", "vnet", "pci", "vga", "e1000"), probes=tuple(FORGERIES), **options
        )
    )
    return {one.probe.name: finding for one in report.probes for finding in one.findings.values()}


@pytest.mark.parametrize(
    "seccomp", [SECCOMP_MODE_FILTER, pytest.param(SECCOMP_MODE_STRICT, marks=needs_no_filter)]
)
def test_disk_that_is_taken_over_is_refused_by_name(seccomp: int) -> None:
    found = disks(seccomp=seccomp)

    assert {name: finding.verdict for name, finding in found.items()} == dict.fromkeys(
        FORGERIES, ProbeVerdict.CONTAINED
    )
    for name, finding in found.items():
        effect = type(FORGERIES[name].replies[-1][-1][1]).__name__
        words = "no such place (status 2)" if name.endswith("-beyond-end") else f"effect {effect} of "
        words = "no such place (status 1)" if name.startswith("bar-over-") else words
        words = "no such place (status 3)" if name in ("frame-not-offered", "frame-longer") else words
        assert words in str(finding.result), name


def test_disk_is_tried_where_there_is_one() -> None:
    assert disks("uart") == {}
    assert set(disks("ide")) == {name for name, forgery in FORGERIES.items() if forgery.device_type == "ide"}


@pytest.mark.parametrize(
    ("kind", "method", "opened"),
    [
        (MediumAccess, "has", {"window-beyond-end"}),
        (MediumAccess, "allows", {"window-too-large", "window-read-only"}),
    ],
)
def test_hole_in_what_disks_are_granted_is_found(
    monkeypatch: pytest.MonkeyPatch, kind: type, method: str, opened: set[str]
) -> None:
    monkeypatch.setattr(kind, method, lambda *_place, **_way: True)
    found = disks("ide")
    assert {name for name, finding in found.items() if finding.verdict is ProbeVerdict.ESCAPED} == opened


def test_audit_says_that_time_is_not_hidden_by_a_filter_and_cpu_time_by_nothing() -> None:
    found = verdicts(audit())

    assert found["rdtsc"] is found["clock"] is ProbeVerdict.INAPPLICABLE
    assert found["burn-cpu"] in (
        ProbeVerdict.OPEN,
        ProbeVerdict.CONTAINED,
    )  # the latter in a cgroup with a quota


@pytest.mark.root
def test_control_run_as_root_every_probe_succeeds() -> None:
    report = audit(control=True)

    failed = {one.probe.name for one in report.probes if not (one.control and one.control.effective)}
    assert failed <= NOT_ON_EVERY_HOST
    assert report.status == 0


@pytest.mark.root
@pytest.mark.parametrize("ipc", ["pipe", "shm"])
def test_control_run_as_root_every_probe_succeeds_whatever_the_ipc(ipc: str) -> None:
    report = audit(control=True, ipc=ipc, probes=ON_DESCRIPTORS)

    assert [one.probe.name for one in report.probes if not (one.control and one.control.effective)] == []


def test_every_call_that_a_filter_catches_is_named() -> None:
    caught = {
        one.probe.name: finding
        for one in audit().probes
        for finding in one.findings.values()
        if finding.result.ended is Ended.FORBIDDEN
    }

    assert set(OF_EACH_KIND) - set(caught) <= {"memory", "flood"}  # made of calls that are allowed
    for finding in caught.values():
        assert finding.result.call
        assert layers.names(finding.stopped_by) == ["seccomp"]


def test_memory_is_bounded_by_rlimits_even_under_the_filter() -> None:
    assert stoppers(audit())["memory"] == ["rlimits"]


def test_audit_without_seccomp_names_the_layer_behind_it() -> None:
    report = audit(without=layers.SECCOMP)
    found = stoppers(report)

    assert report.status == 12
    assert found["fork-bomb"] == ["rlimits"]
    assert found["other-descriptors"] == ["closed-descriptors"]
    # What only the filter stops: all of it within the process, but for the host's name and a key of its own.
    within = {"mmap-exec", "mprotect-exec", "personality", "become-dumpable", "int80", "keyring", "host-name"}
    if not report.layers & layers.OWN_UID:
        within |= {"prlimit-sibling"}
    if not report.layers & layers.IPC_LIMITS:
        within |= {"sysv-shm"}
    if Path("/proc/sys/kernel/dmesg_restrict").read_text() == "0\n":
        within |= {"kernel-log"}
    assert escaped(report) <= within
    assert {"mmap-exec", "mprotect-exec"} <= escaped(report)
    for one in report.probes:
        for finding in one.findings.values():
            if finding.verdict is ProbeVerdict.CONTAINED and finding.result.ended is not Ended.REFUSED:
                assert finding.stopped_by, one.probe.name


def test_landlock_without_its_newer_parts_is_landlock_still() -> None:
    everything = audit(probes=("read-passwd",)).layers
    if not everything & layers.LANDLOCK_SCOPES:
        pytest.skip("this kernel's Landlock has no scopes")

    without = layers.LANDLOCK_SCOPES
    assert audit(probes=("read-passwd",), without=without).layers == everything & ~without
    without = layers.LANDLOCK_NET
    gone = layers.LANDLOCK_NET | layers.LANDLOCK_SCOPES
    assert audit(probes=("read-passwd",), without=without).layers == everything & ~gone


def test_siblings_reach_each_other_once_seccomp_and_landlock_are_gone() -> None:
    # They share a pid namespace, in which the attacker must know the sibling's number; and, without ids of
    # their own, an id.
    without = layers.SECCOMP | layers.LANDLOCK | layers.OWN_UID
    report = audit(without=without, probes=("kill-sibling", "kill"))

    assert "kill-sibling" in escaped(report)


@pytest.mark.root
def test_second_line_of_defence_is_what_it_is_said_to_be() -> None:
    # By layer: what stands behind the filter, and that it is this and nothing else.
    second = {
        layers.OWN_UID: ("prlimit-sibling", "own-uid"),
        layers.RLIMITS: ("vsock", "rlimits"),
        layers.IPC_LIMITS: ("sysv-shm", "ipc-limits"),
    }
    names = tuple(name for name, _ in second.values())
    with_all = audit(without=layers.SECCOMP, probes=names)
    assert escaped(with_all) == set()
    assert stoppers(with_all) == {name: [layer] for name, layer in second.values()}
    for layer, (name, _) in second.items():
        assert escaped(audit(without=layers.SECCOMP | layer, probes=names)) == {name}


# --- The threads of the VMM -------------------------------------------------------------------------------


def test_threads_of_the_vmm_let_nothing_out_and_every_probe_of_theirs_is_real() -> None:
    report = run_audit(Options(types=(), threads=THREADS))

    assert report.status == 0
    assert {one.probe.name for one in report.probes if one.findings} == set(OF_VMM)
    for one in report.probes:
        assert set(one.findings) == (set(THREADS) if one.probe.name in OF_VMM else set())
        for thread, finding in one.findings.items():
            control = one.control_of(thread)
            assert control is not None
            if finding.verdict is ProbeVerdict.CONTAINED:
                assert control.effective
                assert finding.stopped_by
            else:
                assert finding.verdict is ProbeVerdict.IMPOSSIBLE, (one.probe.name, thread)
    if os.geteuid() == 0:
        # A user namespace can be had by a process with one thread only.
        impossible = {
            (one.probe.name, thread)
            for one in report.probes
            for thread, finding in one.findings.items()
            if finding.verdict is ProbeVerdict.IMPOSSIBLE
        }
        elsewhere = {(name, thread) for name in NOT_ON_EVERY_HOST for thread in THREADS}
        assert impossible <= {("unshare", "vmm-vcpu"), *elsewhere}


def test_threads_of_the_vmm_without_their_filter_signal_nobody_for_the_scope() -> None:
    signals = ("kill", "tkill", "tgkill", "sigqueue", "pidfd-signal", "proc-signal", "owner-signal")
    everything = run_audit(Options(types=(), threads=THREADS, without=layers.VMM_SECCOMP, probes=signals))
    if not everything.vmm_layers & layers.VMM_SCOPES:
        pytest.skip("this kernel's Landlock has no scopes")
    assert escaped(everything) == set()

    without = layers.VMM_SECCOMP | layers.VMM_SCOPES
    assert escaped(run_audit(Options(types=(), threads=THREADS, without=without, probes=signals))) == {
        *signals
    }


# --- Planted holes --------------------------------------------------------------------------------------


def _with(*rules: Rule) -> bytes:
    return compile_policy(Policy("planted", (*DEVICE_POLICY.rules, *rules)))


def test_policy_with_one_call_too_many_is_found_and_nothing_else_is() -> None:
    report = audit(bpf=_with(Rule("uname", UNAME, "planted")))

    assert escaped(report) == {"host-name"}
    assert report.status == 12


def test_policy_that_allows_mprotect_is_found_by_running_data() -> None:
    report = audit(bpf=_with(Rule("mprotect", MPROTECT, "planted")), probes=("mmap-exec", "mprotect-exec"))

    assert escaped(report) == {"mprotect-exec"}


def test_policy_that_allows_sockets_is_found_by_each_kind_of_them() -> None:
    kinds = ("socket-inet", "socket-unix", "socket-netlink", "connect-inet")
    # Without rlimits, which would not let a socket be made.
    report = audit(bpf=_with(Rule("socket", SOCKET, "planted")), probes=kinds, without=layers.RLIMITS)

    assert {"socket-inet", "socket-unix", "socket-netlink"} <= escaped(report)
    assert "connect-inet" not in escaped(report)  # connect is another call


def test_layer_that_is_silently_not_applied_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    class Careless(SpawnerClient):
        """A spawner that forgets the limits, and does not say so."""

        @classmethod
        def start(cls, *, without: int = 0, **options: Any) -> SpawnerClient:
            return SpawnerClient.start(without=without | layers.RLIMITS, **options)

    monkeypatch.setattr(trial_module, "SpawnerClient", Careless)
    report = run_audit(Options(types=("pit",), probes=("memory", "fork", "read-passwd")))

    assert escaped(report) == {"memory"}
    assert report.status == 12


def test_payload_that_does_not_run_is_an_error_and_no_merit() -> None:
    # A filter that allows next to nothing contains everything, and proves nothing.
    mute = compile_policy(Policy("mute", DEVICE_POLICY.rules[1:2]))
    with pytest.raises(SandboxError):
        run_audit(Options(types=("uart",), bpf=mute))


def test_attack_that_falls_silent_is_unclear(monkeypatch: pytest.MonkeyPatch) -> None:
    from kvmbox.tools.audit import attacked_device

    class Deaf:
        """Nothing ever comes, however fast the payload is."""

        def register(self, *what: int) -> None:
            pass

        unregister = register

        def poll(self, _ms: int) -> list[tuple[int, int]]:
            return []

    monkeypatch.setattr(attacked_device, "PATIENCE_MS", 0)
    monkeypatch.setattr(
        attacked_device, "select", SimpleNamespace(poll=Deaf, POLLIN=1, POLLHUP=0x10, POLLERR=8)
    )
    with pytest.raises(SandboxError, match="payload does not run"):
        run_audit(Options(types=("uart",), probes=("read-passwd",)))


# --- The command ----------------------------------------------------------------------------------------


def test_command_every_type_by_default_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "audit.json"

    chosen = ["--probe", "read-passwd", "--probe", "memory", "--probe", "rdtsc"]
    assert run_command(["audit", "--json", str(file), *chosen]) == 0
    data = json.loads(file.read_text())
    types = data["options"]["types"]
    assert types[:9] == ["uart", "pit", "rtc", "i8042", "debug", "pm", "hpet", "fwcfg", "vga"]
    assert types[9:] == ["ide", "format", "vnc", "vblk", "vrng", "vcon", "vnet", "e1000", "pci"]
    assert [row["name"] for row in data["probes"]] == ["read-passwd", "memory", "rdtsc"]
    for row in data["probes"]:
        if row["verdict"] != "not applicable":
            threads = data["options"]["threads"] if row["name"] in OF_VMM else []
            assert list(row["types"]) == types + threads
    output = capsys.readouterr().out
    assert "killed at openat" in output
    assert output.rstrip().splitlines()[-1].startswith("3 probes")


def test_command_with_json_on_stdout_has_its_table_on_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    assert run_command(["audit", "--json", "-", "--type", "uart", "--probe", "read-passwd"]) == 0

    out, err = capfd.readouterr()
    assert [row["name"] for row in json.loads(out)["probes"]] == ["read-passwd"]
    assert err.rstrip().splitlines()[-1].startswith("1 probes")


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["--type", "floppy"], 2),
        (["--without", "luck"], 2),
        (["--control", "--matrix"], 2),
        (["--control", "--without", "seccomp"], 2),
        (["--ipc", "smoke"], 2),
        (["--probe", "sorcery"], 2),
        (["--without", "rlimits", "--type", "rtc", "--probe", "memory"], 12),
        (["--seccomp", "off", "--type", "rtc", "--probe", "mmap-exec"], 12),
        (["--type", "rtc", "--probe", "memory"], 0),
    ],
)
def test_command_status(arguments: list[str], status: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["audit", *arguments]) == status


def test_command_that_cannot_start_is_status_4(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "executable", "/does/not/exist")

    assert run_command(["audit"]) == 4
    assert "cannot start" in capsys.readouterr().err


def test_matrix_removing_one_layer_opens_nothing_but_what_it_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "matrix.json"

    chosen = [word for name in OF_EACH_KIND for word in ("--probe", name)]
    assert run_command(["audit", "--type", "uart", "--matrix", "--json", str(file), *chosen]) == 0
    data = json.loads(file.read_text())
    removable = set(data["layers"]) - set(data["cannot_be_left_out"]) - set(data["inseparable"])
    opened: dict[str, set[str]] = {}
    for row in data["probes"]:
        for layer, finding in row["removed"].items():
            if finding["verdict"] in ("ESCAPED", "UNCLEAR"):
                opened.setdefault(layer, set()).add(row["name"])
        if row["removed"]:
            assert set(row["removed"]) == removable
        assert set(row["alone"]) == set(data["layers"]) - set(data["cannot_be_left_out"])
    assert set(opened) == {"seccomp", "rlimits"}  # all others have somebody behind them
    assert opened["rlimits"] == {"memory"}
    assert "without rlimits: opens memory" in capsys.readouterr().out


# --- Nothing is left ------------------------------------------------------------------------------------


def _traces() -> tuple[list[str], list[str], list[str]]:
    """What an audit could leave behind: files, mounts, processes of ours."""
    files = sorted(name for name in os.listdir(tempfile.gettempdir()) if name.startswith("kvmbox-audit-"))
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    children = []
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if name.isdigit() and f"PPid:\t{os.getpid()}\n" in Path(f"/proc/{name}/status").read_text():
                children.append(name)
    return files, mounts, sorted(children)


def _segments() -> list[str]:
    table = Path("/proc/sysvipc/shm")
    return [line.split()[1] for line in table.read_text().splitlines()[1:]] if table.exists() else []


@pytest.fixture
def own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.mark.usefixtures("own_directory")
def test_audit_twice_leaves_nothing_behind() -> None:
    before, segments = _traces(), _segments()
    descriptors = len(os.listdir("/proc/self/fd"))
    host = os.uname().nodename
    for control in (False, True):
        run_audit(Options(types=("uart",), control=control))

    assert _traces() == before
    assert _segments() == segments
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert os.uname().nodename == host


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_audit_interrupted_cleans_up_and_ends_with_130(number: signal.Signals, tmp_path: Path) -> None:
    code = "from kvmbox.cli.entry import entry_point; entry_point()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "audit", "--matrix"],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    while not any(tmp_path.iterdir()):  # the scene is being set up
        assert process.poll() is None
        os.sched_yield()
    process.send_signal(number)
    _, errors = process.communicate()

    assert process.returncode == 130
    assert b"Traceback" not in errors
    assert list(tmp_path.iterdir()) == []


def test_every_layer_is_one_that_audit_can_be_told_to_leave_out() -> None:
    assert layers.mask_of(layers.names(EVERY_LAYER)) == EVERY_LAYER
