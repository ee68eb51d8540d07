"""A cell beside full rank of an equal seed, against NumPy on the same checkpoints."""

import numpy as np
import pytest
import torch
from relora_study.dynamics.against import against, barrier
from relora_study.dynamics.cell import tabulate
from relora_study.model.checkpoints import load_model
from relora_study.train.loop import train
from safetensors.numpy import load_file
from studies import write_yaml

IDS = torch.randint(300, (24, 4, 17), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def pair(make_cell, tmp_path_factory):
    """The folders of a ReLoRA cell and of its full-rank one."""
    folders = []
    for method in ("relora", "full"):
        folders.append(tmp_path_factory.mktemp(method))
        cell = make_cell(method)
        train(cell, torch.device("cpu"), lambda step: IDS[step], folders[-1])
        write_yaml(folders[-1] / "config.yaml", cell.model_dump())
    return folders


@pytest.fixture(scope="module")
def table(pair):
    return tabulate(against(*pair, IDS[0]))


def weight(folder, step, name):
    return load_file(folder / f"checkpoints/step-{step:06d}/model.safetensors")[name].astype(float)


def test_updates_are_compared_from_the_weights_that_both_begin_with(pair, table):
    last = table[table.step == table.step.max()].set_index(["component", "layer", "metric"]).value
    name = "model.layers.1.mlp.down_proj.weight"
    begin = weight(pair[0], 0, name)
    assert (begin == weight(pair[1], 0, name)).all()
    ours, others = (weight(folder, int(table.step.max()), name) - begin for folder in pair)
    norms = [np.linalg.norm(moved) for moved in (ours, others)]
    assert last["w2", 1, "cosine"] == pytest.approx((ours * others).sum() / np.prod(norms), rel=1e-5)
    assert last["w2", 1, "distance"] == pytest.approx(np.linalg.norm(ours - others) / norms[1], rel=1e-5)


def test_the_difference_in_loss_is_that_of_transformers_own_models(pair, table):
    step = int(table.step.max())
    models = [load_model(folder / f"checkpoints/step-{step:06d}") for folder in pair]
    losses = [model(input_ids=IDS[0], labels=IDS[0]).loss.item() for model in models]
    found = table[(table.step == step) & (table.metric == "loss_difference")].value.item()
    assert found == pytest.approx(losses[0] - losses[1], abs=1e-5)


def test_full_rank_beside_itself_is_equal_in_everything(pair):
    same = tabulate(against(pair[1], pair[1], IDS[0])).groupby("metric").value
    assert same.min()["cka"] == pytest.approx(1.0) and same.min()["cosine"] == pytest.approx(1.0)
    assert same.max()["distance"] == same.max()["loss_difference"] == 0.0
    assert same.max()["barrier"] == pytest.approx(0.0, abs=1e-6)


def test_the_barrier_is_the_highest_rise_over_the_straight_line(pair):
    step = int(max((pair[0] / "checkpoints").iterdir()).name.removeprefix("step-"))
    model, reference = (load_model(folder / f"checkpoints/step-{step:06d}") for folder in pair)
    for weight_of in model.parameters():
        weight_of.data *= -3.0  # far away, so that there is a rise
    ends = [one(input_ids=IDS[0], labels=IDS[0]).loss.item() for one in (reference, model)]
    between = load_model(pair[0] / f"checkpoints/step-{step:06d}")
    rises = []
    for place in (0.25, 0.5, 0.75):
        for mixed, first, last in zip(between.parameters(), reference.parameters(), model.parameters(), strict=True):
            mixed.data = (1 - place) * first.data + place * last.data
        rises.append(between(input_ids=IDS[0], labels=IDS[0]).loss.item() - (1 - place) * ends[0] - place * ends[1])
    assert barrier(model, reference, IDS[0]) == pytest.approx(max(rises), abs=1e-5)
