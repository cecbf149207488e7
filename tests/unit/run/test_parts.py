"""The parts of a run: who is told of which stage, in which order, and what becomes of failures."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from kvmbox.base import layout
from kvmbox.base.errors import KvmboxError, StartError
from kvmbox.base.outcome import (
    CLEAN,
    DEVICE_FAILED,
    GUEST_CRASHED,
    INTERRUPTED,
    TIMED_OUT,
    UNEXPECTED,
    UNKNOWN_EXIT,
    Outcome,
)
from kvmbox.contract.names import VGA
from kvmbox.run.part import Finding, Lost, Opening, Part, Standing, Unmet
from kvmbox.run.part_loader import load, load_any
from kvmbox.run.parts import ORDER, Parts
from kvmbox.run.result.run_result import Draft

SHUTDOWN = Outcome(CLEAN, "the guest shut down")


class Bench:
    """A run whose parts are none of kvmbox's: they note what they are told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log: list[str] = []
        self.findings: dict[str, Finding | Exception] = {}
        """What a part finds when the guest has ended, by its name."""
        self.refuses: str | None = None
        """The part that cannot be opened."""
        self.equipped: list[str] = []
        """The parts that could put devices on the board."""
        self.text = bytes(layout.TEXT_SCREEN_SIZE)
        self.said: list[str] = []
        self.cleanup = ExitStack()
        for name in ORDER:
            module = ModuleType(f"kvmbox.parts.{name}.part")
            module.PART = self._kind(name)  # type: ignore[attr-defined]  # as the table names it
            monkeypatch.setitem(sys.modules, f"kvmbox.parts.{name}.part", module)
        place = ("vga", 0, SimpleNamespace(name=VGA))
        channel = SimpleNamespace(is_started=False)
        self.machine: Any = SimpleNamespace(
            config=SimpleNamespace(start=None),
            judge=SimpleNamespace(searches=False),
            console=SimpleNamespace(inputs=[]),
            say=self.said.append,
            memory=SimpleNamespace(read=lambda _address, _size: self.text),
            devices=SimpleNamespace(
                pool=SimpleNamespace(
                    places=lambda: [place],
                    channel=lambda _type: channel,
                    design=SimpleNamespace(has_processes=True),
                )
            ),
        )
        self.opening: Any = SimpleNamespace(source=SimpleNamespace(disk=None))
        self.draft: Any = SimpleNamespace()

    def _kind(self, name: str) -> type[Part]:
        bench = self

        class Noting(Part):
            def __init__(self, **options: object) -> None:
                given = f"({', '.join(f'{key}={value}' for key, value in options.items())})"
                bench.log.append(f"{name} made{given if options else ''}")
                self.readable = [f"/{name}"]
                self.accepts = name == "gdb"

            def equip(self, opening: Opening) -> None:
                bench.equipped.append(name)

            def open(self, opening: Opening) -> None:
                bench.log.append(f"{name} open")
                if bench.refuses == name:
                    raise StartError(f"no room for {name}")

            def attach(self, machine: Standing) -> None:
                bench.log.append(f"{name} attach")

            def start(self) -> None:
                bench.log.append(f"{name} start")

            def show(self) -> None:
                bench.log.append(f"{name} shown")

            def ended(self, outcome: Outcome | None) -> Finding | None:
                bench.log.append(f"{name} ended" if outcome is not None else f"{name} ended by a failure")
                found = bench.findings.get(name)
                if isinstance(found, Exception):
                    raise found
                return found

            def report(self, draft: Draft) -> None:
                bench.log.append(f"{name} report")

            def close(self) -> None:
                bench.log.append(f"{name} close")

        return Noting

    def parts(self, *names: str, **options: Any) -> Parts:
        config: Any = SimpleNamespace(parts={name: options.get(name, {}) for name in names})
        return Parts(config)

    def attached(self, *names: str) -> Parts:
        """Parts at a machine that runs; the log begins behind that."""
        parts = self.parts(*names)
        parts.equip(self.opening, self.cleanup)
        parts.open(self.opening)
        parts.attach(self.machine)
        self.log.clear()
        return parts


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


# --- Stages ----------------------------------------------------------------------------------------------


def test_stages_come_in_the_order_of_the_table_and_the_end_in_reverse(bench: Bench) -> None:
    given = ("record", "gdb", "snapshot")
    parts = bench.parts(*given)
    names = ("gdb", "snapshot", "record")
    assert [name for name in ORDER if name in given] == list(names)
    with ExitStack() as cleanup:
        parts.equip(bench.opening, cleanup)
        parts.open(bench.opening)
        parts.attach(bench.machine)
        parts.start()
        assert parts.ended(SHUTDOWN) == []
        parts.report(bench.draft)
    stages = ("made", "open", "attach", "start", "ended", "report")
    assert bench.log == [
        *(f"{name} {stage}" for stage in stages for name in names),
        *(f"{name} close" for name in reversed(names)),
    ]


def test_only_what_is_wanted_is_made_with_its_options(bench: Bench) -> None:
    bench.parts("profile", profile={"profile": "file", "profile_rate": 7})
    assert bench.log == ["profile made(profile=file, profile_rate=7)"]
    bench.log.clear()
    bench.parts()
    assert bench.log == []


def test_part_that_cannot_be_opened_is_closed_with_all_others_and_none_behind_it_is_opened(
    bench: Bench,
) -> None:
    parts = bench.parts("gdb", "snapshot", "record")
    bench.log.clear()
    bench.refuses = "snapshot"
    with ExitStack() as cleanup:
        parts.equip(bench.opening, cleanup)
        with pytest.raises(StartError, match="no room for snapshot"):
            parts.open(bench.opening)
    assert bench.log == ["gdb open", "snapshot open", "record close", "snapshot close", "gdb close"]


def test_image_that_is_a_disk_brings_the_part_of_disks(bench: Bench) -> None:
    bench.opening.source.disk = b"a disk"
    parts = bench.parts("gdb")
    parts.equip(bench.opening, bench.cleanup)
    assert bench.equipped == ["gdb", "disk"]
    assert parts.has_disks
    without = bench.parts("gdb")
    bench.opening.source.disk = None
    without.equip(bench.opening, bench.cleanup)
    assert not without.has_disks


def test_confined_machine_may_do_what_any_of_its_parts_needs(bench: Bench) -> None:
    parts = bench.parts("record", "gdb")
    assert parts.readable == ["/gdb", "/record"]
    assert parts.accepts
    assert not bench.parts("record").accepts


# --- Parts that the run wants ----------------------------------------------------------------------------


def test_part_is_summoned_once_and_told_of_what_comes_behind_it_in_its_place(bench: Bench) -> None:
    parts = bench.attached("record")
    first = parts.summon("crash_report")
    assert parts.summon("crash_report") is first
    assert bench.log == ["crash_report made", "crash_report attach"]
    bench.log.clear()
    parts.ended(SHUTDOWN)
    parts.report(bench.draft)
    assert bench.log == ["crash_report ended", "record ended", "crash_report report", "record report"]


def test_summoned_part_is_closed_before_those_that_were_there(bench: Bench) -> None:
    parts = bench.attached("record")
    parts.summon("crash_report")
    bench.log.clear()
    bench.cleanup.close()
    assert bench.log == ["crash_report close", "record close"]


def test_screen_is_attached_last_when_it_is_known_whether_a_text_is_searched(bench: Bench) -> None:
    assert ORDER.index("screen") < ORDER.index("snapshot")
    parts = bench.parts("screen", "snapshot")
    parts.equip(bench.opening, bench.cleanup)
    parts.open(bench.opening)
    bench.log.clear()
    parts.attach(bench.machine)
    assert bench.log == ["snapshot attach", "screen attach"]


def test_part_that_the_run_has_is_not_made_again_when_it_is_summoned(bench: Bench) -> None:
    parts = bench.attached("screen")
    assert isinstance(parts.summon("screen"), Part)
    assert bench.log == []


@pytest.mark.parametrize("searches", [True, False])
def test_somebody_looks_at_the_screen_where_a_text_is_searched(bench: Bench, searches: bool) -> None:
    bench.machine.judge.searches = searches
    parts = bench.parts()
    parts.equip(bench.opening, bench.cleanup)
    parts.open(bench.opening)
    parts.attach(bench.machine)
    assert bench.log == (["screen made", "screen attach"] if searches else [])


@pytest.mark.parametrize("status", [CLEAN, GUEST_CRASHED, UNKNOWN_EXIT, TIMED_OUT, INTERRUPTED])
def test_bad_end_is_reported(bench: Bench, status: int) -> None:
    parts = bench.attached()
    parts.guest_ends(Outcome(status, "the end"))
    assert bench.log == ([] if status == CLEAN else ["crash_report made", "crash_report attach"])


@pytest.mark.parametrize("status", [UNEXPECTED, DEVICE_FAILED, 43])
def test_end_that_is_not_the_guest_s_fault_is_not_examined(bench: Bench, status: int) -> None:
    parts = bench.attached()
    parts.guest_ends(Outcome(status, "the end"))
    assert bench.log == []


def test_screen_that_was_used_is_looked_at_when_the_guest_has_ended(bench: Bench) -> None:
    bench.text = b"$\x07" + bytes(layout.TEXT_SCREEN_SIZE - 2)
    parts = bench.attached("record")
    parts.show()
    # Before the recording ends, which has the requests of this look, too.
    assert bench.log == ["screen made", "screen attach", "screen shown", "record shown"]


def test_screen_of_a_saved_machine_is_looked_at_though_it_was_not_used_since(bench: Bench) -> None:
    bench.machine.config.start = SimpleNamespace()
    parts = bench.attached("record")
    parts.show()
    assert bench.log == ["screen made", "screen attach", "screen shown", "record shown"]


def test_screen_of_a_run_that_failed_is_left_alone(bench: Bench) -> None:
    bench.text = b"$\x07" + bytes(layout.TEXT_SCREEN_SIZE - 2)
    parts = bench.attached("record")
    parts.ended(None)
    assert bench.log == ["record ended by a failure"]


def test_run_that_has_no_machine_yet_ends_all_the_same(bench: Bench) -> None:
    parts = bench.parts("record")
    bench.log.clear()
    assert parts.ended(None) == []
    assert bench.log == ["record ended by a failure"]


# --- Findings --------------------------------------------------------------------------------------------


def test_findings_are_those_of_all_parts_in_their_order(bench: Bench) -> None:
    bench.findings = {"record": Lost("the disk is full"), "snapshot": Unmet("it had printed 'x'")}
    found = bench.attached("record", "gdb", "snapshot").ended(SHUTDOWN)
    assert found == [Unmet("it had printed 'x'"), Lost("the disk is full")]


def test_error_of_a_part_at_the_end_is_a_loss_and_the_other_parts_still_end(bench: Bench) -> None:
    bench.findings = {"snapshot": KvmboxError("cannot write it"), "record": Lost("full", announced=True)}
    parts = bench.attached("gdb", "snapshot", "record")
    assert parts.ended(SHUTDOWN) == [Lost("cannot write it"), Lost("full", announced=True)]
    assert bench.log == ["gdb ended", "snapshot ended", "record ended"]


# --- A part that is not there ----------------------------------------------------------------------------


@pytest.fixture
def no_record(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("kvmbox.parts.record")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "kvmbox.parts.record", None)


@pytest.mark.usefixtures("no_record")
def test_part_whose_folder_is_missing_is_an_error_of_the_start_that_names_it() -> None:
    with pytest.raises(StartError, match="this kvmbox has no part 'record'") as caught:
        load("record.part", "PART")
    assert caught.value.exit_status == 4
    assert caught.value.hint is not None
    assert "kvmbox/parts/record " in caught.value.hint
    config: Any = SimpleNamespace(parts={"record": {"record": "file"}})
    with pytest.raises(StartError, match="no part 'record'"):
        Parts(config)


@pytest.mark.parametrize("name", ["crash_report", "screen"])
def test_part_that_only_the_run_wants_and_that_is_missing_is_told_and_changes_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for module in (f"kvmbox.parts.{name}", f"kvmbox.parts.{name}.part"):
        monkeypatch.setitem(sys.modules, module, None)
    bench.text = b"$\x07" + bytes(layout.TEXT_SCREEN_SIZE - 2)
    parts = bench.attached("record")
    crash = Outcome(GUEST_CRASHED, "the guest crashed")
    parts.guest_ends(crash)
    parts.show()
    assert parts.ended(crash) == []
    assert "record ended" in bench.log
    parts.report(bench.draft)
    assert "record report" in bench.log
    (line,) = bench.said
    assert line.startswith(f"this kvmbox has no part '{name}'")


@pytest.mark.parametrize("name", ORDER)
def test_each_part_of_the_table_can_be_had(name: str) -> None:
    assert callable(load(f"{name}.part", "PART"))


@pytest.mark.parametrize("module", ["kvmbox.no_such", "no_such.parts"])
def test_module_that_is_missing_and_no_part_is_a_defect(module: str) -> None:
    with pytest.raises(ModuleNotFoundError):
        load_any(module, "name")


def test_what_a_part_itself_cannot_import_is_not_called_a_missing_part(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Finder:
        """Finds a module of a part whose own import fails."""

        @staticmethod
        def find_spec(name: str, _path: object = None, _target: object = None) -> None:
            if name == "kvmbox.parts.record.example":
                raise ModuleNotFoundError("No module named 'elsewhere'", name="elsewhere")

    monkeypatch.setattr(sys, "meta_path", [Finder, *sys.meta_path])
    with pytest.raises(ModuleNotFoundError, match="elsewhere"):
        load("record.example", "PART")


def test_bug_of_a_part_is_raised_when_the_others_have_ended(bench: Bench) -> None:
    parts = bench.attached("gdb", "record")
    bench.log.clear()
    bench.findings["gdb"] = RuntimeError("a bug of gdb")
    with pytest.raises(RuntimeError, match="a bug of gdb"):
        parts.ended(SHUTDOWN)
    assert bench.log == ["gdb ended", "record ended"]
