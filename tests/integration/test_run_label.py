"""Labels of AppArmor, where the profiles of `kvmbox policy --format apparmor` are loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvmbox.jail import layers
from kvmbox.sandbox.probes import probe
from tests.support.real_mode import IDLE, debug_exit, say
from tests.support.runs import Images

pytestmark = pytest.mark.kvm

READY = say(b"ready\n")
LABELS = [layers.NAMES[layers.LABEL], layers.VMM_NAMES[layers.VMM_LABEL]]
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


def labels_of(pid: int) -> set[str]:
    """The profiles in the label of a process, without their modes."""
    text = Path(f"/proc/{pid}/attr/apparmor/current").read_text().strip().rpartition(" (")[0]
    return set(text.split("//&"))


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
def test_each_process_has_its_profile_stacked_and_the_guest_runs(images: Images, ipc: str) -> None:
    with images.run(READY + IDLE, "--ipc", ipc, *REQUIRED) as run:
        run.stdout.until(b"ready\n")
        family = run.family
        assert "kvmbox-vmm" in labels_of(run.pid)
        for device_type, pid in family.devices.items():
            assert {"kvmbox-spawner", f"kvmbox-{device_type}"} <= labels_of(pid), device_type
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
