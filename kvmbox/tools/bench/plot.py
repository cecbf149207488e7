"""A picture of the answer: a group of bars per kind of access, a colour per ipc.

The bars are ratios to `none`, which is the line at 1; so a bar is what isolation costs. QEMU is a mark in the
same group. matplotlib is an extra, imported here and nowhere else, when a picture is asked for.
"""

from __future__ import annotations

import os
from typing import Any, Final

from kvmbox.base.errors import HostOutputError, StartError, UsageError
from kvmbox.tools.bench.analysis import ratio
from kvmbox.tools.bench.answer import FEW
from kvmbox.tools.bench.measuring_plan import IPCS, NONE, PRIMARY, QEMU, isolated
from kvmbox.tools.bench.results import Results
from kvmbox.tools.bench.statistics import Estimate

FORMATS: Final = (".svg", ".png")
WIDTH: Final = 9.0  # inches
BAR: Final = 0.17  # inches
GAP: Final = 0.16  # inches
_INK: Final = "#222222"
_MARK: Final = {"marker": "D", "color": _INK, "markersize": 5, "linestyle": "none"}
_COLOURS: Final = ("#0072b2", "#e69f00", "#999999", "#009e73")
"""Okabe and Ito's, which people who see few colours can tell apart; one per ipc."""


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


def drawn(results: Results) -> dict[str, dict[str, Estimate]]:
    """Row → ipc, or QEMU → ratio to `none`: what the picture shows, without rows that have no ratio."""
    known = {one.name for one in results.configurations}
    columns = {ipc: isolated(ipc) for ipc in IPCS} | {QEMU: QEMU}
    found = {}
    for row in (row.name for row in results.rows if row.name in PRIMARY):
        ratios = {
            column: ratio(results, row, name, row, NONE) for column, name in columns.items() if name in known
        }
        shown = {column: one for column, one in ratios.items() if one is not None}
        if shown:
            found[row] = shown
    return found


def draw(results: Results, path: str) -> None:
    """Write the picture to `path`: HostOutputError if that fails, UsageError if there is nothing to draw."""
    pyplot = _pyplot()
    from matplotlib import ticker

    rows = drawn(results)
    if not rows:
        raise UsageError(
            "--plot: there is no ratio to draw",
            hint=f"measure none and another configuration, and one of {', '.join(PRIMARY)}",
        )
    columns = [name for name in (*IPCS, QEMU) if any(name in shown for shown in rows.values())]
    colours = dict(zip(IPCS, _COLOURS, strict=False))
    step = len(columns) * BAR + GAP
    with pyplot.rc_context(
        {"font.size": 9, "svg.hashsalt": "kvmbox", "svg.fonttype": "none", "hatch.linewidth": 0.5}
    ):
        figure, axes = pyplot.subplots(figsize=(WIDTH, len(rows) * step + 1.5), layout="constrained")
        for number, shown in enumerate(rows.values()):
            for index, name in enumerate(columns):
                if name in shown:
                    _bar(axes, number * step + index * BAR, shown[name], colours.get(name))
        middle = (len(columns) - 1) * BAR / 2
        axes.set_yticks(
            [number * step + middle for number in range(len(rows))], [PRIMARY[row] for row in rows]
        )
        axes.tick_params(axis="y", length=0)
        axes.margins(x=0.08, y=0.02)
        axes.invert_yaxis()
        # Half as much and twice as much are equally far from the same.
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0)))
        axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}×"))
        axes.xaxis.set_minor_locator(ticker.NullLocator())
        axes.grid(axis="x", linewidth=0.3)
        axes.set_axisbelow(True)
        axes.axvline(1.0, color=_INK, linewidth=1.0)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.set_xlabel("times as long as the same access without isolation (none, the line at 1×)")
        handles = [
            pyplot.Rectangle((0, 0), 1, 1, color=colours[name])
            if name in colours
            else pyplot.Line2D([], [], **_MARK)
            for name in columns
        ]
        labels = ["QEMU, not isolated" if name == QEMU else name for name in columns]
        figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
        try:
            figure.savefig(path, metadata={"Date": None} if path.lower().endswith(".svg") else None, dpi=150)
        except OSError as error:
            raise HostOutputError(f"cannot write --plot '{path}': {error.strerror}") from error
        finally:
            pyplot.close(figure)


def _bar(axes: Any, position: float, ratio: Estimate, colour: str | None) -> None:
    """A bar of this colour, or a mark, and its number."""
    if colour is None:
        axes.plot([ratio.median], [position], **_MARK)
    else:
        hatch = "////" if ratio.noise or ratio.count < FEW else None
        axes.barh(position, ratio.median - 1, BAR * 0.9, 1.0, color=colour, hatch=hatch, edgecolor="white")
    side = 1 if ratio.median >= 1 else -1
    axes.annotate(
        f"{ratio.median:.2f}",
        (ratio.median, position),
        xytext=(side * (4 if colour else 6), 0),
        textcoords="offset points",
        ha="left" if side > 0 else "right",
        va="center",
        fontsize=7,
        color=_INK,
    )
