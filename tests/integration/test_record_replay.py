"""`kvmbox run --record`, `kvmbox replay` and `kvmbox trace`, through the command line."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kvmbox.boot import bundled
from tests.support.guest_table import skip_where_it_cannot_run
from tests.support.patience import patience
from tests.support.real_mode import HALT_FOR_EVER, SPIN, debug_exit, say
from tests.support.recordings import LSR, UART, recording, small_machine
from tests.support.runs import KVMBOX, Images, Run, error_lines, run_to_end

QUICK = ("hello32", "hello64", "irq64", "real16", "clock", "echo", "mmio64", "reboot")
"""Guests that end by themselves, soon, and between them use every device."""

RUNS: list[dict[str, Any]] = [entry for entry in bundled.runs() if entry["guest"] not in QUICK]


def kvmbox(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run one command line to its end."""
    return subprocess.run(
        [*KVMBOX, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=patience(120),
        **options,
    )


def record_bundled(entry: dict[str, Any], directory: Path) -> Path:
    """Run a bundled guest as the table says, recorded."""
    skip_where_it_cannot_run(entry)
    for name, content in entry.get("files", {}).items():
        (directory / name).write_text(content)
    path = directory / "run.rec"
    done = kvmbox(
        *("run", "--record", path, *entry.get("options", ()), entry["guest"]),
        input=entry.get("stdin", ""),
        cwd=directory,
    )
    assert done.returncode in entry["statuses"], done.stderr
    return path


def table_of(guest: str) -> dict[str, Any]:
    """The first run of a bundled guest."""
    for entry in bundled.runs():
        if entry["guest"] == guest:
            return entry
    pytest.skip(f"the guest {guest} is not built: make guests")


def assert_identical(path: Path, sandbox: str) -> None:
    done = kvmbox("replay", "--sandbox", sandbox, path)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "replies are identical" in done.stdout
    assert done.stdout.count("\n") == 1


@pytest.mark.kvm
@pytest.mark.parametrize("guest", QUICK)
def test_bundled_guest_recorded_replays_identically(guest: str, tmp_path: Path) -> None:
    path = record_bundled(table_of(guest), tmp_path)

    assert_identical(path, "none")
    assert_identical(path, "process")


@pytest.mark.kvm
@pytest.mark.thorough
@pytest.mark.parametrize("entry", RUNS, ids=lambda entry: f"{entry['guest']}: {entry['proves']}")
def test_every_other_run_of_the_table_replays_identically(entry: dict[str, Any], tmp_path: Path) -> None:
    assert_identical(record_bundled(entry, tmp_path), "none")


@pytest.mark.kvm
def test_killed_run_leaves_a_usable_recording(images: Images, tmp_path: Path) -> None:
    path = tmp_path / "run.rec"
    with images.run(say(b"." * 5000 + b"done") + SPIN, "--record", path) as run:
        run.stdout.until(b"done")
        run.process.kill()
        run.process.wait()

    done = kvmbox("replay", "--sandbox", "none", path)

    assert done.returncode == 0, done.stderr
    assert "cut short" in done.stderr


@pytest.mark.kvm
def test_record_limit_stops_the_recording_not_the_run(images: Images, tmp_path: Path) -> None:
    path = tmp_path / "run.rec"
    options = ("--record", path, "--record-limit", "4K")

    status, output, messages = run_to_end(images.run(say(b"0123456789" * 100) + debug_exit(3), *options))

    assert (status, output) == (7, b"0123456789" * 100)
    assert messages == f"kvmbox: recording to '{path}' stopped at --record-limit, the run goes on\n"
    assert path.stat().st_size <= 4096
    done = kvmbox("replay", path)
    assert done.returncode == 0
    assert "--record-limit was reached" in done.stderr


def limit_file_size() -> None:
    """In the child: files grow to 2 KiB; SIGXFSZ is ignored by Python, so that write fails (EFBIG)."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048))


@pytest.mark.kvm
@pytest.mark.parametrize(("code", "status"), [(debug_exit(3), 14), (HALT_FOR_EVER, 6)])
def test_recording_that_cannot_be_written_is_status_14_unless_worse_is_known(
    images: Images, tmp_path: Path, code: bytes, status: int
) -> None:
    path = tmp_path / "run.rec"
    run = images.run(say(b"0123456789" * 100) + code, "--record", path, preexec_fn=limit_file_size)

    found, output, messages = run_to_end(run)

    assert output == b"0123456789" * 100
    assert found == status
    assert f"kvmbox: recording to '{path}' ended, the run goes on: File too large" in messages
    assert len(error_lines(messages)) == 1
    assert kvmbox("replay", "--sandbox", "none", path).returncode == 0


@pytest.mark.kvm
def test_record_to_a_path_that_cannot_be_written_is_status_4(images: Images, tmp_path: Path) -> None:
    status, output, messages = run_to_end(images.run(debug_exit(3), "--record", tmp_path / "no" / "where"))

    assert (status, output) == (4, b"")
    assert error_lines(messages) == [
        f"kvmbox: error: cannot write the recording '{tmp_path}/no/where': No such file or directory"
    ]


def test_record_limit_alone_is_a_usage_error() -> None:
    with Run("--record-limit", "1M", "hello64") as run:
        assert run.status() == 2
        assert "--record-limit needs --record" in run.messages


def test_run_without_record_does_not_import_it() -> None:
    code = (
        "import sys, kvmbox.cli.run.command, kvmbox.run.run, kvmbox.run.result.run_statistics\n"
        "import kvmbox.boot.bundled\n"
        "sys.exit(any(name.startswith(('kvmbox.parts.record', 'zlib')) for name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == 0


# --- Without /dev/kvm ---------------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A recording of a machine that was driven by a test."""
    path = tmp_path / "small.rec"
    path.write_bytes(recording(small_machine().records))
    return path


@pytest.fixture
def different(tmp_path: Path) -> tuple[Path, int]:
    """A recording with a reply that the models do not give, and the number of the record."""
    records = small_machine().records
    read = next(r for r in records if (r.channel, r.request[0], r.request[24]) == (UART, 2, LSR))
    wrong = read._replace(reply=read.reply[:16] + b"\x20" + read.reply[17:])
    path = tmp_path / "different.rec"
    path.write_bytes(recording([wrong if r is read else r for r in records]))
    return path, read.number


@pytest.mark.parametrize("sandbox", ["process", "none"])
def test_replay_without_kvm_is_identical(small: Path, sandbox: str) -> None:
    assert_identical(small, sandbox)


@pytest.mark.parametrize("sandbox", ["process", "none"])
def test_replay_that_differs_is_status_12_and_says_where(different: tuple[Path, int], sandbox: str) -> None:
    path, number = different

    done = kvmbox("replay", "--sandbox", sandbox, path)

    assert (done.returncode, done.stderr) == (12, "")
    assert done.stdout.splitlines() == [
        f"record {number} differs, at guest time 0.000002000 s: COM1 (uart)",
        "  request   read port 0x3fd (LSR)",
        "  expected  value 0x20, steady for 50000 µs, no deadline",
        "  got       value 0x60, steady for 50000 µs, no deadline",
    ]


def test_replay_until_before_the_difference_is_identical(different: tuple[Path, int]) -> None:
    path, number = different

    assert kvmbox("replay", "--until", str(number - 1), path).returncode == 0
    assert kvmbox("replay", "--until", str(number), path).returncode == 12
    assert kvmbox("replay", "--until", "1.5us", path).returncode == 0
    assert kvmbox("replay", "--device", "rtc", path).returncode == 0
    assert kvmbox("replay", "--device", "COM1", path).returncode == 12


def test_dump_prints_a_line_a_record(small: Path) -> None:
    text = kvmbox("replay", "--dump", small)
    data = kvmbox("replay", "--dump=json", small)

    count = len(small_machine().records)
    assert (text.returncode, data.returncode) == (0, 0)
    assert len(text.stdout.splitlines()) == count
    assert [json.loads(line)["record"] for line in data.stdout.splitlines()] == list(range(count))


def test_dump_whose_reader_leaves_ends_quietly(tmp_path: Path) -> None:
    path = tmp_path / "long.rec"
    machine = small_machine()
    for _ in range(5000):
        machine.read(UART, LSR, now=3_000_000)
    path.write_bytes(recording(machine.records))
    dump = subprocess.Popen(
        [*KVMBOX, "replay", "--dump", str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert dump.stdout is not None
    assert dump.stderr is not None
    with dump:
        dump.stdout.readline()
        dump.stdout.close()
        assert dump.stderr.read() == b""
    assert dump.returncode == 0


@pytest.mark.parametrize("command", [("replay",), ("replay", "--dump"), ("trace",)])
@pytest.mark.parametrize("content", [b"", b"\x7fELF" * 100, b"\x89KVMREC\n\x02\0\0\0\0\0\0\0"])
def test_file_that_is_no_recording_is_one_line_and_status_4(
    tmp_path: Path, command: tuple[str, ...], content: bytes
) -> None:
    path = tmp_path / "junk"
    path.write_bytes(content)

    done = kvmbox(*command, path)

    assert done.returncode == 4
    assert done.stdout == ""
    (line,) = error_lines(done.stderr)
    assert str(path) in line


def test_unknown_device_is_a_usage_error(small: Path) -> None:
    done = kvmbox("replay", "--device", "floppy", small)

    assert done.returncode == 2
    assert "it has uart, COM1, COM2, pit" in done.stderr


def test_trace_is_a_page(small: Path) -> None:
    done = kvmbox("trace", small)

    assert done.returncode == 0
    assert "port 0x3fd (LSR)" in done.stdout
    assert "IRQ 0 (PIT)" in done.stdout


def test_chrome_trace_is_json_that_has_every_record(small: Path, tmp_path: Path) -> None:
    target = tmp_path / "trace.json"

    done = kvmbox("trace", "--chrome", target, small)

    assert done.returncode == 0
    events = json.loads(target.read_text())["traceEvents"]
    numbers = {event["args"]["record"] for event in events if event["ph"] == "i"}
    assert numbers == set(range(len(small_machine().records)))


def test_chrome_trace_on_stdout_is_alone_there(small: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [*KVMBOX, "trace", "--chrome", "-", small], cwd=tmp_path, capture_output=True, check=True
    )

    assert json.loads(done.stdout)["traceEvents"]
    assert b"records written to -" in done.stderr
    assert not (tmp_path / "-").exists()


def test_chrome_trace_that_cannot_be_written_is_one_line(small: Path, tmp_path: Path) -> None:
    done = kvmbox("trace", "--chrome", tmp_path, small)

    assert done.returncode == 4  # as of every other file that a command is to write
    assert error_lines(done.stderr) == [f"kvmbox: error: cannot write --chrome '{tmp_path}': Is a directory"]
