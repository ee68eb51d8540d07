"""The released curves: what they show by themselves, beside ours, and alone."""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot
from relora_study.analysis import adapter_pattern as pattern
from relora_study.analysis import comparison, evidence, published
from relora_study.analysis.adapter_pattern import adapter_pattern, published_shares
from relora_study.analysis.audit import audit
from relora_study.analysis.comparison import published_vs_replicated
from relora_study.analysis.published import FOLDER, Published, published_table, published_values
from relora_study.analysis.published_recipe import LABELS, SHAPE, has_papers_shape
from relora_study.analysis.results import open_runs
from relora_study.config import cells, check
from relora_study.model.build import build_model
from relora_study.model.relora import add_adapters
from relora_study.report.figures import FIGURES
from relora_study.report.tables import TABLES
from relora_study.storage.files import read_yaml

ALONE = list(read_yaml(Path(__file__).parents[2] / "workflow/report/captions.yaml")["published"]["figures"])


def test_the_released_adapters_are_dead_spike_at_merges_and_grow():
    found = audit(Published()).set_index(["size", "key"])
    for size in ("tiny", "small"):
        own = found.loc[size]
        assert own.value["flat_start"] == 0
        assert own.value["first_jump"] < 0
        assert own.value["later_jump"] > 0.02 and own.outcome["first_jump"] == "level"
        for component in ("v", "o", "w2"):
            first, last = (own.value[f"{c}_share_{component}"] for c in ("first", "last"))
            assert first < 0.3 and last > 0.9
        assert own.verdict.str.contains("flat|spike|undone restart|ceiling|bfloat16|times away").all()
        assert own.value["condition_number"] == pytest.approx(own.value["random_bfloat16"], rel=0.2)


def test_at_tiny_the_last_two_jumps_lie_within_the_noise():
    found = audit(Published()).set_index(["size", "key"])
    assert found.value["tiny", "later_spikes"] == 6 / 8 and found.value["small", "later_spikes"] == 1
    assert (found.outcome["tiny", "later_jump"], found.outcome["small", "later_jump"]) == ("level", "spikes")


def forget():
    """Read the published values again."""
    for cached in (published_table, pattern.published_shares, evidence.evidence_of_published):
        cached.cache_clear()


def test_other_curves_would_get_other_verdicts(monkeypatch, tmp_path):
    """The same curves with a first cycle that learns, a merge that keeps the function, and adapters that restart."""
    dynamics = pd.read_csv(FOLDER / "dynamics_curves.csv")
    relora = dynamics.method == "relora"
    weights = relora & (dynamics.quantity == "weights")
    dynamics.loc[weights, "mean_over_layers"] = 0.96 - dynamics.step[weights] / 1e6
    restarted = relora & (dynamics.quantity == "updates")
    dynamics.loc[restarted, "mean_over_layers"] = 0.1 + 0.01 * (dynamics.step[restarted] % 4000 > 0)
    curves = pd.read_csv(FOLDER / "training_curves.csv")
    curves.loc[curves.metric == "train_loss", "value"] = 8 - curves.step / 1e4
    dynamics.to_csv(tmp_path / "dynamics_curves.csv")
    curves.to_csv(tmp_path / "training_curves.csv")
    forget()
    monkeypatch.setattr(published, "FOLDER", tmp_path)
    verdicts = " / ".join(audit(Published()).verdict)
    forget()
    assert "flat" not in verdicts and "a spike after" not in verdicts and "undone restart" not in verdicts


def test_the_published_sizes_are_those_that_are_built(raw):
    raw = deepcopy(raw)
    raw["sizes"]["tiny"] = {"d_model": 96, "intermediate_size": 384, **SHAPE}
    raw["model"] |= {"vocab_size": 50304, "context_length": 2048}
    raw["data"]["held_out_tokens_per_domain"] = 4096
    raw["methods"]["relora"] |= {"rank": 16, "alpha": 32}
    raw["study"] |= {"sizes": ["tiny"], "methods": ["full", "relora"]}
    final = pd.read_csv(FOLDER / "final.csv", comment="#").set_index(["size", "method"])
    for cell in cells(check(raw, [])).values():
        assert has_papers_shape(cell)
        model = build_model(cell.size, cell.model, 0)
        if cell.method.rank:
            add_adapters(model, cell.method)
        row = final.loc[("tiny", cell.method_name)]
        assert row.parameters == sum(p.numel() for p in model.parameters())
        assert row.trainable == sum(p.numel() for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("name", ALONE)
def test_figures_of_the_released_curves_alone(tmp_path, name):
    figure = FIGURES[name](Published())
    for axes in figure.axes:
        drawn = [line for line in axes.get_lines() if line.get_label() in LABELS.values()]
        wanted = 1 if name in ("resets", "adapter_pattern") else 2  # full rank has no resets
        assert not axes.axison or (all(np.isfinite(line.get_ydata()).any() for line in drawn) and len(drawn) == wanted)
    pyplot.close(figure)


@pytest.mark.long
def test_overlays_are_drawn_where_asked_for_and_never_enter_our_tables(results, opened):
    both = opened("overlay")
    labels = {line.get_label() for axes in FIGURES["training_curves"](both).axes for line in axes.get_lines()}
    assert set(LABELS.values()) <= labels
    assert opened("auto").methods == opened("off").methods, "other shapes than the paper's"
    assert both.methods == opened("off").methods + list(LABELS.values())
    for name, table in TABLES.items():
        pd.testing.assert_frame_equal(table(both.runs), table(opened("off")), obj=name)


def test_a_full_rank_start_has_no_first_cycle_of_adapters(results):
    before = adapter_pattern(results).set_index("cell")
    path = results.folder / "tiny-relora-s42/dynamics.csv"
    rows = pd.read_csv(path)
    rows[(rows.quantity != "updates") | (rows.step > 120)].to_csv(path, index=False)
    now = adapter_pattern(open_runs(results.folder.parent)).set_index("cell")
    lost = now.loc["tiny-relora-s42"]
    assert np.isnan(lost["first"]) and np.isnan(lost.growth) and lost.cycles == 8
    assert lost.published_first == before.published_first["tiny-relora-s42"]
    assert lost.published_growth == before.published_growth["tiny-relora-s42"]
    others = [cell for cell in now.index if cell != lost.name]
    pd.testing.assert_frame_equal(now.loc[others], before.loc[others])


def test_adapters_like_the_published_ones_are_at_no_distance(results):
    released = published_shares().set_index(["size", "component", "cycle"]).share
    for name, cell in results.cells.items():
        if not cell.method.rank:
            continue
        path = results.folder / name / "dynamics.csv"
        rows = pd.read_csv(path)
        at = (rows.quantity == "updates") & (rows.metric == "per") & (rows.step % 60 == 3)
        ceiling = rows.component.map({"w2": 1.0, "o": 1.0, "v": 3.0}) * cell.method.rank / cell.size.d_model
        wanted = [
            released.get((cell.size_name, c, (s - 3) // 60), np.nan)
            for c, s in zip(rows.component, rows.step, strict=True)
        ]
        off = 0.1 if cell.method_name == "relora" else 0.0
        rows.loc[at, "value"] = (np.array(wanted) + off)[at] * ceiling[at]
        rows.to_csv(path, index=False)
    found = adapter_pattern(results).set_index("cell")
    assert found.distance.to_dict() == pytest.approx(
        {f"{size}-{m}-s42": 0.1 * (m == "relora") for size in ("tiny", "small") for m in ("relora", "relora_released")}
    )
    assert (found.correlation > 0.999).all(), "the shape is the same at any level"
    same = found.loc["small-relora_released-s42"]
    assert same["first"] == pytest.approx(same.published_first)
    assert (found.cycles == 9).all() and found.growth["tiny-relora_released-s42"] > 7


TOLERANCES = {"train_loss": 0.01, "paloma_perplexity": 0.05, "blimp_accuracy": 0.03, "gpu_hours": 0.5}
TOLERANCES |= {"parameters": 0.0, "trainable": 0.0, "per": 0.02, "condition_number": 0.1}


@pytest.mark.parametrize(("share", "verdict"), [(0.99, "replicated"), (1.01, "differs")])
def test_a_number_is_replicated_within_its_tolerance(unchanged, monkeypatch, share, verdict):
    """A count of parameters has none: it must be equal."""
    values = published_values("tiny", "full").dropna()
    off = pd.Series({name: TOLERANCES[name.split("/")[1] if "/" in name else name] for name in values.index})
    ours = values * (1 + share * off) + (share > 1) * (off == 0)
    cell = unchanged.cells["tiny-full-s42"]
    monkeypatch.setattr(comparison, "_incomparable", lambda *_: "")
    monkeypatch.setattr(comparison, "_measured", lambda runs: {cell.name: ours.to_dict()})
    found = published_vs_replicated(replace(unchanged, cells={cell.name: cell})).dropna(subset="published_value")
    assert set(found.quantity) == set(values.index) and set(found.verdict) == {verdict}


def test_every_published_number_has_ours_and_a_verdict(unchanged):
    found = published_vs_replicated(unchanged)
    assert found.verdict.str.len().gt(0).all()
    assert found[found.quantity == "parameters"].verdict.unique().tolist() == ["not comparable: other shapes"]
    assert found.ours.notna().mean() > 0.8
    assert (found.difference.dropna() == (found.ours - found.published_value).dropna()).all()
