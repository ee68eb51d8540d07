"""Gradients on the fixed batch against a plain backward pass, and the batch that they are taken on."""

import gc
import json

import numpy as np
import pytest
import torch
from relora_study.data.tokens import held_out_batch
from relora_study.dynamics import gradients as stage
from relora_study.dynamics.passes import gradients
from relora_study.errors import UserError
from relora_study.model.build import build_model
from relora_study.storage.files import sha256
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel


@pytest.fixture
def model():
    torch.manual_seed(1)
    shape = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2, "vocab_size": 64}
    heads = {"num_attention_heads": 6, "num_key_value_heads": 2}
    return LlamaForCausalLM(LlamaConfig(**shape, **heads, tie_word_embeddings=False)).eval()


@pytest.fixture
def batch():
    return torch.randint(0, 64, (5, 9), generator=torch.Generator().manual_seed(2))


def test_gradients_are_those_of_a_plain_backward_pass(model, batch):
    found = gradients(model, batch)
    model.requires_grad_(True)
    log_probability = model(batch[:, :-1]).logits.log_softmax(-1)
    loss = -sum(log_probability[i, t, batch[i, t + 1]] for i in range(5) for t in range(8)) / 40
    loss.backward()
    for layer, block in enumerate(model.model.layers):
        torch.testing.assert_close(found["w2"][layer], block.mlp.down_proj.weight.grad, rtol=1e-4, atol=1e-7)
        torch.testing.assert_close(found["v"][layer], block.self_attn.v_proj.weight.grad, rtol=1e-4, atol=1e-7)
        torch.testing.assert_close(found["o"][layer], block.self_attn.o_proj.weight.grad, rtol=1e-4, atol=1e-7)


def test_an_older_transformers_names_the_checkpointing_of_activations_otherwise(model, batch, monkeypatch):
    """envs/train.yaml allows releases from before 5.23, which renamed it."""
    called = []
    monkeypatch.delattr(PreTrainedModel, "activation_checkpointing_enable", raising=False)
    monkeypatch.setattr(PreTrainedModel, "gradient_checkpointing_enable", lambda self: called.append(self))
    gradients(model, batch)
    assert called == [model]


@pytest.mark.parametrize("micro_batch", [1, 2, 3, 4])
def test_micro_batches_give_the_whole_batchs_gradient(model, batch, micro_batch):
    """Also where the last part is smaller than the others, and so weighs less."""
    model.double()
    whole, parts = gradients(model, batch, 5), gradients(model, batch, micro_batch)
    for component in whole:
        torch.testing.assert_close(parts[component], whole[component], rtol=1e-6, atol=1e-9)


def test_weights_are_left_alone_and_only_those_read_are_differentiated(model, batch):
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    gradients(model, batch)
    wanted = {name.split(".")[-2] for name, weight in model.named_parameters() if weight.requires_grad}
    assert wanted == {"down_proj", "v_proj", "o_proj"}
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert all(weight.grad is None for weight in model.parameters())


@pytest.fixture
def tokens(tmp_path):
    ids = np.arange(50, dtype=np.uint16)
    ids.tofile(tmp_path / "held_out.bin")
    ids.tofile(tmp_path / "train.bin")
    split = {"tokens": 50, "documents": 1, "bytes": 100, "sha256": sha256(tmp_path / "held_out.bin")}
    manifest = {"dtype": "uint16", "vocab_size": 64, "end_of_text_id": 0, "train": split, "held_out": split}
    manifest |= {"domains": {}, "tokenizer_sha256": "", "source": "test"}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    return tmp_path


def test_the_fixed_batch_is_the_first_held_out_rows(tokens):
    assert held_out_batch(tokens, 3, 9).tolist() == np.arange(30).reshape(3, 10).tolist()


def test_a_fixed_batch_longer_than_the_held_out_text_says_which_key_to_lower(tokens):
    with pytest.raises(UserError, match=r"dynamics.batch_sequences 6 is more than the 5 sequences"):
        held_out_batch(tokens, 6, 9)


def test_no_layer_keeps_its_wide_activations_for_the_backward_pass(make_cell, monkeypatch):
    """They are computed again: our SwiGLU, which keeps two of them, must not do so beside that."""
    cell = make_cell("full")
    kept, plain = [], stage.next_token_loss

    def looked_at(model, part):
        loss = plain(model, part)
        # By the type: another test's dead weak reference cannot be asked whether it is a tensor.
        found = [one for one in gc.get_objects() if issubclass(type(one), torch.Tensor)]
        tensors = [one for one in found if one.shape[-1:] == (width,)]
        kept.extend(one for one in tensors if one.numel() == 2 * 16 * width)
        return loss

    width = cell.size.intermediate_size
    monkeypatch.setattr(stage, "next_token_loss", looked_at)
    gradients(build_model(cell.size, cell.model, 0), torch.randint(300, (2, 17)))
    assert kept == []
