"""Which branches of kvmbox's modules a fuzzer has taken: an import hook counts them at nearly no cost.

Each conditional jump of the source has two outcomes: `if`, `while`, `for` (there is an item, there is none),
a conditional expression, the filter of a comprehension, and each operand of `and` and `or` but the last. Each
`case` and each `except` is one outcome, and so is a `match` that matches nothing. `assert`, loops without a
condition and what is for type checkers only are none.

The hook changes the syntax tree of a module before it is compiled: an outcome that is taken stores 1 into its
place of `HITS`, which costs some 20 ns. So branches are measured while the fuzzer runs, in every version of
Python. What the interpreter offers itself is slower (sys.settrace), newer (sys.monitoring has branches since
3.12), or tells lines and no conditions.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Sequence
from fnmatch import fnmatch
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType, ModuleType
from typing import Any, Final, NamedTuple, TypeVar

HITS: Final = bytearray()
"""1 for each outcome that was taken since it was cleared; its places are those of `OUTCOMES`."""

_Node = TypeVar("_Node", bound=ast.AST)


class Outcome(NamedTuple):
    """One way out of a condition."""

    file: str
    line: int
    where: str
    what: str

    @property
    def name(self) -> str:
        """The outcome as a table of reasons has it: without its line."""
        return f"{self.file} {self.where}: {self.what}"


OUTCOMES: Final[list[Outcome]] = []
CONSTANTS: Final[set[int | bytes]] = set()
"""Numbers and texts of the modules: what they compare their input with is among them."""


def tried(place: int, value: Any) -> Any:
    """Note whether a condition within an expression is true, and give it back."""
    HITS[place if value else place + 1] = 1
    return value


class _Marker(ast.NodeTransformer):
    """Has each outcome of a module mark its place."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._names: list[str] = []

    def _place(self, node: ast.AST, *outcomes: str) -> int:
        place = len(HITS)
        for one in outcomes:
            OUTCOMES.append(Outcome(self._file, getattr(node, "lineno", 0), ".".join(self._names), one))
        HITS.extend(bytes(len(outcomes)))
        return place

    @staticmethod
    def _mark(place: int, like: ast.AST) -> ast.stmt:
        (made,) = ast.parse(f"_branch_hits[{place}] = 1").body
        for one in ast.walk(made):
            ast.copy_location(one, like)
        return made

    def _tried(self, test: ast.expr, text: str) -> ast.expr:
        place = self._place(test, text, f"{text}, false")
        called = ast.Call(ast.Name("_branch_tried", ast.Load()), [ast.Constant(place), test], [])
        return ast.fix_missing_locations(ast.copy_location(called, test))

    def _named(self, node: _Node) -> _Node:
        self._names.append(getattr(node, "name", ""))
        self.generic_visit(node)
        self._names.pop()
        return node

    visit_FunctionDef = visit_ClassDef = visit_AsyncFunctionDef = _named

    def visit_Constant(self, node: ast.Constant) -> ast.Constant:
        if type(node.value) is int and node.value > 1:
            CONSTANTS.add(node.value)
        elif isinstance(node.value, bytes | str) and 0 < len(node.value) < 40:
            value = node.value
            CONSTANTS.add(value.encode("utf-8", "replace") if isinstance(value, str) else value)
        return node

    def visit_If(self, node: ast.If) -> ast.If:
        if not (isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"):
            self._two_ways(node, f"if {ast.unparse(node.test)}")
        return node

    def visit_While(self, node: ast.While) -> ast.While:
        if isinstance(node.test, ast.Constant):
            self.generic_visit(node)
        else:
            self._two_ways(node, f"while {ast.unparse(node.test)}")
        return node

    def visit_For(self, node: ast.For) -> ast.For:
        self._two_ways(node, f"for {ast.unparse(node.target)} in {ast.unparse(node.iter)}")
        return node

    def _two_ways(self, node: ast.If | ast.While | ast.For, text: str) -> None:
        place = self._place(node, text, f"{text}, else")
        self.generic_visit(node)
        node.body.insert(0, self._mark(place, node))
        node.orelse.insert(0, self._mark(place + 1, node))

    # The texts are those of the source: taken before what is within them is changed.

    def visit_IfExp(self, node: ast.IfExp) -> ast.IfExp:
        text = f"if {ast.unparse(node.test)}"
        self.generic_visit(node)
        node.test = self._tried(node.test, text)
        return node

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.BoolOp:
        word = "and" if isinstance(node.op, ast.And) else "or"
        texts = [f"{word} {ast.unparse(one)}" for one in node.values[:-1]]
        self.generic_visit(node)
        node.values[:-1] = [self._tried(one, text) for one, text in zip(node.values, texts, strict=False)]
        return node

    def visit_comprehension(self, node: ast.comprehension) -> ast.comprehension:
        texts = [f"filter {ast.unparse(one)}" for one in node.ifs]
        self.generic_visit(node)
        node.ifs = [self._tried(one, text) for one, text in zip(node.ifs, texts, strict=True)]
        return node

    def visit_Match(self, node: ast.Match) -> ast.Match:
        texts = [f"case {ast.unparse(case.pattern)}" for case in node.cases]
        self.generic_visit(node)
        for case, text in zip(node.cases, texts, strict=True):
            case.body.insert(0, self._mark(self._place(case.pattern, text), case.pattern))
        last = node.cases[-1]
        if last.guard is not None or not isinstance(last.pattern, ast.MatchAs) or last.pattern.pattern:
            place = self._place(node, f"match {ast.unparse(node.subject)}: no case")
            node.cases.append(ast.match_case(ast.MatchAs(), None, [self._mark(place, node)]))
            ast.fix_missing_locations(node)
        return node

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> ast.ExceptHandler:
        place = self._place(node, f"except {ast.unparse(node.type) if node.type else ''}".strip())
        self.generic_visit(node)
        node.body.insert(0, self._mark(place, node))
        return node


def outcomes_in(file: str, text: str) -> list[Outcome]:
    """The outcomes of the module with this text, which is not loaded: none is counted."""
    before = len(OUTCOMES)
    _Marker(file).visit(ast.parse(text))
    found = OUTCOMES[before:]
    del OUTCOMES[before:], HITS[before:]
    return found


_HEAD: Final = "from tests.fuzz.branches import HITS as _branch_hits, tried as _branch_tried"


class _Loader(SourceFileLoader):
    """Compiles a module with marks; no bytecode is kept."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        tree = ast.parse(self.get_data(path), path)
        _Marker(fullname.removeprefix("kvmbox.").replace(".", "/") + ".py").visit(tree)
        is_text = isinstance(tree.body[0], ast.Expr) and isinstance(tree.body[0].value, ast.Constant)
        tree.body[2 if is_text else 1 : 2 if is_text else 1] = ast.parse(_HEAD).body
        return self.source_to_code(ast.fix_missing_locations(tree), path)


class _Finder(MetaPathFinder):
    """Finds the modules that are to be counted."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self._patterns = patterns

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        name = fullname.removeprefix("kvmbox.").replace(".", "/") + ".py"
        if not any(fnmatch(name, pattern) for pattern in self._patterns):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader) and spec.origin:
            spec.loader = _Loader(fullname, spec.origin)
        return spec


def count_branches(patterns: Sequence[str]) -> None:
    """Count those of the modules whose files, from kvmbox on, match. None of them may be loaded yet."""
    loaded = [
        name
        for name in sys.modules
        if any(fnmatch(name.removeprefix("kvmbox.").replace(".", "/") + ".py", one) for one in patterns)
    ]
    if loaded:
        raise RuntimeError(f"loaded too early: {', '.join(loaded)}")
    sys.meta_path.insert(0, _Finder(patterns))
