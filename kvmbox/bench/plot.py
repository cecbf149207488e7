"""A picture of the ratios: a group of bars per access, a bar per configuration, lines for the intervals.

matplotlib is an extra, imported here and nowhere else, when a picture is asked for.
"""

from __future__ import annotations

import os
from typing import Any, Final

from kvmbox.bench.analysis import Cell, cells
from kvmbox.bench.plan import NONE, Row
from kvmbox.bench.results import Results
from kvmbox.bench.statistics import Estimate
from kvmbox.errors import HostOutputError, StartError, UsageError

FORMATS: Final = (".svg", ".png")
WIDTH: Final = 11.0  # inches
BAR: Final = 0.16  # inches
GAP: Final = 0.2  # inches
_INK: Final = "#222222"


def check(path: str) -> None:
    """Before anything is measured: UsageError for a name without a format, StartError without matplotlib."""
    if os.path.splitext(path)[1].lower() not in FORMATS:
        raise UsageError(f"--plot '{path}' ends neither in .svg nor in .png")
    _pyplot()


def _pyplot() -> Any:
    try:
        import matplotlib as mpl

        # No window, whatever the environment says.
        mpl.use("agg")
        from matplotlib import pyplot
    except ImportError as error:
        raise StartError(
            f"--plot needs matplotlib: {error}", hint="pip install 'kvmbox[plot]', or leave --plot out"
        ) from error
    return pyplot


def drawn(results: Results) -> list[Row]:
    """The rows of the picture: those of an access, or of a byte of output, measured with `none` as well."""
    return [
        row
        for row in results.rows
        if row.job in ("accesses", "native") and row.unit != "times" and results.values(row.name, NONE)
    ]


def _is_drawn(one: Cell) -> bool:
    return one.to_none is not None and one.configuration.name != NONE


def draw(results: Results, path: str) -> None:
    """Write the picture to `path`: HostOutputError if that fails, UsageError if there is nothing to draw."""
    pyplot = _pyplot()
    from matplotlib import ticker

    rows = drawn(results)
    if not rows:
        raise UsageError("--plot: no row was measured with --sandbox none, so there is no ratio to draw")
    names = [one.name for one in results.configurations]
    shown = {row.name: [one for one in cells(results, row) if _is_drawn(one)] for row in rows}
    used = [
        name
        for name in names
        if any(one.configuration.name == name for line in shown.values() for one in line)
    ]
    colours = {name: pyplot.get_cmap("tab20")(index % 20) for index, name in enumerate(used)}
    height = sum(len(line) * BAR + GAP for line in shown.values()) + 1.6
    with pyplot.rc_context(
        {"font.size": 8, "svg.hashsalt": "kvmbox", "svg.fonttype": "none", "hatch.linewidth": 0.5}
    ):
        figure, axes = pyplot.subplots(figsize=(WIDTH, height), layout="constrained")
        position, ticks = 0.0, []
        for row in rows:
            first = position
            for one in shown[row.name]:
                assert one.to_none is not None
                _bar(axes, position, one.to_none, colours[one.configuration.name])
                position += BAR
            ticks.append((first + position - BAR) / 2)
            position += GAP
        axes.set_yticks(ticks, [row.name for row in rows])
        axes.margins(y=0.01)
        axes.invert_yaxis()
        # Half as much and twice as much are equally far from the same.
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0)))
        axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}×"))
        axes.xaxis.set_minor_locator(ticker.NullLocator())
        axes.grid(axis="x", linewidth=0.3)
        axes.axvline(1.0, color=_INK, linewidth=0.8)
        axes.set_xlabel("times the same access with --sandbox none; line: interval; hatched: noisy")
        facts = results.facts
        axes.set_title(
            f"kvmbox {facts.get('kvmbox', '')} bench, {facts.get('kernel', '')}, KVM backend "
            f"{facts.get('kvm_backend', '?')}, {results.rounds} rounds",
            fontsize=9,
        )
        handles = [pyplot.Rectangle((0, 0), 1, 1, color=colours[name]) for name in used]
        figure.legend(handles, used, loc="outside lower center", fontsize=7, ncols=4)
        try:
            figure.savefig(path, metadata={"Date": None} if path.lower().endswith(".svg") else None, dpi=150)
        except OSError as error:
            raise HostOutputError(f"cannot write --plot '{path}': {error.strerror}") from error
        finally:
            pyplot.close(figure)


def _bar(axes: Any, position: float, ratio: Estimate, colour: Any) -> None:
    axes.barh(
        position,
        ratio.median - 1,
        left=1.0,
        height=BAR * 0.9,
        color=colour,
        hatch="////" if ratio.noise else None,
        edgecolor="white",
        linewidth=0.3,
    )
    axes.plot([ratio.low, ratio.high], [position, position], color=_INK, linewidth=0.8)
