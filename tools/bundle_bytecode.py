#!/usr/bin/env python3
"""Write the bundle of bytecode (`kvmbox/base/bytecode.py`) for the Python that runs this. `make` runs it.

While kvmbox runs, nothing reads annotations but those of classes, which `kvmbox.base.value_classes` reads. So
the bundle has no annotations of functions, and no imports that only annotations need, those from the future
among them. For the others from `typing` there are stand-ins. A plain run then loads neither `typing` nor
`re`. There are no docstrings either, but in the commands, whose help they are. Of each place in the source
there is the line, and not the column.
"""

from __future__ import annotations
import __future__

import ast
import marshal
import os
from collections.abc import Collection, Iterator, Mapping
from importlib.util import MAGIC_NUMBER
from pathlib import Path
from types import CodeType
from typing import Any, Final

from kvmbox.base import light_typing
from kvmbox.base.bytecode import BUNDLE, HEAD_SIZE, PACKAGE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kvmbox.base.bytecode import Entry, Link, Places

WITH_DOCSTRINGS: Final = "cli"
BIOS: Final = (
    *("kvmbox.devices.bios.board", "kvmbox.host.console.bios_messages"),
    *("kvmbox.remote.channel.free_running", "kvmbox.run.machine.bios_chip_setup"),
)
"""What a run loads because its guest may call the BIOS."""
OWN_MODELS: Final = tuple(
    f"kvmbox.devices.{name}" for name in ("debug.model", "debug.pvpanic", "pci.reset_control", "uart.model")
)
"""Of each machine. With `--sandbox none`, the VMM has them."""
GROUPS: Final = {
    "entry": ("", ("kvmbox.cli.entry",)),
    "prestart": (
        "entry",
        ("kvmbox.host.files.descriptor_limit", "kvmbox.remote.process.prestart", "kvmbox.sandbox.scope"),
    ),
    "run": (
        "prestart",
        (
            *(
                "kvmbox.cli.run.execute",
                "kvmbox.cli.exit_status",
                "kvmbox.cli.run.quick_parser",
                "kvmbox.run.api.machine",
            ),
            "kvmbox.explain.capstone",
        ),
    ),
    "spawner": ("", ("kvmbox.jail.spawner", "kvmbox.jail.server")),
    "kvmbox.boot.multiboot.way": ("run", ("kvmbox.boot.multiboot.way", *BIOS)),
    "kvmbox.remote.transport.direct": (
        "run",
        ("kvmbox.remote.transport.direct", *OWN_MODELS),
    ),
}
"""By name: the group that is loaded before, and what is loaded with all that it imports."""
FLAG: Final = __future__.annotations.compiler_flag
FUTURE: Final = "from __future__ import annotations"
"""Where it stands, Python itself keeps annotations as text."""
ANNOTATING: Final = ("collections.abc", "typing")
"""Modules that are imported for annotations, mostly."""
TYPED: Final = "(TypedDict"
"""Where it stands, kvmbox reads what the annotations mean (`run.options.signature`)."""


class Stripper(ast.NodeTransformer):
    """Removes from a module what only people and type checkers read."""

    def __init__(self, *, docstrings: bool) -> None:
        self._docstrings = docstrings
        """Whether docstrings go as well."""

    def visit_Module(self, node: ast.Module) -> ast.Module:
        """Without docstring."""
        self._body(node)
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        """Without docstring and annotations."""
        self._body(node)
        node.returns = None
        arguments = node.args
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        for one in (*every, arguments.vararg, arguments.kwarg):
            if one is not None:
                one.annotation = None
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        """Without docstring."""
        self._body(node)
        return node

    def visit_If(self, node: ast.If) -> ast.If | list[ast.stmt]:
        """What the type checker does not see, where it sees something else."""
        self.generic_visit(node)
        return node.orelse if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING" else node

    def _body(self, node: ast.Module | ast.FunctionDef | ast.ClassDef) -> None:
        self.generic_visit(node)
        if self._docstrings and ast.get_docstring(node, clean=False) is not None:
            del node.body[0]
        node.body = node.body or [ast.Pass()]


def stripped(text: str, *, docstrings: bool, taken: Collection[str] | None = ()) -> ast.Module:
    """The tree of a module without what only people and type checkers read. `taken` are names that others may
    take from it; None: all.
    """
    tree = ast.parse(text)
    if FUTURE not in text or TYPED in text:
        return tree
    described = {name for one in _annotations(tree) for name in _names(one)}
    Stripper(docstrings=docstrings).visit(tree)
    used = set(_names(tree))
    unused = set() if taken is None else described - used - set(taken)
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module in ANNOTATING:
            node.names = [alias for alias in node.names if alias.name in used]
            if node.module == "typing" and all(hasattr(light_typing, alias.name) for alias in node.names):
                node.module = light_typing.__name__
        elif isinstance(node, ast.ImportFrom):
            future = node.module == "__future__"
            node.names = [one for one in node.names if not future and (one.asname or one.name) not in unused]
    tree.body = [node for node in tree.body if not isinstance(node, ast.ImportFrom) or node.names]
    ast.fix_missing_locations(tree)
    for node in ast.walk(tree):
        if isinstance(node, (ast.stmt, ast.expr)):
            # What has no column takes a third of the memory in a table of lines.
            node.end_lineno, node.col_offset, node.end_col_offset = node.lineno, -1, -1
    return tree


def _annotations(tree: ast.Module) -> Iterator[ast.expr]:
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.returns is not None:
            yield node.returns
        elif isinstance(node, (ast.arg, ast.AnnAssign)) and node.annotation is not None:
            yield node.annotation


def taken_names(text: str) -> Iterator[str]:
    """What a module may take from others, by name or as an attribute."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _names(node: ast.AST) -> Iterator[str]:
    """The names that are looked up while it runs."""
    if isinstance(node, ast.Name):
        yield node.id
    for field, value in ast.iter_fields(node):
        if field != "annotation":
            for one in value if isinstance(value, list) else [value]:
                if isinstance(one, ast.AST):
                    yield from _names(one)


def imported(tree: ast.Module, names: Collection[str]) -> Iterator[str]:
    """Those of `names` that a module imports while it is loaded."""
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            found = [str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        else:
            continue
        yield from (one for one in found if one in names)


def in_order(name: str, trees: Mapping[str, ast.Module], order: dict[str, bool]) -> None:
    """Add to `order` a module behind what it imports. A module that is being added is there with False."""
    for at, letter in enumerate(name):
        if letter == ".":
            in_order(name[:at], trees, order)
    if name not in order:  # a package may import its modules
        order[name] = False
        for one in imported(trees[name], trees.keys()):
            in_order(one, trees, order)
        del order[name]
        order[name] = True


def linked(tree: ast.Module, modules: Collection[str], before: Collection[str]) -> list[Link]:
    """What a module imports from those of `modules` that are loaded `before`; its tree does without then."""
    links: list[Link] = []
    body: list[ast.stmt] = []
    for node in tree.body:
        found: list[Link] = []
        for alias in node.names if isinstance(node, ast.ImportFrom) else ():
            own, name = alias.asname or alias.name, f"{node.module}.{alias.name}"
            found.append((own, name, "") if name in modules else (own, str(node.module), alias.name))
        if found and {source for _, source, _ in found} <= set(before):
            links += found
        else:
            body.append(node)
    tree.body = body
    return links


def compiled(tree: ast.Module, path: str) -> CodeType:
    """The code of the module at `path`."""
    return compile(tree, path, "exec", FLAG, dont_inherit=True)


def bundle(package: Path) -> bytes:
    """The content of the file, with all modules of `package`."""
    folders: dict[str, dict[str, Entry]] = {}
    index: dict[str, Entry] = {}
    trees: dict[str, ast.Module] = {}
    content = bytearray(HEAD_SIZE)
    paths = sorted(package.rglob("*.py"))
    taken = {name for path in paths for name in taken_names(path.read_text())}
    for path in paths:
        file = path.relative_to(package)
        is_package = file.name == "__init__.py"
        name = ".".join((package.name, *(file.parent if is_package else file.with_suffix("")).parts))
        status = path.stat()
        # What a package imports is for others.
        kept = None if is_package else {one.removeprefix(f"{name}.") for one in taken}
        trees[name] = stripped(path.read_text(), docstrings=file.parts[0] != WITH_DOCSTRINGS, taken=kept)
        place = add(content, compiled(trees[name], str(path)))
        index[name] = (str(file), is_package, int(status.st_mtime), status.st_size, *place)
        folders.setdefault(f"{name}..".split(".", 2)[1], {})[name] = index[name]
    places = {name: add(content, entries) for name, entries in folders.items()}
    head = marshal.dumps((MAGIC_NUMBER, str(package), places, groups_of(package, trees, index, content)))
    content[:HEAD_SIZE] = head.ljust(HEAD_SIZE)
    assert len(head) <= HEAD_SIZE
    return bytes(content)


def groups_of(
    package: Path, trees: Mapping[str, ast.Module], index: Mapping[str, Entry], content: bytearray
) -> Places:
    """Append the groups of a package to `content`: their places."""
    groups: Places = {}
    orders: dict[str, dict[str, bool]] = {"": {}}
    for group, (before, roots) in GROUPS.items():
        orders[group] = order = dict(orders[before])
        for root in filter(trees.__contains__, roots):
            in_order(root, trees, order)
        new = order.keys() - orders[before].keys()
        # With their packages: who loads one of them alone has not loaded the group before.
        new |= {name[:at] for name in new for at, letter in enumerate(name) if letter == "."}
        loaded: set[str] = set()
        members: dict[str, tuple[Entry, list[Link], CodeType]] = {}
        for name in order:
            if name in new:
                tree = ast.Module(trees[name].body, type_ignores=[])
                links = linked(tree, trees, loaded)
                members[name] = index[name], links, compiled(tree, str(package / index[name][0]))
            loaded.add(name)
        groups[group] = add(content, members)
    return groups


def add(content: bytearray, value: Any) -> tuple[int, int]:
    """Append a value to `content`: its place, and its length."""
    written = marshal.dumps(value)
    content += written
    return len(content) - len(written), len(written)


if __name__ == "__main__":
    # Renamed, not written: a process that has the old one mapped keeps it.
    written = Path(f"{BUNDLE}.{os.getpid()}")
    written.write_bytes(bundle(Path(PACKAGE)))
    written.replace(BUNDLE)
