"""The built-in BIOS and firmware from outside: reboots, lost processes, recordings, hostile guests."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from kvmbox.base import layout
from kvmbox.boot import bundled
from kvmbox.host.console.bios_messages import MOST, TRAP
from tests.support.boot_images import Piece, bzimage, elf, multiboot_header
from tests.support.real_mode import (
    DEBUGCON,
    JUMP_TO_RESET,
    SHUTDOWN,
    SPIN,
    TRIPLE_FAULT,
    debug_exit,
    out,
    say,
)
from tests.support.runs import DESIGNS, ENTRY, Images, Run, error_lines, run_to_end
from tests.support.selection import first_per_commit

pytestmark = pytest.mark.kvm

OTHER_SPAWNER: Final = str(Path(__file__).parent / "run_payload" / "other_spawner.py")
SEABIOS: Final = Path("/usr/share/seabios/bios-256k.bin")
DISK_SAYS: Final = b"ok by cylinder, head and sector\r\nok on the other head\r\nok by the extensions\r\n"
REPORT: Final = layout.BIOS_REPORT_PORT + 4
SEGMENTS: Final = bytes.fromhex("31c0 8ed8 8ec0")  # xor ax,ax; mov ds,ax; mov es,ax


def print_text(text: bytes) -> bytes:
    """By int 0x10 AH=0x0e, a character at a time."""
    return b"".join(bytes((0xB8, character, 0x0E, 0xCD, 0x10)) for character in text)


def test_firmware_that_is_missing_is_named_before_what_it_would_not_start() -> None:
    status, output, messages = run_to_end(Run("hello64", "--bios", "/no/such"))
    assert (status, output) == (4, b"")
    assert error_lines(messages) == ["kvmbox: error: cannot read '/no/such': no such file"]


@pytest.mark.parametrize("bios", [(), ("--bios", "none")], ids=["BIOS", "none"])
def test_kernel_in_the_place_of_the_bios_is_named_in_a_line(tmp_path: Path, bios: tuple[str, ...]) -> None:
    # Multiboot, then: mov al, 3; out 0xf4, al
    code = multiboot_header() + bytes.fromhex("b003 e6f4")
    image = Images(tmp_path).write(elf([Piece(code, layout.BIOS_ROM + 0x800)], entry=layout.BIOS_ROM + 0x80C))
    status, _, messages = run_to_end(Run(*bios, image))
    assert status == 7
    line = "kvmbox: the guest has no BIOS: segment 0 (0xf4800..0xf4810) lies in its place"
    assert messages.startswith(line) == (not bios)


@pytest.fixture
def sectors(tmp_path: Path) -> Images:
    return Images(tmp_path)


def boot_sector(sectors: Images, code: bytes, behind: bytes = b"") -> Path:
    """The path of an image whose sector 0 has this code."""
    assert len(code) <= 510
    return sectors.write(code.ljust(510, b"\0") + b"\x55\xaa" + behind)


@pytest.mark.parametrize("arguments", first_per_commit(DESIGNS), ids=" ".join)
def test_boot_sector_reads_its_disk_in_every_design(arguments: tuple[str, ...]) -> None:
    status, output, messages = run_to_end(Run(*arguments, "bootdisk"))
    assert (status, output) == (0, DISK_SAYS)
    assert error_lines(messages) == []


@pytest.mark.parametrize(
    "arguments",
    [(), ("--bios", "none"), ("--boot", "real"), ("--boot", "real", "--bios", "builtin")],
    ids=["boot sector", "without a BIOS", "flat image", "flat image with the BIOS"],
)
def test_jump_to_the_reset_vector_is_a_reset(sectors: Images, arguments: tuple[str, ...]) -> None:
    # CMOS RAM keeps: the value of index 0x60 counts the boots, and the fourth one ends the run.
    count = bytes.fromhex("b060 e670 e471 40 e671 3c04 75") + bytes((len(SHUTDOWN),))
    image = boot_sector(sectors, SEGMENTS + say(b"x") + count + SHUTDOWN + JUMP_TO_RESET)
    facts = sectors.directory / "facts.json"
    assert run_to_end(Run(*arguments, "--json", facts, image)) == (0, b"xxxx", "")
    assert json.loads(facts.read_bytes())["boots"] == 4
    assert run_to_end(Run(*arguments, "--json", facts, "--no-reboot", image)) == (0, b"x", "")
    found = json.loads(facts.read_bytes())
    assert (found["boots"], found["reason"]) == (1, "the guest asked for a reset (--no-reboot)")


def test_bios_boots_again_after_a_reset(sectors: Images) -> None:
    # CMOS RAM keeps: in al,0x71 of index 0x60; if it is 1, end; else set it and reset by port 0x92.
    index = bytes.fromhex("b060 e670")
    again = print_text(b"again") + SHUTDOWN + SPIN
    first = print_text(b"first ") + index + bytes.fromhex("b001 e671") + out(0x92, 1) + SPIN
    code = (
        SEGMENTS + index + bytes.fromhex("e471 3c01 0f84") + len(first).to_bytes(2, "little") + first + again
    )
    status, output, _ = run_to_end(Run(boot_sector(sectors, code)))
    assert (status, output) == (0, b"first again")


def test_int_19h_loads_the_sector_again_and_int_18h_gives_up(sectors: Images) -> None:
    # The counter is in memory, which a reset would clear: inc byte [0x600]; cmp byte [0x600],2; ja give up
    code = SEGMENTS + print_text(b"x") + bytes.fromhex("fe060006 803e000602 7702 cd19 cd18") + SPIN
    status, output, messages = run_to_end(Run(boot_sector(sectors, code)))
    assert (status, output) == (
        6,
        b"xxx\r\nNo bootable device.\r\n",
    ) or output == b"xxxNo bootable device.\r\n"
    assert status == 6
    assert "the guest called int 0x18: there is nothing to boot from" in error_lines(messages)[0]


def test_disk_with_a_multiboot_header_boots_as_a_disk_and_a_crash_names_the_other_way(
    sectors: Images,
) -> None:
    base = 0x100000
    kernel = multiboot_header(0, (base, base, 0, 0, base + 32)) + bytes.fromhex("b015 e6f4 f4")
    good = boot_sector(sectors, debug_exit(3), kernel.ljust(512, b"\0"))
    bad = boot_sector(sectors, TRIPLE_FAULT, kernel.ljust(512, b"\0"))

    status, _, messages = run_to_end(Run(good))
    assert (status, messages) == (7, "")
    status, _, messages = run_to_end(Run(bad))
    assert status == 6
    assert "; if it is a Multiboot 1 kernel, it needs --boot multiboot\n" in messages
    status, _, messages = run_to_end(Run("--boot", "multiboot", bad))
    assert (status, messages) == (43, "")


@pytest.mark.parametrize("lost", ["bdisk", "debug"])
def test_lost_process_is_restarted_and_the_guest_cannot_tell(lost: str) -> None:
    command = (sys.executable, OTHER_SPAWNER, lost, "leave", "1000")
    run = Run("--on-device-crash", "restart", "bootdisk", command=command)
    status, output, messages = run_to_end(run)
    assert (status, output) == (0, DISK_SAYS)
    assert f"device process '{lost}'" in messages
    assert "restarted" in messages


def test_recorded_boot_can_be_replayed(tmp_path: Path) -> None:
    record = tmp_path / "record"
    status, output, _ = run_to_end(Run("--record", record, "bootdisk"))
    assert (status, output) == (0, DISK_SAYS)
    replay = subprocess.run(
        [sys.executable, "-c", ENTRY, "replay", str(record)], capture_output=True, text=True, check=False
    )
    assert replay.returncode == 0, replay.stderr


def test_image_of_a_diskettes_size_boots_from_drive_0(sectors: Images) -> None:
    # mov al,dl; add al,'0'; mov ah,0x0e; int 0x10
    code = bytes.fromhex("88d0 0430 b40e cd10") + SHUTDOWN + SPIN
    status, output, _ = run_to_end(Run(boot_sector(sectors, code, bytes(1440 * 1024 - 512))))
    assert (status, output) == (0, b"0")


@pytest.mark.parametrize("drive", ["", "b200", "b280"], ids=["DL", "00h", "80h"])
def test_loader_of_a_fixed_number_of_sectors_reads_zeros_behind_a_small_image(
    sectors: Images, drive: str
) -> None:
    # mov dh,0; mov bx,0x9000; mov cx,2; mov ax,0x021f; int 0x13; jc +11; cmp al,31; jne +7;
    # mov ax,[0x9000 + 31 * 512 - 2]; test ax,ax; jz good
    read = bytes.fromhex(f"{drive} b600 bb0090 b90200 b81f02 cd13 720b 3c1f 7507 a1fecd 85c0 740c")
    code = SEGMENTS + read + debug_exit(17) + SPIN + bytes(4) + debug_exit(16) + SPIN
    status, _, messages = run_to_end(Run(boot_sector(sectors, code, b"\xff" * 512)))
    assert (status, messages) == (33, "")


@pytest.mark.parametrize(("kib", "lba", "status"), [(1439, 2878, 33), (1439, 2879, 35), (1441, 2881, 35)])
def test_zeros_end_with_the_diskette_and_a_larger_image_has_none(
    sectors: Images, kib: int, lba: int, status: int
) -> None:
    # Two sectors: mov si,0x7d00; mov ax,0x4200; mov dl,0x80; int 0x13; jc +12
    code = SEGMENTS + bytes.fromhex("be007d b80042 b280 cd13 720c") + debug_exit(16) + SPIN + bytes(4)
    code = (code + debug_exit(17) + SPIN).ljust(256, b"\0")
    packet = bytes.fromhex("1000 0200 0090 0000") + lba.to_bytes(8, "little")
    image = boot_sector(sectors, code + packet, bytes(kib * 1024 - 512))
    assert run_to_end(Run(image))[0] == status


def test_text_that_a_guest_prints_by_the_bios_and_over_com1_is_shown_once(sectors: Images) -> None:
    code = print_text(b"both\r\n") + say(b"both\r\n") + say(b"both\r\n", DEBUGCON) + SHUTDOWN + SPIN
    status, output, _ = run_to_end(Run(boot_sector(sectors, code)))
    assert (status, output) == (0, b"both\r\n")


def test_missing_services_are_named_once_and_a_flood_of_them_is_cut(sectors: Images) -> None:
    # The port takes what any guest writes. mov dx,REPORT; xor ecx,ecx; again: mov eax,ecx; or eax,1 << 24;
    # out dx,eax; inc ecx; cmp ecx,2000; jb again
    loop = b"\xba" + REPORT.to_bytes(2, "little") + bytes.fromhex("6631c9 6689c8 660d00000001 66ef 6641")
    loop += bytes.fromhex("6681f9d0070000 72ea")
    status, _, messages = run_to_end(Run(boot_sector(sectors, loop + debug_exit(0))))
    assert status == 1
    lines = messages.splitlines()
    assert lines[0] == "kvmbox: int 0x00 AX=0x0000 is not provided, at 0x0"
    assert lines[MOST:] == ["kvmbox: further missing BIOS services are not named"]


def test_guest_that_forges_a_trap_ends_its_own_run_alone(sectors: Images) -> None:
    code = out(REPORT - 4, 0x07C0_0001, 4) + out(REPORT, TRAP << 24 | 0x21 << 16 | 0x4C00, 4) + SPIN
    status, _, messages = run_to_end(Run(boot_sector(sectors, code)))
    assert status == 6
    assert error_lines(messages) == ["kvmbox: error: int 0x21 AH=0x4c is not provided, at 0x7c01"]


@pytest.mark.parametrize(
    ("fault", "name"),
    [("0f0b", "0x06 (invalid opcode)"), ("31c9 f7f1", "0x00 (divide error)")],
    ids=["ud2", "div"],
)
def test_fault_right_behind_a_call_ends_the_run(sectors: Images, fault: str, name: str) -> None:
    # Before the fault is an INT of another vector: [xor cx,cx;] mov ax,0x0e78; int 0x10; ud2 or div cx.
    code = bytes.fromhex(fault)
    before, faulting = code[:-2], code[-2:]
    sector = before + print_text(b"x") + faulting + SPIN
    status, output, messages = run_to_end(Run(boot_sector(sectors, sector)))
    assert (status, output) == (6, b"x")
    at = 0x7C00 + len(before) + len(print_text(b"x"))
    assert error_lines(messages) == [f"kvmbox: error: interrupt {name} is not handled, at {at:#x}"]


def test_missing_service_is_named_and_the_guest_goes_on(sectors: Images) -> None:
    # mov ax,0x4c00; int 0x21, twice
    call = bytes.fromhex("b8004c cd21")
    status, output, messages = run_to_end(
        Run(boot_sector(sectors, call * 2 + print_text(b"on") + SHUTDOWN + SPIN))
    )
    assert (status, output) == (0, b"on")
    assert messages == "kvmbox: int 0x21 AH=0x4c is not provided, at 0x7c03\n"


def test_flat_image_uses_the_builtin_bios_and_starts_as_kvmtool_starts_it(sectors: Images) -> None:
    # mov ax,cs; mov bx,ds; sub bx,ax; mov cx,ss; sub cx,ax; or bx,cx; jnz end; cmp sp,0x8000; jnz end; print
    check = (
        bytes.fromhex("8cc8 8cdb 29c3 8cd1 29c1 09cb") + b"\x75\x0b" + bytes.fromhex("81fc0080") + b"\x75\x05"
    )
    code = check + print_text(b"k") + SHUTDOWN + SPIN
    options = ("--load-address", "0x10000", "--entry", "1000:0", "--segments", "cs")
    status, output, _ = run_to_end(sectors.run(code, "--bios", "builtin", *options))
    assert (status, output) == (0, b"k")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--bios", "builtin", "hello64"), "--bios builtin has no meaning for what is booted as 'elf'"),
        (("--bios", "none", "hello64"), "--bios none has no meaning for what is booted as 'elf'"),
        (("--append", "x", "bootdisk"), "--append has no meaning for a boot sector"),
        (("--entry", "0:7c00", "bootdisk"), "--entry needs --boot real"),
        (("--bios", "hello32"), "no such file"),
    ],
)
def test_options_that_do_not_go_together_are_refused(arguments: tuple[str, ...], words: str) -> None:
    status, output, messages = run_to_end(Run(*arguments))
    assert status in (2, 4)
    assert output == b""
    (line,) = error_lines(messages)
    assert words in line


# --- Firmware ---------------------------------------------------------------------------------------------


def firmware(code: bytes) -> bytes:
    """A ROM of 64 KiB whose reset vector jumps near to `code`, at its start."""
    jump = b"\xe9" + (0x10000 - 0xFFF3).to_bytes(2, "little")  # from F000:FFF0 to offset 0
    return code.ljust(0xFFF0, b"\0") + jump.ljust(16, b"\0")


def test_firmware_runs_at_4_gib_where_it_cannot_be_written_and_its_copy_can(sectors: Images) -> None:
    # Through CS, whose base is 0xffff0000: mov byte cs:[0x8000],'x'; then read it and print it, a NUL still.
    high = bytes.fromhex("2ec606008078 2ea00080 0430 bae900 ee")
    # mov ax,0xf000; mov ds,ax; mov byte [0x8000],'x'; mov al,[0x8000]; out dx,al
    low = bytes.fromhex("b800f0 8ed8 c606008078 a00080 ee")
    image = sectors.write(firmware(high + low + SHUTDOWN + SPIN))
    for arguments in (("--bios", image), (image,), ("--boot", "firmware", image)):
        status, output, messages = run_to_end(Run(*arguments))
        assert (status, output) == (0, b"0x"), messages


def test_firmware_boots_again_with_its_copy_as_it_was(sectors: Images) -> None:
    # The copy at 0xf8000 is printed, then written, then the machine is reset, once.
    show = bytes.fromhex("b800f0 8ed8 a00080 0430 bae900 ee c606008009")
    index = bytes.fromhex("b060 e670")
    end = SHUTDOWN + SPIN
    first = index + bytes.fromhex("b001 e671") + out(0x92, 1) + SPIN
    code = show + index + bytes.fromhex("e471 3c01 0f84") + len(first).to_bytes(2, "little") + first + end
    status, output, _ = run_to_end(Run("--bios", sectors.write(firmware(code))))
    assert (status, output) == (0, b"00")


def test_firmware_reads_the_kernel_and_its_command_line_through_fw_cfg(sectors: Images) -> None:
    # mov dx,0x510; mov ax,KEY; out dx,ax; inc dx; then COUNT times: in al,dx; out 0xe9,al
    def show(key: int, count: int) -> bytes:
        select = b"\xba\x10\x05\xb8" + key.to_bytes(2, "little") + b"\xef\x42"
        return select + bytes.fromhex("ec e6e9") * count

    image = sectors.write(firmware(show(0x15, 3) + show(0x11, 4) + show(0x12, 2) + SHUTDOWN + SPIN))
    kernel, initrd = sectors.write(bzimage(b"core" * 64)), sectors.write(b"ram")

    run = Run("--bios", image, "--append", "arg", "--initrd", initrd, kernel)

    assert run_to_end(run)[:2] == (0, b"argcorera")


def test_firmware_starts_no_other_guest_than_linux_and_is_of_a_size_that_roms_have(sectors: Images) -> None:
    image = sectors.write(firmware(SPIN))
    status, _, messages = run_to_end(Run("--bios", image, "hello32"))
    assert status == 4
    assert "firmware starts a Linux kernel (bzImage), and it is none" in messages
    status, _, messages = run_to_end(Run("--bios", sectors.write(bytes(1000))))
    assert status == 4
    assert "its 1000 bytes are not a multiple of 64 KiB" in messages


def test_seabios_finds_no_boot_device_and_says_so() -> None:
    if not SEABIOS.exists():
        pytest.skip(f"{SEABIOS} not found: the Debian package seabios has it")
    run = Run("--bios", SEABIOS, "--expect", "No bootable device.", "--timeout", "300", "--memory", "16M")
    status, output, messages = run_to_end(run)
    assert status == 0, messages
    assert b"SeaBIOS (version" in output


def test_rom_of_the_bios_is_bundled() -> None:
    assert Path(bundled.DIRECTORY, "bios.bin").stat().st_size == 0xC000


def test_interrupt_that_comes_before_the_bios_halts_ends_its_wait_for_a_key(sectors: Images) -> None:
    """STI holds interrupts back for one instruction, which must be HLT. This host may not show it."""
    assert b"\xfb\xf4\xeb" in Path(bundled.DIRECTORY, "bios.bin").read_bytes()  # sti; hlt; jmp
    # handler: pusha; mov ah,5; mov cx,0x1e61; int 0x16; mov al,0x20; out 0x20,al; popa; iret
    handler = bytes.fromhex("60 b405 b9611e cd16 b020 e620 61 cf")
    # cli; IRQ 0 alone: mov al,0xfe; out 0x21,al; once: mov al,0x30; out 0x43,al; mov al,1; out 0x40,al;
    # mov al,0; out 0x40,al; until it is pending: mov al,0x0a; out 0x20,al; in al,0x20; test al,1; jz -4
    once = bytes.fromhex("fa b0fe e621 b030 e643 b001 e640 b000 e640 b00a e620 e420 a801 74fa")
    ask = bytes.fromhex("b400 cd16 e6e9") + SHUTDOWN  # mov ah,0; int 0x16; out 0xe9,al
    # mov word [0x20],handler; mov word [0x22],0
    place = 0x7C00 + len(SEGMENTS) + 12 + len(once + ask)
    vector = bytes.fromhex("c7062000") + place.to_bytes(2, "little") + bytes.fromhex("c7062200 0000")
    assert run_to_end(Run(boot_sector(sectors, SEGMENTS + vector + once + ask + handler)))[:2] == (0, b"a")


@pytest.mark.parametrize(
    ("typed", "keys"),
    [
        (b"\x1b[Cx", b"\x4d\x00\x2dx"),
        (b"\x1b[1;5Cx", b"\x4d\x00\x2dx"),  # with Ctrl
        (b"\x1b[3;2~x", b"\x53\x00\x2dx"),  # with Shift
        (b"\x1b[15;5~x", b"\x3f\x00\x2dx"),
        (b"\x1b[11~x", b"\x3b\x00\x2dx"),  # F1 of a VT220 and of rxvt, and so on
        (b"\x1b[17~x", b"\x40\x00\x2dx"),
        (b"\x1b[24~x", b"\x86\x00\x2dx"),
        (b"\x1b[16~xx", b"\x2dx\x2dx"),
        (b"\x1b[[Ax", b"\x3b\x00\x2dx"),  # F1 to F5 of the Linux console
        (b"\x1b[[Ex", b"\x3f\x00\x2dx"),
        (b"\x1b[[Fxx", b"\x2dx\x2dx"),
        (b"\x1bxx", b"\x01\x1b\x2dx"),  # no sequence
        (b"\x1b\x1b[C", b"\x01\x1b\x4d\x00"),
        (b"\x1b[", b"\x01\x1b"),
    ],
)
def test_key_that_a_terminal_sends_as_a_sequence_is_one_key(
    sectors: Images, typed: bytes, keys: bytes
) -> None:
    # mov ah,0; int 0x16; xchg al,ah; out 0xe9,al; mov al,ah; out 0xe9,al
    key = bytes.fromhex("b400 cd16 86c4 e6e9 88e0 e6e9")
    run = Run(boot_sector(sectors, SEGMENTS + len(keys) // 2 * key + SHUTDOWN), stdin=subprocess.PIPE)
    run.send(typed)
    assert run_to_end(run)[:2] == (0, keys)


def asked_by(path: Path) -> tuple[int, dict[int, int]]:
    """The guest time of a run with --json, in ns, and how often it has accessed each port."""
    facts = json.loads(path.read_bytes())
    return facts["guest_time"], {one["port"]: one["count"] for one in facts["ports"]}


def test_escape_is_a_key_when_nothing_follows_for_two_fifths_of_a_second_of_the_guest(
    sectors: Images, tmp_path: Path
) -> None:
    """It is a time, and no number of looks, which would be short where an exit is fast."""
    told = tmp_path / "told.json"
    key = bytes.fromhex("b400 cd16 86c4 e6e9 88e0 e6e9")  # as above
    run = Run("--json", told, boot_sector(sectors, SEGMENTS + key + SHUTDOWN), stdin=subprocess.PIPE)
    run.send(b"\x1b")
    assert run_to_end(run)[:2] == (0, b"\x01\x1b")
    guest_time, asked = asked_by(told)
    assert guest_time >= 400_000_000
    assert asked[layout.PM_TIMER_PORT] >= 2  # not how often it has looked, but when


def test_program_that_looks_for_keys_goes_on_while_an_escape_waits_for_its_sequence(sectors: Images) -> None:
    # mov dx,0x3fd; wait: in al,dx; test al,1; jz wait
    wait = bytes.fromhex("bafd03 ec a801 74fb")
    # xor bx,bx; look: mov ah,1; int 0x16; jnz done; inc bx; jmp look; done: cmp bx,1; sbb al,al; out 0xe9,al
    look = bytes.fromhex("31db b401 cd16 7503 43 ebf7 83fb01 18c0 e6e9")
    key = bytes.fromhex("b400 cd16 86c4 e6e9 88e0 e6e9")  # as above
    run = Run(boot_sector(sectors, SEGMENTS + wait + look + key + SHUTDOWN), stdin=subprocess.PIPE)
    run.send(b"\x1b")
    assert run_to_end(run)[:2] == (0, b"\0\x01\x1b")


@pytest.mark.parametrize("seconds", [0, 1])
def test_read_of_a_silent_line_takes_the_seconds_of_the_data_area_and_loses_no_tick(
    sectors: Images, tmp_path: Path, seconds: int
) -> None:
    told = tmp_path / "told.json"
    # mov byte [0x47c],seconds; where it is the default, nothing
    limit = b"" if seconds == 1 else bytes.fromhex("c6067c04") + bytes((seconds,))
    # mov bx,[0x46c]; mov ah,2; xor dx,dx; int 0x14; mov al,ah; out 0xe9,al; mov ax,[0x46c]; sub ax,bx
    read = bytes.fromhex("8b1e6c04 b402 31d2 cd14 88e0 e6e9 a16c04 29d8 e6e9")
    image = boot_sector(sectors, SEGMENTS + limit + read + SHUTDOWN)
    status, output, _ = run_to_end(Run("--json", told, image))
    assert (status, output[:1]) == (0, b"\x80")
    guest_time, asked = asked_by(told)
    if seconds:
        assert guest_time >= seconds * 1_000_000_000
        assert output[1] >= 9  # of 18, as a late host may combine some
    else:
        assert layout.PM_TIMER_PORT not in asked


def test_line_that_is_busy_is_waited_for_by_the_clock(sectors: Images, tmp_path: Path) -> None:
    told = tmp_path / "told.json"
    # mov byte [0x47c],255; xor dx,dx; mov ax,0x0161; int 0x14; shr ah,7; mov al,ah; out 0xf4,al
    code = SEGMENTS + bytes.fromhex("c6067c04ff 31d2 b86101 cd14 c0ec07 88e0 e6f4")
    run = Run("--json", told, "--inject", "COM1:busy=20", boot_sector(sectors, code))
    assert run_to_end(run)[:2] == (1, b"a")
    _, asked = asked_by(told)
    assert asked[layout.PM_TIMER_PORT] >= 2


def test_mouse_that_is_gone_is_waited_for_by_the_clock(sectors: Images, tmp_path: Path) -> None:
    told = tmp_path / "told.json"
    # mov ax,0xc205; mov bh,3; int 0x15; mov al,ah; out 0xe9,al
    code = SEGMENTS + bytes.fromhex("b805c2 b703 cd15 88e0 e6e9") + SHUTDOWN
    run = Run("--json", told, "--inject", "i8042:vanish=forever", boot_sector(sectors, code))
    assert run_to_end(run)[:2] == (0, b"\x03")
    guest_time, asked = asked_by(told)
    assert guest_time >= 53_000_000
    assert asked[layout.PM_TIMER_PORT] >= 2
