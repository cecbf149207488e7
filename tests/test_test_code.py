"""What tests may not do to kvmbox, read from their source: they use what is public, and wrap what they break.

A test that writes a private attribute, or that patches the text of a function, has to be changed whenever the
code inside of a module moves. Constructor arguments, subclasses and wrappers do not.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

TESTS: Final = Path(__file__).parent
FILES: Final = sorted(TESTS.rglob("*.py"))

WRAPPED_BY_NAME: Final = {
    # Programs that are kvmbox with one public function or class replaced by a wrapper of it.
    "chaos/payload/program.py": 1,
    "differential/e1000_server.py": 1,
    "integration/run_payload/restless_main.py": 1,
    "integration/run_payload/signal_at.py": 1,
}
"""How often each file sets an attribute that it names by a string, without pytest's monkeypatch."""

TEXT_TOOLS: Final = {"compile", "eval", "exec", "getsource", "getsourcelines"}
PATCHES: Final = {"setattr", "delattr"}
BY_NAME: Final = (*PATCHES, "vars", "__dict__")


def is_private(name: str) -> bool:
    """Whether it begins with one underscore: those with two belong to Python."""
    return name.startswith("_") and not name.startswith("__")


def _name_called(node: ast.Call) -> str:
    function = node.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _written(node: ast.AST) -> Iterator[ast.expr]:
    """What an assignment or deletion changes, attributes of attributes and items of them included."""
    targets: list[ast.expr] = []
    if isinstance(node, ast.Assign | ast.Delete):
        targets = list(node.targets)
    elif isinstance(node, ast.AugAssign | ast.AnnAssign):
        targets = [node.target]
    while targets:
        target = targets.pop()
        if isinstance(target, ast.Tuple | ast.List):
            targets += target.elts
        elif isinstance(target, ast.Starred | ast.Subscript):
            yield target
            targets.append(target.value)
        else:
            yield target


def private_writes(tree: ast.AST) -> Iterator[int]:
    """Lines that write a private attribute of anything but `self` or `cls`, by whatever means."""
    for node in ast.walk(tree):
        for target in _written(node):
            if isinstance(target, ast.Attribute) and is_private(target.attr):
                owner = target.value
                if not (isinstance(owner, ast.Name) and owner.id in ("self", "cls")):
                    yield target.lineno
        if isinstance(node, ast.Call) and _name_called(node) in PATCHES:
            # setattr(owner, name, …), or monkeypatch.setattr with the same or with "path.name"
            names = [one.value for one in node.args[:2] if isinstance(one, ast.Constant)]
            if any(is_private(str(name).rpartition(".")[2]) for name in names):
                yield node.lineno


def text_patches(tree: ast.AST) -> Iterator[int]:
    """Lines that read the source of a function, or make one of text."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _name_called(node) in TEXT_TOOLS:
            function = node.func
            if isinstance(function, ast.Name) or ast.unparse(function).startswith("inspect."):
                yield node.lineno


def writes_by_name(tree: ast.AST) -> Iterator[int]:
    """Lines with `setattr(…)` or `vars(…)[…] = …`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in PATCHES:
            yield node.lineno
        for target in _written(node):
            if isinstance(target, ast.Subscript):
                text = ast.unparse(target.value)
                if text.startswith("vars(") or text.endswith(".__dict__"):
                    yield target.lineno


def name_of(path: Path) -> str:
    return path.relative_to(TESTS).as_posix()


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_test_writes_a_private_attribute_or_patches_text(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert list(private_writes(tree)) == []
    assert list(text_patches(tree)) == []


def test_attributes_are_set_by_name_only_where_it_is_said() -> None:
    texts = {name_of(path): path.read_text(encoding="utf-8") for path in FILES}
    found = Counter(
        name
        for name, text in texts.items()
        if any(word in text for word in BY_NAME)  # to parse all takes seconds
        for _ in writes_by_name(ast.parse(text))
    )
    assert dict(found) == WRAPPED_BY_NAME


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("ring._first = 1", "p"),
        ("rig.ring._first += 1", "p"),
        ("rig.grants._asked_at['uart'] = 3", "p"),
        ("a, (b, rig._c) = 1, (2, 3)", "p"),
        ("del channel._lock", "p"),
        ("monkeypatch.setattr(module, '_try', f)", "p"),
        ("monkeypatch.setattr('kvmbox.host.process.early_signals._x', f)", "p"),
        ("setattr(ring, '_first', 1)", "pn"),
        ("inspect.getsource(f)", "t"),
        ("exec(text)", "t"),
        ("vars(module)['Thing'] = Other", "n"),
        ("thing.__dict__['x'] = 1", "n"),
        ("setattr(owner, name, f)", "n"),
        ("self._first = ring._first", ""),
        ("monkeypatch.setattr(module, 'LIMIT', 1)", ""),
        ("re.compile('x')", ""),
        ("print(vars(module)['x'])", ""),
        ("x[ring._first] = 1", ""),
    ],
)
def test_each_way_is_seen(text: str, kinds: str) -> None:
    tree = ast.parse(text)
    seen = {"p": private_writes, "t": text_patches, "n": writes_by_name}
    assert "".join(kind for kind, look in seen.items() if any(look(tree))) == kinds
