"""How complex the code is, against the budgets of CONTRIBUTING.md.

python tools/budgets.py            # prints what is over a budget, and the code lines of each folder
python tools/budgets.py --lower    # lowers the known exceptions to what is measured, and removes old ones
python tools/budgets.py --loaded   # prints the code lines that a plain run loads in the VMM (needs /dev/kvm)

`budgets.toml` lists the known exceptions with their numbers. A number may go down and never up; what is new
has no exception. `tests/test_budgets.py` checks.
"""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

PROJECT: Final = Path(__file__).resolve().parent.parent
PACKAGE: Final = PROJECT / "kvmbox"
KNOWN: Final = Path(__file__).with_suffix(".toml")
CORE: Final = PROJECT / "docs/internals/core.md"
"""The page that lists the files of the core."""

BUDGETS: Final = {"attributes of a class": 15, "lines of a function": 60, "imports of a module": 20}
RINGS: Final = "code lines of a folder"
TOP: Final = "top modules"
LOADED: Final = "code lines that a plain run loads"
PLAIN_RUN: Final = ("run", "hello64")

# The modules of kvmbox at the very end of a command, by file; a confined run can still write to stderr.
_TELL_MODULES: Final = """
import os, sys
leave = os._exit
def tell(status):
    files = [str(one.__file__) for name, one in sys.modules.items() if f"{name}.".startswith("kvmbox.")]
    os.write(2, "\\n".join(files).encode())
    leave(status)
os._exit = tell
from kvmbox.cli.entry import entry_point
entry_point()
"""

NO_CODE: Final = (
    *(tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT),
    *(tokenize.ENCODING, tokenize.ENDMARKER),
)

Numbers = dict[str, dict[str, int]]
"""By the name of a budget: the number of each class, function, module or folder."""


def code_lines(text: str) -> int:
    """Lines with something other than comments, docstrings and blanks."""
    tree = ast.parse(text)
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    texts: set[int] = set()
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        # A string by itself says something of what it follows: no code either.
        for one in body if isinstance(node, documented) and body else ():
            if isinstance(one, ast.Expr) and isinstance(getattr(one.value, "value", None), str):
                texts.update(range(one.lineno, (one.end_lineno or one.lineno) + 1))
    found: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in NO_CODE:
            found.update(range(token.start[0], token.end[0] + 1))
    return len(found - texts)


def attributes(node: ast.ClassDef) -> int:
    """The fields of a class: those that its body declares, and those that methods set on `self`."""
    found = {
        one.target.id
        for one in node.body
        if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)
    }
    for one in ast.walk(node):
        if (
            isinstance(one, ast.Attribute)
            and isinstance(one.ctx, ast.Store)
            and ast.unparse(one.value) == "self"
        ):
            found.add(one.attr)
    return len(found)


def imports(tree: ast.Module) -> int:
    """How many modules are imported while running, at the top or in functions."""
    found: set[str] = set()
    waiting: list[ast.AST] = [tree]
    while waiting:
        for node in ast.iter_child_nodes(waiting.pop()):
            if isinstance(node, ast.Import):
                found.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module != "__future__":
                found.update(map(str, _modules(node)))
            elif not (isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")):
                waiting.append(node)
    return len(found)


def _modules(node: ast.ImportFrom) -> Iterator[str]:
    folder = PROJECT.joinpath(*str(node.module).split("."))
    for alias in node.names:
        is_module = (folder / f"{alias.name}.py").exists() or (folder / alias.name / "__init__.py").exists()
        yield f"{node.module}.{alias.name}" if is_module else str(node.module)


def functions(node: ast.AST, name: str) -> Iterator[tuple[str, ast.ClassDef | ast.FunctionDef]]:
    """All classes and functions below `node`, by name."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef):
            yield f"{name}.{child.name}", child
            yield from functions(child, f"{name}.{child.name}")
        else:
            yield from functions(child, name)


def measure(sources: Mapping[str, str]) -> Numbers:
    """What is over a budget in these modules: texts by name. Of folders, the number of each."""
    found: Numbers = {budget: {} for budget in (*BUDGETS, RINGS)}
    rings: Counter[str] = Counter()
    for module, text in sources.items():
        tree = ast.parse(text)
        _, folder, *rest = f"{module}.".split(".", 2)
        rings[folder if "." in "".join(rest) else TOP] += code_lines(text)
        if "._generated" in module:
            continue
        _note(found, "imports of a module", module, imports(tree))
        for name, node in functions(tree, module):
            if isinstance(node, ast.ClassDef):
                _note(found, "attributes of a class", name, attributes(node))
            else:
                assert node.end_lineno is not None
                _note(found, "lines of a function", name, node.end_lineno - node.lineno + 1)
    found[RINGS] = dict(sorted(rings.items()))
    return found


def loaded() -> Counter[str]:
    """The code lines that `PLAIN_RUN` loads in the VMM, by folder; compiled modules do not count.

    The least of three runs: one that has to wait for a busy host loads what looks for the reason.
    """
    return min((_loaded_once() for _ in range(3)), key=Counter.total)


def _loaded_once() -> Counter[str]:
    command = [sys.executable, "-c", _TELL_MODULES, *PLAIN_RUN]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rings: Counter[str] = Counter()
    for line in done.stderr.splitlines():
        folder, *rest = Path(line).relative_to(PACKAGE).parts
        if line.endswith(".py"):
            rings[folder if rest else TOP] += code_lines(Path(line).read_text(encoding="utf-8"))
    return rings


def _note(found: Numbers, budget: str, name: str, number: int) -> None:
    if number > BUDGETS[budget]:
        found[budget][name] = number


def sources() -> dict[str, str]:
    """The modules of kvmbox: their texts by name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PROJECT).with_suffix("").parts
        found[".".join(parts)] = path.read_text(encoding="utf-8")
    return found


def core() -> list[Path]:
    """The files of the core, in the order in which they are read."""
    rows = re.findall(r"^\| \d+ \| `([\w/]+\.py)` \|", CORE.read_text(encoding="utf-8"), re.MULTILINE)
    return [PACKAGE / row for row in rows]


def known() -> Numbers:
    """The exceptions."""
    numbers: Numbers = tomllib.loads(KNOWN.read_text(encoding="utf-8"))
    return numbers


def excess(measured: Numbers, exceptions: Numbers) -> list[str]:
    """What is over its budget and its exception."""
    return [
        f"{budget}: {name} has {number}, and may have {exceptions[budget].get(name, BUDGETS.get(budget, 0))}"
        for budget, numbers in measured.items()
        for name, number in numbers.items()
        if number > exceptions[budget].get(name, 0)
    ]


def idle(measured: Numbers, exceptions: Numbers) -> list[str]:
    """The exceptions that allow more than there is. A folder may have some room."""
    return [
        f"{budget}: {name} has {measured[budget].get(name, 'no excess')}, and the exception says {number}"
        for budget, numbers in exceptions.items()
        if budget in measured
        for name, number in numbers.items()
        if name not in measured[budget] or (budget in BUDGETS and number > measured[budget][name])
    ]


def lowered(measured: Numbers, exceptions: Numbers) -> Numbers:
    """The exceptions, none of them above what is measured."""
    return {
        budget: {
            name: min(number, measured[budget][name]) if budget in BUDGETS else number
            for name, number in numbers.items()
            if name in measured[budget]
        }
        if budget in measured
        else numbers
        for budget, numbers in exceptions.items()
    }


def written(numbers: Numbers) -> str:
    """`budgets.toml`."""
    tables = (
        f'["{budget}"]\n' + "".join(f'"{name}" = {number}\n' for name, number in sorted(table.items()))
        for budget, table in numbers.items()
    )
    return (
        "# Known exceptions from the budgets of tools/budgets.py: a number may only go down.\n"
        + "\n".join(tables)
    )


def main(arguments: list[str]) -> int:
    """The command."""
    measured, exceptions = measure(sources()), known()
    if arguments == ["--loaded"]:
        rings = loaded()
        measured = {RINGS: dict(rings), LOADED: {" ".join(PLAIN_RUN): rings.total()}}
        exceptions[RINGS] = measured[RINGS]
    elif arguments == ["--lower"]:
        KNOWN.write_text(written(lowered(measured, exceptions)), encoding="utf-8")
    elif arguments:
        print(__doc__)
        return 2
    for budget, numbers in measured.items():
        print(f"{budget}, at most {BUDGETS[budget]}:" if budget in BUDGETS else f"{budget}:")
        for name, number in sorted(numbers.items(), key=lambda item: -item[1]):
            print(f"{number:7,}  {name}")
    print(f"{sum(measured[RINGS].values()):7,}  together")
    core_lines = [code_lines(path.read_text(encoding="utf-8")) for path in core()]
    print(f"{sum(core_lines):7,}  in the {len(core_lines)} files of the core")
    told = excess(measured, exceptions)
    print("\n".join(told), end="\n" if told else "")
    return 1 if told else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
