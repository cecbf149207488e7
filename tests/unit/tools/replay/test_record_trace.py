"""`kvmbox trace`: the summary and the Chrome trace."""

from __future__ import annotations

import io
import json
from typing import Any

from kvmbox.contract.model import HostOutput, IrqLine
from kvmbox.parts.record.format import Record
from kvmbox.tools.replay.chrome import export
from kvmbox.tools.replay.select import DeviceChoice
from kvmbox.tools.replay.trace_summary import LineCount, Span, Summary, format_summary, summarise
from kvmbox.wire import protocol
from kvmbox.wire.effects import encode_reply
from kvmbox.wire.protocol import Request
from tests.support.recordings import CHANNELS, LSR, UART, small_machine


def summary_of(records: list[Record], device: str | None = None) -> Summary:
    return summarise(records, CHANNELS, DeviceChoice.parse(device, CHANNELS))


def uart_record(number: int, now: int, *effects: IrqLine | HostOutput) -> Record:
    """A write to COM1 with these effects."""
    request = Request(protocol.WRITE, 0, 1, number, now, 0x41)
    return Record(number, UART, request.encode(), encode_reply(request, None, 0, [(0, e) for e in effects]))


def test_accesses_are_counted_by_register_and_kind() -> None:
    summary = summary_of(small_machine().records)

    assert summary.accesses[UART, 0, LSR, protocol.READ] == Span(3, 3, 2_000, 2_002)
    assert summary.accesses[UART, 0, 0, protocol.WRITE] == Span(3, 3, 2_000, 2_002)
    assert summary.accesses[UART, 0, 0, protocol.READ] == Span(1, 1, 3_001, 3_001)
    assert summary.accesses[UART, 1, 7, protocol.WRITE] == Span(1, 1, 1_000_200, 1_000_200)
    assert summary.others[UART, 0, protocol.RECEIVE] == Span(1, 5, 3_000, 3_000)
    assert summary.others[UART, -1, protocol.RESET] == Span(1, 0, 2_000_000, 2_000_000)
    assert summary.records.count == len(small_machine().records)


def test_runs_and_indexed_reads_are_counted_as_the_accesses_that_they_are() -> None:
    requests = [
        Request(protocol.WRITE_RUN, 0, 0, 1, 10, offset=7, payload=b"abc"),
        Request(protocol.INDEXED_READ, 0, 1, 2, 20, 7 << 32 | 0x0A, LSR),
    ]
    records = [
        Record(number, UART, request.encode(), encode_reply(request, None, 0, []))
        for number, request in enumerate(requests)
    ]

    summary = summary_of(records)

    assert summary.accesses == {
        (UART, 0, 7, protocol.WRITE): Span(4, 4, 10, 20),
        (UART, 0, LSR, protocol.READ): Span(1, 1, 20, 20),
    }


def test_blocks_are_counted_as_the_accesses_that_were_made() -> None:
    wide = Request(protocol.READ_WIDE, 0, 4, 1, 10, offset=LSR)
    string = Request(protocol.WRITE_STRING, 0, 1, 2, 20, offset=7, payload=b"abc")
    records = [
        Record(0, UART, wide.encode(), encode_reply(wide, None, 0, [(0, IrqLine(0, 0))], b"\x60\xb0")),
        Record(1, UART, string.encode(), encode_reply(string, None, 0, [])),
        Record(2, UART, string.encode(), b""),  # lost: whatever was made, it was asked for
    ]

    assert summary_of(records).accesses == {
        (UART, 0, LSR, protocol.READ): Span(1, 1, 10, 10),
        (UART, 0, LSR + 1, protocol.READ): Span(1, 1, 10, 10),
        (UART, 0, 7, protocol.WRITE): Span(6, 6, 20, 20),
    }


def test_output_and_interrupts_are_counted() -> None:
    records = [
        uart_record(1, 10, HostOutput(b"ab"), IrqLine(0, 1)),
        uart_record(2, 20, IrqLine(0, 0)),
        uart_record(3, 30, IrqLine(0, 1, 4), HostOutput(b"c")),
    ]

    summary = summary_of(records)

    assert summary.output[UART, 0] == Span(2, 3, 10, 30)
    assert summary.lines[UART, 0, 0] == LineCount(Span(2, 0, 10, 30), lowered=1, coalesced=4)


def test_span_of_channels_that_are_not_in_step_has_first_and_last() -> None:
    summary = summary_of([uart_record(1, 20), uart_record(2, 30), uart_record(3, 10)])

    assert summary.records == Span(3, 0, 10, 30)


def test_unusable_replies_are_counted_apart() -> None:
    good = uart_record(1, 10, HostOutput(b"a"))
    records = [good, good._replace(reply=b""), good._replace(reply=b"\xff" + good.reply[1:])]

    summary = summary_of(records)

    assert summary.unanswered == 2
    assert summary.output[UART, 0].count == 1
    assert "2 of them without a reply" in format_summary(summary)


def test_device_choice_leaves_out_the_others() -> None:
    summary = summary_of(small_machine().records, "COM2")

    assert set(summary.accesses) == {(UART, 1, 7, protocol.WRITE), (UART, 1, 7, protocol.READ)}


def test_summary_is_a_page_of_tables() -> None:
    page = format_summary(summary_of(small_machine().records))

    lines = [" ".join(line.split()) for line in page.splitlines()]
    assert "COM1 port 0x3fd (LSR) read 3 3 0.000002000 s 0.000002002 s" in lines
    assert "COM2 port 0x2ff (SCR) write 1 1 0.001000200 s 0.001000200 s" in lines
    assert "uart reset 1 0 0.002000000 s 0.002000000 s" in lines
    assert any(line.startswith("IRQ 0 (PIT) ") for line in lines)
    assert all(line == line.rstrip() for line in page.splitlines())


def test_summary_of_nothing_is_a_line() -> None:
    assert format_summary(summary_of([])) == "0 records, guest time 0 ns to 0 ns"


def chrome_events(records: list[Record], device: str | None = None) -> list[dict[str, Any]]:
    """What a reader of the exported JSON gets; times as the digits in the file."""
    out = io.StringIO()
    count = export(records, CHANNELS, DeviceChoice.parse(device, CHANNELS), out)
    data = json.loads(out.getvalue(), parse_float=str)
    assert data["displayTimeUnit"] == "ns"
    events: list[dict[str, Any]] = data["traceEvents"]
    assert sum(event["ph"] == "i" and event["name"].startswith("COM1 (uart)") for event in events) <= count
    return events


def test_chrome_trace_has_a_track_for_each_channel() -> None:
    events = chrome_events(small_machine().records)

    names = {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}
    types = ["uart", "pit", "rtc", "i8042", "debug", "pm", "hpet", "fwcfg", "vga"]
    assert names == dict(enumerate(types, 1))
    assert all(event["tid"] in names for event in events if event["ph"] == "i")


def test_chrome_trace_keeps_every_nanosecond() -> None:
    late = (1 << 64) - 1
    events = chrome_events([uart_record(1, 1_234_007, IrqLine(0, 1)), uart_record(2, late)])

    assert [event["ts"] for event in events if event["ph"] == "i"] == ["1234.007", "18446744073709551.615"]
    assert [event["ts"] for event in events if event["ph"] == "C"] == ["1234.007"]


def test_chrome_trace_has_interrupt_counters_and_output() -> None:
    events = chrome_events(
        [uart_record(1, 1_000, HostOutput(b"a\n"), IrqLine(0, 1)), uart_record(2, 2_000, IrqLine(0, 0))]
    )

    counters = [event for event in events if event["ph"] == "C"]
    assert [(event["name"], event["args"]) for event in counters] == [
        ("IRQ 4 (COM1)", {"level": 1}),
        ("IRQ 4 (COM1)", {"level": 0}),
    ]
    assert r"output 'a\n'" in [event["name"] for event in events]


def test_chrome_trace_of_one_device_has_its_track_alone() -> None:
    events = chrome_events(small_machine().records, "RTC")

    assert {event["tid"] for event in events if "tid" in event} == {3}
