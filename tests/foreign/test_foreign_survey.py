"""The parts of the survey of foreign guests that need neither KVM nor a foreign guest."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
import struct
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from tests.foreign import images, page, survey
from tests.foreign import kvm_unit_tests as suite
from tests.foreign.guests import GUESTS, Guest, Limit, Milestone, Start
from tests.foreign.kvm_unit_tests import Entry, Verdict
from tests.foreign.observe import LIMIT, End, Observation, observe, plain
from tests.foreign.rows import ENTRY, GUEST, OTHER, Row, load, merged, rows_of, save
from tests.lab.packages import Unavailable
from tests.support.patience import patience

pytestmark = pytest.mark.thorough

TOP = Path(__file__).parents[2]
LONG_S = patience(60)


def program(text: str) -> list[str]:
    """A command that runs a Python program."""
    return [sys.executable, "-I", "-S", "-c", text]


# --- observe ---------------------------------------------------------------------------------------------


def test_observe_a_command_to_its_end_gives_status_and_both_streams() -> None:
    seen = observe(
        program("import sys; print('out'); print('err', file=sys.stderr); sys.exit(7)"), timeout_s=LONG_S
    )

    assert (seen.end, seen.status, seen.output, seen.errors) == (End.ITSELF, 7, "out\n", "err\n")


def test_observe_ends_a_command_as_soon_as_its_output_is_enough() -> None:
    talks_for_ever = "while True: print('tick', flush=True)"

    seen = observe(program(talks_for_ever), timeout_s=LONG_S, enough=lambda output, _: "tick\ntick" in output)

    assert (seen.end, seen.status) == (End.SEEN, -15)


def test_observe_shows_the_errors_to_enough() -> None:
    waits = "import sys; print('stopped', file=sys.stderr, flush=True)\nwhile True: pass"

    seen = observe(program(waits), timeout_s=LONG_S, enough=lambda _, errors: "stopped" in errors)

    assert seen.end is End.SEEN


def test_observe_ends_a_command_that_takes_too_long() -> None:
    seen = observe(program("while True: pass"), timeout_s=0.0)

    assert (seen.end, seen.status) == (End.TIME, -15)


def test_observe_ends_a_command_that_prints_without_end() -> None:
    seen = observe(program("import os\nwhile True: os.write(1, bytes(1 << 16))"), timeout_s=LONG_S)

    assert seen.end is End.FLOOD
    assert len(seen.output) <= LIMIT + (1 << 17)


def test_plain_leaves_text_alone_and_drops_what_moves_the_cursor() -> None:
    assert plain(b"\x1b[2J\x1b[01;01HMem\x1b[0mtest\r\n\x1b(Bnext\xff") == "Memtest\nnext�"


# --- guests ----------------------------------------------------------------------------------------------

A_GUEST = Guest(
    *("a guest", "a-package", "a format", lambda _: Start(("image",), ("-kernel", "image"))),
    (Milestone("first", r"one \d"), Milestone("second", "two")),
    {"pvm": Limit(1, "no second")},
)


@pytest.mark.parametrize(
    ("output", "reached"), [("", 0), ("two", 0), ("two one 1", 1), ("one 1\ntwo", 2), ("one x two", 0)]
)
def test_guest_reaches_milestones_in_their_order_only(output: str, reached: int) -> None:
    assert A_GUEST.reached(output) == reached


def test_guest_must_reach_the_last_milestone_where_no_limit_is_known() -> None:
    assert A_GUEST.limit("pvm").milestones == 1
    assert A_GUEST.limit("svm").milestones == 2


def test_guests_have_names_of_their_own_and_limits_within_their_milestones() -> None:
    assert len({guest.name for guest in GUESTS}) == len(GUESTS)
    for guest in GUESTS:
        assert guest.milestones
        for limit in guest.limits.values():
            assert limit.milestones <= len(guest.milestones)
            assert not limit.says or limit.status is not None
            assert limit.why


def test_guest_of_linux_counts_the_cpus_of_its_machine() -> None:
    (two,) = [guest for guest in GUESTS if guest.name == "Linux, bzImage, 2 CPUs"]
    log = "Linux version 6.12\nkvmbox-init: running on {} CPU(s)\nreboot: Power down"

    assert two.reached(log.format(2)) == 3
    assert two.reached(log.format(1)) == 1


# --- images ----------------------------------------------------------------------------------------------


def test_image_comes_from_the_directory_that_the_environment_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = tmp_path / "a-package/boot/kernel-1.2"
    kernel.parent.mkdir(parents=True)
    kernel.touch()
    monkeypatch.setenv(images.VARIABLE, str(tmp_path))

    assert images.find("a-package", "boot/kernel-*") == kernel
    with pytest.raises(Unavailable, match=r"a-package: no file\(s\) .*/boot/initrd"):
        images.find("a-package", "boot/initrd")
    (kernel.parent / "kernel-1.3").touch()
    with pytest.raises(Unavailable, match=r"a-package: 2 file\(s\)"):
        images.find("a-package", "boot/kernel-*")


def test_image_that_no_debian_package_can_give_is_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(images.VARIABLE, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(Unavailable, match="kvmbox-no-such-package is not installed, and apt-get not found"):
        images.find("kvmbox-no-such-package", "boot/kernel")


def test_vmlinux_that_is_not_packed_with_zstd_is_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = bytearray(0x2000)
    image[0x1F1] = 1
    struct.pack_into("<II", image, 0x248, 0x100, 0x200)
    kernel = tmp_path / "a-package/vmlinuz"
    kernel.parent.mkdir()
    kernel.write_bytes(image)
    monkeypatch.setenv(images.VARIABLE, str(tmp_path))

    with pytest.raises(Unavailable, match="not compressed with zstd"):
        images.vmlinux("a-package", "vmlinuz")


def test_initramfs_has_a_console_and_a_static_init(tmp_path: Path) -> None:
    try:
        archive = images.initramfs(tmp_path).read_bytes()
    except Unavailable as problem:
        pytest.skip(str(problem))

    init = archive.index(b"\x7fELF")
    assert archive.index(b"dev/console\0") < archive.index(b"init\0") < init
    assert struct.unpack_from("<H", archive, init + 16) == (
        2,
    )  # e_type: ET_EXEC, so there is no loader to find
    assert b"kvmbox-init: running on" in archive[init:]


# --- kvm-unit-tests --------------------------------------------------------------------------------------

CONFIGURATION = """\
# Entries of made-up tests.
[plain]
file = plain.flat

[full]
file = full.flat
smp = 3
test_args = "two words `date +%s`"
qemu_params = -cpu max,host-phys-bits -m 4g
arch = x86_64
groups = one two
timeout = 30

[small]
file=full.flat
test_args = 'cpuid'
arch = i386
qemu_params = -m 2048

[by hand]
file = plain.flat
groups = nodefault

[picky]
file = plain.flat
check = /proc/self/comm=no-such-name
"""


def configured() -> dict[str, Entry]:
    return {entry.name: entry for entry in suite.parse(CONFIGURATION)}


def test_unit_tests_of_a_configuration_are_its_sections() -> None:
    found = configured()

    assert list(found) == ["plain", "full", "small", "by hand", "picky"]
    assert found["plain"] == Entry("plain", "plain.flat")
    full = found["full"]
    assert (full.cpus, full.timeout_s, full.groups, full.memory_mib) == (3, 30, ("one", "two"), 4096)
    assert re.fullmatch(r"two words \d{10}", full.arguments)
    assert found["small"].arguments == "cpuid"
    assert found["small"].memory_mib == 2048


def test_unit_tests_have_one_verdict_each_for_a_backend() -> None:
    table = tomllib.loads(Path(__file__).with_name("kvm_unit_tests.toml").read_text())

    assert table
    for backend, verdicts in table.items():
        assert backend in ("pvm", "svm", "vmx")
        assert all(Verdict(verdict) is not Verdict.BROKEN for verdict in verdicts)
        names = [name for names in verdicts.values() for name in names]
        assert len(set(names)) == len(names)


@pytest.mark.parametrize("line", ["file = before.flat", "[open", "[one]\nneither\n"])
def test_unit_tests_of_a_broken_configuration_are_refused(line: str) -> None:
    with pytest.raises(suite.BadConfiguration):
        list(suite.parse(line))


def test_unit_tests_that_the_suite_would_not_run_are_left_out_with_the_reason() -> None:
    reasons = {name: entry.left_out() for name, entry in configured().items()}

    assert reasons == {
        "plain": None,
        "full": None,
        "small": "i386 only",
        "by hand": "marked as a manual run",
        "picky": "/proc/self/comm is not no-such-name",
    }


def test_unit_test_has_the_same_guest_command_line_and_cpus_under_both_programs() -> None:
    entry, tree = configured()["full"], Path("/tree")

    ours = suite.kvmbox_arguments(entry, tree)
    theirs = suite.qemu_command(entry, tree, "qemu")

    for words, option in ((ours, "--append"), (theirs, "-append")):
        assert words[words.index(option) + 1] == entry.arguments
    assert ours[ours.index("--cpus") + 1] == theirs[theirs.index("-smp") + 1] == "3"
    assert ours[ours.index("--memory") + 1] == "4096M"
    assert ours[-1] == theirs[theirs.index("-kernel") + 1] == "/tree/x86/full.flat"
    assert theirs[-4:] == ["-cpu", "max,host-phys-bits,-arch-capabilities", "-m", "4g"]


def seen(status: int = 0, *, end: End = End.ITSELF, output: str = "", errors: str = "") -> Observation:
    return Observation(end, status, output, errors, 1.0)


@pytest.mark.parametrize(
    ("observation", "verdict"),
    [
        (seen(1), Verdict.PASS),
        (seen(77), Verdict.SKIP),
        (seen(3), Verdict.FAIL),
        (seen(255), Verdict.FAIL),
        (seen(10), Verdict.REFUSED),
        (seen(6), Verdict.CRASHED),
        (seen(0), Verdict.CRASHED),
        (seen(8), Verdict.BROKEN),
        (seen(14), Verdict.BROKEN),
        (seen(-9), Verdict.BROKEN),
        (seen(124), Verdict.TIMEOUT),
        (seen(130, end=End.TIME), Verdict.TIMEOUT),
    ],
)
def test_verdict_of_kvmbox_follows_its_exit_statuses(observation: Observation, verdict: Verdict) -> None:
    assert suite.kvmbox_verdict(observation) is verdict


STOPPED = "KVM internal error. Suberror: 1\nRAX=0\nCode=<0f>"


@pytest.mark.parametrize(
    ("observation", "verdict"),
    [
        (seen(1), Verdict.PASS),
        (seen(1, errors="qemu: warning: no such feature\n"), Verdict.PASS),
        (seen(1, errors="qemu: no such machine\n"), Verdict.BROKEN),
        (seen(-6), Verdict.BROKEN),
        (seen(77), Verdict.SKIP),
        (seen(3), Verdict.FAIL),
        (seen(0), Verdict.CRASHED),
        (seen(0, end=End.SEEN, errors=STOPPED), Verdict.REFUSED),
        (seen(0, end=End.TIME), Verdict.TIMEOUT),
    ],
)
def test_verdict_of_qemu_tells_its_own_failures_apart(observation: Observation, verdict: Verdict) -> None:
    assert suite.qemu_verdict(observation) is verdict


def test_qemu_has_stopped_only_when_its_report_is_whole() -> None:
    assert suite.qemu_stopped("", STOPPED)
    assert not suite.qemu_stopped("", STOPPED.partition("Code=")[0])
    assert not suite.qemu_stopped("Code=", "warning")


@pytest.mark.parametrize(
    ("observation", "line"),
    [
        (seen(4, errors="qemu: warning: x\nkvmbox: error: it is broken\nhint: y\n"), "it is broken"),
        (seen(3, output="PASS: a\nFAIL: b\nSUMMARY: 2 tests\n"), "FAIL: b"),
        (seen(77, output="hello\nno such CPU\n\n"), "no such CPU"),
        (seen(1, errors="qemu: warning: x\n"), ""),
    ],
)
def test_why_is_the_most_telling_line(observation: Observation, line: str) -> None:
    assert suite.why(observation) == line


# --- survey and page -------------------------------------------------------------------------------------


def row(backend: str, program: str, name: str = "a guest", **fields: object) -> Row:
    values: dict[str, object] = {
        "kind": GUEST,
        "result": "nothing",
        "reached": 0,
        "of": 2,
        "note": "",
        "seconds": 1.0,
        **fields,
    }
    return Row(backend, program, name=name, **values)  # type: ignore[arg-type] # a test's own fields


def test_rows_go_through_a_line_of_text_among_others() -> None:
    first, second = row("pvm", "kvmbox"), row("svm", "QEMU", note='a "quoted" | note')

    assert rows_of(f"boot\n{first.line()}\nnoise\r\n{second.line()}\r\n") == [first, second]


def test_rows_that_are_measured_again_replace_the_old_ones_in_place() -> None:
    old = [row("pvm", "QEMU"), row("pvm", "kvmbox"), row("svm", "kvmbox")]
    new = row("pvm", "kvmbox", reached=1)

    assert merged(old, [new]) == [old[0], new, old[2]]


@pytest.mark.parametrize(
    ("observation", "note"),
    [
        (seen(10, errors="kvmbox: error: KVM does not know it\nhint: no\n"), "KVM does not know it"),
        (seen(1, errors="qemu: warning: feature\nqemu: give a 32bit one\n"), "qemu: give a 32bit one"),
        (seen(10, errors="kvmbox: int 0x10 is not provided\nkvmbox: error: no iret\n"), "no iret"),
        (seen(0), "status 0"),
        (seen(0, end=End.TIME, errors="qemu: terminating on signal 15\n"), "time ran out"),
        (seen(-15, end=End.SEEN), ""),
    ],
)
def test_guest_note_says_what_ended_it(observation: Observation, note: str) -> None:
    assert survey.guest_note(observation) == note


@pytest.fixture
def one_guest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "GUESTS", (A_GUEST,))


PAGE = """\
# Title
<!-- generated: guests guests -->
old
<!-- end -->
prose
<!-- generated: guests kvm-unit-tests -->
<!-- end -->
"""


@pytest.mark.usefixtures("one_guest")
def test_page_shows_each_guest_once_with_all_columns() -> None:
    rows = [
        row("pvm", "QEMU", result="no way to boot it", of=2),
        row("pvm", "kvmbox", result="first", reached=1, note="a | b", version="1.0"),
        row("svm", "kvmbox", result="second", reached=2),
        row("pvm", "kvmbox", "an entry", kind=ENTRY, result="pass", reached=1, of=1),
        row("pvm", "QEMU", "an entry", kind=ENTRY, result="fail", of=1, note="FAIL: x"),
        row("pvm", "kvmbox", "its twin", kind=ENTRY, result="pass", reached=1, of=1),
        row("pvm", "QEMU", "its twin", kind=ENTRY, result="fail", of=1),
        row("pvm", "kvmbox", "other", kind=ENTRY, result="left out", of=1, note="i386 only"),
        row("pvm", "QEMU", "good", kind=ENTRY, result="pass", reached=1, of=1),
        row("pvm", "kvmbox", "good", kind=ENTRY, result="pass", reached=1, of=1),
        row("svm", "kvmbox", "no vmx", kind=ENTRY, result="skip", of=1, note="SUMMARY: 0 tests"),
    ]

    text = page.filled(PAGE, rows)

    assert "| a guest | a format | no way to boot it | first |  | **second** | pvm: no second |" in text
    assert "| `an entry`, `its twin` | fail | **pass** |  |  |" in text
    assert "| **passed** | **1 of 3** | **3 of 3** |  | **0 of 1** |" in text
    assert "\nPass wherever it was measured: `good`\n" in text
    assert "\nSkip wherever it was measured: `no vmx`\n" in text
    assert "| `good`" not in text
    assert "other" not in text
    assert "old" not in text
    assert "\nprose\n" in text
    assert page.filled(text, rows) == text


def test_page_shows_guests_measured_by_hand_beside_qemu() -> None:
    rows = [
        row("svm", "kvmbox", "a kernel", kind=OTHER, result="its shell", reached=2),
        row("tcg", "QEMU", "a kernel", kind=OTHER, result="its disk", reached=1, note="it panics"),
        row("svm", "kvmbox", "a guest", result="second", reached=2),
    ]

    text = page.filled("<!-- generated: guests others -->\n<!-- end -->\n", rows)

    assert "| a kernel | its disk | **its shell** | it panics |\n" in text
    assert "a guest" not in text


@pytest.mark.usefixtures("one_guest")
def test_page_gives_the_words_of_kvmbox_where_a_guest_got_less_far_than_it_must() -> None:
    text = page.filled(PAGE, [row("pvm", "kvmbox", note="a | b"), row("svm", "kvmbox", note="other")])

    assert r"| pvm: `a \| b`; svm: `other` |" in text


def test_page_gives_the_words_of_kvmbox_where_a_run_ended_otherwise_than_its_limit_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limited = dataclasses.replace(A_GUEST, limits={"pvm": Limit(0, "IRET is refused", 10, "iret")})
    monkeypatch.setattr(page, "GUESTS", (limited,))

    assert "pvm: `no such file`" in page.filled(PAGE, [row("pvm", "kvmbox", note="no such file")])
    assert "pvm: IRET is refused" in page.filled(PAGE, [row("pvm", "kvmbox", note="does not know iret")])


@pytest.mark.parametrize(
    "text", ["prose", PAGE.replace("kvm-unit-tests", "other"), PAGE.replace("end -->", "->")]
)
def test_page_without_the_blocks_that_are_known_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"no block|no table"):
        page.filled(text, [])


def test_page_of_the_repository_is_what_its_data_give() -> None:
    tool = load_tool()
    text = tool.PAGE.read_text()

    assert page.filled(text, load(tool.DATA)) == text


def test_tool_passes_its_own_options_not_on_to_the_lab() -> None:
    without = load_tool().without

    assert without(["--kut", "d", "--lab-timeout", "9", "--only=x"], "--lab-timeout") == [
        *("--kut", "d", "--only=x")
    ]
    assert without(["--lab-timeout=9", "--only", "y"], "--lab-timeout") == ["--only", "y"]


def load_tool() -> ModuleType:
    """tools/guests_that_boot.py as a module."""
    spec = importlib.util.spec_from_file_location("guests_that_boot", TOP / "tools/guests_that_boot.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_rows_are_the_same_after_a_file(tmp_path: Path) -> None:
    rows = [row("pvm", "QEMU"), row("svm", "kvmbox", note="ä")]

    assert load(tmp_path / "none.json") == []
    save(tmp_path / "rows.json", rows)

    assert load(tmp_path / "rows.json") == rows
