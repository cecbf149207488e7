"""A recording as a page for people: what each device, process and interrupt did over guest time, and tables.

The page of a recording of any length has a bounded size: time has `lanes.STEPS` steps, there are so many
lanes and rows at most, and of single records the first and the last ones are there.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Final

from kvmbox.parts.record.format import ChannelHeader, Record
from kvmbox.tools.html.html_page import block, page, table, text
from kvmbox.tools.replay.frames_as_text import moment, record_line
from kvmbox.tools.replay.lanes import DEVICE, LINE, PROCESS, Key, Lanes
from kvmbox.tools.replay.trace_summary import Summary, device_name, headline, line_name, tables

KEPT: Final = 100
"""How many records are shown one by one, of the beginning and of the end."""

MOST_LANES: Final = 40
"""How many lanes each picture has: those with the most in them."""

MOST_ROWS: Final = 400
_WIDTH, _LANE, _LEFT, _TICKS = 1000, 28, 170, 4
"""Of a picture: its width, the height of a lane, where time begins, and how many ticks there are at least."""

_LABEL: Final = 40
"""How far from the end of a picture the text of a tick begins to be too long for it."""


class Kept:
    """The first and the last records that pass by."""

    def __init__(self, channels: Sequence[ChannelHeader]) -> None:
        self._channels = channels
        self._first: list[Record] = []
        self._last: deque[Record] = deque(maxlen=KEPT)

    def watch(self, records: Iterable[Record]) -> Iterator[Record]:
        """The same records."""
        passing = iter(records)
        for record in islice(passing, KEPT):
            self._first.append(record)
            yield record
        for record in passing:
            self._last.append(record)
            yield record

    def shown(self) -> str:
        """Both, as HTML."""
        shown = ""
        for word, found in (("first", self._first), ("last", self._last)):
            if found:
                lines = "\n".join(record_line(self._channels[one.channel], one) for one in found)
                title = f"The {word} {len(found)} records"
                shown += f"<details><summary>{title}</summary>{block(lines)}</details>\n"
        return shown


def trace_page(name: str, summary: Summary, lanes: Lanes, kept: Kept) -> str:
    """The page of the recording `name`."""
    channels = summary.channels
    accesses, others, output, interrupts = tables(summary)
    body = [
        *(f'<p class="dim">{text(line)}</p>' for line in headline(summary)),
        '<p class="dim">The height of a bar grows with the logarithm of the number.</p>',
        _group("Accesses of devices", lanes, DEVICE, lambda key: device_name(channels[key[1]], key[2])),
        _table("Accesses by register", accesses),
        _group("Requests to processes", lanes, PROCESS, lambda key: channels[key[1]].device_type),
        _table("Requests that are no accesses", others),
        _table("Output", output),
        _group("Interrupts", lanes, LINE, lambda key: line_name(channels[key[1]], key[2], key[3])),
        _table("Interrupts by line", interrupts),
        "<h2>Records</h2>\n",
        kept.shown(),
    ]
    return page(f"kvmbox trace: {name}", "".join(body))


def _table(name: str, titled_rows: tuple[Sequence[str], Sequence[Sequence[str]]]) -> str:
    titles, rows = titled_rows
    if not rows:
        return ""
    more = len(rows) - MOST_ROWS
    note = f"<p>{more} more rows: kvmbox trace prints all of them.</p>\n" if more > 0 else ""
    shown = table(titles, rows[:MOST_ROWS], name)
    return f"<details><summary>{text(name)}</summary>{shown}{note}</details>\n"


def _group(title: str, lanes: Lanes, what: str, name_of: Callable[[Key], str]) -> str:
    """The lanes of one kind, under a heading."""
    found = lanes.of(what)
    if not found:
        return ""
    busiest = sorted(found, key=lambda lane: -sum(lane[1]))[:MOST_LANES]
    shown = [(name_of(key), counts) for key, counts in found if (key, counts) in busiest]
    less = len(found) - len(shown)
    note = f'<p class="dim">{less} lanes with less in them are not shown.</p>\n' if less else ""
    return f"<h2>{title}</h2>\n{note}{_picture(title, shown, lanes)}"


def _picture(title: str, shown: Sequence[tuple[str, Sequence[int]]], lanes: Lanes) -> str:
    """The lanes as SVG, one below the other."""
    most = math.log1p(max(max(counts) for _, counts in shown))
    height = _LANE * len(shown)
    drawn = "".join(_lane(at, name, counts, most, lanes) for at, (name, counts) in enumerate(shown))
    return (
        f'<div class="chart" tabindex="0" role="group" aria-label="{title}">'
        f'<svg viewBox="0 0 {_WIDTH} {height + 20}" role="img" aria-label="{title} over guest time">'
        f"{drawn}{_axis(height, lanes)}</svg></div>\n"
    )


def _lane(at: int, name: str, counts: Sequence[int], most: float, lanes: Lanes) -> str:
    """A name, its sum, and a bar for each step with something in it."""
    base = (at + 1) * _LANE - 4
    width = (_WIDTH - _LEFT) / lanes.used
    bars = [
        f'<text x="0" y="{base - 4}">{text(name)}</text>'
        f'<line x1="{_LEFT}" y1="{base}" x2="{_WIDTH}" y2="{base}"/>'
    ]
    for step, count in enumerate(counts):
        if count:
            size = max(1.0, (_LANE - 8) * math.log1p(count) / most)
            bars.append(
                f'<rect class="bar" x="{_LEFT + step * width:.1f}" y="{base - size:.1f}" width="{width:.1f}"'
                f' height="{size:.1f}"><title>{text(name)}: {count} from {_begin(lanes, step)}</title></rect>'
            )
    return "".join(bars)


def _axis(height: int, lanes: Lanes) -> str:
    """Round times, each with its unit."""
    first = lanes.first or 0
    end = _end(lanes)
    most = max(1, (end - first) // _TICKS)
    size = 10 ** (len(str(most)) - 1)
    apart = max(size * number for number in (1, 2, 5) if size * number <= most)
    ticks = []
    for now in range(-(-first // apart) * apart, end + 1, apart):
        x = _LEFT + (_WIDTH - _LEFT) * (now - first) / (end - first)
        anchor = "start" if now == first else "end" if x > _WIDTH - _LABEL else "middle"
        time = moment(now, apart, end)
        ticks.append(f'<text x="{x:.0f}" y="{height + 14}" text-anchor="{anchor}">{time}</text>')
    return "".join(ticks)


def _begin(lanes: Lanes, step: int) -> str:
    return moment((lanes.first or 0) + step * lanes.step, lanes.step, _end(lanes))


def _end(lanes: Lanes) -> int:
    return (lanes.first or 0) + lanes.used * lanes.step
