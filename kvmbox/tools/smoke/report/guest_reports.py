"""What guests print of their own tests: TAP, the lines of Cyberus' guest-tests (SOTEST), and verdict lines.

Each function reads a console and says what it reports, or what is missing for a verdict. Formats: TAP 13
and 14 (testanything.org), sotest.hpp of cyberus-technology/guest-tests, lib/unittest of littlekernel/lk.
Console text has \\n line ends; a guest's other lines are ignored.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from kvmbox.tools.smoke.suite.test_case import Judgement, Pattern, Verdict

MOST_NAMED: Final = 3
"""How many failed cases a reason names."""
MOST_DIGITS: Final = 9
"""How long a number of a guest may be. A longer one counts as 10**9: no guest reports so much."""

_TAP_POINT: Final = re.compile(rb"^(not )?ok\b[ \t]*(\d+)?[ \t]*(.*)$")
_TAP_PLAN: Final = re.compile(rb"^1\.\.(\d+)[ \t]*(?:#[ \t]*(.*))?$")
_TAP_BAIL: Final = re.compile(rb"^Bail out!(.*)$", re.IGNORECASE)
_TAP_DIRECTIVE: Final = re.compile(rb"(?<!\\)#[ \t]*(TODO|SKIP)\b", re.IGNORECASE)
_SOTEST: Final = re.compile(rb"SOTEST (VERSION \d+ BEGIN (\d+)|SUCCESS \"(.*)\"|FAIL \"(.*)\"|SKIP\b|END\b)")

SOTEST_END: Final = Pattern(r"SOTEST END\b", is_regex=True)
LK_PASS: Final = Pattern(r"SUCCESS!\s+All test cases passed", is_regex=True)
LK_FAIL: Final = Pattern(r"CASES:\s+\d+\s+SUCCESS:\s+\d+\s+FAILED:\s+[1-9]", is_regex=True)
TAP_BAIL: Final = Pattern(r"^[Bb]ail out!", is_regex=True)


def judge_tap(console: bytes) -> Judgement:
    """TAP: a plan, as many test points, none of them `not ok` unless it is a TODO."""
    planned: int | None = None
    ok = todo = skipped = 0
    failed: list[str] = []
    numbers: list[int] = []
    for line in console.split(b"\n"):
        if bail := _TAP_BAIL.match(line):
            return Judgement(Verdict.FAIL, f"TAP: bail out: {_words(bail[1])}".removesuffix(": "))
        if plan := _TAP_PLAN.match(line):
            if planned is not None:
                return Judgement(Verdict.FAIL, "TAP: two plans")
            planned = _count(plan[1])
            if planned == 0:
                reason = re.sub(r"^(?i:skip\w*)[: ]*", "", _words(plan[2] or b""))
                return Judgement(Verdict.SKIP, f"TAP: {reason or 'all is skipped'}")
        elif point := _TAP_POINT.match(line):
            numbers.append(_count(point[2]) if point[2] else len(numbers) + 1)
            directive = _TAP_DIRECTIVE.search(point[3])
            kind = directive[1].upper() if directive else b""
            if kind == b"TODO":
                todo += 1
            elif point[1]:
                failed.append(_words(point[3].removeprefix(b"- ")) or str(numbers[-1]))
            elif kind == b"SKIP":
                skipped += 1
            else:
                ok += 1
    if failed:
        return Judgement(Verdict.FAIL, f"TAP: {_named(failed, planned or len(numbers))}")
    if planned is None:
        return Judgement(Verdict.FAIL, "TAP: there is no plan (1..N)" if numbers else "there is no TAP")
    # The lengths first: the plan is the guest's, and may be any number.
    if len(numbers) != planned:
        return Judgement(Verdict.FAIL, f"TAP: {len(numbers)} of {planned} planned test points")
    if any(number != place for place, number in enumerate(numbers, 1)):
        return Judgement(Verdict.FAIL, "TAP: test points are not numbered 1 to N")
    if not ok:  # nothing is proven
        if not skipped:
            return Judgement(Verdict.SKIP, f"TAP: all {todo} to do")
        return Judgement(Verdict.SKIP, f"TAP: all {skipped} skipped" + (f", {todo} to do" if todo else ""))
    extra = "".join(f", {count} {word}" for count, word in ((skipped, "skipped"), (todo, "to do")) if count)
    return Judgement(Verdict.PASS, f"TAP: {ok} of {planned} ok{extra}")


def judge_sotest(console: bytes) -> Judgement:
    """SOTEST: BEGIN with a number, as many SUCCESS and SKIP, no FAIL, then END."""
    planned: int | None = None
    passed = skipped = 0
    failed: list[str] = []
    for found in _SOTEST.finditer(console):
        what = found[1]
        if what.startswith(b"VERSION"):
            if planned is not None:
                return Judgement(Verdict.FAIL, "SOTEST: two times BEGIN: the guest began again")
            planned = _count(found[2])
        elif planned is None:
            return Judgement(Verdict.FAIL, f"SOTEST: {_words(what)} before BEGIN")
        elif what.startswith(b"SUCCESS"):
            passed += 1
        elif what.startswith(b"FAIL"):
            failed.append(_words(found[4]))
        elif what == b"SKIP":
            skipped += 1
        else:
            done = passed + skipped + len(failed)
            if failed:
                break
            if done != planned:
                return Judgement(Verdict.FAIL, f"SOTEST: {done} of {planned} results before END")
            if not planned:
                return Judgement(Verdict.SKIP, "SOTEST: BEGIN 0: nothing was tested")
            if not passed:
                return Judgement(Verdict.SKIP, f"SOTEST: all {skipped} skipped")
            extra = f", {skipped} skipped" if skipped else ""
            return Judgement(Verdict.PASS, f"SOTEST: {passed} of {planned} succeeded{extra}")
    if failed:
        return Judgement(Verdict.FAIL, f"SOTEST: {_named(failed, planned or 0)}")
    if planned is None:
        return Judgement(Verdict.FAIL, "there is no SOTEST line")
    return Judgement(Verdict.FAIL, f"SOTEST: {passed + skipped} of {planned} results, and no END")


def judge_lines(console: bytes, lines: Sequence[tuple[str, Pattern]]) -> Judgement:
    """Patterns for pass, fail and skip: the one that is found first decides."""
    verdicts = {"pass": Verdict.PASS, "fail": Verdict.FAIL, "skip": Verdict.SKIP}
    found = []
    for number, (kind, pattern) in enumerate(lines):
        if match := pattern.regex.search(console):
            # Of two that begin at one place, the failure counts.
            found.append((match.start(), kind != "fail", number, _line_of(console, match.start())))
    if not found:
        return Judgement(Verdict.FAIL, "there is no verdict line")
    _, _, number, line = min(found)
    return Judgement(verdicts[lines[number][0]], line)


def summary_line(console: bytes) -> str:
    """The text of the last line "SUMMARY: ..." of kvm-unit-tests, or empty."""
    found = re.findall(rb"^SUMMARY: (.*)$", console, re.MULTILINE)
    return _words(found[-1]) if found else ""


def _line_of(console: bytes, at: int) -> str:
    begin = console.rfind(b"\n", 0, at) + 1
    end = console.find(b"\n", at)
    return _words(console[begin : end if end >= 0 else len(console)])


def _count(digits: bytes) -> int:
    """A number of a guest, which may have any length."""
    return int(digits) if len(digits) <= MOST_DIGITS else 10**MOST_DIGITS


def _words(data: bytes) -> str:
    """Text of a guest as a few printable words."""
    text = data[:200].decode("utf-8", "replace").strip()
    return "".join(one if one.isprintable() else "?" for one in text)


def _named(failed: Sequence[str], planned: int) -> str:
    shown = ", ".join(failed[:MOST_NAMED]) + (", ..." if len(failed) > MOST_NAMED else "")
    return f"{len(failed)} of {planned} failed: {shown}"
