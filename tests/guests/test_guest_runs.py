"""Every run of guests/expectations.toml, on the real /dev/kvm, through the command line.

A run whose whole output is in the table is thereby shown to print the same bytes each time.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.support.guest_table import skip_where_it_cannot_run
from tests.support.patience import far_enough, patience, patient_options
from tests.support.shared import built_guests

SOURCES = Path(__file__).parents[2] / "guests"
RUNS: list[dict[str, Any]] = tomllib.loads((SOURCES / "expectations.toml").read_text())["run"]
KVMBOX = [sys.executable, "-c", "from kvmbox.cli.entry import entry_point; entry_point()"]
HANG_GUARD = f"{patience(60):g}"  # seconds; a guest that is right never gets near it

pytestmark = pytest.mark.kvm


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The guests, freshly built: what is tested is never an image of last week.

    KVMBOX_TEST_GUEST_IMAGES names a directory where whoever starts the tests has just built them.
    """
    if built := os.environ.get("KVMBOX_TEST_GUEST_IMAGES"):
        return Path(built)
    return built_guests(tmp_path_factory) / "images"


def image_and_mode(images: Path, guest: str) -> list[str]:
    """The arguments that name `guest` by its file: a flat image has to be told apart by --boot."""
    (image,) = images.glob(f"{guest}.*")
    return ["--boot", "real", str(image)] if image.suffix == ".bin" else [str(image)]


@pytest.mark.parametrize("run", RUNS, ids=lambda run: f"{run['guest']}: {run['proves']}")
def test_guest_run_gives_status_and_output(run: dict[str, Any], images: Path, tmp_path: Path) -> None:
    skip_where_it_cannot_run(run)
    for name, content in run.get("files", {}).items():
        (tmp_path / name).write_text(content)

    def done_in(scale: int) -> subprocess.CompletedProcess[bytes]:
        options = patient_options(run.get("options", []), scale)
        image = image_and_mode(images, run["guest"])
        return subprocess.run(
            [*KVMBOX, "run", "--timeout", HANG_GUARD, *options, *image],
            input=run.get("stdin", "").encode(),
            capture_output=True,
            cwd=tmp_path,
            check=False,
        )

    def says_all(done: subprocess.CompletedProcess[bytes]) -> bool:
        stdout = done.stdout.decode()
        found = [re.search(pattern, stdout) for pattern in run.get("patterns", ())]
        return 124 not in run["statuses"] or (stdout == run.get("output", stdout) and all(found))

    done = far_enough(done_in, says_all)
    stdout, stderr = done.stdout.decode(), done.stderr.decode()
    assert done.returncode in run["statuses"], stderr or stdout
    if "output" in run:
        assert stdout == run["output"]
    position = 0
    for pattern in run.get("patterns", ()):
        found = re.compile(pattern).search(stdout, max(0, position - 1))  # lines share their line feed
        assert found, f"{pattern!r} not in {stdout[position:]!r}"
        position = found.end()
    assert re.search(run.get("complaint", ""), stderr)
