"""Who may import whom, who may touch the host, who may print: `tools/layers.toml`, in the source.

Imports count wherever they stand, lazy ones inside of functions too; those that only the type checker sees
count where the rule is about who knows whom, and not where it is about what is loaded.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from kvmbox.contract.catalog import MODELS
from kvmbox.contract.device_spec import Queues
from kvmbox.devices.e1000.board import DescriptorRings
from kvmbox.remote.process.spawner_client import COMPILED_ENTRY, DEFAULT_ENTRY, INTERPRETER_FLAGS
from kvmbox.run.parts import MONITOR, ORDER
from tools import layers
from tools.layers import (
    FLOORS,
    MODULES,
    PACKAGE,
    PROJECT,
    RULES,
    closure,
    floor_of,
    group_of,
    imports_of,
    module_name,
    runs_up,
    tree_of,
)

PURE: Final = RULES["pure"]
CONFINED: Final = RULES["confined"]

HOST_MODULES: Final = {
    *("asyncio", "ctypes", "fcntl", "io", "logging", "mmap", "multiprocessing", "os", "pathlib", "random"),
    *("secrets", "select", "signal", "socket", "_socket", "subprocess", "sys", "termios", "threading"),
    *("time", "datetime", "uuid"),
}


COMPILED: Final = {
    module_name(path): set(re.findall(r"^from (kvmbox[.\w]*)", path.read_text("utf-8"), re.MULTILINE))
    for path in sorted(PACKAGE.rglob("*.pyx"))
}
"""Compiled module → the modules and packages of kvmbox that it imports."""


def foreign_imports(modules: set[str]) -> dict[str, set[str]]:
    """What `modules` import from outside of kvmbox, by module."""
    return {name: {found for found in imports_of(name) if found not in MODULES} for name in modules}


def calls_of(name: str) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree_of(name)):
        if isinstance(node, ast.Call):
            yield node.lineno, ast.unparse(node.func)


# --- One way ---------------------------------------------------------------------------------------------


def test_imports_of_kvmbox_go_one_way() -> None:
    assert layers.upward() == []


@pytest.mark.parametrize(
    ("group", "other"),
    [
        *(("base", "run"), ("run", "parts.gdb"), ("parts.gdb", "parts.net"), ("devices", "devices.vmm")),
        *(("remote", "devices.vmm"), ("tools.smoke", "tools.bench")),
    ],
)
def test_what_runs_up_or_beside_is_found(group: str, other: str) -> None:
    assert runs_up(group, other)


def test_each_exception_is_needed() -> None:
    found = {
        (group_of(name), group_of(other))
        for name in MODULES
        for other in imports_of(name)
        if other in MODULES
    }
    assert {(group, other) for group, others in RULES["beside"].items() for other in others} <= found


def test_model_imports_the_contract_base_and_its_own_folder() -> None:
    models = [path for path in PACKAGE.glob("devices/*/*.py") if path.stem not in RULES["models"]["but"]]
    assert len(models) > 50
    for name in map(module_name, models):
        own = ".".join(name.split(".")[:3])
        for other in imports_of(name, typing=True) & set(MODULES):
            near = other == own or other.startswith(f"{own}.")
            assert near or group_of(other) in RULES["models"]["import"], (name, other)
            assert other.rpartition(".")[2] not in RULES["models"]["but"], (name, other)


def test_no_two_modules_have_one_name() -> None:
    names: dict[str, list[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        if path.stem not in RULES["names"]["shared"] and path.parent != PACKAGE / "cli":
            names.setdefault(path.stem, []).append(module_name(path))
    assert [modules for modules in names.values() if len(modules) > 1] == []


def test_files_of_the_bios_call_each_other_in_no_circle() -> None:
    calls = layers.calls_of_the_bios()
    assert calls["start.c"] > {"vmm.c", "vbe.c"}
    assert layers.circles(calls) == []


def test_launcher_names_no_other_folder_of_the_tree_but_its_own() -> None:
    others = {path.name for path in PROJECT.iterdir() if path.is_dir()} - {"launcher", "kvmbox"}
    for path in (PROJECT / "launcher").iterdir():
        if path.is_file():
            text = re.sub(r"/\*.*?\*/", "", path.read_text("utf-8"), flags=re.DOTALL)
            assert not [name for name in others if re.search(rf"(?<![\w.]){re.escape(name)}/", text)], path


def test_compiled_modules_import_what_is_pure_or_runs_where_they_do() -> None:
    found = {name: sorted({group_of(other) for other in used}) for name, used in COMPILED.items()}
    assert found == RULES["compiled"]


def test_what_every_device_shares_knows_no_chip() -> None:
    shared = [name for name in MODULES if group_of(name) in ("remote", "jail", "wire", "contract")]
    found = {(name, other) for name in shared for other in imports_of(name, typing=True)}
    assert {pair for pair in found if pair[1].startswith("kvmbox.devices")} == set()


def test_each_package_has_one_floor() -> None:
    packages = {group_of(name).partition(".")[0] for name in MODULES} - {""}
    assert sorted(folder for floor in FLOORS for folder in floor) == sorted([*packages, "devices.vmm"])
    assert all(floor["says"].endswith(".") for floor in RULES["floors"])


def test_modules_do_not_import_each_other_in_circles_not_even_for_the_type_checker() -> None:
    assert layers.circles(layers.imports()) == []


def test_circles_are_found() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": {"e"}, "e": {"d"}, "f": {"a"}}
    assert sorted(len(set(circle)) for circle in layers.circles(graph)) == [2, 3]


def _words(name: str) -> set[str]:
    """The texts of a module that are names with a dot, without "kvmbox." in front and an attribute behind."""
    texts = {
        str(node.value) for node in ast.walk(tree_of(name)) if isinstance(node, ast.Constant) and node.value
    }
    return {
        text.removeprefix("kvmbox.").partition(":")[0]
        for text in texts
        if re.fullmatch(r"[a-z_]+(\.[a-z_]+)+\.?(:\w+)?", text)
    }


def test_core_names_modules_of_parts_in_few_places() -> None:
    core = {name for name in MODULES if floor_of(group_of(name) or "base") >= floor_of("run")}
    assert {"kvmbox.run.run", "kvmbox.remote.process.device_pool", "kvmbox.base.light_typing"} < core
    modules = {name.removeprefix("kvmbox.parts.") for name in MODULES if name.startswith("kvmbox.parts.")}
    found = {name: {word.removeprefix("parts.") for word in _words(name)} & modules for name in core}
    named = {name: set(words) for name, words in RULES["named_by_the_core"].items()}
    assert {name: words for name, words in found.items() if words} == named


@pytest.mark.parametrize("name", RULES["heart"]["modules"])
def test_heart_of_a_run_has_no_word_of_any_part(name: str) -> None:
    words = re.compile(RULES["heart"]["words"], re.IGNORECASE)
    lines = MODULES[f"kvmbox.run.{name}"].read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if words.search(line)] == []


@pytest.mark.parametrize("group", RULES["reach"])
def test_folder_reaches_nothing_of_kvmbox_but_what_is_said(group: str) -> None:
    everything = [name for name in MODULES if group_of(name) == group]
    assert len(everything) > 10
    assert {group_of(name) for name in closure(*everything)} == {*RULES["reach"][group], ""}


def test_only_cli_imports_cli_and_click() -> None:
    for name in MODULES:
        if group_of(name) == "cli":
            continue
        used = {found.partition(".")[0] for found in imports_of(name, typing=True)}
        assert "click" not in used, name
        assert not any(group_of(other) == "cli" for other in imports_of(name) if other in MODULES), name


# --- Pure parts ------------------------------------------------------------------------------------------


PURE_MODULES: Final = [name for name in MODULES if group_of(name) in PURE["folders"]] + PURE["modules"]


@pytest.mark.parametrize("name", PURE_MODULES)
def test_pure_module_and_all_that_it_imports_cannot_reach_the_host(name: str) -> None:
    for module, foreign in foreign_imports(closure(name)).items():
        besides = PURE["imports_besides"].get(module, ())
        assert foreign - {*PURE["standard_library"], *besides} == set(), module


def test_kvm_exits_decode_without_touching_the_host() -> None:
    # The structures of uapi.py are ctypes', which is a way to write down a layout and no call by itself.
    for module, foreign in foreign_imports(closure("kvmbox.kvm.exits") - {"kvmbox.kvm"}).items():
        assert foreign & (HOST_MODULES - {"ctypes"}) == set(), module
    assert "ctypes" not in imports_of("kvmbox.kvm.exits")


@pytest.mark.parametrize("name", [*PURE_MODULES, "kvmbox.kvm.exits"])
def test_pure_module_calls_no_built_in_that_does_io_or_runs_text(name: str) -> None:
    wrong = set(PURE["calls_none_of"]) - set(PURE["calls_besides"].get(name, ()))
    assert [(line, call) for line, call in calls_of(name) if call in wrong] == []


# --- The sandboxed side ----------------------------------------------------------------------------------


def sandboxed_side() -> set[str]:
    entries = [entry.partition(":")[0] for entry in (DEFAULT_ENTRY, COMPILED_ENTRY)]
    return closure("kvmbox.jail.spawner", *entries, *COMPILED["kvmbox.fast.serving"], *models())


def models() -> set[str]:
    return {f"kvmbox.devices.{place.partition(':')[0]}" for place in MODELS.values()}


def test_spawner_and_device_processes_import_little_of_kvmbox() -> None:
    side = sandboxed_side()
    assert {group_of(name) for name in side} == {*CONFINED["folders"], ""}
    # What runs confined is the folder jail/, and all of it does; beside it the compiled serving loop.
    jail = {name for name in MODULES if group_of(name) == "jail"}
    assert {name for name in side if group_of(name) in ("fast", "jail")} == jail | {*CONFINED["fast"]}
    wire = {name for name in side if group_of(name) == "wire"}
    assert wire == {"kvmbox.wire", *(f"kvmbox.wire.{name}" for name in CONFINED["wire"])}
    # Filters are compiled by the VMM: neither libseccomp nor the policy is in the sandbox.
    assert side & {"kvmbox.sandbox.seccomp", "kvmbox.sandbox.policy", "kvmbox.sandbox.listener"} == set()


def test_spawner_and_device_processes_import_little_of_the_standard_library() -> None:
    allowed = {*PURE["standard_library"], *CONFINED["standard_library"], *COMPILED}
    for module, foreign in foreign_imports(sandboxed_side()).items():
        assert foreign - allowed - {*CONFINED["imports_besides"].get(module, ())} == set(), module


def test_spawner_started_as_the_vmm_starts_it_has_no_heavy_module_loaded() -> None:
    code = (
        f"import sys; sys.path += {[str(PROJECT)]!r}; import kvmbox.jail.spawner\n"
        "import kvmbox.jail.device_process\n"
        "print(*sys.modules)"
    )
    # The output is a list of module names; the environment is empty, as the spawner's is.
    done = subprocess.run(
        [sys.executable, *INTERPRETER_FLAGS, "-c", code], env={}, check=True, capture_output=True, text=True
    )
    loaded = set(done.stdout.split())
    assert "kvmbox.contract.catalog" in loaded
    assert loaded & set(CONFINED["never_loaded"]) == set()


# --- Printing and exiting --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in MODULES if group_of(name) != "cli"])
def test_module_outside_of_cli_neither_prints_nor_exits(name: str) -> None:
    wrong: list[tuple[int, str]] = []
    for node in ast.walk(tree_of(name)):
        match node:
            case ast.Call(func=ast.Name(id="print" | "exit" | "quit" | "input")):
                wrong.append((node.lineno, ast.unparse(node.func)))
            case ast.Name(id="SystemExit" | "KeyboardInterrupt"):
                if node.id not in RULES["may_leave"].get(name, ()):
                    wrong.append((node.lineno, node.id))
            case (
                ast.Attribute(
                    value=ast.Name(id="sys"), attr="exit" | "stdout" | "stderr" | "__stdout__" | "__stderr__"
                )
                | ast.Attribute(value=ast.Name(id="os"), attr="_exit" | "abort")
            ):
                text = ast.unparse(node)
                if text not in RULES["may_leave"].get(name, ()):
                    wrong.append((node.lineno, text))
            case ast.ImportFrom(module="sys" | "os", names=names):
                imported = {alias.name for alias in names} & {"exit", "stdout", "stderr", "_exit", "abort"}
                wrong += [(node.lineno, one) for one in imported]
            case _:
                pass
    assert wrong == []


# --- Nothing lies about --------------------------------------------------------------------------------


def _modules_named_in_text() -> set[str]:
    """Modules that are loaded by name: commands, parts, homes of `kvmbox.kvm`, compiled halves, the entry."""
    from kvmbox.cli.main import COMMANDS, module_of

    named = {module_of(command) for command in COMMANDS}
    named |= set(RULES["entries"]["modules"])
    named |= {f"kvmbox.parts.{part}.part" for part in (*ORDER, MONITOR)}
    named |= {f"kvmbox.parts.{word}" for words in RULES["named_by_the_core"].values() for word in words}
    named |= {name for name in MODULES if name.startswith("kvmbox.fast.")}  # `base.compiled`
    named |= {name for name in MODULES if name.rpartition(".")[0] == "kvmbox.kvm"}
    named |= {entry.partition(":")[0] for entry in (DEFAULT_ENTRY, COMPILED_ENTRY)}
    named |= models()
    named |= {f"kvmbox.devices.{grant.vmm}" for grant in (Queues, DescriptorRings)}
    return named & set(MODULES)


def test_every_module_is_reached_from_the_command() -> None:
    assert set(MODULES) - closure("kvmbox.cli.main", *_modules_named_in_text()) == set()


def test_every_file_of_the_package_has_a_docstring_that_says_what_it_is() -> None:
    assert [name for name in MODULES if not ast.get_docstring(tree_of(name))] == []


def test_folders_say_what_lives_there_and_what_does_not() -> None:
    """The first paragraph is what is here; more follows, down to two folders deep."""
    folders = {module_name(path) for depth in ("*", "*/*") for path in PACKAGE.glob(f"{depth}/__init__.py")}
    assert [name for name in folders if "\n\n" not in (ast.get_docstring(tree_of(name)) or "")] == []


def _texts() -> Iterator[Path]:
    for path in sorted(PROJECT.iterdir()):
        # In a worktree of git's, `.git` is a file with the path of the repository.
        known = path.suffix in (".md", ".py", ".toml", "") and path.name not in ("LICENSE", ".git")
        if path.is_file() and known:
            yield path
    for directory in ("kvmbox", "tests", "docs", "guests", "launcher", "tools", ".ci"):
        for path in sorted((PROJECT / directory).rglob("*")):
            if path.is_file() and path.suffix in (".md", ".py", ".S", ".c", ".h", ".ld", ".sh", ".toml", ""):
                yield path


def test_no_file_names_a_path_of_the_machine_it_was_written_on() -> None:
    machine_path = re.compile(r"(?<![\w.])/(?:work|root|home/\w+)/")
    found = []
    for path in _texts():
        if "__pycache__" in path.parts or path == Path(__file__):
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a built image
        found += [(str(path.relative_to(PROJECT)), hit.group()) for hit in machine_path.finditer(text)]
    assert found == []
