"""Sparsity, subspaces, representations and merges, against definitions written out with NumPy and SciPy."""

import copy

import numpy as np
import pytest
import torch
from relora_study.dynamics.measures import gini, hoyer, leading_subspaces, overlap
from relora_study.dynamics.passes import layer_states, linear_cka, mean_cosine, mean_loss, merge_effects
from relora_study.model.build import build_model
from relora_study.model.relora import adapters, add_adapters, effective_state
from scipy.linalg import subspace_angles
from torch.nn import functional


def test_gini_and_hoyer_of_equal_and_single_entries():
    equal, single = torch.full((8,), -3.0), torch.tensor([0.0, 0, 0, 5, 0, 0, 0, 0])
    assert gini(equal).item() == pytest.approx(0) and hoyer(equal).item() == pytest.approx(0)
    assert gini(single).item() == pytest.approx(7 / 8) and hoyer(single).item() == pytest.approx(1)
    assert torch.isnan(gini(torch.zeros(3))) and torch.isnan(hoyer(torch.zeros(3)))


def test_gini_is_the_mean_difference_over_twice_the_mean():
    entries = np.random.default_rng(0).normal(size=50)
    magnitudes = np.abs(entries)
    expected = np.abs(magnitudes[:, None] - magnitudes).mean() / (2 * magnitudes.mean())
    assert gini(torch.from_numpy(entries)).item() == pytest.approx(expected)
    assert gini(torch.from_numpy(-7 * entries)).item() == pytest.approx(expected)


def test_overlap_is_the_mean_squared_cosine_of_scipys_principal_angles():
    random = np.random.default_rng(1)
    one, other = (random.normal(size=(2, 9, 6)) for _ in "ab")
    bases = [leading_subspaces(torch.from_numpy(matrix), 3) for matrix in (one, other)]
    for side, transpose in ((0, False), (1, True)):
        found = overlap(bases[0][side], bases[1][side])
        for layer in range(2):
            tops = []
            for matrix in (one[layer], other[layer]):
                left = np.linalg.svd(matrix.T if transpose else matrix)[0]
                tops.append(left[:, :3])
            expected = (np.cos(subspace_angles(*tops)) ** 2).mean()
            assert found[layer].item() == pytest.approx(expected)
    assert overlap(bases[0][0], bases[0][0]).tolist() == pytest.approx([1, 1])


def test_overlap_counts_the_directions_that_a_matrix_has():
    """A matrix of rank 2 has two directions, not the three that were asked for; a zero matrix has none."""
    random = np.random.default_rng(2)
    frame = np.linalg.qr(random.normal(size=(9, 9)))[0]
    low, whole = frame[:, :2] @ random.normal(size=(2, 6)), frame[:, :3] @ random.normal(size=(3, 6))
    bases = [leading_subspaces(torch.from_numpy(matrix), 3)[0] for matrix in (low, whole, np.zeros((9, 6)))]
    assert overlap(bases[0], bases[1]).item() == pytest.approx(1)
    assert overlap(bases[0], torch.from_numpy(frame[:, 1:4])).item() == pytest.approx(0.5)
    assert torch.isnan(overlap(bases[1], bases[2])) and torch.isnan(overlap(bases[2], bases[2]))


def test_cka_forgets_rotation_scale_and_shift_and_sees_the_rest():
    x = torch.randn(2, 40, 6, dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64))[0]
    assert linear_cka(x, 3 * x @ rotation + 1).tolist() == pytest.approx([1, 1])
    y = torch.randn(2, 40, 5, dtype=torch.float64)
    centred = [z[0].numpy() - z[0].numpy().mean(0) for z in (x, y)]
    grams = [z @ z.T for z in centred]
    expected = (grams[0] * grams[1]).sum() / np.sqrt((grams[0] ** 2).sum() * (grams[1] ** 2).sum())
    assert linear_cka(x, y)[0].item() == pytest.approx(expected)


def test_mean_cosine_is_over_pairs_of_different_tokens():
    states = torch.randn(1, 12, 5, dtype=torch.float64)
    cosines = functional.cosine_similarity(states[0][:, None], states[0][None], dim=-1)
    expected = (cosines.sum() - 12) / (12 * 11)
    assert mean_cosine(states).item() == pytest.approx(expected.item())


@pytest.fixture
def adapted(make_cell):
    def make(method):
        cell = make_cell(method)
        model = build_model(cell.size, cell.model, cell.seed)
        add_adapters(model, cell.method)
        for layer in adapters(model).values():
            torch.nn.init.normal_(layer.A, std=0.3)
            torch.nn.init.normal_(layer.B, std=0.3)
        plain = build_model(cell.size, cell.model, cell.seed).eval()
        plain.load_state_dict(effective_state(model))
        return cell, model.eval(), plain, {name: (x.A.detach(), x.B.detach()) for name, x in adapters(model).items()}

    return make


BATCH = torch.randint(300, (5, 17), generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("method", ["relora", "relora_released"])
def test_a_merge_jumps_as_the_trainers_own_merge_does(adapted, method):
    cell, model, plain, factors = adapted(method)
    found = merge_effects(plain, factors, cell.method, BATCH)
    before = functional.cross_entropy(model(BATCH[:, :-1]).logits.flatten(0, 1), BATCH[:, 1:].flatten()).item()
    for layer in adapters(model).values():
        layer.merge()
        layer.restart()
    after = functional.cross_entropy(model(BATCH[:, :-1]).logits.flatten(0, 1), BATCH[:, 1:].flatten()).item()
    assert found["loss_before"] == pytest.approx(before, rel=1e-5)
    assert found["loss_after"] == pytest.approx(after, rel=1e-5)
    assert found["update_lost"] == pytest.approx(0.5 if method == "relora_released" else 0.0)
    assert (abs(found["loss_jump"]) > 1e-3) == (method == "relora_released")


def test_hidden_states_are_each_layers_and_the_loss_is_the_mean(adapted):
    plain = adapted("relora")[2]
    states = layer_states(plain, BATCH)
    assert states.shape == (2, 80, 24)
    with torch.no_grad():
        loss = functional.cross_entropy(plain.lm_head(plain.model.norm(states[-1].clone())), BATCH[:, 1:].flatten())
    assert mean_loss(plain, BATCH) == pytest.approx(loss.item(), rel=1e-5)


def test_the_last_layers_states_are_taken_before_the_final_norm(adapted):
    """With one layer more, transformers gives the states of the layers before it as they are."""
    plain = adapted("relora")[2]
    torch.nn.init.normal_(plain.model.norm.weight)
    states = layer_states(plain, BATCH)
    deeper = copy.deepcopy(plain)
    deeper.model.layers.append(copy.deepcopy(deeper.model.layers[0]))
    deeper.config.num_hidden_layers = deeper.model.config.num_hidden_layers = 3
    with torch.no_grad():
        found = deeper.model(input_ids=BATCH[:, :-1], use_cache=False, output_hidden_states=True).hidden_states
    assert len(found) == 4
    for ours, theirs in zip(states, found[1:3], strict=True):
        torch.testing.assert_close(ours, theirs.flatten(0, 1))
    assert not any(layer._forward_hooks for layer in plain.model.layers)
