"""Clipped gradients against `torch.nn.utils.clip_grad_norm_`, which steps the same run in place of ours."""

from pathlib import Path

import pandas as pd
import pytest
import torch
from relora_study.analysis.results import Runs
from relora_study.config.experiments import Space
from relora_study.config.schedule import is_reset
from relora_study.config.variants import vary
from relora_study.report.paper import _clipping
from relora_study.train.loop import take_step, train
from relora_study.train.resets import reset
from relora_study.train.run import start
from relora_study.train.state import fingerprint

CPU = torch.device("cpu")
LIMIT = 1.3  # some steps' gradients are shorter, and some are longer
PROJECTED = {"targets": ["q_proj", "down_proj"], "projection_rank": 4, "projection_period": 5}
METHODS = {
    "full": {},
    "relora": {"trainable_scale": True},
    "relora_zero2": {},
    "galore": {"update": "galore", **PROJECTED},
    "fira": {"update": "fira", **PROJECTED},
    "apollo": {"update": "apollo", **PROJECTED},
    "factorized": {"factor_rank": 4, "targets": ["q_proj", "down_proj"]},
}


def batch_of(step):
    """Every third batch repeats few ids, so its gradient is long."""
    most = 3 if step % 3 == 0 else 300
    return torch.randint(most, (4, 17), generator=torch.Generator().manual_seed(step))


def stepped(cell, clip=None):
    """The rows and the last weights of twelve steps; ``clip`` is called with what trains before the optimizer steps."""
    run, rows = start(cell, CPU), []
    step_of_optimizer = run.optimizer.step

    def clipped_step():
        clip([parameter for parameter in run.model.parameters() if parameter.requires_grad])
        step_of_optimizer()

    run.optimizer.step = clipped_step if clip else step_of_optimizer
    for step in range(1, 13):
        rows.append(take_step(run, batch_of(step), step))
        if is_reset(cell.method, step):
            reset(run.model, run.optimizer, cell.method, seed=step)
    return pd.DataFrame(rows).map(float, na_action="ignore"), run.model.state_dict()


@pytest.mark.parametrize("micro_batch_size", [4, 2])
@pytest.mark.parametrize("method", METHODS)
def test_a_step_is_that_of_torchs_clipping(make_cell, method, micro_batch_size):
    recipe, norms = {"micro_batch_size": micro_batch_size}, []

    def oracle(trained):
        norms.append(torch.nn.utils.clip_grad_norm_(trained, LIMIT).item())

    found, weights = stepped(make_cell(method, recipe | {"gradient_clipping": LIMIT}, **METHODS[method]))
    expected, others = stepped(make_cell(method, recipe, **METHODS[method]), oracle)
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    assert found.loss.equals(expected.loss)
    assert found.gradient_norm.tolist() == norms
    assert min(norms) < LIMIT < max(norms), sorted(norms)
    assert found.clipped_gradient_norm.tolist() == pytest.approx([min(norm, LIMIT) for norm in norms], rel=1e-5)


def test_without_clipping_nothing_changes_but_an_empty_column(make_cell, tmp_path):
    """A limit that no gradient reaches is the same training; without one, settings are those of earlier versions."""
    plain, wide = make_cell("relora"), make_cell("relora", train={"gradient_clipping": 1e9})
    runs = [train(cell, CPU, batch_of, tmp_path / name) for name, cell in (("plain", plain), ("wide", wide))]
    assert all(map(torch.equal, *(run.model.state_dict().values() for run in runs)))
    logs = [pd.read_csv(tmp_path / name / "log.csv") for name in ("plain", "wide")]
    pd.testing.assert_frame_equal(*(log.drop(columns="clipped_gradient_norm") for log in logs))
    assert logs[0].clipped_gradient_norm.isna().all()
    assert logs[1].clipped_gradient_norm.equals(logs[1].gradient_norm)
    assert "gradient_clipping" not in plain.model_dump_json()
    assert fingerprint(plain, "data") != fingerprint(wide, "data")


def test_a_log_of_an_earlier_version_goes_on_with_an_empty_column(make_cell, tmp_path):
    cell = make_cell("full")
    train(cell, CPU, batch_of, tmp_path, until=8)
    log = tmp_path / "log.csv"
    log.write_text("".join(line.rpartition(",")[0] + "\n" for line in log.read_text().splitlines()))
    train(cell, CPU, batch_of, tmp_path)
    again = pd.read_csv(log)
    assert again.step.tolist() == [*range(1, 25)]
    assert again.update_norm.notna().all() and again.clipped_gradient_norm.isna().all()


def test_a_method_and_a_size_may_clip_at_a_norm_of_their_own(make_cell):
    assert make_cell("relora", gradient_clipping=0.5).train.gradient_clipping == 0.5
    sizes = {"tiny": {"gradient_clipping": "0.25"}}
    assert make_cell("relora", gradient_clipping=0.5, sizes=sizes).train.gradient_clipping == 0.25


def test_a_sweep_varies_the_norm_and_null_is_no_clipping(make_cell):
    points = Space(grid={"gradient_clipping": [None, "1.0"]}).candidates()
    varied = [vary(make_cell("relora", gradient_clipping=0.5), point) for point in points]
    assert [cell.train.gradient_clipping for cell in varied] == [None, 1.0]
    assert [cell.method_name for cell in varied] == ["relora+gradient_clipping=none", "relora+gradient_clipping=1"]


@pytest.mark.parametrize(
    ("norms", "said"),
    [
        ([None, None], "no gradient clipping"),
        ([1.0, 1.0], "gradients clipped at a norm of 1"),
        ([None, 1.0, 0.5], "gradients clipped at a norm of 1 and 0.5 in some of the methods"),
    ],
)
def test_the_paper_says_where_gradients_are_clipped(make_cell, norms, said):
    made = {str(place): make_cell("full", train={"gradient_clipping": norm}) for place, norm in enumerate(norms)}
    assert _clipping(Runs(Path(), made)) == said
