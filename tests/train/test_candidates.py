"""Candidates of a search: trained from rung to rung by exact resume, and scored on ids that nothing else reads."""

import pytest
import torch
from relora_study.storage.files import sha256, write_csv
from relora_study.storage.rung import Rung
from relora_study.train.candidates import dropped, is_promoted, scored, validation_loss
from relora_study.train.loop import train
from torch.nn import functional

CPU = torch.device("cpu")
ROWS = torch.randint(300, (5, 17), generator=torch.Generator().manual_seed(7))


def batch_of(step):
    return torch.randint(300, (4, 17), generator=torch.Generator().manual_seed(step))


def climb(cell, folder, *rungs):
    for until in rungs:
        run = train(cell, CPU, batch_of, folder, until=until)
        validation_loss(run, ROWS)  # as between the jobs of a search; it must leave no trace
    return run


def files_of(folder, step):
    state = folder / f"state/step-{step:06d}/state.safetensors"
    return sha256(state), (folder / "log.csv").read_bytes()


@pytest.mark.parametrize("method", ["full", "relora", "relora_zero2"])
def test_a_promoted_candidates_weights_are_the_bytes_of_one_never_stopped(make_cell, tmp_path, method):
    """Rungs off the states' and the checkpoints' steps, in the middle of a cycle and at a reset."""
    cell = make_cell(method)
    climb(cell, tmp_path / "rungs", 5, 9, 17)
    climb(cell, tmp_path / "once", 17)
    assert files_of(tmp_path / "rungs", 17) == files_of(tmp_path / "once", 17)
    checkpoints = [
        sorted(path.name for path in (tmp_path / name / "checkpoints").iterdir()) for name in ("rungs", "once")
    ]
    assert checkpoints[0] == checkpoints[1] and "step-000017" not in checkpoints[0]


def test_a_candidate_can_go_on_to_a_whole_cell(make_cell, tmp_path):
    cell = make_cell("relora")
    climb(cell, tmp_path / "rungs", 5)
    for name in ("rungs", "once"):
        train(cell, CPU, batch_of, tmp_path / name)
    assert files_of(tmp_path / "rungs", 24) == files_of(tmp_path / "once", 24)


def test_the_score_is_the_mean_cross_entropy_without_dropout(make_cell, tmp_path):
    run = climb(make_cell("relora", dropout=0.5), tmp_path, 9)
    run.model.eval()
    with torch.no_grad():
        logits = run.model(ROWS[:, :-1]).logits
    expected = functional.cross_entropy(logits.flatten(0, 1).double(), ROWS[:, 1:].flatten())
    run.model.train()
    record = scored(run, "relora", 9, ROWS)
    assert record == Rung(candidate="relora", step=9, loss=record.loss)
    assert record.loss == pytest.approx(expected.item(), abs=1e-5) and run.model.training


def test_a_diverged_candidate_has_no_loss_and_says_when(make_cell, tmp_path):
    run = climb(make_cell("full", train={"learning_rate": 1e30}), tmp_path, 9)
    record = scored(run, "full", 9, ROWS)
    assert record.diverged and record.loss is None and record.step == run.diverged_at < 9


def test_only_the_promoted_go_on(tmp_path):
    import pandas as pd

    table = pd.DataFrame({"candidate": ["a+x=1", "b"], "loss": [1.0, 2.0], "promoted": [1, 0]})
    write_csv(tmp_path / "rung-0.csv", table)
    assert [is_promoted(tmp_path / "rung-0.csv", name) for name in ("a+x=1", "b", "c")] == [True, False, False]
    assert dropped("b", 9).dropped and dropped("b", 9).loss is None
