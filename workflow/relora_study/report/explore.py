"""The interactive page: the curves of all runs in one file, which a browser opens without a server or a network.

Bokeh writes it, with its own JavaScript and the numbers inside; workflow/report/explore.js answers the widgets.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from bokeh.document import Document
from bokeh.embed import file_html
from bokeh.layouts import column, row
from bokeh.models import CheckboxGroup, ColumnDataSource, CustomJS, Div, Select, Slider, Toggle
from bokeh.plotting import figure
from bokeh.resources import INLINE

from ..analysis.results import Runs
from ..analysis.source import measured
from ..config import Cell
from ..config.method import idle_keys
from .numbers import in_words, method_label, setting
from .style import LOOKS

SCRIPT = Path(__file__).parents[2] / "report" / "explore.js"
LOGGED = {
    "loss": "training loss (nats/token)",
    "gradient_norm": "gradient norm",
    "adapter_gradient_norm": "gradient norm of the adapters",
    "update_norm": "norm of an optimizer step",
    "learning_rate": "learning rate",
}
READ = {  # at checkpoints: title, and suite, item and metric of evaluation.csv
    "held_out_loss": ("loss on the first held-out ids (nats/token)", "held_out", "part", "loss"),
    "perplexity": ("perplexity (mean over texts)", "perplexity", "overall", "mean_text_perplexity"),
    "accuracy": ("minimal-pair accuracy", "minimal_pairs", "overall", "accuracy"),
}
PLACES = {"step": "optimizer step", "tokens": "tokens", "minutes": "minutes of training"}
POINTS, IN_ALL = 600, 40_000  # of a run's log, and of all runs': where there are more steps, a point is a mean
DASHES = ["solid", "dashed", "dotted", "dotdash"]  # by size


def page(runs: Runs) -> str:
    """The page of all cells of ``runs``, one HTML file."""
    panels = [_panel(kind) for kind in ("linear", "log")]
    panels[1].visible = False
    lines, bands = (ColumnDataSource({name: [] for name in ("xs", "ys", "color", "dash", "name")}) for _ in range(2))
    for panel in panels:
        panel.patches("xs", "ys", source=bands, color="color", alpha=0.15, line_width=0)
        panel.multi_line("xs", "ys", source=lines, line_color="color", line_dash="dash", line_width=1.6)
    widgets = _widgets(runs)
    values, settings = Div(name="values", disable_math=True), Div(name="settings", disable_math=True)
    shown = {"runs": _runs(runs), "lines": lines, "bands": bands, "linear": panels[0], "log": panels[1]}
    script = CustomJS(args=shown | widgets | {"values": values, "settings": settings}, code=SCRIPT.read_text())
    for widget in widgets.values():
        widget.js_on_change("active" if isinstance(widget, CheckboxGroup | Toggle) else "value", script)
    for panel in panels:
        panel.js_on_event("mousemove", script)
    heads = {"sizes": "Sizes", "methods": "Methods", "seeds": "Seeds"}
    controls = [
        part for name, one in widgets.items() for part in ([Div(text=heads[name])] if name in heads else []) + [one]
    ]
    whole = row(column(*controls, width=250), column(*panels, values, settings, sizing_mode="stretch_width"))
    whole.sizing_mode = "stretch_width"
    document = Document()
    document.add_root(whole)
    document.js_on_event("document_ready", script)
    return str(file_html(document, INLINE, title="Curves of the study"))


def _panel(kind: str) -> Any:
    """An empty figure with a linear or a logarithmic y axis."""
    panel = figure(height=460, sizing_mode="stretch_width", y_axis_type=kind, tools="pan,box_zoom,wheel_zoom,reset")
    panel.toolbar.logo = None
    return panel


def _widgets(runs: Runs) -> dict[str, Any]:
    """What a reader chooses, by the name that the script knows it by."""
    choices = {
        "sizes": runs.sizes,
        "methods": [method_label(name) for name in runs.methods],
        "seeds": list(map(str, runs.seeds)),
    }
    boxes = {name: CheckboxGroup(labels=these, active=list(range(len(these)))) for name, these in choices.items()}
    measures = [*LOGGED.items(), *((name, title) for name, (title, *_) in READ.items())]
    return {
        "measure": Select(title="Measure", value="loss", options=measures),
        "minus": Toggle(label="minus full rank", active=runs.full_rank_method is not None),
        "place": Select(name="place", title="Against", value="step", options=list(PLACES.items())),
        "smoothing": Slider(title="Mean of so many points", start=1, end=101, step=2, value=9),
        "logarithmic": Toggle(label="logarithmic"),
        "averaged": Toggle(label="mean and range of seeds", active=len(choices["seeds"]) > 1),
        **boxes,
    }


def _runs(runs: Runs) -> list[dict[str, Any]]:
    """The numbers, look and settings of each cell."""
    every = max(1, len(runs.cells))
    points = max(100, min(POINTS, IN_ALL // every))
    logs, times = (dict(list(runs.table(file).groupby("cell"))) for file in ("log.csv", "timing.csv"))
    read = {name: dict(list(measured(runs, *where).groupby("cell"))) for name, (_, *where) in READ.items()}
    return [
        {
            "size": cell.size_name,
            "method": method_label(cell.method_name),
            "seed": str(cell.seed),
            "reference": cell.method_name == runs.full_rank_method,
            "color": LOOKS[runs.methods.index(cell.method_name) % len(LOOKS)]["color"],
            "dash": DASHES[runs.sizes.index(cell.size_name) % len(DASHES)],
            "tokens": cell.train.batch_size * cell.model.context_length,
            "log": _log(logs[name], times[name], points),
            "read": {measure: _curve(rows[name]) for measure, rows in read.items() if name in rows},
            "settings": _settings(cell),
        }
        for name, cell in runs.cells.items()
    ]


def _log(log: pd.DataFrame, times: pd.DataFrame, points: int) -> dict[str, Any]:
    """The log of a cell with minutes of training, in at most ``points`` rows, each the mean of equally many steps."""
    minutes = times.groupby("step").seconds.sum().cumsum() / 60
    rows = log[["step", *LOGGED]].assign(minutes=log.step.map(minutes))
    steps = -(-len(rows) // points)
    means = rows.groupby(np.arange(len(rows)) // steps).mean()
    return {str(name): means[name].to_numpy(np.float32) for name in means if means[name].notna().any()}


def _curve(rows: pd.DataFrame) -> dict[str, Any]:
    rows = rows.sort_values("step")
    return {"step": rows.step.to_numpy(np.float32), "value": rows.value.to_numpy(np.float32)}


def _settings(cell: Cell) -> dict[str, str]:
    """Every setting that says something of a cell, as text."""
    flat = pd.json_normalize(cell.model_dump(include={"model", "size", "method", "train"})).iloc[0]
    named = {str(key).partition(".")[2]: setting(value) for key, value in flat.items()}
    return {in_words(key): text for key, text in named.items() if key not in idle_keys(cell.method)}
