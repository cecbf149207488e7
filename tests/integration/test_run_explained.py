"""Kernels that crash (tests/crashes): the report names the function, the line and the cause."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from kvmbox.explain import disassembly
from tests.support.crash_kernels import FLAGS, SOURCES, build_32, build_64, need_compiler, run
from tests.support.patience import far_enough, seconds

NULL_CALL = "hint: a null pointer was called by call (crash64.c:89): look at the function pointer there"
NO_IDT = "not delivered: the IDT has no entry at all (limit 0x0)"

CRASHES_64 = [
    (1, "cause", ("#UD (invalid opcode): the guest executed UD2", NO_IDT)),
    (2, "cause", ("#UD (invalid opcode)", "not delivered: the entry is not present", "IDT[6] at 0x")),
    (3, "cause", ("#UD (invalid opcode)", "not delivered: selector 0x1230 is outside the GDT (limit 0x37)")),
    (4, "cause", ("#PF (page fault): the stack is at 0x700000001000, which is not mapped: PML4E",)),
    (5, "recurse", ("#PF (page fault): the stack has run into 0x", "the stack at 0x", "more times")),
    (6, "", ("#PF (page fault): RIP 0x0 is not mapped: PTE is not present", NULL_CALL)),
    (7, "smash", ("#GP (general protection): the return address 0x4141414141414141 is not a canonical",)),
    (8, "recurse", ("has run into the page tables",)),
    (9, "stack", ("#PF (page fault): RIP 0x", "is on a page that is not executable")),
    (10, "dereference", ("#PF (page fault): the guest accessed 0x0 (CR2)", "(a null pointer)")),
    (11, "cause", ("#DE (divide error): the guest divided by zero", NO_IDT)),
    (12, "dereference", ("probably for writing, and the page is read-only",)),
    (13, "", ("#PF (page fault): RIP 0x700000000000", "probably a return address that was overwritten")),
    (15, "", (NULL_CALL,)),
    (16, "", ("hint: the entry function _start returned, and nothing had called it",)),
]
"""The CAUSE, the function that RIP is in, and words of the report."""

CRASHES_32 = [
    (1, "cause", ("#PF (page fault): RIP 0x1000", "PML4E is not present", "in compatibility mode")),
    (2, "cause", ("#GP (general protection): the guest loaded SS with a null selector", NO_IDT)),
    (3, "cause", ("#GP (general protection): far jump: selector 0x1238 is outside the GDT",)),
]


@pytest.fixture(autouse=True)
def compiler() -> None:
    need_compiler()


@pytest.mark.kvm
@pytest.mark.parametrize(("cause", "function", "words"), CRASHES_64)
def test_crash_in_long_mode(cause: int, function: str, words: tuple[str, ...], tmp_path: Path) -> None:
    address = 0x7000_0000_0000 if cause == 13 else 0x4141_4141_4141_4141
    status, report = run(build_64(tmp_path, 7 if cause == 13 else cause, address))
    assert status == 6
    for word in words:
        assert word in report
    if function:
        assert f"\nat {function}" in report
    if function not in ("", "stack"):
        assert "(crash64.c:" in report
    if cause not in (4, 8, 13, 16):  # whose stack is lost
        assert " _start+0x" in report.split("Backtrace:")[1] or "more times" in report


@pytest.mark.kvm
@pytest.mark.parametrize(("cause", "function", "words"), CRASHES_32)
def test_crash_in_protected_mode(cause: int, function: str, words: tuple[str, ...], tmp_path: Path) -> None:
    status, report = run(build_32(tmp_path, cause))
    assert status == 6
    for word in words:
        assert word in report
    assert f"\nat {function}" in report
    assert "(crash32.S:" in report


@pytest.mark.kvm
def test_division_by_zero_in_real_mode(tmp_path: Path) -> None:
    subprocess.run(["cc", "-m32", "-c", "-o", tmp_path / "crash.o", "crash16.S"], cwd=SOURCES, check=True)
    flat: list[str | Path] = ["--oformat", "binary", "-o", tmp_path / "crash.bin", tmp_path / "crash.o"]
    subprocess.run(["ld", "-m", "elf_i386", "-Ttext=0x7c00", *flat], check=True)
    status, report = run(tmp_path / "crash.bin", "--boot", "real")
    assert status == 6
    assert "interrupt 0x00 (divide error) is not handled, at 0x7c05" in report
    assert "CPU in real mode" in report


@pytest.mark.kvm
def test_hang_is_shown_as_a_profile(tmp_path: Path) -> None:
    image = build_64(tmp_path, 14)
    status, report = far_enough(
        lambda scale: run(image, "--timeout", seconds(scale)), lambda result: "spin_lock+0x" in result[1]
    )
    assert status == 124
    profile = report.split(" samples in 200 ms:\n")[1].splitlines()
    assert "spin_lock+0x" in profile[0]
    assert "running, interrupts off" in profile[0]
    backtrace = report.split("Backtrace:\n")[1]
    assert "spin_lock+0x" in backtrace
    assert "cause+0x" in backtrace
    assert "_start+0x" in backtrace


@pytest.mark.kvm
def test_explanation_is_in_the_json_too(tmp_path: Path) -> None:
    image = build_64(tmp_path, 10)
    run(image, "--json", tmp_path / "result.json")
    (cpu,) = json.loads((tmp_path / "result.json").read_text())["cpus"]
    assert cpu["fault"]["vector"] == 14
    assert cpu["fault"]["not_delivered"] == "the IDT has no entry at all (limit 0x0)"
    assert cpu["where"].startswith("dereference+0x")
    assert [frame["name"].partition("+")[0] for frame in cpu["backtrace"]] == [
        *("dereference", "cause", "_start"),
    ]
    assert all(frame["line"].startswith("crash64.c:") for frame in cpu["backtrace"])


@pytest.mark.kvm
def test_symbols_of_another_file_name_a_stripped_image(tmp_path: Path) -> None:
    image = build_64(tmp_path, 10)
    stripped = tmp_path / "stripped.elf"
    subprocess.run(["objcopy", "--strip-all", image, stripped], check=True)
    assert "at dereference" not in run(stripped)[1]
    assert "at dereference+0x" in run(stripped, "--symbols", image)[1]
    system_map = tmp_path / "System.map"
    names = subprocess.run(["nm", image], capture_output=True, text=True, check=True).stdout
    system_map.write_text(names)
    assert "at dereference+0x" in run(stripped, "--symbols", system_map)[1]
    moved = "".join(f"{int(line[:16], 16) - 0x1000:016x}{line[16:]}\n" for line in names.splitlines())
    system_map.write_text(moved)
    assert "at dereference+0x" in run(stripped, "--symbols", f"{system_map}@0x1000")[1]


@pytest.mark.kvm
@pytest.mark.parametrize("sandbox", ["process", "none"])
def test_source_lines_are_shown_from_a_directory(sandbox: str, tmp_path: Path) -> None:
    image, facts = build_64(tmp_path, 10), tmp_path / "facts.json"
    assert "*pointer = 42;" not in run(image)[1]
    options = ("--source", tmp_path / "empty", "--source", SOURCES, "--sandbox", sandbox, "--json", facts)
    (tmp_path / "empty").mkdir()
    report = run(image, *options)[1]
    head = report[report.index("\nat dereference") :].splitlines()
    assert head[2] == "    *pointer = 42;"
    backtrace = report.split("Backtrace:\n")[1].splitlines()
    assert backtrace[1] == "        *pointer = 42;"
    assert backtrace[3] == "        dereference(0);"
    (cpu,) = json.loads(facts.read_text())["cpus"]
    assert cpu["source"] == "*pointer = 42;"
    assert [one["source"] for one in cpu["backtrace"]] == ["*pointer = 42;", "dereference(0);", "cause();"]


@pytest.mark.kvm
def test_source_directory_that_leads_elsewhere_shows_nothing(tmp_path: Path) -> None:
    image, sources = build_64(tmp_path, 10), tmp_path / "sources"
    sources.mkdir()
    (sources / "crash64.c").symlink_to(SOURCES / "crash64.c")
    status, report = run(image, "--source", sources)
    assert status == 6
    assert "at dereference" in report
    assert "*pointer = 42;" not in report


def test_wrong_source_is_one_line(tmp_path: Path) -> None:
    found, report = run(Path("hello32"), "--source", tmp_path / "none")
    assert found == 4
    assert report.splitlines()[0].endswith(
        f"cannot open --source '{tmp_path / 'none'}': No such file or directory"
    )
    assert "Traceback" not in report


@pytest.mark.kvm
@pytest.mark.parametrize(
    ("guest", "options", "status", "line"),
    [
        ("triplefault", (), 6, "triplefault: about to fault without an IDT"),
        ("spin", ("--timeout",), 124, "spin: looping for ever"),
        ("hello32", (), 0, None),
    ],
)
def test_last_line_of_the_console_is_in_the_report(
    guest: str, options: tuple[str, ...], status: int, line: str | None, tmp_path: Path
) -> None:
    facts = tmp_path / "facts.json"
    found, report = far_enough(
        lambda scale: run(Path(guest), "--json", facts, *options, *(seconds(scale) for _ in options)),
        lambda result: line is None or line in result[1],
    )
    assert found == status
    if line is not None:
        assert report.splitlines()[-1] == f"Last line of COM1: {line}"
    assert json.loads(facts.read_text())["last_lines"] == ({} if line is None else {"COM1": line})


@pytest.mark.parametrize(
    ("symbols", "status", "words"),
    [
        ("nothing.map", 4, "nothing.map"),
        (__file__, 4, "it is neither an ELF file nor a System.map"),
        ("@0x1000", 2, "names no file"),
        ("x@nonsense", 2, "--symbols 'x@nonsense'"),
    ],
)
def test_wrong_symbols_are_one_line(symbols: str, status: int, words: str) -> None:
    found, report = run(Path("hello32"), "--symbols", symbols)
    assert found == status
    assert words in report.splitlines()[0]
    assert "Traceback" not in report


@pytest.mark.kvm
@pytest.mark.skipif(disassembly.installed() is None, reason="capstone is not installed")
def test_instructions_around_rip_are_shown(tmp_path: Path) -> None:
    image = build_64(tmp_path, 1)
    report = run(image)[1]
    marked = [line for line in report.splitlines() if line.startswith("  -> ")]
    assert len(marked) == 1
    assert marked[0].endswith("ud2")


@pytest.mark.kvm
@pytest.mark.parametrize("pure", ["", "1"])
def test_last_accesses_to_devices(pure: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KVMBOX_PURE", pure)
    image = tmp_path / "accesses.elf"
    subprocess.run(["cc", *FLAGS, "-o", image, "accesses.c"], cwd=SOURCES, check=True)
    status, report = run(image, "--report", "full")
    assert status == 6
    assert report.split("Last accesses to devices, the newest last:\n")[1].splitlines()[:4] == [
        "  in    0x03fd size 1  0x60, 29 times",
        "  out   0x03fb size 1  0x03",
        "  read  0xd0000005 size 1  0x60",
        "  in    0x1234 size 1  0xff",
    ]
