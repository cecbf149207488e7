"""Who may import whom, who may touch the host, who may print: the design's rules, read from the source.

Imports count wherever they stand, lazy ones inside of functions too; those that only the type checker sees
count where the rule is about who knows whom, and not where it is about what is loaded.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Final

import pytest

from kvmbox.processes.spawner_client import COMPILED_ENTRY, DEFAULT_ENTRY, INTERPRETER_FLAGS

PROJECT: Final = Path(__file__).parent.parent
PACKAGE: Final = PROJECT / "kvmbox"

MAY_IMPORT: Final[dict[str, set[str]]] = {
    # The bottom: values and pure functions.
    "errors": set(),
    "layout": set(),
    "lean": set(),
    "early": set(),
    "regular": set(),
    "beside": set(),
    "beneath": set(),
    "unix_socket": set(),
    "bus": {"lean"},
    "outcome": {"lean", "screen"},
    "text_search": set(),
    "judge": {"outcome", "text_search"},
    "bundled": {"lean"},
    "board": {"devices", "firmware", "layout", "lean"},
    # What may be compiled; what the .pyx import is checked below.
    "accel": set(),
    # Inside of the jail, and what is spoken with it.
    "devices": {"layout", "lean"},
    "wire": {"devices"},
    "jailed": {"accel", "devices", "wire"},
    # The host's parts, each alone: none of them knows another one's business.
    "firmware": {"errors", "layout", "lean"},
    "memory": {"errors", "firmware", "layout", "lean"},
    "kvm": {"errors", "lean"},
    "cpuid": {"errors", "lean"},
    "boot": {"errors", "firmware", "layout", "lean", "memory", "regular"},
    "sandbox": {"errors", "lean"},
    "host": {"board", "devices", "early", "errors", "judge", "lean", "memory", "outcome"},
    # The VMM's side of device processes.
    "channel": {
        *("accel", "board", "bus", "devices", "errors", "jailed", "lean", "memory", "sandbox", "wire"),
    },
    "processes": {
        "accel",
        "board",
        "channel",
        "early",
        "errors",
        "host",
        "jailed",
        "lean",
        "sandbox",
        "wire",
    },
    # A machine in a file.
    "snapshot": {"beside", "cpuid", "errors", "kvm", "layout", "lean", "memory", "regular"},
    # What puts them together.
    # What a guest's last state tells; `kvm` for its structures alone.
    "explain": {"kvm", "layout", "lean"},
    # Where the CPUs were, added up: reads and writes the files of --profile.
    "profiling": {"errors", "explain", "lean"},
    # Between devices and the guest of a run that injects faults, and no other.
    "inject": {"board", "bus", "channel", "devices", "errors", "lean", "wire"},
    # What a debugger asks and is answered, loaded by --gdb alone.
    "gdb": {"errors", "explain", "kvm", "lean", "unix_socket"},
    # What is on a guest's text screen.
    "screen": {"devices", "errors", "layout", "lean"},
    # The options of a run, which all that starts one has in common.
    "run": {"boot", "channel", "errors", "layout", "lean", "processes"},
    "machine": {
        *(
            "accel",
            "beneath",
            "board",
            "boot",
            "bundled",
            "bus",
            "channel",
            "cpuid",
            "devices",
            "errors",
            "explain",
            "firmware",
            "gdb",
            "host",
            "inject",
            "judge",
            "kvm",
            "layout",
            "lean",
        ),
        "memory",
        *("outcome", "processes", "profiling", "record", "run", "sandbox", "screen", "snapshot", "wire"),
    },
    # Tools on top, loaded by their command alone.
    # A recording is read, checked and replayed where there is no /dev/kvm.
    "record": {
        *("beside", "board", "channel", "devices", "errors", "host", "jailed", "processes", "regular"),
        *("sandbox", "wire"),
    },
    # A board without a CPU, driven over QEMU's test protocol.
    "qtest": {
        *("board", "bus", "channel", "errors", "host", "layout", "memory", "processes", "sandbox", "wire"),
    },
    # What runs in a device process in place of its models, and tries to get out.
    "audit": {"channel", "errors", "processes", "sandbox", "wire"},
    # Starts the product as processes; the floor builds a machine of its own from the same parts.
    "bench": {"accel", "channel", "errors", "kvm", "layout", "machine", "memory", "regular", "warm"},
    "policy": {"channel", "errors", "sandbox"},
    # Suites of guests: a pure core, and executors that boot in warm workers or start the product.
    "smoke": {
        *("beneath", "beside", "bundled", "cpuid", "errors", "host", "kvm", "machine", "outcome"),
        *("regular", "run", "warm"),
    },
    # What pytest loads: the rest is loaded when a test boots a guest.
    "pytest_plugin": {"errors", "machine", "smoke"},
    # Boots many machines, each as the command does it.
    "warm": {"accel", "early", "errors", "host", "lean", "machine", "processes", "run", "sandbox"},
}
"""Package or top-level module → those of kvmbox that it may import, itself apart. `cli` may import all."""

PURE_IMPORTS: Final = {
    "__future__",
    "collections",
    "collections.abc",
    "dataclasses",
    "enum",
    "struct",
    "typing",
}
"""What a pure module may import: nothing in there can look at the host."""

PURE: Final = (
    "kvmbox.bus",
    "kvmbox.board",
    "kvmbox.layout",
    "kvmbox.wire.protocol",
    "kvmbox.sandbox.policy",
    *(f"kvmbox.cpuid.{name}" for name in ("backend_limits", "leaves", "probes", "topology")),
)

LAZY: Final = {"kvmbox": {"importlib"}, "kvmbox.devices": {"importlib"}}
"""Packages with public names that are loaded when they are used: by name, from a table of their own."""

HOST_MODULES: Final = {
    *("asyncio", "ctypes", "fcntl", "io", "logging", "mmap", "multiprocessing", "os", "pathlib", "random"),
    *("secrets", "select", "signal", "socket", "_socket", "subprocess", "sys", "termios", "threading"),
    *("time", "datetime", "uuid"),
}

SPAWNER_STDLIB: Final = {
    *PURE_IMPORTS,
    *("ctypes", "errno", "fcntl", "gc", "importlib", "mmap", "os", "resource", "select", "sys", "time"),
    *("_socket", "binascii"),
}
"""What the spawner and device processes may import by themselves: all of it is mapped in each of them."""

MAY_LEAVE: Final = {
    # A forked child must not run its parent's clean-up: there is no other way out for it.
    "kvmbox.sandbox.jail": {"os._exit"},
    "kvmbox.sandbox.namespaces": {"os._exit"},
    "kvmbox.processes.spawner": {"os._exit"},
    "kvmbox.snapshot.destination": {"os._exit"},
    # A signal that asks for the end of a command; in a run the third one, when two have not brought it.
    "kvmbox.early": {"KeyboardInterrupt"},
    "kvmbox.host.signals": {"KeyboardInterrupt"},
    "kvmbox.machine.run": {"KeyboardInterrupt"},
    # Forked children again. One that is interrupted before its guest runs has a result all the same.
    "kvmbox.warm.boot": {"os._exit", "KeyboardInterrupt"},
    "kvmbox.warm.template": {"os._exit"},
}
"""The processes that end themselves, outside of `cli`."""


def module_name(path: Path) -> str:
    parts = path.relative_to(PROJECT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES: Final = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}

COMPILED: Final = {
    module_name(path): set(re.findall(r"^from (kvmbox[.\w]*)", path.read_text("utf-8"), re.MULTILINE))
    for path in sorted(PACKAGE.rglob("*.pyx"))
}
"""Compiled module → the modules and packages of kvmbox that it imports."""


@cache
def tree_of(name: str) -> ast.Module:
    return ast.parse(MODULES[name].read_text(encoding="utf-8"))


def group_of(name: str) -> str:
    """`kvmbox.processes.pool` → "processes", `kvmbox.bus` → "bus", `kvmbox` → ""."""
    if name == "kvmbox.__main__":
        return "cli"  # another way to start it
    return name.partition(".")[2].partition(".")[0]


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def _import_nodes(node: ast.AST, *, typing: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        elif typing or not _is_type_checking(child):
            yield from _import_nodes(child, typing=typing)


@cache
def imports_of(name: str, *, typing: bool = False) -> frozenset[str]:
    """What a module imports anywhere, the full names: kvmbox modules, and whatever else."""
    found: set[str] = set()
    for node in _import_nodes(tree_of(name), typing=typing):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
            continue
        assert node.level == 0, f"{name}:{node.lineno}: a relative import"
        assert node.module is not None
        for alias in node.names:
            member = f"{node.module}.{alias.name}"
            found.add(member if member in MODULES else node.module)
    return frozenset(found)


def parents(name: str) -> Iterator[str]:
    """The packages whose `__init__` runs when `name` is imported."""
    while "." in name:
        name = name.rpartition(".")[0]
        yield name


def closure(*roots: str) -> set[str]:
    """All modules of kvmbox that importing and running `roots` brings in, themselves too."""
    seen: set[str] = set()
    waiting = list(roots)
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        waiting += parents(name)
        waiting += [other for other in imports_of(name) if other in MODULES]
    return seen


def foreign_imports(modules: set[str]) -> dict[str, set[str]]:
    """What `modules` import from outside of kvmbox, by module."""
    return {name: {found for found in imports_of(name) if found not in MODULES} for name in modules}


def calls_of(name: str) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree_of(name)):
        if isinstance(node, ast.Call):
            yield node.lineno, ast.unparse(node.func)


# --- One way ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODULES)
def test_imports_of_kvmbox_go_one_way(name: str) -> None:
    group = group_of(name)
    if group in ("", "cli"):
        return
    assert group in MAY_IMPORT, f"{name}: say in MAY_IMPORT what '{group}' may import"
    used = {group_of(other) for other in imports_of(name, typing=True) if other in MODULES}
    assert used - MAY_IMPORT[group] - {group, ""} == set()


def test_compiled_modules_import_what_is_pure_or_runs_where_they_do() -> None:
    assert {name: {group_of(other) for other in used} for name, used in COMPILED.items()} == {
        "kvmbox.accel.vmm": {"devices", "wire"},
        "kvmbox.jailed.serving": {"devices", "jailed", "wire"},
    }


def test_import_table_has_no_circle() -> None:
    TopologicalSorter(MAY_IMPORT).prepare()  # raises CycleError


def test_import_table_names_nothing_that_is_gone() -> None:
    groups = {group_of(name) for name in MODULES}
    assert set(MAY_IMPORT) - groups == set()
    assert set().union(*MAY_IMPORT.values()) - groups == set()


def test_modules_do_not_import_each_other_in_circles_not_even_for_the_type_checker() -> None:
    graph = {name: {other for other in imports_of(name, typing=True) if other in MODULES} for name in MODULES}
    TopologicalSorter(graph).prepare()  # raises CycleError, which shows the circle


def test_kvm_is_a_library_of_its_own() -> None:
    everything = {name for name in MODULES if group_of(name) == "kvm"}
    assert {group_of(name) for name in closure(*everything)} == {"kvm", "errors", "lean", ""}


def test_only_cli_imports_cli_and_click() -> None:
    for name in MODULES:
        if group_of(name) == "cli":
            continue
        used = {found.partition(".")[0] for found in imports_of(name, typing=True)}
        assert "click" not in used, name
        assert not any(group_of(other) == "cli" for other in imports_of(name) if other in MODULES), name


# --- Pure parts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in MODULES if group_of(name) == "devices"] + list(PURE))
def test_pure_module_and_all_that_it_imports_cannot_reach_the_host(name: str) -> None:
    for module, foreign in foreign_imports(closure(name)).items():
        assert foreign - PURE_IMPORTS - LAZY.get(module, set()) == set(), module


def test_devices_reach_nothing_of_kvmbox_but_the_layout() -> None:
    devices = [name for name in MODULES if group_of(name) == "devices"]
    assert len(devices) > 10
    assert {group_of(name) for name in closure(*devices)} == {"devices", "layout", ""}


def test_kvm_exits_decode_without_touching_the_host() -> None:
    # The structures of uapi.py are ctypes', which is a way to write down a layout and no call by itself.
    for module, foreign in foreign_imports(closure("kvmbox.kvm.exits") - {"kvmbox.kvm"}).items():
        assert foreign & (HOST_MODULES - {"ctypes"}) == set(), module
    assert "ctypes" not in imports_of("kvmbox.kvm.exits")


@pytest.mark.parametrize(
    "name", [name for name in MODULES if group_of(name) == "devices"] + [*PURE, "kvmbox.kvm.exits"]
)
def test_pure_module_calls_no_built_in_that_does_io_or_runs_text(name: str) -> None:
    wrong = {"open", "print", "input", "exec", "eval", "compile", "__import__", "breakpoint", "id", "hash"}
    assert [(line, call) for line, call in calls_of(name) if call in wrong] == []


# --- The sandboxed side ----------------------------------------------------------------------------------


def sandboxed_side() -> set[str]:
    entries = [entry.partition(":")[0] for entry in (DEFAULT_ENTRY, COMPILED_ENTRY)]
    return closure("kvmbox.processes.spawner", *entries, *COMPILED["kvmbox.jailed.serving"])


def test_spawner_and_device_processes_import_little_of_kvmbox() -> None:
    side = sandboxed_side()
    assert {group_of(name) for name in side} == {
        *("devices", "jailed", "layout", "processes", "sandbox", "wire", ""),
    }
    assert {name for name in side if group_of(name) in ("accel", "jailed", "processes", "wire")} == {
        "kvmbox.jailed",
        "kvmbox.jailed.compiled",
        "kvmbox.jailed.loop",
        "kvmbox.jailed.main",
        "kvmbox.jailed.own_model",
        "kvmbox.jailed.page_port",
        "kvmbox.jailed.server",
        "kvmbox.jailed.stream_port",
        "kvmbox.processes",
        "kvmbox.processes.spawner",
        "kvmbox.wire",
        "kvmbox.wire.blocks",
        "kvmbox.wire.effects",
        "kvmbox.wire.page_layout",
        "kvmbox.wire.protocol",
        "kvmbox.wire.spawner_frames",
    }
    # Filters are compiled by the VMM: neither libseccomp nor the policy is in the sandbox.
    assert side & {"kvmbox.sandbox.seccomp", "kvmbox.sandbox.policy", "kvmbox.sandbox.listener"} == set()


def test_spawner_and_device_processes_import_little_of_the_standard_library() -> None:
    for module, foreign in foreign_imports(sandboxed_side()).items():
        assert foreign - SPAWNER_STDLIB - set(COMPILED) == set(), module


def test_spawner_started_as_the_vmm_starts_it_has_no_heavy_module_loaded() -> None:
    code = (
        f"import sys; sys.path += [{str(PROJECT)!r}]; import kvmbox.processes.spawner, kvmbox.jailed.main; "
        "print(*sys.modules)"
    )
    # The output is a list of module names; the environment is empty, as the spawner's is.
    done = subprocess.run(
        [sys.executable, *INTERPRETER_FLAGS, "-c", code], env={}, check=True, capture_output=True, text=True
    )
    loaded = set(done.stdout.split())
    assert "kvmbox.devices.catalog" in loaded
    heavy = {
        "asyncio",
        "click",
        "elftools",
        "hypothesis",
        "logging",
        "multiprocessing",
        "pathlib",
        "pyseccomp",
    }
    heavy |= {
        "random",
        "signal",
        "socket",
        "ssl",
        "subprocess",
        "tempfile",
        "threading",
        "traceback",
        "urllib",
    }
    assert loaded & heavy == set()


# --- Printing and exiting --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in MODULES if group_of(name) != "cli"])
def test_module_outside_of_cli_neither_prints_nor_exits(name: str) -> None:
    wrong: list[tuple[int, str]] = []
    for node in ast.walk(tree_of(name)):
        match node:
            case ast.Call(func=ast.Name(id="print" | "exit" | "quit" | "input")):
                wrong.append((node.lineno, ast.unparse(node.func)))
            case ast.Name(id="SystemExit" | "KeyboardInterrupt"):
                if node.id not in MAY_LEAVE.get(name, ()):
                    wrong.append((node.lineno, node.id))
            case (
                ast.Attribute(
                    value=ast.Name(id="sys"), attr="exit" | "stdout" | "stderr" | "__stdout__" | "__stderr__"
                )
                | ast.Attribute(value=ast.Name(id="os"), attr="_exit" | "abort")
            ):
                text = ast.unparse(node)
                if text not in MAY_LEAVE.get(name, ()):
                    wrong.append((node.lineno, text))
            case ast.ImportFrom(module="sys" | "os", names=names):
                imported = {alias.name for alias in names} & {"exit", "stdout", "stderr", "_exit", "abort"}
                wrong += [(node.lineno, one) for one in imported]
            case _:
                pass
    assert wrong == []


# --- Nothing lies about --------------------------------------------------------------------------------


def _modules_named_in_text() -> set[str]:
    """Modules that are loaded by name: the commands, the homes of `kvmbox.kvm`, the spawner's entry."""
    from kvmbox.cli.main import COMMANDS

    named = {f"kvmbox.cli.{command}" for command in COMMANDS}
    named |= {"kvmbox.cli.entry", "kvmbox.__main__"}  # the scripts, and `python -m kvmbox`
    named.add("kvmbox.pytest_plugin")  # an entry point of pytest
    named.add("kvmbox.processes.spawner")  # in an interpreter of its own
    named.add("kvmbox.lean")  # imported where TYPE_CHECKING is false, which `imports_of` takes for true
    named |= {name for name in MODULES if name.rpartition(".")[0] == "kvmbox.kvm"}
    named |= {entry.partition(":")[0] for entry in (DEFAULT_ENTRY, COMPILED_ENTRY)}
    return named & set(MODULES)


def test_every_module_is_reached_from_the_command() -> None:
    assert set(MODULES) - closure("kvmbox.cli.main", *_modules_named_in_text()) == set()


def test_every_file_of_the_package_has_a_docstring_that_says_what_it_is() -> None:
    assert [name for name in MODULES if not ast.get_docstring(tree_of(name))] == []


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
