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

from kvmbox.contract.catalog import MODELS
from kvmbox.contract.device_spec import Queues
from kvmbox.devices.e1000.board import DescriptorRings
from kvmbox.remote.process.spawner_client import COMPILED_ENTRY, DEFAULT_ENTRY, INTERPRETER_FLAGS
from kvmbox.run.parts import MONITOR, ORDER

PROJECT: Final = Path(__file__).parent.parent
PACKAGE: Final = PROJECT / "kvmbox"

RINGS: Final = (
    # Commands: the only place that prints and exits.
    {"cli"},
    # On top of a machine, each loaded by its command alone.
    {"tools"},
    # Optional features of a run, and the compiled halves of the hot path.
    {"parts", "fast"},
    # The core of a run, and then what it stands on.
    {"run"},
    # The VMM's side of chips; what else is of a chip is pure, and far below.
    {"devices.vmm"},
    {"remote"},
    {"sandbox"},
    {"jail"},
    {"boot"},
    {"host"},
    {"explain"},
    {"wire"},
    {"devices"},
    {"firmware"},
    {"contract"},
    {"kvm"},
    {"base"},
)
"""Packages and top-level modules from the top down: a module imports its own ring and lower ones."""

"""Imports that still run up, or from one part to another. An entry may only go."""

BESIDE: Final = {
    *(("tools.bench", "tools.warm"), ("tools.replay", "tools.html")),
    *(("tools.smoke", "tools.html"), ("tools.smoke", "tools.warm")),
}
"""Tools that build on another one."""

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
    "kvmbox.remote.bus.routing",
    "kvmbox.remote.bus.movable",
    "kvmbox.base.layout",
    "kvmbox.wire.protocol",
    "kvmbox.sandbox.policy",
    *(
        f"kvmbox.kvm.cpuid.{name}"
        for name in ("backend_limits", "leaves", "feature_probes", "pvm", "topology")
    ),
)

NAMED_BY_THE_CORE: Final = {
    "kvmbox.run.options.option_table": {
        "disk.disk_option",
        "inject.spec",
        "net.net_option",
        "screen.picture_conditions",
        "snapshot.snapshots",
    },  # what reads a value
    "kvmbox.run.options.config": {"snapshot.snapshots"},  # what snapshots cannot be taken beside
    "kvmbox.run.parts": {"snapshot.restore"},
    "kvmbox.run.part": {"screen.text_picture"},
    # What a program calls, and no option.
    "kvmbox.run.api.machine": {
        *("net.net_option", "screen.screen", "screen.screens"),
        *("snapshot.program_snapshots", "snapshot.file", "snapshot.start_options"),
    },
}
"""Which modules of parts a module of the core names by text, to load them: `run.part_loader`."""

OF_PROGRAMS: Final = ("kvmbox.host.console.virtio_backend", "kvmbox.run.api.async_machine")
"""Modules that no command loads."""

LAZY: Final = {name: {"importlib"} for name in ("kvmbox", "kvmbox.devices", "kvmbox.kvm")}
"""Packages with public names that are loaded when they are used: by name, from a table of their own."""

CACHING: Final = {f"kvmbox.devices.{name}": {"functools"} for name in ("fw_cfg.board", "pc_board")}
"""Pure modules that keep results: a function of its arguments stays one."""

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

IMPORT_MACHINERY: Final = frozenset({"marshal", "_frozen_importlib", "_frozen_importlib_external"})

MAY_LEAVE: Final = {
    # A forked child must not run its parent's clean-up: there is no other way out for it.
    "kvmbox.jail.child_lifecycle": {"os._exit"},
    "kvmbox.jail.namespaces": {"os._exit"},
    "kvmbox.jail.spawner": {"os._exit"},
    "kvmbox.host.files.atomic_file": {"os._exit"},
    # A signal that asks for the end of a command; in a run the third one, when two have not brought it.
    "kvmbox.host.process.early_signals": {"KeyboardInterrupt"},
    "kvmbox.host.process.signals": {"KeyboardInterrupt"},
    "kvmbox.run.run": {"KeyboardInterrupt"},
    # Forked children again. One that is interrupted before its guest runs has a result all the same.
    "kvmbox.tools.warm.boot_process": {"os._exit", "KeyboardInterrupt"},
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
    """`kvmbox.remote.bus.proxy` → "remote", `kvmbox.parts.gdb.link` → "parts.gdb", `kvmbox` → "".

    `kvmbox.devices.CHIP.vmm` → "devices.vmm".
    """
    if name == "kvmbox.__main__":
        return "cli"  # another way to start it
    if re.fullmatch(r"kvmbox\.devices\.\w+\.vmm", name):
        return "devices.vmm"
    names = name.split(".")[1:3]
    return ".".join(names if names[:1] in (["parts"], ["tools"]) else names[:1])


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


def ring_of(group: str) -> int:
    """The number of a group's ring, from the top."""
    package = group if group == "devices.vmm" else group.partition(".")[0]
    return next(number for number, ring in enumerate(RINGS) if package in ring)


def _runs_up(group: str, other: str) -> bool:
    """Whether a group must not import another one."""
    if "" in (group, other) or group == other or (group, other) in BESIDE:
        return False
    return ring_of(group) >= ring_of(other)


def test_imports_of_kvmbox_go_one_way() -> None:
    wrong = {
        (name, other)
        for name in MODULES
        for other in imports_of(name, typing=True)
        if other in MODULES and _runs_up(group_of(name), group_of(other))
    }
    assert wrong == set()


def test_compiled_modules_import_what_is_pure_or_runs_where_they_do() -> None:
    assert {name: {group_of(other) for other in used} for name, used in COMPILED.items()} == {
        "kvmbox.fast.vmm": {"contract", "wire"},
        "kvmbox.fast.serving": {"contract", "jail", "wire"},
    }


def test_what_every_device_shares_knows_no_chip() -> None:
    shared = [name for name in MODULES if group_of(name) in ("remote", "jail", "wire", "contract")]
    assert {
        (name, other)
        for name in shared
        for other in imports_of(name, typing=True)
        if other.startswith("kvmbox.devices")
    } == set()


def test_each_package_has_one_ring() -> None:
    packages = {group_of(name).partition(".")[0] for name in MODULES} - {""} | {"devices.vmm"}
    assert sorted(package for ring in RINGS for package in ring) == sorted(packages)


def test_modules_do_not_import_each_other_in_circles_not_even_for_the_type_checker() -> None:
    graph = {name: {other for other in imports_of(name, typing=True) if other in MODULES} for name in MODULES}
    TopologicalSorter(graph).prepare()  # raises CycleError, which shows the circle


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
    core = {name for name in MODULES if ring_of(group_of(name) or "base") >= ring_of("run")}
    assert {"kvmbox.run.run", "kvmbox.remote.process.device_pool", "kvmbox.base.stand_ins"} < core
    modules = {name.removeprefix("kvmbox.parts.") for name in MODULES if name.startswith("kvmbox.parts.")}
    found = {name: {word.removeprefix("parts.") for word in _words(name)} & modules for name in core}
    assert {name: words for name, words in found.items() if words} == NAMED_BY_THE_CORE


@pytest.mark.parametrize(
    "name",
    [
        "run",
        "loop.main_loop",
        "machine.board_setup",
        "machine.device_services",
        "machine.device_set",
        "machine.guest_vm",
    ],
)
def test_heart_of_a_run_has_no_word_of_any_part(name: str) -> None:
    words = re.compile(r"gdb|profil|inject|screen|snapshot|core_file|record", re.IGNORECASE)
    lines = MODULES[f"kvmbox.run.{name}"].read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if words.search(line)] == []


def test_kvm_is_a_library_of_its_own() -> None:
    everything = {name for name in MODULES if group_of(name) == "kvm"}
    assert {group_of(name) for name in closure(*everything)} == {"kvm", "base", ""}


def test_only_cli_imports_cli_and_click() -> None:
    for name in MODULES:
        if group_of(name) == "cli":
            continue
        used = {found.partition(".")[0] for found in imports_of(name, typing=True)}
        assert "click" not in used, name
        assert not any(group_of(other) == "cli" for other in imports_of(name) if other in MODULES), name


# --- Pure parts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", [name for name in MODULES if group_of(name) in ("contract", "devices")] + list(PURE)
)
def test_pure_module_and_all_that_it_imports_cannot_reach_the_host(name: str) -> None:
    for module, foreign in foreign_imports(closure(name)).items():
        allowed = PURE_IMPORTS | LAZY.get(module, set()) | CACHING.get(module, set())
        assert foreign - allowed == set(), module


def test_devices_reach_nothing_of_kvmbox_but_the_layout() -> None:
    devices = [name for name in MODULES if group_of(name) == "devices"]
    assert len(devices) > 10
    assert {group_of(name) for name in closure(*devices)} == {"devices", "firmware", "contract", "base", ""}


def test_kvm_exits_decode_without_touching_the_host() -> None:
    # The structures of uapi.py are ctypes', which is a way to write down a layout and no call by itself.
    for module, foreign in foreign_imports(closure("kvmbox.kvm.exits") - {"kvmbox.kvm"}).items():
        assert foreign & (HOST_MODULES - {"ctypes"}) == set(), module
    assert "ctypes" not in imports_of("kvmbox.kvm.exits")


@pytest.mark.parametrize(
    "name",
    [name for name in MODULES if group_of(name) in ("contract", "devices")] + [*PURE, "kvmbox.kvm.exits"],
)
def test_pure_module_calls_no_built_in_that_does_io_or_runs_text(name: str) -> None:
    wrong = {"open", "print", "input", "exec", "eval", "compile", "__import__", "breakpoint", "id", "hash"}
    wrong -= {"__import__"} if name == "kvmbox.contract.catalog" else set()  # it loads the models
    assert [(line, call) for line, call in calls_of(name) if call in wrong] == []


# --- The sandboxed side ----------------------------------------------------------------------------------


def sandboxed_side() -> set[str]:
    entries = [entry.partition(":")[0] for entry in (DEFAULT_ENTRY, COMPILED_ENTRY)]
    return closure("kvmbox.jail.spawner", *entries, *COMPILED["kvmbox.fast.serving"], *models())


def models() -> set[str]:
    return {f"kvmbox.devices.{place.partition(':')[0]}" for place in MODELS.values()}


def test_spawner_and_device_processes_import_little_of_kvmbox() -> None:
    side = sandboxed_side()
    assert {group_of(name) for name in side} == {
        *("base", "contract", "devices", "fast", "jail", "wire", ""),
    }
    # What runs confined is the folder jail/, and all of it does; beside it the compiled serving loop.
    assert {name for name in side if group_of(name) in ("fast", "jail")} == {
        *(name for name in MODULES if group_of(name) == "jail"),
        *("kvmbox.fast", "kvmbox.fast.compiled_serving"),
    }
    wire = {name.removeprefix("kvmbox.wire.") for name in side if group_of(name) == "wire"}
    assert wire == {
        *("kvmbox.wire", "access_blocks", "bulk_effect_table", "chains", "effect_kinds", "effects"),
        *("page_layout", "pci_effect_table", "protocol", "spawner_frames"),
    }
    # Filters are compiled by the VMM: neither libseccomp nor the policy is in the sandbox.
    assert side & {"kvmbox.sandbox.seccomp", "kvmbox.sandbox.policy", "kvmbox.sandbox.listener"} == set()


def test_spawner_and_device_processes_import_little_of_the_standard_library() -> None:
    for module, foreign in foreign_imports(sandboxed_side()).items():
        of_finder = (
            IMPORT_MACHINERY if module in ("kvmbox.base.bytecode", "kvmbox.jail.kept_modules") else set()
        )
        assert foreign - SPAWNER_STDLIB - of_finder - set(COMPILED) == set(), module


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
    """Modules that are loaded by name: commands, parts, homes of `kvmbox.kvm`, compiled halves, the entry."""
    from kvmbox.cli.main import COMMANDS, module_of

    named = {module_of(command) for command in COMMANDS}
    named |= {"kvmbox.cli.entry", "kvmbox.__main__"}  # the scripts, and `python -m kvmbox`
    named.add("kvmbox.tools.smoke.pytest.plugin")  # an entry point of pytest
    # In interpreters of their own.
    named |= {
        f"kvmbox.{name}" for name in ("jail.spawner", "tools.warm.spawner_template", "tools.warm.template")
    }
    named |= {f"kvmbox.parts.{part}.part" for part in (*ORDER, MONITOR)}
    named |= {f"kvmbox.parts.{word}" for words in NAMED_BY_THE_CORE.values() for word in words}
    named |= {name for name in MODULES if name.startswith("kvmbox.fast.")}  # `base.compiled`
    # Imported where TYPE_CHECKING is false, which `imports_of` takes for true.
    named.add("kvmbox.base.stand_ins")
    named |= {name for name in MODULES if name.rpartition(".")[0] == "kvmbox.kvm"}
    named |= {entry.partition(":")[0] for entry in (DEFAULT_ENTRY, COMPILED_ENTRY)}
    named |= models()
    named |= {f"kvmbox.devices.{grant.vmm}" for grant in (Queues, DescriptorRings)}
    return named & set(MODULES)


def test_every_module_is_reached_from_the_command() -> None:
    assert set(MODULES) - closure("kvmbox.cli.main", *OF_PROGRAMS, *_modules_named_in_text()) == set()


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
