"""`python -m relora_study.experiments`: who goes on in a search, and the settings that it chose."""

import shutil

import pandas as pd
import pytest
from relora_study.analysis import experiments
from relora_study.analysis.experiments import search_minutes
from relora_study.config import Cell, Space, Tuning, check, read_section
from relora_study.config.settings import searches
from relora_study.errors import UserError
from relora_study.experiments.__main__ import select, settle
from relora_study.storage.contracts import write_contract
from relora_study.storage.rung import Rung
from studies import write_yaml


@pytest.fixture
def search(raw, tmp_path):
    """A search over four rates, laid out as the workflow does."""
    space = Space(grid={"learning_rate": [1e-3, 2e-3, 3e-3, 4e-3]})
    tuning = Tuning(space=space, rungs=[100, 200, 400]).model_dump()
    study = check({**raw, "tuning": tuning, "data": {**raw["data"], "validation_fraction": 0.1}}, [])
    settings, cells = searches(study)["tiny-relora"]
    write_yaml(tmp_path / "settings.yaml", settings.model_dump())
    return tmp_path, list(cells)


def left(folder, losses, rung):
    """Records of a rung, in an order that is not the best's."""
    places = []
    for name, loss in losses.items():
        record = Rung(candidate=name, step=100, loss=loss, diverged=loss is None)
        write_contract(folder / name / f"rung-{rung}.json", record)
        places.append(folder / name / f"rung-{rung}.json")
    return places


def test_the_better_half_of_the_first_rung_goes_on(search):
    folder, names = search
    places = left(folder, dict(zip(names, [3.0, 1.0, None, 2.0], strict=True)), 0)
    select(folder / "settings.yaml", 0, folder / "rung-0.csv", places)
    table = pd.read_csv(folder / "rung-0.csv")
    assert table.candidate.tolist() == [names[1], names[3], names[0], names[2]]
    assert table.promoted.tolist() == [1, 1, 0, 0] and table.diverged.tolist() == [0, 0, 0, 1]


def test_the_dropped_are_not_listed_at_later_rungs_and_the_last_promotes_one(search):
    folder, names = search
    places = left(folder, {names[1]: 0.9, names[3]: 0.8}, 2)
    write_contract(folder / names[0] / "rung-2.json", Rung(candidate=names[0], step=400, loss=None, dropped=True))
    select(folder / "settings.yaml", 2, folder / "rung-2.csv", [*places, folder / names[0] / "rung-2.json"])
    table = pd.read_csv(folder / "rung-2.csv")
    assert table.candidate.tolist() == [names[3], names[1]] and table.promoted.tolist() == [1, 0]


def test_a_cell_takes_the_chosen_settings_and_keeps_its_name(search, make_cell):
    folder, names = search
    base = make_cell("relora")
    write_yaml(folder / "base.yaml", base.model_dump())
    pd.DataFrame({"candidate": [names[2], names[0]], "loss": [1.0, 2.0]}).to_csv(folder / "rung-2.csv", index=False)
    settle(folder / "base.yaml", folder / "settings.yaml", folder / "rung-2.csv", folder / "config.yaml")
    cell = read_section(Cell, folder / "config.yaml")
    assert cell.train.learning_rate == 3e-3 and (cell.name, cell.seed) == (base.name, base.seed)
    assert cell == base.model_copy(update={"train": base.train.model_copy(update={"learning_rate": 3e-3})})


def test_a_search_in_which_all_diverged_says_so(search, make_cell):
    folder, names = search
    write_yaml(folder / "base.yaml", make_cell("relora").model_dump())
    pd.DataFrame({"candidate": names[:1], "loss": [None]}).to_csv(folder / "rung-2.csv", index=False)
    with pytest.raises(UserError, match=r"every candidate diverged; widen tuning\.space"):
        settle(folder / "base.yaml", folder / "settings.yaml", folder / "rung-2.csv", folder / "config.yaml")


UNFAIR = [
    ({"seed": 42}, "tuning.seed 42 is one of study.seeds"),
    ({"rungs": [100, 700]}, r"tuning.rungs \[100, 700\] must end at train.steps 600"),
    ({"space": {"grid": {"steps": [100, 200, 300, 400]}}}, "tuning: steps is no key to search"),
    ({"spaces": {"mine": {"grid": {"rank": [1, 2, 3, 4]}}}}, "tuning.spaces: 'mine' is not one of study.methods"),
]


@pytest.mark.parametrize(("changes", "message"), UNFAIR)
def test_a_search_that_chooses_on_what_is_reported_is_refused(raw, changes, message):
    tuning = {"space": {"grid": {"learning_rate": [1e-3, 2e-3, 3e-3, 4e-3]}}, "rungs": [100, 200], **changes}
    with pytest.raises(UserError, match=message):
        check({**raw, "tuning": tuning, "data": {**raw["data"], "validation_fraction": 0.1}}, [])


def test_a_search_needs_documents_of_its_own(raw):
    tuning = {"space": {"grid": {"learning_rate": [1e-3, 2e-3]}}, "rungs": [100]}
    with pytest.raises(UserError, match=r"tuning needs a data\.validation_fraction above 0"):
        check({**raw, "tuning": tuning}, [])


def test_the_cost_counts_the_search_of_a_cell_that_has_its_settings(search, make_cell, tmp_path):
    folder, names = search
    searched = tmp_path / "results/tuning/tiny-relora"
    searched.mkdir(parents=True)
    shutil.copy(folder / "settings.yaml", searched)
    own, selection = make_cell("relora"), searched / "rung-2.csv"
    base = tmp_path / f"results/tuning/base/{own.name}.yaml"
    write_yaml(base, own.model_dump())
    pd.DataFrame({"candidate": [names[1]], "loss": [1.0]}).to_csv(selection, index=False)
    for name, seconds in ((names[0], 60.0), (names[1], 120.0)):
        (searched / name).mkdir()
        pd.DataFrame({"step": [1, 2], "seconds": [seconds, seconds]}).to_csv(
            searched / name / "timing.csv", index=False
        )
    settle(base, searched / "settings.yaml", selection, folder / "config.yaml")
    settled, results = read_section(Cell, folder / "config.yaml"), tmp_path / "results"
    assert search_minutes(results, [settled]) == {own.name: pytest.approx(6.0)}
    assert search_minutes(results, [own]) == {own.name: 0.0}, "the search's folder is left from another study"


def test_a_searchs_files_are_read_once_for_all_seeds(make_cell, tmp_path, monkeypatch):
    cells = [make_cell("relora").model_copy(update={"name": f"tiny-relora-s{seed}"}) for seed in (1, 2, 3)]
    read = []
    monkeypatch.setattr(experiments, "search_of", lambda results, cell: results / "tuning/tiny-relora")
    monkeypatch.setattr(experiments, "candidates_minutes", lambda folder: read.append(folder) or 6.0)
    assert search_minutes(tmp_path, cells) == {cell.name: 6.0 for cell in cells} and len(read) == 1
