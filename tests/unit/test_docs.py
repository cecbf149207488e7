"""The documentation against the code: what a page says in a table, a link or a command is checked here."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest

from kvmbox.base import layout, outcome
from kvmbox.base.errors import StartError, UsageError
from kvmbox.cli import main
from kvmbox.contract.device_spec import DeviceSpec, Medium, by_type
from kvmbox.contract.names import SERIAL_PORTS
from kvmbox.contract.pci_function import PCI
from kvmbox.devices.bios.board import BootDrive
from kvmbox.devices.e1000.board import e1000_net
from kvmbox.devices.ide.board import IdeDrive, ide_board
from kvmbox.devices.pc_board import BoardOptions, whole_board
from kvmbox.devices.pci.board import with_pci
from kvmbox.devices.qcow2.board import disk_map
from kvmbox.devices.rfb.board import vnc_server
from kvmbox.devices.virtio.board import place_virtio, virtio_blk, virtio_console, virtio_net, virtio_rng
from kvmbox.jail import layers
from kvmbox.wire import effect_kinds, effects, protocol
from kvmbox.wire import page_layout as page
from tools import blocks, generate_figures, generate_folders
from tools.generate_folders import GENERATED

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    page
    for top in (".", "docs", "docs/adr", "docs/devices", "docs/internals", "guests")
    for page in (ROOT / top).glob("*.md")
)
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMAND_LINE = (ROOT / "docs/command-line.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
WIRE = (ROOT / "docs/wire-protocol.md").read_text(encoding="utf-8")
WIRE_PROSE = " ".join(WIRE.split())
THREATS = (ROOT / "docs/threat-model.md").read_text(encoding="utf-8")

SOURCES = {".py", ".pyx", ".pxi", ".c", ".h", ".S", ".md", ".toml", ".yml", ".sh"}
"""Suffixes of files that people write and read."""

CODE_BLOCK = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


def tables(text: str) -> list[list[list[str]]]:
    """All tables of a page: rows of cells, without the heading and the line below it."""
    found = re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE)
    return [
        [
            [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            for line in table.strip().split("\n")[2:]
        ]
        for table in found
    ]


def table_with_heading(text: str, *heading: str) -> list[list[str]]:
    """The rows of the one table that begins with this heading."""
    line = re.escape("| " + " | ".join(heading) + " |")
    (table,) = re.findall(rf"^{line}\n(?:\|.*\|\n)+", text, re.MULTILINE)
    return tables(table)[0]


def section(text: str, title: str) -> str:
    """The text of a section of the second level."""
    return re.split(r"^## ", text.split(f"\n## {title}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


def anchor(heading: str) -> str:
    """The fragment by which a heading is linked, as GitHub and most others make it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


# --- Links -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_of_a_page_all_resolve(page: Path) -> None:
    text = CODE_BLOCK.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, fragment = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        assert linked.is_relative_to(ROOT), target
        if fragment:
            headings = re.findall(r"^#+ (.*)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
            assert fragment in map(anchor, headings), target


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_tables_of_a_page_each_have_a_heading(page: Path) -> None:
    """A blank line between two rows makes two tables, and the second one is no table to a reader."""
    text = CODE_BLOCK.sub("", page.read_text(encoding="utf-8"))
    for table in re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE):
        assert re.match(r".*\n\|[-:| ]+\|\n", table), table.split("\n")[0]


def test_decisions_each_are_in_the_index() -> None:
    records = ROOT / "docs/adr"
    themes = sorted(path.name for path in records.glob("*.md") if path.name != "README.md")
    index = (records / "README.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^\| \[[\w-]+\]\(([\w-]+\.md)\) \|", index, re.MULTILINE)) == themes
    assert "(adr/README.md)" in ARCHITECTURE


@pytest.mark.parametrize("folder", ["kvmbox", "tests", "tools", "launcher", "docs"])
def test_decisions_that_a_file_names_exist_and_have_no_number(folder: str) -> None:
    files = {path for path in (ROOT / folder).rglob("*") if path.suffix in SOURCES} - {Path(__file__)}
    assert files
    for path in files:
        text = path.read_text(encoding="utf-8")
        for named in re.findall(r"\bdocs/adr/[\w.-]*\w", text):
            assert (ROOT / named).is_file(), (path, named)
        assert not re.search(r"\bADRs?\s+\d", text), path


@pytest.mark.parametrize("page", [page for page in PAGES if page.parent.name == "devices"], ids=page_id)
def test_device_pages_each_are_in_the_index(page: Path) -> None:
    assert f"(devices/{page.name})" in (ROOT / "docs/device-models.md").read_text(encoding="utf-8")


def words(text: str) -> int:
    """What a table is drawn with is no word."""
    return sum(any(map(str.isalnum, word)) for word in text.split())


def test_pages_together_are_short() -> None:
    """Who adds words cuts others. What a tool writes, as the tests below show, is counted by itself."""
    names = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")
    authored = generated = 0
    for path in [ROOT / name for name in names] + list((ROOT / "docs").rglob("*.md")):
        text = path.read_text(encoding="utf-8")
        whole = text.startswith(GENERATED)
        parts = text if whole else "".join(part[3] for part in blocks.PART.finditer(text))
        generated += words(parts)
        authored += words(text) - words(parts)
    print(f"{authored} words that people write, and {generated} that tools write")
    assert authored <= 62_000


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_generated_parts_of_a_page_are_what_tools_write(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert generate_figures.page(text) == text, "make docs-figures"
    assert len(re.findall("<!-- (?!end)", text)) == len(blocks.PART.findall(text)) + (
        text.startswith(GENERATED)
    )


def test_parts_that_nobody_makes_are_refused() -> None:
    for name in ("other", "bench other", "guests other"):
        with pytest.raises((ValueError, UsageError)):
            generate_figures.page(f"{blocks.BEGIN}{name} -->\nwords\n{blocks.END}\n")


def test_figures_of_another_run_are_those_of_its_file(tmp_path: Path) -> None:
    """The host, the date and QEMU's version are of the same file as the tables."""
    data = generate_figures.MEASURED.read_text(encoding="utf-8")
    other = tmp_path / "other.json"
    other.write_text(re.sub(r'"processor": "[^"]*"', '"processor": "Another CPU"', data), encoding="utf-8")
    page = (ROOT / "docs/performance.md").read_text(encoding="utf-8")
    (host,) = re.findall(r"^kvmbox .* bench on .*$", page, re.MULTILINE)
    made = generate_figures.page(page, other)
    assert re.search(r"^kvmbox .* bench on .* Another CPU, .* QEMU emulator version", made, re.MULTILINE)
    assert host not in made


# --- The README and the page of the command line ---------------------------------------------------------


def options_of(command_name: str) -> set[str]:
    command = main.cli.get_command(click.Context(main.cli), command_name)
    assert command is not None
    return {name for parameter in command.params for name in parameter.opts if name.startswith("--")}


@pytest.mark.parametrize("page", [README, COMMAND_LINE], ids=["README", "command-line"])
def test_options_that_a_page_names_all_exist(page: str) -> None:
    text = page.replace("\\\n", " ")

    def named_in(parts: list[str]) -> set[str]:
        return {word for part in parts for word in re.findall(r"(?<![\w-])--[a-z][a-z-]*", part)}

    of_run = named_in(re.findall(r"kvmbox run (.*)", text))
    assert "--timeout" in of_run  # the pattern finds something
    assert of_run <= options_of("run") | {"--help"}
    known = set().union(*map(options_of, main.COMMANDS))
    assert named_in(re.findall(r"`(--[^`]*)`", text)) <= known | {"--help"}


def test_example_of_a_policy_is_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    main.run_command(["policy", "uart", "--simulate", "write", "stderr"])
    assert f"\n$ kvmbox policy uart --simulate write stderr\n{capsys.readouterr().out}```\n" in COMMAND_LINE


def test_readme_is_short() -> None:
    assert len(README.splitlines()) < 200


def test_table_has_every_option_of_run() -> None:
    rows = table_with_heading(COMMAND_LINE, "about", "options")
    listed = {word for row in rows for word in re.findall(r"--[a-z][a-z-]*", row[1])}
    assert listed == options_of("run")


@pytest.mark.parametrize("page", [README, COMMAND_LINE], ids=["README", "command-line"])
def test_commands_that_a_page_names_are_all_commands(page: str) -> None:
    named = set(re.findall(r"(?:^\$ |^ {4}|`|env/bin/)kvmbox ([a-z]+)", page, re.MULTILINE))
    assert named == set(main.COMMANDS)


def test_exit_statuses_are_those_of_the_code() -> None:
    listed = [row[0] for row in table_with_heading(COMMAND_LINE, "status", "meaning")]
    assert len(listed) == len(set(listed))
    assert {int(status) for status in listed if status != "odd"} == {
        UsageError.exit_status,
        StartError.exit_status,
        outcome.CLEAN,
        outcome.GUEST_CRASHED,
        outcome.DEVICE_FAILED,
        outcome.UNKNOWN_EXIT,
        outcome.UNEXPECTED,
        outcome.KVMBOX_FAILED,
        outcome.TIMED_OUT,
        outcome.INTERRUPTED,
        128 + signal.SIGBUS,  # what a shell makes of them
        128 + signal.SIGKILL,
    }
    assert "odd" in listed
    assert "`((V << 1) \\| 1) & 0xff`" in COMMAND_LINE
    assert outcome.debug_exit_status(21) == 43  # the README's own guest


@pytest.mark.kvm
def test_readme_guest_boots_and_passes_its_ci_script(tmp_path: Path) -> None:
    if not (shutil.which("cc") and shutil.which("ld")):
        pytest.skip("cc or ld not found: the guest cannot be built")
    guest = section(README, "A guest in 20 lines")
    (source,) = re.findall(r"^```asm\n(.*?)^```$", guest, re.MULTILINE | re.DOTALL)
    (script,) = re.findall(r"^```sh\n(.*?)^```$", section(README, "Use in CI"), re.MULTILINE | re.DOTALL)
    *build, boot = re.findall(r"^ {4}(\w.*)$", CODE_BLOCK.sub("", guest), re.MULTILINE)
    (tmp_path / "own.S").write_text(source)
    shim = tmp_path / "kvmbox"
    shim.write_text(
        f"#!/bin/sh\nPYTHONPATH={shlex.quote(str(ROOT))} exec {shlex.quote(sys.executable)} -c "
        '"from kvmbox.cli.entry import entry_point; entry_point()" "$@"\n'
    )
    shim.chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}

    def shell(command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", "-c", command],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    for command in build:
        built = shell(command)
        assert built.returncode == 0, built.stderr
    booted = shell(boot)
    assert (booted.returncode, booted.stdout) == (43, "Hello from my own kernel!\n"), booted.stderr
    judged = shell(script)
    assert judged.returncode == 0, judged.stderr
    assert (tmp_path / "console.log").read_text() == "Hello from my own kernel!"
    assert '"status": 0' in (tmp_path / "result.json").read_text()
    assert len(source.splitlines()) <= 20


# --- The wire protocol -----------------------------------------------------------------------------------


def test_wire_header_table_is_the_header() -> None:
    rows = table_with_heading(WIRE, "offset", "size", "request", "reply")
    sizes = [{"B": 1, "I": 4, "Q": 8}[code] for code in protocol.HEADER.format.lstrip("<")]
    assert [int(row[1]) for row in rows] == sizes
    assert [int(row[0]) for row in rows] == [sum(sizes[:index]) for index in range(len(sizes))]
    for words in (
        f"A header of {protocol.HEADER.size} bytes, little-endian",
        f"at most {protocol.MAX_FRAME} bytes together.",
        f"A part of a snapshot is {protocol.MAX_PAYLOAD} bytes",
        f"kind + {protocol.REPLY:#x}, or {protocol.ERROR:#x} (ERROR)",
        f"The version is {protocol.VERSION}.",
    ):
        assert words in WIRE_PROSE


def test_wire_header_table_names_the_fields_where_the_encoder_puts_them() -> None:
    fields = ["kind", "device", "size", "0", "sequence", "now", "value", "offset", "length"]
    rows = table_with_heading(WIRE, "offset", "size", "request", "reply")
    words = ["kind", "device", "access size", "0", "sequence", "now", "value", "offset", "length"]
    for row, word in zip(rows, words, strict=True):
        assert row[2].startswith(word)
    numbers = {name: index + 1 for index, name in enumerate(fields) if name not in ("0", "length")}
    frame = protocol.Request(payload=b"?" * 9, **numbers).encode()
    expected = [numbers.get(name, 0) for name in fields[:-1]] + [9]
    for row, value in zip(rows, expected, strict=True):
        start, size = int(row[0]), int(row[1])
        assert int.from_bytes(frame[start : start + size], "little") == value, row


def test_wire_request_table_is_all_kinds() -> None:
    rows = table_with_heading(WIRE, "kind", "name", "request", "reply value and payload")
    assert {row[1]: int(row[0]) for row in rows} == {
        name: getattr(protocol, name)
        for name in (
            "HELLO", "READ", "WRITE", "ADVANCE", "RECEIVE", "RESET", "SNAPSHOT", "RESTORE", "SHUTDOWN",
            "WRITE_RUN", "INDEXED_READ", "REPLAY", "MEMORY", "COMPLETE",
            "READ_WIDE", "WRITE_WIDE", "READ_STRING", "WRITE_STRING", "CHAINS", "WRITE_LIST",
            "COMPLETED_READ",
        )
    }  # fmt: skip
    kinds = sorted(int(row[0]) for row in rows)
    assert kinds == list(range(1, len(kinds) + 1))
    source = Path(protocol.__file__).read_text(encoding="utf-8")
    in_code = source.split("# Kinds of requests.\n")[1].split("\n\n")[0]
    assert len(kinds) == len(in_code.splitlines())


def test_wire_page_table_is_the_layout_of_the_page() -> None:
    rows = table_with_heading(WIRE, "bytes from", "what", "written by")
    assert [int(row[0]) for row in rows] == [
        page.REQUEST,
        page.REPLY,
        *(8 * word for word in (page.DEVICE_WAITS, page.VMM_WAITS, page.MAY_SPIN)),
    ]
    vmm, device = "the VMM", "the device process"
    assert [row[2] for row in rows] == [vmm, device, device, vmm, vmm]
    assert f"a sealed memory file of {page.SIZE} bytes" in WIRE_PROSE


def test_wire_page_says_how_long_effects_are() -> None:
    assert effect_kinds.EFFECT.format == "<BBBBI"
    assert f"at most {effects.MAX_EFFECTS}. Each has {effect_kinds.EFFECT.size} bytes" in WIRE_PROSE
    assert f"a range has {effect_kinds.RANGE.size} bytes" in WIRE_PROSE


# --- Architecture and threats ----------------------------------------------------------------------------


def folders_below(top: str) -> set[str]:
    """The folders with modules, as the code map names them."""
    return {f"{path.parent.relative_to(ROOT)}/" for path in (ROOT / top).rglob("*.py")}


def test_code_map_has_each_folder_once() -> None:
    rows = table_with_heading(ARCHITECTURE, "folder", "what it has")
    outside = [folder for row in rows for folder in re.findall(r"`([\w./-]+/)`", row[0])]
    assert {row[0] for row in generate_folders.rows()} == folders_below("kvmbox")
    assert generate_folders.PAGE.read_text(encoding="utf-8") == generate_folders.page()
    assert len(set(outside)) == len(outside)
    assert {f"tests/{path.name}/" for path in (ROOT / "tests").iterdir() if any(path.glob("*.*"))} - set(
        outside
    ) <= {"tests/__pycache__/"}
    for folder in outside:
        assert (ROOT / folder).is_dir(), folder


def test_modules_each_begin_with_what_they_are() -> None:
    """The code map has no rows of modules, as `head -1` shows them."""
    for path in (ROOT / "kvmbox").rglob("*.py"):
        assert re.match(r'"""\S.*\w', path.read_text(encoding="utf-8")), path


def everything() -> list[DeviceSpec]:
    """All devices that there are."""
    options = BoardOptions(
        SERIAL_PORTS, 0, layout.MIB, testdev=True, has_bios=True, boot_drives=(BootDrive("disk", 1),)
    )
    disks = [virtio_blk(number, Medium(f"disk{number}", 512)) for number in range(5)]
    virtio = place_virtio([*disks, virtio_rng(), virtio_console(), virtio_net(0, bytes(6))])
    pci = [device for device in with_pci([e1000_net(0, bytes(6))]) if device.name == PCI or device.pci]
    return [*whole_board(options), *ide_board([IdeDrive("disk0", 1)] * 4), *virtio, *pci]


def test_device_processes_that_pages_list_are_those_of_the_board() -> None:
    board = by_type(everything())
    others = by_type([disk_map("disk"), vnc_server()])
    at_start = {name for name, devices in board.items() if not all(each.on_demand for each in devices)}
    rows = table_with_heading(ARCHITECTURE, "device process", "starts")
    listed = [re.findall(r"`(\w+)`", row[0]) for row in rows]
    assert set(listed[0]) == at_start
    assert sorted(name for names in listed for name in names) == sorted(board | others)
    early, late = re.split("these start when the guest first uses", section(README, "How it works"))
    branches = re.compile(r"[├└]── (\w+) {2,}(?!started first)", re.MULTILINE)
    assert set(branches.findall(early)) - {"spawner"} == at_start
    assert sorted(branches.findall(late)) == sorted(set(board) - at_start)


def test_ports_of_the_table_of_devices_are_those_of_the_board() -> None:
    ranges = [each for device in everything() for each in (*device.ports, *device.mmio)]
    page = (ROOT / "docs/device-models.md").read_text(encoding="utf-8")
    cells = " ".join(row[1] for row in table_with_heading(page, "chip", "ports, interrupts", "page"))
    listed = [
        (int(first, 16), int(last or first, 16))
        for first, last in re.findall(r"(0x[0-9a-f]+)(?:–(0x[0-9a-f]+))?", cells)
    ]
    for each in ranges:
        assert any(first <= each.first <= last for first, last in listed), hex(each.first)
    for first, last in listed:
        for end in (first, last):
            assert any(each.first <= end < each.first + each.count for each in ranges), hex(end)


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_paths_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"`((?:kvmbox|tests|docs|guests|tools)/[\w./-]+?\.(?:py|md|S|c|toml|sh))`", text)
    for path in named:
        assert (ROOT / path).exists(), path


def test_threat_model_rows_each_name_what_shows_it() -> None:
    rows = table_with_heading(THREATS, "threat", "what is done", "shown by")
    assert len(rows) > 15
    for row in rows:
        assert re.search(r"`(?:tests|kvmbox)/[\w/]+\.py(?:::\w+)?`", row[2]), row[0]


def test_threat_model_names_the_required_layers() -> None:
    sentence = re.sub(r"\s+", " ", THREATS.split("Required layers, without which")[1].split("Used where")[0])
    listed = sentence.partition(": ")[2].strip(" .").split(", ")
    assert listed == list(layers.names(layers.REQUIRED))
    optional = re.sub(r"\s+", " ", THREATS.split("Used where the kernel has them: ")[1].split(".")[0])
    assert optional.split(", ") == [n for n in layers.NAMES.values() if n not in listed]
