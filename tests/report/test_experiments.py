"""What the paper says of experiments: words that the numbers choose."""

import numpy as np
import pandas as pd
from matplotlib import pyplot
from readings import swept
from relora_study.analysis.experiments import Swept, responses
from relora_study.report.experiments import compared, responded, searched, silent_columns
from relora_study.report.figures.experiments import draw_changes, draw_response, draw_sweep

SPREAD = {"size": "tiny", "compared_with": "relora_zero2", "seeds": 3, "diverged": 0}

COMPARED = "At tiny, compared with ReLoRA under ZeRO-2,"


def changed(method: str, difference: float, half: float, verdict: str = "undecided", **more) -> dict:
    ends = {"difference_low": difference - half, "difference_high": difference + half}
    return {**SPREAD, "method": method, "difference": difference, **ends, "verdict": verdict, **more}


def test_changes_are_told_by_their_verdict():
    rows = [
        changed("relora", -0.2, 0.1, "lower"),
        changed("full_reset", 0.3, 0.1, "higher, one seed"),
        changed("warm_start", -0.1, 0.2),
        changed("full", 0.01, 0.01, "equal within the margin"),
    ]
    assert list(compared(pd.DataFrame(rows))) == [
        f"{COMPARED} these lower the loss: ReLoRA, −0.20 [−0.30, −0.10].",
        f"{COMPARED} these raise the loss: full reset, 0.30 [0.20, 0.40] (one seed).",
        f"{COMPARED} these end level within the margin: full rank, 0.010 [0.000, 0.020].",
        f"{COMPARED} these are undecided: warm start, −0.10 [−0.30, 0.10].",
    ]


def test_a_difference_without_an_interval_is_said_to_have_none():
    (said,) = compared(pd.DataFrame([changed("relora", -0.2, np.nan, "")]))
    assert said == f"{COMPARED} these differ at one seed, which gives no interval: ReLoRA, −0.200."


def test_a_diverged_method_is_named_with_its_seeds():
    rows = [changed("relora", np.nan, np.nan, diverged=2)]
    assert list(compared(pd.DataFrame(rows))) == ["At tiny, these diverge: ReLoRA (2 of 3 seeds)."]


def test_a_note_of_divergence_covers_no_loss_of_another_seed():
    found = {"relora_zero2": [np.nan, 7.0], "relora": [5.2, 5.1], "full": [5.0, np.nan]}
    rows = [("small", name, seed, loss) for name, losses in found.items() for seed, loss in enumerate(losses)]
    runs = pd.DataFrame(rows, columns=["size", "method", "seed", "loss"])
    runs["diverged_at"] = runs.loss.isna().map({True: 300.0})
    losses = draw_changes(swept(runs), "full").axes[0]
    assert [(note.get_text().strip(), note.get_position(), note.get_ha()) for note in losses.texts] == [
        ("1 of 2 diverged", (0, 0), "left"),
        ("1 of 2 diverged", (1, 2), "right"),
    ]
    pyplot.close("all")


def test_where_nothing_varies_each_method_has_a_line_of_its_own():
    found = {"relora": [5.2, np.nan], "relora_released": [5.6, 5.5]}
    rows = [("tiny", name, seed, loss, 30) for name, losses in found.items() for seed, loss in enumerate(losses)]
    runs = pd.DataFrame(rows, columns=["size", "method", "seed", "loss", "rewarmup_steps"])
    runs["diverged_at"] = runs.loss.isna().map({True: 300.0})
    (axes,) = draw_sweep(swept(runs), ["rewarmup_steps"], None).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["ReLoRA", "ReLoRA as released"]
    assert [note.get_text().strip() for note in axes.texts] == ["1 of 2 diverged"]
    seeds = axes.get_lines()[0].get_xydata()
    assert seeds[np.isfinite(seeds[:, 0])].tolist() == [[5.2, 0], [5.6, 1], [5.5, 1]]
    pyplot.close("all")


def test_a_null_among_numbers_has_a_place_in_the_figure():
    rows = [("tiny", "relora", 42, clipping, loss) for clipping, loss in (("none", 5.2), (1.0, 5.1), (0.5, 5.3))]
    runs = pd.DataFrame(rows, columns=["size", "method", "seed", "gradient_clipping", "loss"])
    (axes,) = draw_sweep(swept(runs.assign(diverged_at=np.nan)), ["gradient_clipping"], None).axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["none", "1.0", "0.5"]
    assert axes.get_lines()[0].get_xydata().tolist() == [[0, 5.2], [1, 5.1], [2, 5.3]]
    pyplot.close("all")


def test_a_lowest_loss_at_the_edge_is_said_to_be_open():
    spread = {"size": "tiny", "seeds": 1, "diverged": 0, "loss_low": np.nan, "loss_high": np.nan}
    rows = [
        {**spread, "method": "full", "learning_rate": 0.003, "loss": 5.5, "verdict": "best"},
        {**spread, "method": "relora", "learning_rate": 0.01, "loss": 5.75, "verdict": "lowest, at the edge of r"},
        {**spread, "method": "relora", "learning_rate": 0.001, "loss": 6.0, "verdict": ""},
        {**spread, "method": "relora", "learning_rate": 0.003, "loss": 5.8, "verdict": "not clearly higher"},
    ]
    assert list(responded(pd.DataFrame(rows), ["learning_rate"])) == [
        "At tiny, the lowest loss of full rank is 5.50, with learning rate 0.003.",
        "At tiny, the lowest loss of ReLoRA is 5.75, with learning rate 0.01, at the edge of r: a lower one may"
        " lie beyond. Of the 2 other settings, 1 is not clearly higher.",
    ]


def tried(losses: dict[tuple, list[float]], *keys: str) -> Swept:
    """The runs of a sweep at tiny: the losses of each seed by method and settings; one that is not finite diverged."""
    rows = [
        {"size": "tiny", "method": method, "seed": seed, **dict(zip(keys, values, strict=True)), "loss": loss}
        for (method, *values), found in losses.items()
        for seed, loss in enumerate(found)
    ]
    runs = pd.DataFrame(rows)
    return swept(runs.assign(diverged_at=runs.loss.isna().map({True: 300.0})))


def test_settings_that_diverge_are_said_and_so_is_a_method_of_which_none_is_left():
    nan = np.nan
    found = {("full", 1): [5.0, 5.1], ("full", 2): [nan, 5.2], ("relora", 1): [nan, nan], ("relora", 2): [nan, nan]}
    lowest, some, none = responded(responses(tried(found, "rank"), ["rank"]), ["rank"])
    assert lowest == "At tiny, the lowest loss of full rank is 5.0 [4.4, 5.7], with rank 1, at the edge of rank:" + (
        " a lower one may lie beyond."
    )
    assert some == "At tiny, full rank diverges with rank 2 (1 of 2 seeds)."
    assert none == "At tiny, ReLoRA diverges in every setting and seed."
    many = {("full", number): [nan if number else 5.0] for number in range(9)}
    assert "At tiny, full rank diverges in 8 of 9 settings." in responded(
        responses(tried(many, "rank"), ["rank"]), ["rank"]
    )


def test_methods_that_diverge_as_they_are_are_said_without_a_comparison_too():
    runs = tried({("full",): [5.0, 5.1], ("relora",): [5.0, np.nan]})
    assert list(responded(responses(runs, []), [])) == ["At tiny, these diverge: ReLoRA (1 of 2 seeds)."]


def test_a_method_in_which_a_key_does_nothing_has_a_loss_and_no_best_setting():
    runs = tried({("full", np.nan): [5.0, 5.2], ("relora", 0.1): [5.4, 5.3], ("relora", 0.2): [5.5, 5.4]}, "dropout")
    table = responses(runs, ["dropout"])
    assert table.verdict.tolist() == ["", "lowest, at the edge of dropout", ""]
    level, _ = responded(table, ["dropout"])
    assert level == "At tiny, the loss of full rank, which does not use dropout, is 5.1 [3.8, 6.4]."
    axes = draw_response(runs, ["dropout"]).axes[0]
    assert [line.get_ydata()[0] for line in axes.lines if len(set(line.get_ydata())) == 1] == [5.1]
    pyplot.close("all")


def test_a_map_needs_every_pair_from_every_method():
    """Three of four pairs, and a method without any, are four rows of two by two values."""
    pairs = {("relora", rank, alpha): [5.0] for rank, alpha in ((2, 1.0), (2, 2.0), (4, 1.0))}
    runs = tried({("full", np.nan, np.nan): [5.2], **pairs}, "rank", "alpha")
    assert [axes.get_xlabel() for axes in draw_response(runs, ["rank", "alpha"]).axes] == ["rank", "alpha"]
    pyplot.close("all")


def test_the_search_is_told_with_its_choice_its_edge_and_its_cost():
    rows = [
        {"size": "tiny", "method": "full", "learning_rate": rate, "loss": 5.0, "outcome": outcome} | found
        for rate, outcome, found in [
            (0.004, "chosen", {"seeds": 2, "steps": 1200}),
            (0.002, "dropped", {"seeds": 1, "steps": 300}),
            (0.001, "dropped", {"seeds": 1, "steps": 150}),
        ]
    ]
    assert list(searched(pd.DataFrame(rows))) == [
        "At tiny, the search chose: full rank learning rate 0.004 (the edge of learning rate: a better value"
        " may lie beyond).",
        "Each search tried 3 candidates. It took 1,650 steps, 2.8 times those of its longest training.",
    ]


def test_a_chosen_word_has_no_edge():
    rows = [
        {"size": "tiny", "method": "relora", "merge": merge, "loss": 5.0, "seeds": 2, "steps": 100, "outcome": outcome}
        for merge, outcome in [("unscaled", "chosen"), ("scaled", "dropped")]
    ]
    said = " ".join(searched(pd.DataFrame(rows)))
    assert "edge" not in said and "ReLoRA merge unscaled." in said and "tried 2 candidates" in said


def test_a_table_leaves_out_what_is_one_for_all():
    rows = pd.DataFrame([changed("live_adapters", -0.2, 0.1), changed("full_reset", 0.3, 0.1)]).assign(rank=[4, 8])
    paired = rows.assign(seeds_paired=[np.nan, 3])
    assert set(silent_columns(paired)) == {"size", "compared_with", "diverged", "seeds_paired"}
    parted = paired.assign(size=["tiny", "small"], diverged=[0, 1], seeds_paired=[3, 2])
    assert silent_columns(parted) == ["compared_with"]
