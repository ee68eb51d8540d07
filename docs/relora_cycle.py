"""Draw the first cycles of the default study's method `relora` into docs/relora_cycle.png (`make docs`)."""

from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from relora_study.config import Method, read_study
from relora_study.config.schedule import is_reset, learning_rate_ratio

DOCS = Path(__file__).parent
DOTS = 160  # an inch
STEPS = range(1, 171)  # two cycles and most of the third
GREYS, BLUES, ORANGES = ("#e4e4e4", "#c8c8c8", "#acacac"), ("#a6cbe3",) * 3, ("#f3c4a5",) * 3


def resets(method: Method) -> list[int]:
    """The steps of ``STEPS`` that a reset follows."""
    return [step for step in STEPS if is_reset(method, step)]


def drawn() -> Figure:
    """The learning rate of each step above what happens to W, A, B and Adam's moments, in matplotlib's own style."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        return _drawn()


def _drawn() -> Figure:
    method = read_study([DOCS.parent / "config.yaml"]).methods["relora"]
    figure = Figure(figsize=(7.5, 3.5), layout="constrained")
    rate, parts = figure.subplots(2, 1, sharex=True, height_ratios=(1, 2.1))
    rate.plot(STEPS, [learning_rate_ratio(method, step - 1) for step in STEPS], color="black", linewidth=1.2)
    rate.set(ylabel="learning rate\nover its peak", ylim=(0, 1.05))
    _lanes(parts, method)
    for axes in (rate, parts):
        axes.spines[["top", "right"]].set_visible(False)
        for step in resets(method):
            axes.axvline(step + 0.5, color="#D55E00", linewidth=1.2)
    for step in resets(method):
        words = f"reset after step {step}:\nmerge, restart, clear moments"
        rate.text(step + 4, 0.06, words, fontsize=7.5, color="#B04A00")
    return figure


def _lanes(axes: Axes, method: Method) -> None:
    """A lane for each thing that a reset changes, with a bar from one reset to the next."""
    ends = [STEPS[0], *(step + 0.5 for step in resets(method)), STEPS[-1]]
    share = f"{method.moment_reset_fraction:.1%}".replace("%", " %")
    lanes = {
        "W, frozen": (GREYS, ["W", "W + s B A", "W + s B A + s B′ A′"]),
        f"A, rank {method.rank}": (BLUES, ["A trains, from a draw", "A′ trains, from a new draw", "A″"]),
        f"B, rank {method.rank}": (BLUES, ["B trains, from zero", "B′ trains, from zero again", "B″"]),
        "Adam's moments\nof A and B": (ORANGES, ["fill", f"{share} zeroed, then fill again", "…"]),
    }
    for row, (colours, words) in enumerate(lanes.values()):
        for colour, word, left, right in zip(colours, words, ends, ends[1:], strict=False):
            axes.barh(row, right - left, left=left, height=0.72, color=colour, edgecolor="white")
            axes.text((left + right) / 2, row, word, ha="center", va="center", fontsize=8)
    axes.set(yticks=range(len(lanes)), yticklabels=lanes, xlabel="optimizer step", xlim=(STEPS[0], STEPS[-1]))
    axes.invert_yaxis()


if __name__ == "__main__":
    drawn().savefig(DOCS / "relora_cycle.png", dpi=DOTS)
