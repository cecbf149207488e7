"""What the compiled sources may say: Cython 3.0, which Debian 13 has, refuses more than later ones."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import kvmbox

SOURCES: Final = sorted((Path(kvmbox.__file__).parent / "fast").glob("*.p[yx][xi]"))
CLASS: Final = re.compile(r"^cdef class (\w+)(?:\((\w+)\))?:\n((?:(?: {4}.*)?\n)*)", re.MULTILINE)
FIELD: Final = re.compile(r"^ {4}cdef (?!inline)[^(=\n]*?(\w+)(?:\[\w+\])?(?: *#.*)?$", re.MULTILINE)


def test_class_does_not_declare_a_field_of_its_base_again() -> None:
    fields: dict[str, set[str]] = {}
    for source in SOURCES:
        for name, base, body in CLASS.findall(source.read_text(encoding="utf-8")):
            own = set(FIELD.findall(body))
            assert not own & fields.get(base, set()), name
            fields[name] = own | fields.get(base, set())
    assert {"error", "failed_with"} <= fields["StreamEnd"]
