"""The scripts of the action and of GitLab's template, run as a runner would, with guests."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.support.junit_xml import read_junit
from tests.support.runs import command_in

pytestmark = [
    pytest.mark.kvm,
    pytest.mark.skipif(shutil.which("bash") is None, reason="bash not found"),
]

ROOT: Final = Path(__file__).parents[2]
INSTALLED: Final = "/opt/kvmbox/bin/kvmbox"

SUITE: Final = """
[[test]]
name = "good"
image = "hello32"
expect = "protected mode"

[[test]]
name = "bad"
image = "hello64"
expect = "what nobody prints"
"""


def read_yaml(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def cases_in(report: Path) -> list[str]:
    """The names of the test cases in a JUnit file."""
    return [case.attrib["name"] for case in read_junit(report.read_text(encoding="utf-8")).iter("testcase")]


class Runner:
    """A directory with a suite, and the environment of a job in it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.temp = directory / "temp"
        self.command = command_in(self.temp / "kvmbox-venv/bin")
        self.checkout = directory / "checkout"
        self.checkout.mkdir()
        (self.checkout / "suite.toml").write_text(SUITE, encoding="utf-8")
        # A file of the repository must not leave out tests.
        (self.checkout / "kvmbox.toml").write_text('[smoke]\nfilter = ["good"]\n', encoding="utf-8")
        self.output = directory / "output"
        self.summary = directory / "summary"
        self.output.touch()
        self.summary.touch()

    def run(self, script: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run `script` with the options that GitHub gives to bash; GitLab's are no stricter."""
        return subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
            cwd=self.checkout,
            env=os.environ | {"RUNNER_TEMP": str(self.temp), "HOME": str(self.directory)} | variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return Runner(tmp_path)


def run_action(runner: Runner, suites: str, options: str) -> subprocess.CompletedProcess[str]:
    action = read_yaml("action.yml")
    (step,) = [step for step in action["runs"]["steps"] if step.get("id") == "smoke"]
    return runner.run(
        step["run"],
        KVMBOX_CONFIG=action["inputs"]["config"]["default"],
        KVMBOX_SUITES=suites,
        KVMBOX_OPTIONS=options,
        GITHUB_ACTIONS="true",
        GITHUB_OUTPUT=str(runner.output),
        GITHUB_STEP_SUMMARY=str(runner.summary),
    )


def test_action_failing_suite_fails_the_job_and_leaves_every_report(runner: Runner) -> None:
    job = run_action(runner, "suite.toml\nhello32\n", "--timeout 120\n--jobs 2\n")
    assert job.returncode == 12, job.stderr
    results = runner.temp / "kvmbox-results"
    assert runner.output.read_text() == f"status=12\njunit={results}/junit.xml\n"
    assert len(cases_in(results / "junit.xml")) == 3
    assert (results / "results.jsonl").read_text().count('"result"') == 3
    assert any((results / "failures").iterdir())
    assert "bad" in runner.summary.read_text()
    assert "::error" in job.stdout + job.stderr


def test_action_input_with_shell_syntax_stays_a_word(runner: Runner) -> None:
    job = run_action(runner, "$(touch gone) ; touch gone", "--jobs 1 --timeout 120")
    assert job.returncode == 2
    assert not (runner.checkout / "gone").exists()
    assert "status=2\n" in runner.output.read_text()


def test_action_two_uses_do_not_mix_their_reports(runner: Runner) -> None:
    assert run_action(runner, "suite.toml", "--timeout 120").returncode == 12
    assert run_action(runner, "hello32", "--timeout 120").returncode == 0
    results = runner.temp / "kvmbox-results"
    assert len(cases_in(results / "junit.xml")) == 1
    assert not (results / "failures").exists() or not any((results / "failures").iterdir())


@pytest.mark.parametrize(
    ("shard", "status"), [({}, 12), ({"CI_NODE_INDEX": "1", "CI_NODE_TOTAL": "3"}, None)]
)
def test_template_script_runs_the_suites_of_the_variables(
    runner: Runner, shard: dict[str, str], status: int | None
) -> None:
    job = read_yaml("ci-templates/gitlab-kvmbox.yml")[".kvmbox-smoke"]
    script = "\n".join(job["script"])
    assert INSTALLED in script
    variables = job["variables"] | {"SMOKE_SUITES": "suite.toml hello32", "SMOKE_OPTIONS": "--timeout 120"}
    ran = runner.run(script.replace(INSTALLED, str(runner.command)), **variables, **shard)
    report = cases_in(runner.checkout / job["artifacts"]["reports"]["junit"])
    assert status in (None, ran.returncode), ran.stderr
    assert len(report) == (1 if shard else 3)


def test_template_installs_nothing_that_nobody_has_named(runner: Runner) -> None:
    job = read_yaml("ci-templates/gitlab-kvmbox.yml")[".kvmbox-smoke"]
    first, *_ = job["before_script"]
    ran = runner.run(f"{first}\necho goes on", **job["variables"])
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "KVMBOX_INSTALL" in ran.stderr
    named = job["variables"] | {"KVMBOX_INSTALL": "git+https://host/owner/kvmbox@v1"}
    assert runner.run(f"{first}\necho goes on", **named).stdout == "goes on\n"
