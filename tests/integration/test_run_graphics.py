"""Guests in graphics: the same picture by every way to run them, and what is told and written."""

from __future__ import annotations

import base64
import io
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest

from kvmbox import Machine
from kvmbox.base.errors import ExpectError
from kvmbox.parts.screen.picture import Picture
from tests.support.graphics_guests import PICTURES, assemble
from tests.support.patience import patience
from tests.support.runs import KVMBOX, Run, run_to_end

pytestmark = [
    pytest.mark.kvm,
    pytest.mark.skipif(shutil.which("cc") is None, reason="cc not found: boot sectors cannot be assembled"),
]

WAYS: Final[dict[str, dict[str, Any]]] = {
    "default": {},
    "none": {"sandbox": "none"},
    "socketpair": {"ipc": "socketpair"},
    "two CPUs": {"cpus": 2},
}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("graphics")
    return {name: assemble(name, folder) for name in PICTURES}


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("way", WAYS)
def test_picture_is_the_same_however_the_device_runs(
    images: dict[str, Path], name: str, way: str, half: str
) -> None:
    del half
    with Machine(images[name], timeout=patience(60), **WAYS[way]) as vm:
        vm.wait()
    picture = vm.screen.picture
    assert (picture.width, picture.height, picture.sha256) == PICTURES[name]


@pytest.mark.parametrize("name", ["chained", "planar"])
def test_picture_goes_to_a_file_and_its_hash_to_json(
    images: dict[str, Path], name: str, tmp_path: Path
) -> None:
    png, facts = tmp_path / "it.png", tmp_path / "it.json"
    status, output, messages = run_to_end(
        Run(images[name], "--picture", str(png), "--json", str(facts), "--debugcon", "null")
    )
    width, height, digest = PICTURES[name]
    assert (status, output) == (0x55, b"")
    assert messages == f"kvmbox: picture '{png}' written: {width} x {height} pixels\n"
    assert png.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    told = json.loads(facts.read_text())["screen"]["picture"]
    assert base64.b64decode(told.pop("png")) == png.read_bytes()
    assert told == {"width": width, "height": height, "sha256": digest}


@pytest.mark.parametrize(
    ("guest", "arguments", "told"),
    [
        ("vbe", ("--append", "320 200 16"), "320 x 200 pixels"),
        ("hello64", (), "text"),
        ("screen", (), "text"),
    ],
)
def test_picture_of_a_guest_without_a_disk_goes_to_a_file(
    guest: str, arguments: tuple[str, ...], told: str, tmp_path: Path
) -> None:
    """Its VMM has confined itself more narrowly than one with a boot sector."""
    image = pytest.importorskip("PIL.Image")
    png = tmp_path / "it.png"
    _, _, messages = run_to_end(Run(guest, *arguments, "--picture", str(png), "--debugcon", "null"))
    assert f"kvmbox: picture '{png}' written: {told}\n" in messages
    with image.open(png) as opened:
        assert opened.mode == "RGB"


def test_picture_that_nobody_is_shown_is_told_of(images: dict[str, Path]) -> None:
    _, _, messages = run_to_end(Run(images["planar"]))
    assert messages.startswith("kvmbox: a picture of 640 x 480 pixels: '--screen live', '--vnc ")


def test_png_has_the_pixels(images: dict[str, Path]) -> None:
    image = pytest.importorskip("PIL.Image")
    with Machine(images["pixels-04"], timeout=patience(60)) as vm:
        vm.wait()
    assert image.open(io.BytesIO(vm.screen.png())).tobytes() == vm.screen.picture.rgb


@pytest.mark.parametrize("name", ["chained", "unchained", "planar"])
def test_picture_of_a_guest_that_was_saved_while_it_drew_is_the_same(
    images: dict[str, Path], name: str, tmp_path: Path
) -> None:
    path = tmp_path / "half.snap"
    with Machine(images[name], timeout=patience(60), snapshot_when=[f"port:0x5f0={path}"]) as vm:
        vm.wait()
    with Machine.from_snapshot(path, timeout=patience(60)) as resumed:
        resumed.wait()
    for machine in (vm, resumed):
        assert machine.screen.picture.sha256 == PICTURES[name][2]


def test_recording_of_a_guest_that_draws_is_replayed(images: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "it.rec"
    run_to_end(Run(images["unchained"], "--record", str(path)))
    assert subprocess.run([*KVMBOX, "replay", str(path)], check=False).returncode == 0


def test_window_that_is_behind_a_shim_is_the_same(images: dict[str, Path]) -> None:
    with Machine(images["planar"], timeout=patience(60), inject=["VGA:all-ones=0.000000001"]) as vm:
        vm.wait()
    assert vm.screen.picture.sha256 == PICTURES["planar"][2]


def test_picture_is_waited_for(images: dict[str, Path], tmp_path: Path) -> None:
    with Machine(images["chained"], timeout=patience(60)) as vm:
        vm.wait(patience(60))
        shown = vm.screen.picture
    other = Picture(shown.width, shown.height, bytes(len(shown.rgb)))
    (tmp_path / "wanted.png").write_bytes(shown.png())
    with Machine(images["chained"], timeout=patience(60)) as vm:
        assert vm.expect_picture(tmp_path / "wanted.png", patience(60)) == shown
        assert vm.expect_picture(other, patience(60), within=1) == shown
        corner = shown.region(0, 0, 8, 8)
        assert vm.screen.picture.region(0, 0, 8, 8).sha256 == corner.sha256
        assert vm.expect_picture(shown, patience(60), region=(0, 0, 8, 8)) == shown
        with pytest.raises(ExpectError, match=r"the picture was not seen on the screen .*; it differs by 0"):
            vm.expect_picture(other, 0)


@pytest.fixture(scope="module")
def wanted(images: dict[str, Path]) -> Path:
    """A file with the picture of the guest "chained"."""
    with Machine(images["chained"], timeout=patience(60)) as vm:
        vm.wait()
    path = images["chained"].with_suffix(".png")
    path.write_bytes(vm.screen.png())
    return path


@pytest.mark.parametrize(("name", "status"), [("chained", 0), ("planar", 12)])
def test_run_expects_a_picture(images: dict[str, Path], wanted: Path, name: str, status: int) -> None:
    found, _, messages = run_to_end(Run(images[name], "--expect-picture", wanted, "--timeout", "60"))
    assert found == status
    assert (f"but had not shown the picture '{wanted}'" in messages) == (status == 12)


def test_run_expects_a_picture_that_may_differ_and_a_text(images: dict[str, Path], wanted: Path) -> None:
    white = wanted.with_name("white.png")  # a black one is there for a moment, before the guest draws
    white.write_bytes(Picture(640, 400, b"\xff" * (3 * 640 * 400)).png())
    options = (images["chained"], "--timeout", "60", "--expect-picture")
    assert run_to_end(Run(*options, f"{white},within=1"))[0] == 0
    assert run_to_end(Run(*options, f"{white},within=0.0001"))[0] == 12
    status, _, messages = run_to_end(Run(*options, wanted, "--expect", "no such text"))
    assert (status, "no such text" in messages) == (12, True)


def test_run_expects_a_part_of_a_picture_or_its_hash(images: dict[str, Path], wanted: Path) -> None:
    with Machine(images["chained"], timeout=patience(60)) as vm:
        vm.wait()
    corner = vm.screen.picture.region(8, 16, 64, 32)
    other = wanted.with_name("corner.png")
    black = bytearray(len(vm.screen.picture.rgb))
    for row in range(16, 48):
        at = 3 * (640 * row + 8)
        black[at : at + 3 * 64] = vm.screen.picture.rgb[at : at + 3 * 64]
    other.write_bytes(Picture(640, 400, bytes(black)).png())
    options = (images["chained"], "--timeout", "60", "--expect-picture")
    part = "region=8:16:64x32"
    assert run_to_end(Run(*options, f"{other},{part}"))[0] == 0
    assert run_to_end(Run(*options, f"{other},region=9:16:64x32"))[0] == 12
    assert run_to_end(Run(*options, f"sha256:{corner.sha256},{part}"))[0] == 0
    assert run_to_end(Run(*options, f"sha256:{corner.sha256}"))[0] == 12
    assert run_to_end(Run(*options, f"sha256:{PICTURES['chained'][2]}"))[0] == 0
    assert run_to_end(Run(*options, f"{other},region=600:0:41x1"))[0] == 2


@pytest.mark.parametrize(
    "value",
    [
        "",
        "x.png,within=2",
        "x.png,within=x",
        "x.png,region=1:2:3",
        "x.png,region=0:0:0x9",
        "sha256:12",
        f"sha256:{'0' * 64},within=0.1",
    ],
)
def test_picture_that_cannot_be_expected_is_refused(value: str) -> None:
    status, output, messages = run_to_end(Run("hello32", "--expect-picture", value))
    assert (status, output) == (2, b"")
    assert "picture" in messages


def test_run_does_not_start_without_the_picture_that_it_expects() -> None:
    pytest.importorskip("PIL.Image")
    status, output, messages = run_to_end(Run("hello32", "--expect-picture", "/no/such.png"))
    assert (status, output) == (4, b"")
    assert "picture '/no/such.png'" in messages


def test_suite_expects_a_picture(images: dict[str, Path], wanted: Path, tmp_path: Path) -> None:
    tests = [
        ("right", images["chained"], f"expect_picture = '{wanted.name}'"),
        ("wrong", images["planar"], f"expect_picture = '{wanted.name}'"),
        ("hash", images["planar"], f"expect_picture = 'sha256:{PICTURES['planar'][2]}'"),
    ]
    shutil.copy(wanted, tmp_path)
    suite = tmp_path / "suite.toml"
    suite.write_text(
        "".join(f"[[test]]\nname = '{name}'\nimage = '{image}'\n{more}\n" for name, image, more in tests)
    )
    done = subprocess.run(
        [*KVMBOX, "smoke", suite, "--history", "none", "--jsonl", "-"],
        capture_output=True,
        text=True,
        check=False,
    )
    events = map(json.loads, done.stdout.splitlines())
    verdicts = {event["name"]: event["verdict"] for event in events if event["event"] == "result"}
    assert verdicts == {"right": "pass", "wrong": "fail", "hash": "pass"}
