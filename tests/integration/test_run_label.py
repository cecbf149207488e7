"""Labels of AppArmor or SELinux, where what `kvmbox policy --format apparmor|selinux` writes is loaded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kvmbox.jail import layers
from kvmbox.jail.lsm import type_of
from kvmbox.sandbox.host_support import probe
from kvmbox.tools.audit.run_audit import EVERY_LAYER, Options, run_audit
from tests.support.family import DEVICE_TYPES
from tests.support.real_mode import IDLE, debug_exit, say
from tests.support.runs import Images

pytestmark = pytest.mark.kvm

READY = say(b"ready\n")
LABELS = [layers.NAMES[layers.LABEL], layers.VMM_NAMES[layers.VMM_LABEL]]
SELINUX = Path("/sys/fs/selinux/enforce")
NOT_LISTED = (
    *("read-passwd", "open-kvm", "create-file", "connect-inet", "connect-path", "execve", "kill"),
    *("ptrace-sibling", "vm-readv-sibling", "unshare", "leave-label"),
)
"""Probes of the audit: what no policy of a device process lists."""

REQUIRED = [word for name in LABELS for word in ("--require", name)]


@pytest.fixture(scope="module")
def loaded() -> str | None:
    """None where the profiles are loaded, or why they are not."""
    (status,) = [one for one in probe() if one.name == LABELS[0]]
    return None if status.available else status.detail


@pytest.fixture
def labelled(loaded: str | None) -> None:
    if loaded is not None:
        pytest.skip(f"no label: {loaded}")


@pytest.fixture
def selinux(labelled: None) -> None:
    if not SELINUX.exists():
        pytest.skip("the labels are AppArmor's")


def labels_of(pid: int) -> set[str]:
    """The processes of kvmbox that a process has the label of."""
    if SELINUX.exists():
        name = context_of(pid).split(":")[2]
        return {process for process in ("vmm", "spawner", *DEVICE_TYPES) if type_of(process) == name}
    text = Path(f"/proc/{pid}/attr/apparmor/current").read_text().strip().rpartition(" (")[0]
    return {name.removeprefix("kvmbox-") for name in text.split("//&")}


def context_of(pid: int) -> str:
    """What SELinux calls a process."""
    return Path(f"/proc/{pid}/attr/current").read_bytes().rstrip(b"\0").decode()


def attempt_as(context: str, code: str) -> str:
    """What a process with this context gets of `code`: "done", or the name of its error."""
    program = (
        "import os, socket, sys\n"
        "from kvmbox.jail import linux, lsm\n"
        "def become(context):\n"
        "    number = lsm.set_label(linux.LSM_ID_SELINUX, context)\n"
        "    if number:\n"
        "        raise OSError(number, os.strerror(number))\n"
        "become(sys.argv[1])\n"
        "try:\n"
        f"    {code}\n"
        "except OSError as error:\n"
        "    print(type(error).__name__, flush=True)\n"
        "else:\n"
        "    print('done', flush=True)\n"
        "os._exit(0)\n"
    )
    command = [sys.executable, "-c", program, context]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_run_that_requires_a_label_without_profiles_is_refused_with_the_reason(
    loaded: str | None, images: Images
) -> None:
    if loaded is None:
        pytest.skip("the profiles are loaded")
    with images.run(debug_exit(0), "--require", LABELS[0]) as run:
        assert run.status() == 4
        assert f"sandbox layer missing: lsm-label ({loaded})" in run.messages


@pytest.mark.usefixtures("labelled")
@pytest.mark.parametrize("ipc", ["socketpair", "pipe", "shm"])
def test_each_process_has_its_label_and_the_guest_runs(images: Images, ipc: str) -> None:
    with images.run(READY + IDLE, "--ipc", ipc, *REQUIRED) as run:
        run.stdout.until(b"ready\n")
        family = run.family
        assert "vmm" in labels_of(run.pid)
        assert "spawner" in labels_of(family.spawner)
        for device_type, pid in family.devices.items():
            assert device_type in labels_of(pid)
        run.signal(2)
        assert run.status() == 130


@pytest.mark.usefixtures("labelled")
@pytest.mark.parametrize(
    "options",
    [
        ("--seccomp", "strict"),
        ("--seccomp", "off"),
        ("--sandbox", "per-device"),
        ("--on-device-crash", "restart"),
    ],
    ids=" ".join,
)
def test_run_ends_as_without_labels(images: Images, options: tuple[str, ...]) -> None:
    with images.run(READY + debug_exit(0), *options, *REQUIRED) as run:
        assert (run.status(), run.output) == (1, b"ready\n"), run.messages


@pytest.mark.usefixtures("labelled")
def test_audit_under_labels_finds_nothing_that_gets_out() -> None:
    report = run_audit(Options(types=("uart",), threads=("vmm-main",), probes=NOT_LISTED))
    assert {one.probe.name: one.verdict.value for one in report.probes} == dict.fromkeys(
        NOT_LISTED, "contained"
    )
    assert report.layers & layers.LABEL
    assert report.vmm_layers & layers.VMM_LABEL


@pytest.mark.usefixtures("labelled")
def test_label_alone_stops_what_its_policy_does_not_list() -> None:
    report = run_audit(Options(types=("uart",), probes=NOT_LISTED, without=EVERY_LAYER & ~layers.LABEL))
    stopped = {one.probe.name: layers.names(one.findings["uart"].stopped_by) for one in report.probes}
    assert stopped == dict.fromkeys(NOT_LISTED, LABELS[:1])


@pytest.mark.usefixtures("selinux")
def test_machine_has_a_pair_of_categories_and_no_process_of_another_may_end_its_own(images: Images) -> None:
    with images.run(READY + IDLE, *REQUIRED) as run, images.run(READY + IDLE, *REQUIRED) as other:
        levels = []
        for one in (run, other):
            one.stdout.until(b"ready\n")
            pids = (one.pid, one.family.spawner, *one.family.devices.values())
            (level,) = {context_of(pid).split(":", 3)[3] for pid in pids}
            assert len(level.split(",")) == 2
            levels.append(level)
        assert levels[0] != levels[1]
        spawner = context_of(run.family.spawner)
        for pid in (other.family.devices["uart"], other.family.spawner, other.pid):
            assert attempt_as(spawner, f"os.kill({pid}, 9)") == "PermissionError"
        assert attempt_as(spawner, f"os.kill({run.family.devices['uart']}, 9)") == "done"
        assert run.status() != 0
        other.signal(2)
        assert other.status() == 130


@pytest.mark.usefixtures("selinux")
def test_device_process_cannot_change_its_context_open_a_file_or_make_a_socket(images: Images) -> None:
    with images.run(READY + IDLE, *REQUIRED) as run:
        run.stdout.until(b"ready\n")
        contexts = {process: context_of(pid) for process, pid in run.family.devices.items()}
        contexts |= {"vmm": context_of(run.pid), "spawner": context_of(run.family.spawner)}
        device = contexts["uart"]
        for target in (*contexts.values(), context_of(os.getpid())):
            assert attempt_as(device, f"become({target!r})") == "PermissionError"
        assert attempt_as(contexts["spawner"], f"become({contexts['vmm']!r})") == "PermissionError"
        assert attempt_as(contexts["spawner"], f"become({device!r})") == "done"
        for code in (
            "os.open('/etc/passwd', 0)",
            "os.open('/dev/kvm', 2)",
            "socket.socket()",
            "os.listdir('/proc')",
        ):
            assert attempt_as(device, code) == "PermissionError", code
        run.signal(2)
        assert run.status() == 130
