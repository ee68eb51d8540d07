"""A study of sweeps and a search in the real DAG, at the tiny study's scale: halving, resume, one more value."""

import itertools
import json
import shutil

import pandas as pd
import pytest
import yaml
from archives import faults
from studies import LATE, lay_out, planned, snakemake, unpacked

pytestmark = [pytest.mark.end_to_end, pytest.mark.long]

RATES = [1.0e-3, 3.0e-3, 1.0e-2]
SWEPT = RATES[::2]
OVERLAY = {
    "data": {"validation_fraction": 0.2},
    "sweeps": {"rates": {"seeds": [1, 2], "space": {"grid": {"learning_rate": SWEPT}}}},
    "tuning": {"space": {"grid": {"learning_rate": [*RATES, 1.0e30]}}, "rungs": [16, 18, 20], "seeds": [7, 8]},
}


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """The overlay's search and sweep, run to their tables and figures; the study's own cells get their settings."""
    folder = lay_out(tmp_path_factory.mktemp("experiments") / "with space")
    run(folder, OVERLAY)
    return folder


def run(folder, overlay):
    (folder / "experiments.yaml").write_text(yaml.safe_dump(overlay))
    made = [f"results/{kind}/experiment_{name}" for kind in ("figures", "tables") for name in ("rates", "search")]
    targets = [f"{name}.{'pdf' if 'figures' in name else 'csv'}" for name in made]
    targets += [f"results/cells/tiny-{method}-s1/config.yaml" for method in ("full", "relora_released")]
    done = snakemake(folder, "--configfile", "tests/tiny.yaml", "experiments.yaml", "--", *targets)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_response_is_drawn_and_tabled(searched):
    assert (searched / "results/figures/experiment_rates.png").stat().st_size > 5_000
    table = pd.read_csv(searched / "results/tables/experiment_rates.csv")
    assert len(table) == 4 and (table.seeds == 2).all() and table.loss.notna().all()
    assert (table.loss_low < table.loss).all() and (table.loss < table.loss_high).all()
    assert table.verdict.str.len().gt(0).groupby(table.method).sum().tolist() == [1, 1]
    assert table.minutes.between(0.001, 5).all() and table.peak_MiB.between(100, 5000).all()
    every = pd.read_csv(searched / "results/tables/experiment_rates.runs.csv")
    for row in every.itertuples():
        manifest = json.loads((searched / f"results/cells/{row.cell}/manifest.json").read_text())
        assert row.tokens_per_parameter == pytest.approx(manifest["tokens"] / manifest["parameters"], rel=1e-9)
    assert sorted(set(table.tokens_per_parameter)) == sorted(set(every.tokens_per_parameter))
    assert len(every) == 8 and every.groupby(["method", "learning_rate"]).loss.mean().tolist() == pytest.approx(
        table.sort_values(["method", "learning_rate"]).loss.tolist()
    )


def test_the_search_halves_by_exact_resume(searched):
    for method in ("full", "relora_released"):
        rungs = [pd.read_csv(searched / f"results/tuning/tiny-{method}/rung-{number}.csv") for number in range(3)]
        assert [len(rung) for rung in rungs] == [4, 2, 2] and rungs[2].seed.tolist() == [7, 8]
        for before, after in itertools.pairwise(rungs):
            assert set(before.candidate[before.promoted == 1]) == set(after.candidate)
        folder = searched / f"results/tuning/tiny-{method}"
        logged = {place.parent.name: len(pd.read_csv(place)) for place in folder.glob("*/log.csv")}
        assert sorted(logged.values())[-4:] == [16, 18, 20, 20], "each step of a candidate is trained once"
        diverged = rungs[0].candidate[rungs[0].diverged == 1]
        assert diverged.str.endswith("learning_rate=1e30").all() and len(diverged) == 1


def test_the_studys_cells_take_the_chosen_settings(searched):
    for method in ("full", "relora_released"):
        (best,) = pd.read_csv(searched / f"results/tuning/tiny-{method}/rung-2.csv").candidate.unique()
        settings = yaml.safe_load((searched / f"results/cells/tiny-{method}-s1/config.yaml").read_text())
        assert f"learning_rate={settings['train']['learning_rate']}" in best
        assert settings["name"] == f"tiny-{method}-s1" and settings["train"]["steps"] == 20


def test_the_whole_search_is_reported(searched):
    table = pd.read_csv(searched / "results/tables/experiment_search.csv")
    assert len(table) == 8 and table.groupby("method").outcome.apply(lambda one: (one == "chosen").sum()).tolist() == [
        1,
        1,
    ]
    assert (table.outcome == "diverged").sum() == 2
    assert (searched / "results/figures/experiment_search.png").stat().st_size > 5_000


def test_one_more_rate_trains_its_own_cells_alone(searched, tmp_path):
    folder = tmp_path / "with space"
    shutil.copytree(searched, folder, symlinks=True)
    trained = {place: place.stat().st_mtime_ns for place in folder.glob("results/cells/*/manifest.json")}
    rates = OVERLAY["sweeps"]["rates"] | {"space": {"grid": {"learning_rate": [*SWEPT, 2.0e-3]}}}
    more = {**OVERLAY, "sweeps": {"rates": rates}}
    run(folder, more)
    now = {place: place.stat().st_mtime_ns for place in folder.glob("results/cells/*/manifest.json")}
    assert {place.parent.name for place in now.keys() - trained.keys()} == {
        f"tiny-{method}+learning_rate=0.002-s{seed}" for method in ("full", "relora_released") for seed in (1, 2)
    }
    assert all(now[place] == time for place, time in trained.items())


def test_another_user_remakes_the_figures_of_sweeps_and_of_the_search_from_the_archive_alone(searched, tmp_path):
    done = snakemake(searched, "--configfile", "tests/tiny.yaml", "experiments.yaml", "--", "archive")
    assert done.returncode == 0, done.stdout + done.stderr
    clone = unpacked(searched / "results/archive.tar.gz", tmp_path / "clone")
    assert faults(clone / "results", "REQUIRED") == [], "a research object"
    shared = ("--configfile", "results/settings/whole.yaml")
    assert planned(clone, *shared) == {}, "nothing is trained, scored or read again"
    experiments = {"experiment_figure", "experiment_table"}
    again = (*shared, "--forcerun", *experiments, "paper")
    assert experiments <= planned(clone, *again).keys() <= LATE | experiments
    made = [file for place in ("figures", "tables") for file in (clone / "results" / place).glob("experiment_*")]
    assert len(made) > 10
    for file in made:
        file.unlink()
    done = snakemake(clone, *again)
    assert done.returncode == 0, done.stdout + done.stderr
    for file in [*made, clone / "results/paper.pdf", clone / "results/reproducibility.md"]:
        assert file.read_bytes() == (searched / file.relative_to(clone)).read_bytes(), file.name
