"""Candidates of a search: trained from rung to rung by exact resume, and scored on ids that nothing else reads."""

import math

import pytest
import torch
from relora_study.model.checkpoints import load_model
from relora_study.search import promoted
from relora_study.storage.contracts import RungResult
from relora_study.storage.files import sha256, write_csv
from relora_study.train.candidates import dropped, is_promoted, scored
from relora_study.train.loop import train
from torch.nn import functional

CPU = torch.device("cpu")
ROWS = torch.randint(300, (5, 17), generator=torch.Generator().manual_seed(7))
DOCUMENTS = list(ROWS.numpy())


def batch_of(step):
    return torch.randint(300, (4, 17), generator=torch.Generator().manual_seed(step))


def at_rungs(cell, *rungs):
    return cell.model_copy(update={"rungs": list(rungs)})


def climb(cell, folder, *rungs):
    for until in rungs:
        run = train(cell, CPU, batch_of, folder, until=until)
        if until in cell.rungs:
            scored(run, until, DOCUMENTS, folder)  # as between the jobs of a search; it must leave no trace
    return run


def files_of(folder, step):
    state = folder / f"state/step-{step:06d}/state.safetensors"
    return sha256(state), (folder / "log.csv").read_bytes()


@pytest.mark.parametrize("method", ["full", "relora", "relora_zero2"])
def test_a_promoted_candidates_weights_are_the_bytes_of_one_never_stopped(make_cell, tmp_path, method):
    """Rungs off the states' and the checkpoints' steps, in the middle of a cycle and at a reset."""
    cell = at_rungs(make_cell(method), 5, 9, 17)
    climb(cell, tmp_path / "rungs", 5, 9, 17)
    climb(cell, tmp_path / "once", 17)
    assert files_of(tmp_path / "rungs", 17) == files_of(tmp_path / "once", 17)
    checkpoints = [
        sorted(path.name for path in (tmp_path / name / "checkpoints").iterdir()) for name in ("rungs", "once")
    ]
    assert checkpoints[0] == checkpoints[1] and "step-000017" in checkpoints[0]


def test_a_candidate_can_go_on_to_a_whole_cell(make_cell, tmp_path):
    cell = make_cell("relora")
    climb(cell, tmp_path / "rungs", 5)
    for name in ("rungs", "once"):
        train(cell, CPU, batch_of, tmp_path / name)
    assert files_of(tmp_path / "rungs", 24) == files_of(tmp_path / "once", 24)


def test_the_score_is_the_mean_cross_entropy_without_dropout(make_cell, tmp_path):
    run = climb(at_rungs(make_cell("relora", dropout=0.5), 9), tmp_path, 9)
    with torch.no_grad():
        logits = load_model(tmp_path / "checkpoints/step-000009")(ROWS[:, :-1]).logits
    expected = functional.cross_entropy(logits.flatten(0, 1).double(), ROWS[:, 1:].flatten())
    record = scored(run, 9, DOCUMENTS, tmp_path)
    assert record == RungResult(candidate="relora", seed=1, step=9, loss=record.loss)
    assert record.loss == pytest.approx(expected.item(), abs=1e-5) and run.model.training


def test_a_diverged_candidate_has_no_loss_and_says_when(make_cell, tmp_path):
    run = climb(make_cell("full", train={"learning_rate": 1e30}), tmp_path, 9)
    record = scored(run, 9, DOCUMENTS, tmp_path)
    assert record.diverged and record.loss is None and record.step == run.diverged_at < 9


def search(make_cell, folder, rates, rungs):
    """A whole search over ``rates``, half of which go on from each rung: the losses at each rung, by rate."""
    losses, alive = [], rates
    for until in rungs:
        found = {}
        for rate in alive:
            cell = at_rungs(make_cell("full", train={"learning_rate": rate, "steps": rungs[-1]}), *rungs)
            record = scored(
                train(cell, CPU, batch_of, folder / str(rate), until=until), until, DOCUMENTS, folder / str(rate)
            )
            found[rate] = math.nan if record.loss is None else record.loss
        losses.append(found)
        alive = promoted(found, math.ceil(len(found) / 2))
    return losses


GOES_BACK = "ignore:.*(missing or damaged|going on from before)"
NOW = ([1e-3, 1e-2, 3e-2], [6, 12, 40])
OTHER_SEARCHES = {  # begun so, and then changed to the rates and rungs of NOW
    "a wider space": ([1e-3, 1e-2], [6, 12, 40]),
    "an inserted rung": ([1e-3, 1e-2, 3e-2], [6, 40]),
    "a moved rung": ([1e-3, 1e-2, 3e-2], [6, 20, 40]),
    "a removed rung": ([1e-3, 1e-2, 3e-2], [3, 6, 12, 40]),
}


@pytest.fixture(scope="module")
def from_scratch(make_cell, tmp_path_factory):
    return search(make_cell, tmp_path_factory.mktemp("scratch"), *NOW)


@pytest.mark.filterwarnings(GOES_BACK)
@pytest.mark.parametrize("before", OTHER_SEARCHES)
def test_a_changed_search_chooses_what_one_from_scratch_does(make_cell, tmp_path, from_scratch, before):
    search(make_cell, tmp_path, *OTHER_SEARCHES[before])
    assert search(make_cell, tmp_path, *NOW) == from_scratch
    assert search(make_cell, tmp_path, *NOW) == from_scratch, "and made once more, as by -F"


@pytest.mark.filterwarnings(GOES_BACK)
def test_a_rung_before_a_divergence_is_scored_all_the_same(make_cell, tmp_path):
    """The rung is inserted after the candidate has diverged."""
    cell = make_cell("full", train={"learning_rate": 1e5})
    diverged_at = train(cell, CPU, batch_of, tmp_path / "changed").diverged_at
    assert diverged_at > 2
    runs = {name: train(at_rungs(cell, 2), CPU, batch_of, tmp_path / name, until=2) for name in ("changed", "scratch")}
    changed, scratch = (scored(run, 2, DOCUMENTS, tmp_path / name) for name, run in runs.items())
    assert changed == scratch and changed.loss is not None


def test_only_the_promoted_go_on(make_cell, tmp_path):
    import pandas as pd

    table = pd.DataFrame({"candidate": ["a+x=1", "b"], "loss": [1.0, 2.0], "promoted": [1, 0]})
    write_csv(tmp_path / "rung-0.csv", table)
    assert [is_promoted(tmp_path / "rung-0.csv", name) for name in ("a+x=1", "b", "c")] == [True, False, False]
    record = dropped(make_cell("full"), 9)
    assert record == RungResult(candidate="full", seed=1, step=9, loss=None, dropped=True)
