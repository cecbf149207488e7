"""The bundle of bytecode: what is taken from it, what is not, and what its modules do without."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType
from typing import Final

import pytest

import kvmbox
from kvmbox.base import bytecode
from tests.support.shared import bundle_of_kvmbox
from tools.bundle_bytecode import bundle, compiled, stripped

PACKAGE: Final = Path(kvmbox.__file__).parent
MODULE: Final = '''"""A docstring."""

from __future__ import annotations

from typing import Any, Final, Protocol

from kvmbox.base.value_classes import NamedTuple

VALUE: Final = 1


class Wanted(Protocol):
    """A docstring alone."""


class Pair(NamedTuple):
    first: Any
    second: int = 2


def function(argument: Final) -> Any:
    """Another one."""
    return Wanted, Pair(argument)
'''
TELL: Final = """
import sys
from kvmbox.base import bytecode
bytecode.use()
{before}
from kvmbox.inner import module
bundled = module.__cached__ == bytecode.BUNDLE
print(bundled, module.VALUE, module.function(5)[1].second, "typing" in sys.modules)
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A small package of that name, with its bundle."""
    made = tmp_path / "kvmbox"
    for name in ("base", "inner"):
        (made / name).mkdir(parents=True)
    for name in ("__init__.py", "base/__init__.py", "inner/__init__.py"):
        (made / name).touch()
    for name in ("base/bytecode.py", "base/light_typing.py", "base/value_classes.py"):
        (made / name).write_text((PACKAGE / name).read_text())
    (made / "inner/module.py").write_text(MODULE)
    (made / Path(bytecode.BUNDLE).name).write_bytes(bundle(made))
    return made


def make_folders(package: Path, name: str) -> None:
    """The folders of a module, each a package."""
    folder = package
    for one in name.split("/")[:-1]:
        folder /= one
        folder.mkdir(exist_ok=True)
        (folder / "__init__.py").touch()


def told(package: Path, before: str = "", code: str = TELL) -> str:
    """Whether the module came from the bundle; its value; a default; whether `typing` was loaded."""
    command = [sys.executable, "-P", "-S", "-c", code.format(before=before)]
    environment = {"PYTHONPATH": str(package.parent)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.removesuffix("\n")


def test_module_comes_from_the_bundle_without_typing(package: Path) -> None:
    assert told(package) == "True 1 2 False"


def test_module_that_is_imported_while_the_guest_runs_comes_from_the_bundle(package: Path) -> None:
    assert told(package, before="bytecode.loaded()") == "True 1 2 False"


def test_module_whose_source_has_changed_comes_from_its_source(package: Path) -> None:
    source = package / "inner/module.py"
    source.write_text(MODULE.replace("VALUE: Final = 1", "VALUE: Final = 17"))

    assert told(package) == "False 17 2 True"


def test_module_whose_source_has_another_time_comes_from_its_source(package: Path) -> None:
    source = package / "inner/module.py"
    source.write_text(MODULE.replace("VALUE: Final = 1", "VALUE: Final = 7"))
    os.utime(source, (1, 1))

    assert told(package) == "False 7 2 True"


GROUP: Final = """
import sys
from kvmbox.base import bytecode
bytecode.use()
{before}
bytecode.load("spawner")
print(*(name for name in sys.modules if name.startswith("kvmbox.jail")))
sys.meta_path[:] = []
from kvmbox.jail import VALUE, spawner
print(spawner.__cached__ == bytecode.BUNDLE, spawner.__spec__.parent, VALUE)
"""


@pytest.fixture
def group(package: Path) -> Path:
    """The same with a group, of a package that imports one of its modules."""
    (package / "jail").mkdir()
    (package / "jail/__init__.py").write_text("from kvmbox.jail.server import VALUE\n")
    (package / "jail/server.py").write_text("from kvmbox.inner.module import VALUE\n")
    (package / "jail/spawner.py").write_text("from kvmbox.jail import server\n")
    (package / Path(bytecode.BUNDLE).name).write_bytes(bundle(package))
    return package


def test_group_is_loaded_with_all_that_it_imports(group: Path) -> None:
    loaded, rest = told(group, code=GROUP).split("\n")
    assert set(loaded.split()) == {"kvmbox.jail", "kvmbox.jail.server", "kvmbox.jail.spawner"}
    assert rest == "True kvmbox.jail 1"


def test_group_leaves_alone_what_is_loaded(group: Path) -> None:
    own = "from kvmbox.inner import module; module.VALUE = 5"
    assert told(group, own, code=GROUP).endswith("True kvmbox.jail 5")


def test_group_of_a_module_is_loaded_before_it(package: Path) -> None:
    for name, text in (
        ("remote/transport/direct", "from kvmbox.devices.debug import pvpanic"),
        ("devices/debug/pvpanic", ""),
    ):
        make_folders(package, name)
        (package / f"{name}.py").write_text(f"import sys\nprint('{name}', *sys.modules)\n{text}\n")
    (package / Path(bytecode.BUNDLE).name).write_bytes(bundle(package))
    code = (
        "from kvmbox.base import bytecode; bytecode.use(); from kvmbox.remote.transport.direct import pvpanic"
    )

    inner, outer = (set(line.split()) for line in told(package, code=code).split("\n"))

    assert "devices/debug/pvpanic" in inner
    assert inner >= {"kvmbox.remote.transport.direct"} <= outer
    assert "kvmbox.devices.debug.pvpanic" in outer


@pytest.mark.parametrize("name", ["jail/spawner.py", "inner/module.py"])
def test_group_with_a_changed_source_is_loaded_when_it_is_imported(group: Path, name: str) -> None:
    with (group / name).open("a") as source:
        source.write("VALUE = 17\n")
    code = GROUP.replace("sys.meta_path[:] = []", "")
    assert told(group, code=code).startswith("\n")


def test_bundle_of_a_package_that_has_moved_is_left_alone(package: Path) -> None:
    moved = package.parent / "elsewhere" / "kvmbox"
    moved.parent.mkdir()
    package.rename(moved)

    assert told(moved) == "False 1 2 True"


@pytest.mark.parametrize("content", [b"", b"\xff\xff\xff\xffx"])
def test_bundle_that_cannot_be_read_is_left_alone(package: Path, content: bytes) -> None:
    (package / Path(bytecode.BUNDLE).name).write_bytes(content)

    assert told(package) == "False 1 2 True"


@pytest.mark.parametrize(("before", "found"), [("", False), ("import kvmbox.inner; ", True)])
def test_bundle_that_is_replaced_while_it_is_used_gives_no_code(
    package: Path, before: str, found: bool
) -> None:
    replace = (
        "import os; os.rename(bytecode.BUNDLE, bytecode.BUNDLE + 'x'); open(bytecode.BUNDLE, 'w').close()"
    )

    assert told(package, before + replace) == f"{found} 1 2 True"  # loaded from the source


def test_module_without_its_source_is_not_found(package: Path) -> None:
    remove = "import os; os.remove(bytecode.PACKAGE + '/inner/module.py')"

    with pytest.raises(subprocess.CalledProcessError) as failed:
        told(package, remove)
    assert "cannot import name 'module'" in failed.value.stderr


def code_of(tree: ast.Module) -> Iterator[CodeType]:
    """The code of a module, and of what is in it."""
    codes = [compiled(tree, "module.py")]
    while codes:
        code = codes.pop()
        codes += (one for one in code.co_consts if isinstance(one, CodeType))
        yield code


def test_bundle_knows_lines_and_no_columns() -> None:
    lines = {}
    for name, tree in (("bundle", stripped(MODULE, docstrings=True)), ("source", ast.parse(MODULE))):
        (function,) = (code for code in code_of(tree) if code.co_name == "function")
        _, *positions = function.co_positions()
        lines[name] = {line for line, *_ in positions}
        assert (name == "bundle") == ({place[2:] for place in positions} == {(None, None)})
    assert lines["bundle"] == lines["source"] == {len(MODULE.splitlines())}


def test_bundle_has_no_docstrings() -> None:
    texts = {one for code in code_of(stripped(MODULE, docstrings=True)) for one in code.co_consts}
    assert not {"A docstring.", "A docstring alone.", "Another one."} & texts


@pytest.mark.parametrize(("taken", "imported"), [((), ["Used"]), (("Named",), ["Named", "Used"])])
def test_bundle_imports_for_annotations_only_what_others_take(
    taken: tuple[str, ...], imported: list[str]
) -> None:
    text = """from __future__ import annotations
from kvmbox.devices.board import Named, Used
from kvmbox.base.errors import Other

def function(one: Named | Used) -> list[Other]:
    return [Used]
"""
    tree = stripped(text, docstrings=True, taken=taken)
    nodes = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    assert [alias.name for node in nodes for alias in node.names] == imported


def test_module_of_a_group_has_what_it_imports_where_the_other_group_is_not_loaded(package: Path) -> None:
    """`run` is loaded before `kvmbox.remote.transport.direct`, and has the module that both import."""
    for name, text in (
        ("cli/run/execute", "from kvmbox.inner.module import VALUE"),
        (
            "devices/debug/pvpanic",
            "from kvmbox.inner import module as own\nfrom kvmbox.inner.module import VALUE as one",
        ),
        ("remote/transport/direct", "from kvmbox.devices.debug.pvpanic import one, own"),
    ):
        make_folders(package, name)
        (package / f"{name}.py").write_text(f"{text}\n")
    (package / Path(bytecode.BUNDLE).name).write_bytes(bundle(package))
    code = """
import sys
from kvmbox.base import bytecode
bytecode.use()
from kvmbox.remote.transport import direct
print(direct.one, direct.own.VALUE, "kvmbox.cli.run.execute" in sys.modules)
"""
    assert told(package, code=code) == "1 1 False"


def test_core_needs_typing_only_where_a_plain_run_does_not_go() -> None:
    asking = {
        str(path.relative_to(PACKAGE))
        for folder in (
            "base",
            "boot",
            "contract",
            "devices",
            "firmware",
            "host",
            "jail",
            "kvm",
            "remote",
            "run",
            "sandbox",
            "wire",
        )
        for path in PACKAGE.joinpath(folder).rglob("*.py")
        for node in ast.walk(stripped(path.read_text(), docstrings=True))
        if isinstance(node, ast.ImportFrom) and node.module == "typing"
    }
    programs = {
        "run/options/_generated.py",
        "run/api/async_machine.py",
        "run/api/paused_calls.py",
        "run/options/signature.py",
    }
    assert asking == {"remote/published/medium.py"} | programs


def test_each_module_can_be_loaded_from_a_bundle(tmp_path_factory: pytest.TempPathFactory) -> None:
    content = bundle_of_kvmbox(tmp_path_factory)
    files = [path.relative_to(PACKAGE.parent).with_suffix("") for path in PACKAGE.rglob("*.py")]
    names = [".".join(file.parts) for file in files if file.name not in ("__init__", "__main__")]
    loaded = ["kvmbox.base.bytecode"]
    load = f"""
from importlib import import_module
from kvmbox.base import bytecode
bytecode.BUNDLE = {str(content)!r}
bytecode.use()
for name in {names!r}:
    try:
        module = import_module(name)
    except ModuleNotFoundError as error:  # an extra that is not installed
        assert not error.name.startswith("kvmbox"), error
    else:
        assert name in {loaded!r} or module.__cached__ == bytecode.BUNDLE, name
"""
    subprocess.run([sys.executable, "-c", load], check=True)
