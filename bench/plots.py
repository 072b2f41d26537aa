"""Curves, as PNG and SVG, drawn by matplotlib, which is in the extra `bench`. Without it: no pictures."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench.experiment import OptionError, new_file

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#444444")
"""Okabe and Ito's, which people with any colour vision tell apart."""

MARKS = "osD^vPX"

WIDTH_IN, HEIGHT_IN, DOTS_PER_INCH = 7.2, 4.2, 150

MISSING = "pictures need matplotlib: pip install 'craft-consensus[bench]'"


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One line of points, with the range of the runs around each where it is known."""

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    least: Sequence[float | None] = ()
    greatest: Sequence[float | None] = ()
    dashed: bool = False
    """A bound or a theory rather than a measurement."""


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A picture of curves over one quantity."""

    title: str
    x_label: str
    y_label: str
    curves: Sequence[Curve]
    x_log: bool = False
    y_log: bool = False
    x_ticks: Sequence[float] | None = None


def add_plot_option(parser: argparse.ArgumentParser) -> None:
    """Where the picture goes."""
    parser.add_argument(
        "--plot",
        type=new_file,
        metavar="STEM",
        help="draw the figures into STEM.svg and STEM.png (needs the extra `bench`)",
    )


def check_plot(options: argparse.Namespace) -> None:
    """Raise OptionError where a picture is wanted that cannot be drawn."""
    if options.plot is not None and not drawable():
        raise OptionError(f"--plot {options.plot}: {MISSING}")


def drawable() -> bool:
    """Is matplotlib there?"""
    return find_spec("matplotlib") is not None


def draw(plot: Plot, stem: Path) -> list[Path]:
    """Write the picture beside each other as STEM.svg and STEM.png; the files."""
    # Half a second, which runs without pictures do not pay.
    import matplotlib as mpl  # noqa: PLC0415
    from matplotlib import pyplot as plt  # noqa: PLC0415

    mpl.use("Agg")
    # A picture of the same figures is the same file: no random ids, no date.
    with mpl.rc_context({"svg.hashsalt": "craft", "svg.fonttype": "none", "font.size": 9}):
        figure, axes = plt.subplots(figsize=(WIDTH_IN, HEIGHT_IN), layout="constrained")
        try:
            for number, curve in enumerate(plot.curves):
                _draw_curve(axes, curve, number)
            _dress(axes, plot)
            files = [stem.with_name(f"{stem.name}.{kind}") for kind in ("svg", "png")]
            figure.savefig(files[0], metadata={"Date": None})
            figure.savefig(files[1], dpi=DOTS_PER_INCH, metadata={"Software": None})
        finally:
            plt.close(figure)
    return files


def _draw_curve(axes: Any, curve: Curve, number: int) -> None:
    colour = COLOURS[number % len(COLOURS)]
    known = [place for place, y in enumerate(curve.y) if y is not None]
    x = [curve.x[place] for place in known]
    axes.plot(
        x,
        [curve.y[place] for place in known],
        label=curve.name,
        color=colour,
        marker=None if curve.dashed else MARKS[number % len(MARKS)],
        markersize=4,
        linestyle="--" if curve.dashed else "-",
        linewidth=1.4,
    )
    if curve.least:
        low = [curve.least[place] for place in known]
        high = [curve.greatest[place] for place in known]
        axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)


def _dress(axes: Any, plot: Plot) -> None:
    axes.set_title(plot.title, loc="left")
    axes.set_xlabel(plot.x_label)
    axes.set_ylabel(plot.y_label)
    if plot.x_log:
        axes.set_xscale("log", base=2)
    if plot.y_log:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    if plot.x_ticks is not None:
        axes.set_xticks(plot.x_ticks, [f"{tick:g}" for tick in plot.x_ticks], minor=False)
        axes.set_xticks([], minor=True)
    axes.grid(visible=True, alpha=0.25)
    if len(plot.curves) > 1:
        axes.legend(frameon=False)
