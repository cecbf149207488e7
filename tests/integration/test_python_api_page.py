"""The code blocks of docs/python-api.md, each as a program of its own, and the page's tables."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

import kvmbox
from kvmbox.base import errors

PAGE = Path(__file__).parents[2] / "docs/python-api.md"
TEXT = PAGE.read_text(encoding="utf-8")
BLOCKS = [
    (TEXT.count("\n", 0, block.start()) + 2, block[1])
    for block in re.finditer(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
]


@pytest.mark.kvm
@pytest.mark.parametrize(("line", "code"), BLOCKS, ids=[f"line {line}" for line, _ in BLOCKS])
def test_example_of_the_page_works(tmp_path: Path, line: int, code: str) -> None:
    # The lines before it are there as empty ones: a traceback tells the page's line.
    program = tmp_path / "python_api.py"
    program.write_text("\n" * (line - 1) + code, encoding="utf-8")
    runpy.run_path(str(program), run_name="__main__")


def test_page_has_examples() -> None:
    assert len(BLOCKS) > 5


def test_public_names_are_what_they_say_and_errors_are_on_the_page() -> None:
    for name in kvmbox.__all__:
        found = getattr(kvmbox, name)
        assert found.__name__ == name
        assert found.__doc__
        if isinstance(found, type) and issubclass(found, errors.KvmboxError):
            assert f"`{name}`" in TEXT or f"`kvmbox.{name}`" in TEXT
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = kvmbox.Nothing
    assert set(kvmbox.__all__) <= set(dir(kvmbox))
