"""Numbers that run away, and shapes at the edge of what is allowed."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from relora_study.data.tokens import open_tokens, write_split
from relora_study.dynamics.matrices import weight_matrices
from relora_study.dynamics.measures import effective_rank, reason, spectrum
from relora_study.errors import UserError
from relora_study.model.checkpoints import load_adapters, load_model
from relora_study.model.relora import adapters
from relora_study.storage.contracts import Manifest, Split, write_manifest
from relora_study.train import loop
from relora_study.train.loop import train
from safetensors.torch import load_file

CPU = torch.device("cpu")


def states_are_finite(folder) -> bool:
    return all(tensor.isfinite().all() for file in folder.rglob("*.safetensors") for tensor in load_file(file).values())


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_stops_a_run_whose_loss_is(make_cell, batch_of, monkeypatch, tmp_path, bad):
    cell, plain, calls = make_cell("relora", train={"divergence": "stop"}), loop.mean_loss, []

    def breaks_at_step_6(run, rows):
        calls.append(0)
        loss = plain(run, rows)
        if len(calls) == 6:
            loss.register_hook(lambda gradient: gradient * bad)
        return loss

    monkeypatch.setattr(loop, "mean_loss", breaks_at_step_6)
    with pytest.raises(UserError, match=r"gradient_norm is (nan|inf) at step 6; the last good state is .*step-000004"):
        train(cell, CPU, batch_of, tmp_path / "broken")
    log = pd.read_csv(tmp_path / "broken/log.csv")
    assert log.step.tolist() == [1, 2, 3, 4, 5, 6] and np.isfinite(log.loss).all()
    assert states_are_finite(tmp_path / "broken")
    monkeypatch.undo()
    for folder in ("broken", "whole"):
        train(cell, CPU, batch_of, tmp_path / folder)
    assert (tmp_path / "broken/log.csv").read_bytes() == (tmp_path / "whole/log.csv").read_bytes()


def test_weights_that_overflow_in_the_step_of_a_state_do_not_get_into_it(make_cell, batch_of, tmp_path):
    """Loss and gradient of step 8 are finite; its update is what overflows, and step 8 saves a state."""
    cell = make_cell("full", train={"checkpoint_every": 100, "checkpoint_offset": 0, "divergence": "stop"})

    def overflows(run, step, due, cell_dir):
        if step == 8:
            next(run.model.parameters()).data[0, 0] = math.inf
        return after(run, step, due, cell_dir)

    after, loop._after_step = loop._after_step, overflows
    try:
        with pytest.raises(UserError, match=r"embed_tokens\S* is not finite at step 8; the last good .*step-000004"):
            train(cell, CPU, batch_of, tmp_path)
    finally:
        loop._after_step = after
    assert sorted(path.name for path in (tmp_path / "state").iterdir()) == ["step-000004"]
    train(cell, CPU, batch_of, tmp_path)
    assert states_are_finite(tmp_path)


def test_an_overflow_in_bfloat16_is_named(make_cell, batch_of, tmp_path):
    """A rate that throws the weights to 1e30 in one step: the next loss is no number, in bfloat16 as in float32."""
    cell = make_cell("full", train={"learning_rate": 1e30, "divergence": "stop"}, warmup_steps=0)
    cell = cell.model_copy(update={"runtime": cell.runtime.model_copy(update={"precision": "bfloat16"})})
    with pytest.raises(UserError, match=r"is (nan|inf) at step 2; no state was saved before it; lower"):
        train(cell, CPU, batch_of, tmp_path)


@pytest.mark.parametrize("method", ["full", "relora", "relora_released", "relora_zero2"])
def test_a_model_of_one_layer_trains_resumes_and_is_read(make_cell, batch_of, tmp_path, method):
    cell = make_cell(method, train={"steps": 9})
    cell = cell.model_copy(update={"size": cell.size.model_copy(update={"num_hidden_layers": 1})})
    train(cell, CPU, batch_of, tmp_path)
    model = load_model(tmp_path / "checkpoints/step-000009")
    assert {name: matrix.shape[0] for name, matrix in weight_matrices(model).items()} == {"w2": 1, "v": 1, "o": 1}
    assert np.isfinite(pd.read_csv(tmp_path / "log.csv").loss).all()


def test_adapters_of_zeros_train_to_zeros_and_have_a_spectrum_with_a_reason(make_cell, batch_of, tmp_path):
    """A = B = 0: neither has a gradient, so a run without restarts never moves them."""
    cell = make_cell("relora_released", restart="none", moment_reset="none", train={"steps": 8})
    run = train(cell, CPU, batch_of, tmp_path)
    assert all(layer.A.abs().max() == layer.B.abs().max() == 0 for layer in adapters(run.model).values())
    factors = load_adapters(tmp_path / "checkpoints/step-000008")
    up, down = next((up, down) for down, up in factors.values())
    assert up.abs().max() == 0
    values = spectrum(up @ down)
    assert math.isnan(effective_rank(values).item()) and reason(values) != ""


@pytest.mark.parametrize(("vocabulary", "dtype"), [(257, "uint16"), (65_536, "uint16"), (65_537, "uint32")])
def test_vocabularies_at_the_edge_keep_their_last_id(make_cell, tmp_path, vocabulary, dtype):
    ids = np.arange(vocabulary - 80, vocabulary).astype(dtype)
    split = write_split(tmp_path / "train.bin", [ids[:30], ids[30:]], (1, 1), 16, None)
    empty = Split(documents=0, tokens=0, bytes=0, sha256="")
    names = dict(source="test", vocab_size=vocabulary, end_of_text_id=0, tokenizer_sha256="")
    write_manifest(tmp_path, Manifest(dtype=dtype, train=split, held_out=empty, **names))
    read = open_tokens(tmp_path, "train")
    assert read.tolist() == list(range(vocabulary - 80, vocabulary))
    cell = make_cell("full", train={"steps": 1})
    cell = cell.model_copy(update={"model": cell.model.model_copy(update={"vocab_size": vocabulary})})
    batch = torch.from_numpy(np.asarray(read[:68], dtype=np.int64)).reshape(4, 17)
    run = train(cell, CPU, lambda _: batch, tmp_path / "cell")
    assert run.model.lm_head.weight.shape[0] == vocabulary
    assert np.isfinite(pd.read_csv(tmp_path / "cell/log.csv").loss).all()
