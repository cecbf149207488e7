"""Each two options that judge an end, against each end and each way to print, with real guests.

Each pair of options runs once, with a way and an end that change from pair to pair. The whole matrix, some
2,700 runs, takes ten minutes or more: KVMBOX_ALL_VERDICTS=1. `tests/unit/test_verdict_matrix.py` has all of
it with fakes. Each run has an option beside that judges nothing, another one from run to run.
"""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pytest

from tests.support.patience import patience
from tests.support.real_mode import (
    COM1,
    DEBUGCON,
    HALT_FOR_EVER,
    RESET_8042,
    SHUTDOWN,
    SPIN,
    TRIPLE_FAULT,
    debug_exit,
    out,
    say,
    show,
)
from tests.support.runs import Images, Run, error_lines, run_to_end
from tests.support.verdict_model import ENDS, EXIT_STATUS, TEXT, TIMED_OUT, WAYS, Cell, cells, model, pairs

pytestmark = [pytest.mark.kvm, pytest.mark.thorough]

AT_A_TIME: Final = 4


def slowly(divisor: int) -> bytes:
    """FIFOs on, and a baud rate of 115200 by `divisor`: the guest ends long before the text is out."""
    return out(COM1 + 2, 1) + out(COM1 + 3, 0x83) + out(COM1, divisor & 0xFF) + out(COM1 + 1, divisor >> 8)


LINE: Final = out(COM1 + 3, 3)
PRINT: Final = {
    "COM1": say(TEXT),
    "paced COM1": slowly(384) + LINE + say(TEXT),
    "debug console": say(TEXT, DEBUGCON),
    # What is fatal stands there first, so that a look in between makes no difference.
    "screen": show(TEXT[7:], column=7) + show(TEXT[:7]),
}
END: Final = {
    "debug-exit": debug_exit(21),
    "shutdown": SHUTDOWN,
    "crash": TRIPLE_FAULT,
    "halt": HALT_FOR_EVER,
    "spin": SPIN,
    "reset": RESET_8042,
}
COMPANIONS: Final = (
    *("--pci=on", "--net=loop", "--net=none,on=e1000", "--rng", "--disk={}/disk.img", "--cdrom={}/disk.img"),
    *("--disk={}/disk.img,on=virtio", "--cpus=2", "--testdev", "--bios=builtin", "--keyboard=console"),
    *("--serial=COM2=file:{}/com2", "--serial-overflow=drop", "--vnc=unix:{}/vnc"),
    *("--sandbox=none", "--sandbox=per-device", "--ipc=shm", "--on-device-crash=restart"),
    *("--record={}/a.rec", "--profile={}/a.folded", "--core={}/a.core", "--html={}/a.html", "--report=full"),
)
"""What judges nothing. {} is the directory of the run."""


def guest_of(way: str, end: str) -> bytes:
    """The image. Of a crash it matters that it comes first: 50 baud then."""
    if (way, end) == ("paced COM1", "crash"):
        return slowly(2304) + LINE + say(TEXT) + END[end]
    return PRINT[way] + END[end]


def arguments_of(cell: Cell, directory: Path) -> list[str | Path]:
    """The command line of a run whose snapshot and socket are in `directory`."""
    options = cell.options
    # Where nothing but the time ends the run, it need not be long.
    seconds = patience(2) if model(cell).status == TIMED_OUT else patience(30)
    words = [f"--timeout={seconds:g}", f"--screen={options.screen}"]
    if cell.way == "paced COM1":
        words.append("--uart-pace")
    if options.expect is not None:
        words.append(f"--expect={options.expect.decode()}")
    if options.fail_on is not None:
        words.append(f"--fail-on={options.fail_on.decode()}")
    if options.success_status is not None:
        words.append(f"--success-status={options.success_status}")
    if options.no_reboot:
        words.append("--no-reboot")
    if options.snapshot_when is not None:
        words.append(f"--snapshot-when={options.snapshot_when.decode()}={directory / 'a.snap'}")
    if options.snapshot_stop:
        words.append("--snapshot-stop")
    if options.serial_limit is not None:
        words.append(f"--serial-limit={options.serial_limit}")
    if options.gdb:
        words.append(f"--gdb=unix:{directory / 'gdb'},nowait")
    return [*words]


def disagreement(number: int, cell: Cell, guest: Path, directory: Path) -> str | None:
    """What a run of the cell does otherwise than the model, or None."""
    own = directory / str(number)
    own.mkdir()
    (own / "disk.img").write_bytes(bytes(1 << 16))
    companion = COMPANIONS[number % len(COMPANIONS)]
    beside = companion.format(own), f"--json={own / 'a.json'}"
    try:
        status, _, messages = run_to_end(Run("--boot", "real", *beside, *arguments_of(cell, own), guest))
    except AssertionError as error:  # of the whole matrix, all that is wrong is to be told
        return f"{cell}, {companion}: {error}"
    snapshot = (own / "a.snap").exists()
    wanted = model(cell)
    lines = error_lines(messages)
    told = json.loads((own / "a.json").read_text(encoding="utf-8"))
    right = [line for line in lines if told["reason"] in line]
    # Of a success and of a guest's own status there is no line.
    agrees = told["status"] == status and len(lines) == len(right) == (status not in (0, EXIT_STATUS))
    if agrees and status == wanted.status and wanted.snapshot in (None, snapshot):
        return None
    return f"{cell}, {companion}: {status}, snapshot {snapshot}, wanted {wanted}: {told['reason']} {lines}"


def chosen() -> list[Cell]:
    """The whole matrix if that is wanted, else one cell for each pair of options that does not wait."""
    if os.environ.get("KVMBOX_ALL_VERDICTS"):
        return list(cells())
    found, turn = [], 0
    for names in pairs():
        for _ in range(len(WAYS) * len(ENDS)):
            turn += 5  # of 24, in which it goes once round
            cell = Cell(names, WAYS[turn % len(WAYS)], ENDS[turn // len(WAYS) % len(ENDS)])
            if model(cell).status != TIMED_OUT:
                found.append(cell)
                break
    return found


def test_runs_end_as_the_documentation_says(tmp_path: Path) -> None:
    images = Images(tmp_path)
    guests = {(way, end): images.write(guest_of(way, end)) for way in WAYS for end in ENDS}
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        runs = [
            pool.submit(disagreement, number, cell, guests[cell.way, cell.end], tmp_path)
            for number, cell in enumerate(chosen())
        ]
        wrong = [words for run in runs if (words := run.result()) is not None]
    assert len(runs) >= len(pairs())
    assert wrong == []
