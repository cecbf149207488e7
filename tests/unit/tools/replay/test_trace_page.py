"""`kvmbox trace --html`: what is drawn, how much of it, and that nothing of a recording is markup."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from kvmbox.cli.main import cli
from kvmbox.contract.model import HostOutput, IrqLine
from kvmbox.parts.record.format import Record
from kvmbox.tools.replay.lanes import DEVICE, LINE, MOST_LANES, PROCESS, STEPS, Lanes
from kvmbox.tools.replay.select import DeviceChoice
from kvmbox.tools.replay.trace_page import KEPT, Kept, trace_page
from kvmbox.tools.replay.trace_summary import summarise
from kvmbox.wire import protocol
from kvmbox.wire.effects import encode_reply
from kvmbox.wire.protocol import Request
from tests.support.html_page import Page
from tests.support.recordings import CHANNELS, PIT, UART, recording, small_machine


def drawn(records: list[Record], name: str = "run.rec") -> Page:
    lanes, kept = Lanes(), Kept(CHANNELS)
    summary = summarise(kept.watch(records), CHANNELS, DeviceChoice.parse(None, CHANNELS), lanes)
    page = Page(trace_page(name, summary, lanes, kept))
    page.assert_policy_holds()
    page.assert_accessible()
    return page


def uart_write(number: int, now: int, *effects: IrqLine | HostOutput) -> Record:
    request = Request(protocol.WRITE, 0, 1, number, now, 0x41)
    return Record(number, UART, request.encode(), encode_reply(request, None, 0, [(0, e) for e in effects]))


@given(st.lists(st.tuples(st.integers(0, (1 << 63) - 1), st.integers(1, 5)), min_size=1))
def test_lane_has_all_that_was_added_in_the_step_of_its_time(added: list[tuple[int, int]]) -> None:
    lanes = Lanes()
    for now, count in added:
        lanes.add((DEVICE, 0, 0, 0), now, count)
    ((_, counts),) = lanes.of(DEVICE)
    first = added[0][0]
    wanted = [0] * STEPS
    for now, count in added:
        wanted[max(0, now - first) // lanes.step] += count
    assert list(counts) == wanted
    assert lanes.used == max(at for at, count in enumerate(wanted, 1) if count)
    assert lanes.step == 1 or lanes.used > STEPS // 2


def test_lanes_of_a_stranger_are_bounded() -> None:
    lanes = Lanes()
    for number in range(MOST_LANES + 5):
        lanes.add((LINE, 0, 0, number), 0)
    assert (len(lanes.counts), lanes.left_out) == (MOST_LANES, 5)


def test_summary_fills_a_lane_for_each_device_process_and_line() -> None:
    lanes = Lanes()
    records = [*small_machine().records, uart_write(99, 3_000_000, IrqLine(0, 1), IrqLine(0, 0))]
    summary = summarise(records, CHANNELS, DeviceChoice.parse(None, CHANNELS), lanes)
    sums = {key: sum(counts) for key, counts in lanes.counts.items()}
    for device in (0, 1):
        accesses = [span for key, span in summary.accesses.items() if key[:2] == (UART, device)]
        assert sums[DEVICE, UART, device, 0] == sum(span.count for span in accesses) > 0
    assert sum(count for key, count in sums.items() if key[0] == PROCESS) == len(records)
    assert sums[PROCESS, PIT, 0, 0] == sum(one.channel == PIT for one in records)
    assert sums[LINE, UART, 0, 0] == summary.lines[UART, 0, 0].raised.count


def test_page_draws_devices_processes_and_interrupts_and_has_the_tables() -> None:
    page = drawn([*small_machine().records, uart_write(99, 3_000_000, IrqLine(0, 1))])
    for words in ("Accesses of devices", "Requests to processes", "Interrupts", "COM2", "IRQ 4 (COM1)"):
        assert words in page.text
    assert "port 0x3fd (LSR)" in page.text
    assert "COM1 raises IRQ 4" in page.text  # the last record
    assert len(page.of("svg")) == 3
    assert all(one["scope"] == "col" for one in page.of("th"))


def test_page_of_a_long_recording_is_no_longer() -> None:
    def size(count: int) -> int:
        page = drawn([uart_write(number, 1000 * number) for number in range(count)])
        assert page.text.count("COM1 (uart): write") == 2 * KEPT
        return len(page.elements)

    assert size(20_000) <= size(2_000) + STEPS


def test_nothing_of_a_recording_is_markup() -> None:
    attack = "</pre><script>alert(1)</script><img src=x onerror=alert(1)>"
    page = drawn([uart_write(1, 0, HostOutput(attack.encode()))], name=attack)
    assert page.shape == drawn([uart_write(1, 0, HostOutput(b"x"))]).shape
    assert attack in page.text


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "run.rec"
    path.write_bytes(recording(small_machine().records))
    return str(path)


def test_command_writes_the_page_and_tells_of_it(file: str, tmp_path: Path) -> None:
    out = str(tmp_path / "out.html")
    done = CliRunner().invoke(cli, ["trace", file, "--html", out], standalone_mode=False)
    assert (done.exception, done.stdout.count("\n")) == (None, 1)
    page = Page(Path(out).read_text(encoding="utf-8"))
    page.assert_policy_holds()
    assert "kvmbox trace: run.rec" in page.text


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--html", "-", "--json", "-"), "both on stdout"),
        (("--html", "x", "--chrome", "y"), "--chrome writes a trace instead"),
    ],
)
def test_outputs_that_contradict_each_other_are_refused(
    file: str, arguments: tuple[str, ...], told: str
) -> None:
    done = CliRunner().invoke(cli, ["trace", file, *arguments], standalone_mode=False)
    assert told in str(done.exception)


@pytest.mark.parametrize(
    ("first", "last", "ticks"),
    [
        (0, 10_370_909, ["0 ms", "2 ms", "4 ms", "6 ms", "8 ms", "10 ms"]),
        (0, 7, ["0 ns", "2 ns", "4 ns", "6 ns", "8 ns"]),
        (1_000_000_000, 1_000_900_000, ["1.0000 s", "1.0002 s", "1.0004 s", "1.0006 s", "1.0008 s"]),
        (5_000_000_000, 65_000_000_000, ["10 s", "20 s", "30 s", "40 s", "50 s", "60 s"]),
    ],
)
def test_ticks_are_round_times(first: int, last: int, ticks: list[str]) -> None:
    page = drawn([uart_write(1, first), uart_write(2, last)])
    texts = [text for text in page.texts if re.fullmatch(r"[0-9.]+ (s|ms|µs|ns)", text)]
    assert texts[: len(ticks)] == ticks
