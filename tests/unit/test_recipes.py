"""The recipes for CI against the code: each parses, and names only commands, options and files that exist."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any, Final

import click
import pytest
import yaml

from kvmbox import __version__
from kvmbox.cli import main

ROOT: Final = Path(__file__).parents[2]
ACTION: Final = ROOT / "action.yml"
TEMPLATE: Final = ROOT / "ci-templates/gitlab-kvmbox.yml"
BENCH: Final = ROOT / ".github/workflows/bench.yml"
CONTAINERFILE: Final = ROOT / "Containerfile"
PROJECT: Final[dict[str, Any]] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PAGE: Final = ROOT / "docs/ci.md"
EXAMPLES: Final = sorted(path.parent for path in (ROOT / "examples").glob("*/suite.toml"))
PIPELINES: Final = sorted(
    path
    for example in EXAMPLES
    for path in (*example.glob(".github/workflows/*.yml"), *example.glob(".gitlab-ci.yml"))
)
EXAMPLES_WORKFLOWS: Final = [path for path in PIPELINES if path.name != ".gitlab-ci.yml"]


def path_id(path: Path) -> str:
    return str(path.relative_to(ROOT))


def read_yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def options_of(command_name: str) -> set[str]:
    command = main.cli.get_command(click.Context(main.cli), command_name)
    assert command is not None
    return {name for parameter in command.params for name in parameter.opts} | {"--help"}


def options_named(text: str) -> set[tuple[str, str]]:
    """Each `kvmbox COMMAND … --option`, as the command and the option; a line that ends with \\ goes on."""
    text = re.sub(r"\\\n", " ", text)
    return {
        (command, option)
        for command, rest in re.findall(r"kvmbox(?:\"|')? ([a-z]+)\b(.*)", text)
        for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", rest.partition(" -- ")[0])
    }


def scripts_of_the_action() -> list[dict[str, Any]]:
    return [step for step in read_yaml(ACTION)["runs"]["steps"] if "run" in step]


def assert_options_exist(text: str, least: set[tuple[str, str]]) -> None:
    named = options_named(text)
    assert least <= named  # the pattern finds something
    for command, option in named:
        assert command in main.COMMANDS, command
        assert option in options_of(command), (command, option)


# --- The action --------------------------------------------------------------------------------------------


def test_action_options_all_exist() -> None:
    text = "\n".join(step["run"] for step in scripts_of_the_action())
    assert_options_exist(text, {("smoke", "--junit"), ("smoke", "--logs")})
    assert read_yaml(ACTION)["inputs"]["options"]["default"].split()[0] in options_of("smoke")


def test_action_scripts_have_no_expression_that_an_input_could_break_out_of() -> None:
    for step in scripts_of_the_action():
        assert "${{" not in step["run"], step["name"]
        assert step["shell"] == "bash"


def test_action_inputs_and_outputs_are_described_and_used() -> None:
    action = read_yaml(ACTION)
    text = ACTION.read_text(encoding="utf-8")
    documented = PAGE.read_text(encoding="utf-8")
    for name, given in action["inputs"].items():
        assert given["description"], name
        assert given.get("required") or "default" in given, name
        assert re.search(rf"\binputs\.{name}\b", text), name
        assert f"`{name}`" in documented, name
    steps = {step["id"]: step["run"] for step in action["runs"]["steps"] if "id" in step}
    for name, output in action["outputs"].items():
        step, _, key = re.findall(r"steps\.(\w+)\.(outputs)\.(\w+)", output["value"])[0]
        assert f'"{key}=$' in steps[step], name


def test_action_gives_the_status_of_the_suites_to_the_job() -> None:
    (script,) = [step["run"] for step in scripts_of_the_action() if step.get("id") == "smoke"]
    assert script.rstrip().endswith('exit "$status"')


# --- The template for GitLab -------------------------------------------------------------------------------


def test_template_options_all_exist() -> None:
    job = read_yaml(TEMPLATE)[".kvmbox-smoke"]
    assert_options_exist("\n".join(job["script"]), {("smoke", "--junit"), ("smoke", "--shard")})
    assert job["variables"]["SMOKE_OPTIONS"].split()[0] in options_of("smoke")


def test_template_keeps_what_its_command_writes() -> None:
    job = read_yaml(TEMPLATE)[".kvmbox-smoke"]
    command = "\n".join(job["script"])
    (report,) = re.findall(r"--junit (\S+)", command)
    assert job["artifacts"]["reports"]["junit"] == report
    assert job["artifacts"]["when"] == "always"
    folder = report.split("/", maxsplit=1)[0]
    assert f"mkdir -p {folder}" in command
    assert job["artifacts"]["paths"] == [f"{folder}/"]


# --- The examples ------------------------------------------------------------------------------------------


def test_examples_are_there() -> None:
    assert [example.name for example in EXAMPLES] == ["asm", "c", "rust"]
    assert len(PIPELINES) == 2 * len(EXAMPLES)


@pytest.mark.parametrize("example", EXAMPLES, ids=path_id)
def test_example_has_a_page_and_is_named_by_the_page_of_ci(example: Path) -> None:
    assert (example / "README.md").read_text(encoding="utf-8").startswith("# ")
    assert f"../examples/{example.name}/README.md" in PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", PIPELINES, ids=path_id)
def test_pipeline_of_an_example_uses_what_there_is(path: Path) -> None:
    pipeline = read_yaml(path)
    example = next(example for example in EXAMPLES if path.is_relative_to(example))
    if path.name == ".gitlab-ci.yml":
        (included,) = pipeline["include"]
        assert (ROOT / included["local"]) == TEMPLATE
        job = pipeline["boot"]
        assert job["extends"] in read_yaml(TEMPLATE)
        suites, options = job["variables"]["SMOKE_SUITES"], job["variables"]["SMOKE_OPTIONS"]
        assert job["variables"]["KVMBOX_INSTALL"]
        (kept,) = pipeline["build"]["artifacts"]["paths"]
        suite = tomllib.loads((example / "suite.toml").read_text(encoding="utf-8"))
        assert kept == suite["defaults"]["image"]  # what one job builds, the next one boots
    else:
        (step,) = [step for step in pipeline["jobs"]["boot"]["steps"] if "with" in step]
        assert set(step["with"]) <= set(read_yaml(ACTION)["inputs"])
        suites, options = step["with"]["suites"], step["with"]["options"]
    assert (example / suites).exists()
    assert {word for word in options.split() if word.startswith("-")} <= options_of("smoke")


def test_tasks_of_an_editor_name_commands_and_options_that_exist() -> None:
    folder = ROOT / "examples/c/.vscode"
    tasks = json.loads((folder / "tasks.json").read_text(encoding="utf-8"))["tasks"]
    by_name = {task["label"]: task for task in tasks}
    for task in tasks:
        assert task.get("dependsOn", "build") in by_name
        if task["command"] == "kvmbox":
            name, *words = task["args"]
            assert {word for word in words if word.startswith("-")} <= options_of(name)
    (launch,) = json.loads((folder / "launch.json").read_text(encoding="utf-8"))["configurations"]
    waiting = by_name[launch["preLaunchTask"]]
    assert launch["miDebuggerServerAddress"].endswith(waiting["args"][-1])
    # What kvmbox prints when it listens: see tests/integration/test_run_gdb.py.
    assert waiting["problemMatcher"]["background"]["endsPattern"] == "waits for a client"


def test_runner_of_cargo_names_options_that_exist() -> None:
    config = tomllib.loads((ROOT / "examples/rust/.cargo/config.toml").read_text(encoding="utf-8"))
    program, command, *words = config["target"]["x86_64-unknown-none"]["runner"]
    assert (program, command) == ("kvmbox", "run")
    assert {word for word in words if word.startswith("-")} <= options_of("run")


@pytest.mark.parametrize(
    ("kind", "paths"),
    [
        ("github-workflows", [*ROOT.glob(".github/workflows/*.yml"), *EXAMPLES_WORKFLOWS]),
        ("github-actions", [ACTION]),
        ("gitlab-ci", [TEMPLATE, *(path for path in PIPELINES if path not in EXAMPLES_WORKFLOWS)]),
        ("readthedocs", [ROOT / ".readthedocs.yaml"]),
    ],
)
def test_recipes_fit_the_schemas_of_those_who_read_them(kind: str, paths: list[Path]) -> None:
    """check-jsonschema has these schemas in it."""
    program = shutil.which("check-jsonschema", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if program is None:
        pytest.skip("check-jsonschema is not installed")
    command = [program, "--builtin-schema", f"vendor.{kind}", *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


# --- The container and the page ----------------------------------------------------------------------------


def test_containerfile_runs_kvmbox_without_root() -> None:
    lines = CONTAINERFILE.read_text(encoding="utf-8").splitlines()
    (user,) = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert re.fullmatch(r"[1-9]\d*(:[1-9]\d*)?", user)  # a number: runtimes can check that it is not root
    assert 'ENTRYPOINT ["kvmbox"]' in lines
    for line in lines:
        if line.startswith("COPY ") and "--from" not in line:
            for source in line.split()[1:-1]:
                assert (ROOT / source).exists(), source


def test_page_names_options_that_exist() -> None:
    assert_options_exist(
        PAGE.read_text(encoding="utf-8"), {("smoke", "--timeout"), ("run", "--serial-limit")}
    )


def test_workflow_that_measures_names_options_and_targets_that_exist() -> None:
    scripts = [step["run"] for step in read_yaml(BENCH)["jobs"]["bench"]["steps"] if "run" in step]
    assert_options_exist("\n".join(scripts), {("bench", "--peer"), ("bench", "--markdown")})
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    stamps = re.findall(r"\.venv/(\.kvmbox-[a-z]+)", "\n".join(scripts))
    assert stamps
    for stamp in stamps:
        assert f"$(VENV)/{stamp}\n" in makefile


def test_release_boots_each_python_that_it_builds_for() -> None:
    jobs = read_yaml(ROOT / ".github/workflows/release.yml")["jobs"]
    pythons = jobs["boot"]["strategy"]["matrix"]["python"]
    built = PROJECT["tool"]["cibuildwheel"]["build"].split()
    assert built == [f"cp{version.replace('.', '')}-*" for version in pythons]
    scripts = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    text = "\n".join((*scripts, *PROJECT["tool"]["cibuildwheel"]["test-command"]))
    assert_options_exist(text, {("smoke", "--history")})
    # Only the job that drafts may write anything, and it runs nothing of a guest.
    assert [name for name, job in jobs.items() if "permissions" in job] == ["draft"]
    assert not any("${{" in script for script in scripts)


def test_flake_has_the_version_and_the_dependencies_of_the_project() -> None:
    flake = (ROOT / "flake.nix").read_text(encoding="utf-8")
    assert f'version = "{__version__}"' in flake
    for wanted in (*PROJECT["project"]["dependencies"], *PROJECT["build-system"]["requires"]):
        assert re.split("[>=]", wanted)[0] in flake


@pytest.fixture
def hook(tmp_path: Path) -> Any:
    """The build hook of a wheel, whose sources are in `tmp_path`."""
    pytest.importorskip("hatchling")
    loaded = spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert loaded is not None
    assert loaded.loader is not None
    module = module_from_spec(loaded)
    loaded.loader.exec_module(module)
    made = module.GuestBuildHook(str(tmp_path), {}, None, None, "", "wheel")
    made.built = [tmp_path / path for path in module.BUILT]
    return made


def test_wheel_without_a_compiler_takes_what_the_sources_have_built(
    hook: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("KVMBOX_PURE", "1")
    with pytest.raises(SystemExit, match=r"hint: install make and a C compiler .* or take a wheel"):
        hook.initialize("editable", {})
    for path in hook.built:
        path.parent.mkdir(parents=True)
        path.touch()
    data: dict[str, Any] = {}
    hook.initialize("editable", data)
    assert data["tag"].startswith("py3-none-")


def test_compiled_wheel_does_not_say_that_it_is_pure(
    hook: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where purelib and platlib are two folders, an installer would put libraries into the wrong one."""
    monkeypatch.delenv("KVMBOX_PURE", raising=False)
    for path in (*hook.built, tmp_path / "tools/build_accelerator.py"):
        path.parent.mkdir(parents=True)
        path.touch()
    for folder in ("guests", "launcher"):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "Makefile").write_text("all:\n", encoding="utf-8")
    data: dict[str, Any] = {"artifacts": []}
    hook.initialize("editable", data)
    assert data["tag"].endswith("-linux_x86_64")
    assert data["pure_python"] is False
    (library,) = data["artifacts"]
    assert library.startswith("kvmbox/*/*.cpython-")


def test_source_distribution_includes_the_recipes_and_what_is_built() -> None:
    target = PROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]
    included = target["include"]
    assert target["artifacts"] == ["kvmbox/guest_images/*", "launcher/build/*"]
    for name in ("action.yml", "ci-templates", "examples", "Containerfile", ".dockerignore"):
        assert name in included
