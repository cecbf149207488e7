"""The examples build with the host's tools, and their suites pass."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.runs import KVMBOX

pytestmark = pytest.mark.kvm

EXAMPLES: Final = Path(__file__).parents[2] / "examples"
RUST_TARGET: Final = "x86_64-unknown-none"


def why_no_rust() -> str | None:
    """What is missing for a kernel in Rust, or None."""
    for tool in ("cargo", "rustc"):
        if shutil.which(tool) is None:
            return f"{tool} not found"
    ask = ["rustc", "--print", "target-libdir", "--target", RUST_TARGET]
    answer = subprocess.run(ask, capture_output=True, text=True, check=False)
    if answer.returncode:
        return f"rustc does not work: {answer.stderr.strip()[:200]}"
    if not list(Path(answer.stdout.strip()).glob("libcore-*.rlib")):
        return f"rustc has no core library for {RUST_TARGET}: rustup target add {RUST_TARGET}"
    return None


def built(name: str, directory: Path) -> Path:
    """A copy of the example, with its image."""
    copy = directory / name
    shutil.copytree(EXAMPLES / name, copy, ignore=shutil.ignore_patterns("*.o", "*.elf", "target"))
    # The image is where the suite looks for it, whatever the caller's environment says.
    unset = ("CARGO_TARGET_DIR", "CARGO_BUILD_TARGET", "RUSTFLAGS", "MAKEFLAGS", "CFLAGS", "LDFLAGS")
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    made = subprocess.run(["make"], cwd=copy, env=environment, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    return copy


def smoke(suite: Path) -> tuple[int, list[dict[str, Any]], str]:
    """Status, results and messages of `kvmbox smoke` on the suite."""
    run = subprocess.run(
        [*KVMBOX, "smoke", "--history", "none", "--jsonl", "-", "--timeout", "120", suite],
        env=os.environ | {"KVMBOX_CONFIG": "none"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    events = [json.loads(line) for line in run.stdout.splitlines()]
    return run.returncode, [event for event in events if event["event"] == "result"], run.stderr


@pytest.mark.parametrize("name", ["asm", "c", "rust"])
def test_example_builds_and_passes_its_suite(name: str, tmp_path: Path) -> None:
    missing = [tool for tool in ("cc", "ld", "make") if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"not found: {', '.join(missing)}")
    if name == "rust" and (problem := why_no_rust()):
        pytest.skip(problem)
    suite = built(name, tmp_path) / "suite.toml"
    status, results, messages = smoke(suite)
    assert status == 0, messages
    wanted = [test["name"] for test in tomllib.loads(suite.read_text(encoding="utf-8"))["test"]]
    assert [(result["name"], result["verdict"]) for result in results] == [(test, "pass") for test in wanted]


@pytest.mark.parametrize(
    ("tool", "commands"),
    [
        ("cmake", ("cmake -B build", "cmake --build build", "ctest --test-dir build --output-on-failure")),
        ("meson", ("meson setup build", "meson test -C build --print-errorlogs")),
    ],
)
def test_example_in_c_is_built_and_booted_by_other_tools(
    tool: str, commands: tuple[str, ...], tmp_path: Path
) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # meson and ninja come from PyPI
    missing = [name for name in (tool, "cc", "ld", "kvmbox") if shutil.which(name, path=path) is None]
    if missing:
        pytest.skip(f"not found: {', '.join(missing)}")
    copy = tmp_path / "c"
    shutil.copytree(EXAMPLES / "c", copy, ignore=shutil.ignore_patterns("*.o", "*.elf"))
    environment = os.environ | {"PATH": path, "KVMBOX_CONFIG": "none"}
    for command in commands:
        done = subprocess.run(
            command.split(), cwd=copy, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_cargo_boots_the_kernel_and_its_tests(tmp_path: Path) -> None:
    kvmbox = Path(sys.executable).with_name("kvmbox")
    if problem := why_no_rust():
        pytest.skip(problem)
    copy = tmp_path / "rust"
    shutil.copytree(EXAMPLES / "rust", copy, ignore=shutil.ignore_patterns("target"))
    environment = os.environ | {"PATH": f"{kvmbox.parent}:{os.environ['PATH']}", "KVMBOX_CONFIG": "none"}
    for command, told in (("run", "the sum of ten squares is 385"), ("test", "squares: ok")):
        done = subprocess.run(
            ["cargo", command], cwd=copy, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert told in done.stdout


@pytest.mark.skipif(shutil.which("cc") is None or shutil.which("make") is None, reason="cc or make not found")
@pytest.mark.parametrize(
    ("name", "source", "right", "wrong", "reason"),
    [
        ("asm", "kernel.S", "mov     $16, %al", "mov     $17, %al", "status 35"),
        ("c", "kernel.c", "0xd789a3ac", "0xd789a3ad", "1 of 2 failed"),
    ],
)
def test_suite_of_an_example_notices_a_broken_kernel(
    name: str, source: str, right: str, wrong: str, reason: str, tmp_path: Path
) -> None:
    copy = built(name, tmp_path)
    text = (copy / source).read_text(encoding="utf-8")
    assert right in text
    (copy / source).write_text(text.replace(right, wrong), encoding="utf-8")
    subprocess.run(["make", "-B"], cwd=copy, capture_output=True, check=True)
    status, results, _ = smoke(copy / "suite.toml")
    assert status == 12
    assert {result["verdict"] for result in results} == {"fail"}
    assert any(reason in result["reason"] for result in results)
