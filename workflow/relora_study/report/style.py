"""The look of every figure: colours that colour-blind readers can tell apart, and marks that survive grey print."""

import math
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib import pyplot
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from ..analysis.published_recipe import LABELS
from ..storage.files import write_whole
from .numbers import method_label

# The palette of Okabe and Ito; each method also has its own line and mark.
LOOKS: list[dict[str, Any]] = [
    {"color": "#000000", "linestyle": "-", "marker": "o"},
    {"color": "#0072B2", "linestyle": "--", "marker": "s"},
    {"color": "#D55E00", "linestyle": "-.", "marker": "^"},
    {"color": "#009E73", "linestyle": ":", "marker": "D"},
    {"color": "#CC79A7", "linestyle": (0, (5, 1)), "marker": "v"},
    {"color": "#E69F00", "linestyle": (0, (3, 1, 1, 1)), "marker": "P"},
    {"color": "#56B4E9", "linestyle": (0, (1, 1)), "marker": "X"},
    {"color": "#8C6D00", "linestyle": (0, (4, 1, 1, 1, 1, 1)), "marker": "<"},
]

TEXT_WIDTH = 6.5  # inches, of the paper's text: the paper shows a figure as it is drawn, so 7 points stay 7
SMALL = 7  # points, the smallest type

# Published curves are thin and dashed, without marks: grey beside our black, purple beside our colours.
PUBLISHED = {
    LABELS["full"]: {"color": "#777777", "linestyle": (0, (4, 2)), "marker": "", "linewidth": 0.9},
    LABELS["relora"]: {"color": "#882255", "linestyle": (0, (2, 1)), "marker": "", "linewidth": 0.9},
}

matplotlib.use("Agg")
matplotlib.rcdefaults()  # a matplotlibrc in the working directory is read before the one that report/__init__.py names
matplotlib.rcParams.update(
    {"font.size": 8, "axes.spines.top": False, "axes.spines.right": False, "pdf.fonttype": 42, "lines.markersize": 3.5}
    | dict.fromkeys(("axes.labelsize", "xtick.labelsize", "ytick.labelsize"), SMALL)
)


EMPTY = "no reading at these checkpoints"
LETTERS_AN_INCH = 17  # of small type, in the legend and in the note below the panels
ENTRY = 0.55  # inches of a legend's entry beside its words
POINTS = {LABELS["full"]: "x", LABELS["relora"]: "+"}  # marks of published values in figures without lines


def look(methods: list[str], method: str, **changes: Any) -> dict[str, Any]:
    """The colour, line and mark of ``method`` in every figure; ``gid`` tells :func:`finish` the method of a line."""
    ours = {**LOOKS[methods.index(method) % len(LOOKS)], "linewidth": 1.2}
    return {**PUBLISHED.get(method, ours), "label": method_label(method), "gid": method, **changes}


class PlainLog(LogFormatter):
    """Ticks of a log axis as plain numbers; from 10^5 on, powers of ten alone have labels."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        """The label of a tick at ``x``; empty where the axis spans too many decades."""
        power = round(math.log10(x), 6) if x > 0 else 0.5
        if not super().__call__(x, pos):
            return ""
        if 1e-3 <= x < 1e5:
            return f"{x:,.5g}"
        return f"$10^{{{power:.0f}}}$" if power.is_integer() else ""


def log_axis(axes: Any, which: Literal["x", "y"] = "y") -> None:
    """Make an axis of ``axes`` logarithmic, with plain numbers as labels: fewer labels where it spans more decades."""
    getattr(axes, f"set_{which}scale")("log", nonpositive="mask")  # a gap for 0, and no line out of the frame
    axis = getattr(axes, f"{which}axis")
    axis.set_major_formatter(PlainLog())
    axis.set_minor_formatter(PlainLog(labelOnlyBase=False, minor_thresholds=(1.2, 0.4)))


def panels(
    rows: int, columns: int, share_x: bool = True, share_y: Literal["none", "row", "all"] = "none"
) -> tuple[Figure, Any]:
    """A figure as wide as the paper's text, or half as wide, and its panels as an array [rows, columns].

    The panels of a column may share their x axis, and those of a row their y axis.
    """
    width = 3.6 if columns == 1 else max(TEXT_WIDTH, 1.2 + 1.5 * columns)
    figure, grid = pyplot.subplots(
        rows,
        columns,
        figsize=(width, 0.7 + 1.35 * rows),
        squeeze=False,
        sharex="col" if share_x else False,
        sharey=share_y,
        layout="constrained",
    )
    return figure, grid


def finish(figure: Figure, output: Path, diverged: Mapping[str, list[str]] | None = None) -> None:
    """Add a legend above the panels and write ``output``.pdf and .png. Equal figures give equal bytes.

    ``diverged`` holds the cells that diverged, in words, by method. A dagger in the legend marks such a method, and a
    line below the panels names its cells. A method whose line has its name at its end is not in the legend. A panel
    without any number says so.
    """
    for axes in figure.axes:
        if not np.isfinite(axes.dataLim.get_points()).all():
            axes.text(0.5, 0.5, EMPTY, transform=axes.transAxes, ha="center", va="center", fontsize=SMALL)
    entries = {
        label: handle for axes in figure.axes for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    named = [text for axes in figure.axes for text in axes.texts if text.get_gid()]
    shown = {handle.get_gid() for handle in entries.values()}
    marked = {method: cells for method, cells in (diverged or {}).items() if method in shown}
    for text in named:
        text.set_text(text.get_text() + " †" * (text.get_gid() in marked))
    entries = {label: one for label, one in entries.items() if one.get_gid() not in {t.get_gid() for t in named}}
    if entries:
        labels = [label + " †" * (handle.get_gid() in marked) for label, handle in entries.items()]
        fits = sum(ENTRY + len(label) / LETTERS_AN_INCH for label in labels) <= figure.get_figwidth()
        columns = len(labels) if fits else max(2, min(4, int(figure.get_figwidth() / 1.6)))
        figure.legend(
            entries.values(), labels, loc="outside upper center", ncols=columns, frameon=False, fontsize=SMALL
        )
    if marked:
        note = "† diverged: " + "; ".join(cell for cells in marked.values() for cell in cells)
        letters = int(figure.get_figwidth() * LETTERS_AN_INCH)
        figure.supxlabel("\n".join(textwrap.wrap(note, letters)), fontsize=SMALL)
    write_whole(
        output.with_suffix(".pdf"), lambda path: figure.savefig(path, format="pdf", metadata={"CreationDate": None})
    )
    write_whole(output.with_suffix(".png"), lambda path: figure.savefig(path, format="png", dpi=160))
    pyplot.close(figure)
