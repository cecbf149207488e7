"""A strict check of JUnit XML, after the schema of Jenkins' xunit plugin (junit-10.xsd), written as a table.

What parsers agree on: which elements, in which order, with which attributes, and numbers that add up.
"""

from __future__ import annotations

import re
from xml.etree import ElementTree

NUMBER = r"\d+"
TIME = r"\d+\.\d{3}"
TEXT = r"(?s).*"
NAME = r"(?s).+"
DATE = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d"

ATTRIBUTES: dict[str, dict[str, str]] = {
    "testsuites": {"name": NAME, "tests": NUMBER, "failures": NUMBER, "errors": NUMBER, "time": TIME},
    "testsuite": {
        "name": NAME,
        "tests": NUMBER,
        "failures": NUMBER,
        "errors": NUMBER,
        "time": TIME,
        "skipped": NUMBER,
        "timestamp": DATE,
        "hostname": NAME,
        "id": NUMBER,
    },
    "testcase": {"name": NAME, "classname": NAME, "time": TIME},
    "skipped": {"message": NAME},
    "failure": {"message": NAME, "type": NAME},
    "error": {"message": NAME, "type": NAME},
    "system-out": {},
    "system-err": {},
}
CHILDREN = {
    "testsuites": r"(testsuite )*",
    "testsuite": r"(testcase )*",
    # One outcome at most, then the output.
    "testcase": r"((skipped|failure|error) )?(system-out )?(system-err )?",
}


def read_junit(text: str) -> ElementTree.Element:
    """The document's root. AssertionError if the schema does not allow it."""
    assert text.startswith('<?xml version="1.0" encoding="UTF-8"?>\n')
    root = ElementTree.fromstring(text.encode())
    assert root.tag == "testsuites"
    for element in root.iter():
        wanted = ATTRIBUTES[element.tag]
        assert set(element.attrib) == set(wanted), element.tag
        for name, pattern in wanted.items():
            assert re.fullmatch(pattern, element.attrib[name]), (element.tag, name, element.attrib[name])
        children = "".join(f"{child.tag} " for child in element)
        assert re.fullmatch(CHILDREN.get(element.tag, ""), children), (element.tag, children)
        if element.tag in ("testsuites", "testsuite", "testcase"):
            assert not (element.text or "").strip(), element.tag
    for suite in root:
        _check_counts(suite, [suite])
        assert int(suite.attrib["skipped"]) == len(suite.findall("./testcase/skipped"))
        names = [(case.attrib["classname"], case.attrib["name"]) for case in suite]
        assert len(set(names)) == len(names)
    _check_counts(root, list(root))
    assert [suite.attrib["id"] for suite in root] == [str(number) for number in range(len(root))]
    return root


def _check_counts(element: ElementTree.Element, suites: list[ElementTree.Element]) -> None:
    for attribute, path in (
        ("tests", "./testcase"),
        ("failures", "./testcase/failure"),
        ("errors", "./testcase/error"),
    ):
        assert int(element.attrib[attribute]) == sum(len(suite.findall(path)) for suite in suites), attribute
