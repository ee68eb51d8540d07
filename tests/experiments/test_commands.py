"""`python -m relora_study.search`: who goes on in a search, and the settings that it chose."""

import shutil

import pandas as pd
import pytest
from relora_study.analysis import experiments
from relora_study.analysis.experiments import search_minutes, search_rungs, search_table
from relora_study.config import Cell, Space, Tuning, check, read_section
from relora_study.config.settings import SearchSettings, searches
from relora_study.errors import UserError
from relora_study.search import select, settle
from relora_study.storage.contracts import RungResult, write_contract
from studies import write_yaml

STEPS = [120, 200, 400]


@pytest.fixture
def search(raw, tmp_path):
    """A search over four rates, laid out as the workflow does: its folder, and its candidates."""
    space = Space(grid={"learning_rate": [1e-3, 2e-3, 3e-3, 4e-3]})
    tuning = Tuning(space=space, rungs=[120, 200, 400]).model_dump()
    data, chosen = {**raw["data"], "validation_fraction": 0.1}, {**raw["study"], "methods": ["full", "relora"]}
    study = check({**raw, "study": chosen, "tuning": tuning, "data": data}, [])
    settings, _ = searches(study)["tiny-relora"]
    write_yaml(tmp_path / "settings.yaml", settings.model_dump())
    return tmp_path, list(settings.candidates)


def left(folder, losses, rung, seed=0):
    """Records of a rung, in an order that is not the best's."""
    places = []
    for name, loss in losses.items():
        record = RungResult(candidate=name, seed=seed, step=STEPS[rung], loss=loss, diverged=loss is None)
        places.append(folder / f"tiny-{name}-s{seed}/rung-{rung}.json")
        write_contract(places[-1], record)
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
    record = RungResult(candidate=names[0], seed=0, step=400, loss=None, dropped=True)
    write_contract(folder / names[0] / "rung-2.json", record)
    select(folder / "settings.yaml", 2, folder / "rung-2.csv", [*places, folder / names[0] / "rung-2.json"])
    table = pd.read_csv(folder / "rung-2.csv")
    assert table.candidate.tolist() == [names[3], names[1]] and table.promoted.tolist() == [1, 0]


def test_the_last_rung_chooses_by_the_mean_over_seeds(search):
    """The second candidate is the best with the first seed, and the fourth, of the lowest loss, diverged with one."""
    folder, names = search
    first = dict(zip(names, [0.6, 0.5, 0.7, 0.1], strict=True))
    second = dict(zip(names, [0.6, 0.96, 0.7, None], strict=True))
    places = [*left(folder, first, 2), *left(folder, second, 2, seed=1)]
    select(folder / "settings.yaml", 2, folder / "rung-2.csv", places)
    table = pd.read_csv(folder / "rung-2.csv")
    assert table.candidate[::2].tolist() == [names[0], names[2], names[1], names[3]]
    assert table.seed.tolist() == [0, 1] * 4 and table.promoted.tolist() == [1, 1, 0, 0, 0, 0, 0, 0]
    assert table.mean_loss[::2].tolist() == pytest.approx([0.6, 0.7, 0.73, float("nan")], nan_ok=True)


def test_candidates_train_with_the_first_seed_and_with_every_one_to_the_last_rung(search):
    settings = read_section(SearchSettings, search[0] / "settings.yaml")
    first = {f"tiny-{name}-s1000" for name in search[1]}
    assert set(settings.cells_at(0)) == set(settings.cells_at(1)) == first
    assert set(settings.cells_at(2)) == first | {f"tiny-{name}-s1001" for name in search[1]}
    assert [settings.steps_to(rung) for rung in range(3)] == [120, 80, 200 + 400]


@pytest.fixture
def found(search, tmp_path):
    """The table of a search whose best rate is the highest, and which ends with a candidate that diverged."""
    folder, names = search
    results = tmp_path / "results"
    study = {"sizes": ["tiny"], "methods": ["relora"], "seeds": [42]}
    write_yaml(results / "settings/study.yaml", study)
    place = results / "tuning/tiny-relora"
    place.mkdir(parents=True)
    shutil.copy(folder / "settings.yaml", place)
    losses = [dict(zip(names, row, strict=True)) for row in ([4.0, None, 3.5, 3.0], [9, 9, 2.5, 2.0], [9, 9, 1.5, 1.0])]
    for rung, reached in enumerate([names, names[2:], names[2:]]):
        records = left(folder, {name: losses[rung][name] for name in reached}, rung)
        if rung == 2:
            records += left(folder, {names[2]: None, names[3]: 1.2}, rung, seed=1)
        select(folder / "settings.yaml", rung, place / f"rung-{rung}.csv", records)
    return results


def test_the_searchs_table_has_seeds_means_and_the_edge(found):
    table = search_table(found)
    assert table.learning_rate.tolist() == [4e-3, 3e-3, 1e-3, 2e-3]
    assert table.outcome.tolist() == ["chosen", "diverged", "dropped", "diverged"]
    assert table.seeds.tolist() == [2, 2, 1, 1] and table.steps.tolist() == [800, 800, 120, 120]
    assert table.loss.tolist() == pytest.approx([1.1, float("nan"), 4.0, float("nan")], nan_ok=True)
    assert table.edge.tolist() == ["learning_rate", "", "", ""]
    runs = search_rungs(found)
    assert len(runs) == 4 + 2 + 4 and runs[runs.outcome == "chosen"].loss.tolist() == [1.0, 1.2]


def test_a_cell_takes_the_chosen_settings_and_keeps_its_name(search, make_cell):
    folder, names = search
    base = make_cell("relora")
    write_yaml(folder / "base.yaml", base.model_dump())
    pd.DataFrame({"candidate": [names[2], names[0]], "mean_loss": [1.0, 2.0]}).to_csv(
        folder / "rung-2.csv", index=False
    )
    settle(folder / "base.yaml", folder / "settings.yaml", folder / "rung-2.csv", folder / "config.yaml")
    cell = read_section(Cell, folder / "config.yaml")
    assert cell.train.learning_rate == 3e-3 and (cell.name, cell.seed) == (base.name, base.seed)
    assert cell == base.model_copy(update={"train": base.train.model_copy(update={"learning_rate": 3e-3})})


def test_a_search_in_which_all_diverged_says_so(search, make_cell):
    folder, names = search
    write_yaml(folder / "base.yaml", make_cell("relora").model_dump())
    pd.DataFrame({"candidate": names[:1], "mean_loss": [None]}).to_csv(folder / "rung-2.csv", index=False)
    with pytest.raises(UserError, match=r"every candidate diverged, with one seed at least; widen tuning\.space"):
        settle(folder / "base.yaml", folder / "settings.yaml", folder / "rung-2.csv", folder / "config.yaml")


UNFAIR = [
    ({"seeds": [7, 42]}, "tuning.seeds: 42 is one of study.seeds"),
    ({"seeds": [7, 7]}, r"seeds \[7, 7\] names one twice"),
    ({"rungs": [100, 700]}, r"tuning.rungs \[100, 700\] must end at train.steps 600"),
    *(
        ({kind: space}, rf"tuning\.{kind}[.a-z]*: {key} is no key to search, because")
        for key in ("steps", "batch_size", "context_length", "vocab_size", "d_model", "num_hidden_layers")
        for kind, space in (
            ("space", {"grid": {key: [100, 200, 300, 400]}}),
            ("spaces", {"relora": {"points": [{"rank": rank, key: 100} for rank in (1, 2, 3, 4)]}}),
        )
    ),
    ({"spaces": {"mine": {"grid": {"rank": [1, 2, 3, 4]}}}}, "tuning.spaces: 'mine' is not one of full, relora"),
]


@pytest.mark.parametrize(("changes", "message"), UNFAIR)
def test_a_search_that_chooses_on_what_is_reported_is_refused(raw, changes, message):
    tuning = {"space": {"grid": {"learning_rate": [1e-3, 2e-3, 3e-3, 4e-3]}}, "rungs": [100, 200], **changes}
    with pytest.raises(UserError, match=message):
        check({**raw, "tuning": tuning, "data": {**raw["data"], "validation_fraction": 0.1}}, [])


EARLY = [
    (
        {},
        239,
        r"the first, 239, is before step 240, where relora_repaired\+learning_rate=0.001 ends its full-rank start",
    ),
    ({"rank": [4, 8], "reset_period": [61, 60]}, 240, r"240, is before step 242, where relora_repaired\+.*=61"),
    ({"full_rank_steps": [119, 121]}, 240, r"is before step 241, where relora_repaired\+full_rank_steps=121"),
]


@pytest.mark.parametrize(("grid", "first", "message"), EARLY)
def test_nothing_is_compared_before_a_method_has_reset_twice_after_its_warm_start(raw, grid, first, message):
    grid = grid or {"learning_rate": [1e-3, 2e-3]}
    data, chosen = {**raw["data"], "validation_fraction": 0.1}, {**raw["study"], "methods": ["relora_repaired"]}
    for rung in (first, first + 2):
        mine = {**raw, "study": chosen, "data": data, "tuning": {"space": {"grid": grid}, "rungs": [rung]}}
        if rung == first:
            with pytest.raises(UserError, match=message):
                check(mine, [])
        else:
            assert searches(check(mine, [])).keys() == {
                f"{size}-{name}" for size in chosen["sizes"] for name in chosen["methods"]
            }


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
    pd.DataFrame({"candidate": [names[1]], "mean_loss": [1.0]}).to_csv(selection, index=False)
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
