"""Which module of kvmbox imports which, and the floors of `layers.toml`.

Imports count wherever they stand, lazy ones inside of functions too; those that only the type checker sees
count where the question is who knows whom, and not where it is what is loaded.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Final

PROJECT: Final = Path(__file__).resolve().parent.parent
PACKAGE: Final = PROJECT / "kvmbox"
RULES: Final = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
FLOORS: Final[list[list[str]]] = [floor["folders"] for floor in RULES["floors"]]


def module_name(path: Path) -> str:
    """Its name, of a package that of its `__init__`."""
    parts = path.relative_to(PROJECT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES: Final = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


@cache
def tree_of(name: str) -> ast.Module:
    """What the module is, parsed."""
    return ast.parse(MODULES[name].read_text(encoding="utf-8"))


def group_of(name: str) -> str:
    """`kvmbox.remote.bus.proxy` → "remote", `kvmbox.parts.gdb.link` → "parts.gdb", `kvmbox` → ""."""
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


def floor_of(group: str) -> int:
    """The number of a group's floor, from the top."""
    folder = group if group == "devices.vmm" else group.partition(".")[0]
    return next(number for number, folders in enumerate(FLOORS) if folder in folders)


def runs_up(group: str, other: str) -> bool:
    """Whether a group must not import another one."""
    if "" in (group, other) or group == other or other in RULES["beside"].get(group, ()):
        return False
    return floor_of(group) >= floor_of(other)


def imports() -> dict[str, set[str]]:
    """Module of kvmbox → those that it imports, also for the type checker alone."""
    return {name: set(imports_of(name, typing=True)) & set(MODULES) for name in MODULES}


def upward() -> list[tuple[str, str]]:
    """The imports that the floors forbid."""
    return [
        (name, other)
        for name, others in imports().items()
        for other in sorted(others)
        if runs_up(group_of(name), group_of(other))
    ]


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Circles, so many that the graph would have none if each lost one arrow."""
    left = {name: set(others) for name, others in graph.items()}
    found = []
    while True:
        try:
            TopologicalSorter(left).prepare()
        except CycleError as error:
            circle: list[str] = error.args[1]
            found.append(circle)
            left[circle[1]].remove(circle[0])
        else:
            return found


def calls_of_the_bios() -> dict[str, set[str]]:
    """C file of the built-in BIOS → those whose functions it calls."""
    sources = {path.name: path.read_text("utf-8") for path in (PROJECT / "guests/bios").glob("*.c")}
    texts = {name: re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL) for name, text in sources.items()}
    function = re.compile(r"^(static )?[a-z_].*?\b(\w+)\([^;{]*\)\n\{", re.MULTILINE | re.IGNORECASE)
    defined = {name: set(function.findall(text)) for name, text in texts.items()}
    public = {name: {word for static, word in found if not static} for name, found in defined.items()}
    called = {
        name: set(re.findall(r"(\w+)\(", text)) - {word for _, word in defined[name]}
        for name, text in texts.items()
    }
    return {name: {other for other in texts if public[other] & called[name]} for name in texts}
