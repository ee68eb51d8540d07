"""Each architecture computes what transformers' own class does, and all that is done to a Llama works in it."""

from dataclasses import replace

import pytest
import torch
from relora_study.config import Cell, Size
from relora_study.config.architectures import ARCHITECTURES, LLAMA
from relora_study.cost.estimates import parameter_count
from relora_study.dynamics.cell import cell_table, open_subject
from relora_study.dynamics.matrices import stored_matrices, weight_matrices
from relora_study.dynamics.passes import gradients
from relora_study.errors import UserError
from relora_study.evaluate.prefix_tree import log_probabilities
from relora_study.model.build import build_model, count_parameters, decoder_config
from relora_study.model.checkpoints import load_adapters, load_model
from relora_study.model.decoder import layers, next_token_loss
from relora_study.model.relora import adapters
from relora_study.train.loop import Stopped, train
from studies import write_yaml
from transformers import AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

CPU = torch.device("cpu")
SHAPE = {"d_model": 32, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4}
SIZES = {
    "llama": Size(**SHAPE, num_key_value_heads=2),
    "qwen3": Size(**SHAPE, num_key_value_heads=2, architecture="qwen3", head_dim=16),
    "olmo2": Size(**SHAPE, num_key_value_heads=2, architecture="olmo2"),
    "gpt_neox": Size(**SHAPE, num_key_value_heads=4, architecture="gpt_neox"),
}
IDS = torch.randint(300, (24, 4, 17), generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=SIZES)
def size(request) -> Size:
    return SIZES[request.param]


def resized(make_cell, size: Size, method: str = "relora", **switches) -> Cell:
    """A tiny cell of ``size``; ReLoRA targets every linear map."""
    if method == "relora":
        switches = {"targets": ["all"], "dropout": 0.0} | switches
    settings = make_cell(method).model_dump()
    return Cell.model_validate(settings | {"size": size.model_dump(), "method": settings["method"] | switches})


def test_logits_and_gradients_are_those_of_transformers(make_cell, size):
    model = build_model(size, make_cell("full").model, seed=1).double()
    config = decoder_config(size, make_cell("full").model)
    plain = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)](config).double()
    plain.load_state_dict(model.state_dict())
    for one in (model, plain):
        one(input_ids=IDS[0], labels=IDS[0]).loss.backward()
    close = {"rtol": 1e-5, "atol": 2e-6}  # transformers computes norms and softmax in float32 at most
    torch.testing.assert_close(model(IDS[0]).logits, plain(IDS[0]).logits, **close)
    for (name, ours), theirs in zip(model.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, **close, msg=lambda text, name=name: f"{name}: {text}")


def test_shapes_are_the_models(make_cell, size):
    cell = resized(make_cell, size)
    model = build_model(size, cell.model, seed=1)
    found = {
        name.rpartition(".")[2]: (part.in_features, part.out_features)
        for name, part in layers(model)[1].named_modules()
        if isinstance(part, torch.nn.Linear)
    }
    assert size.linear_shapes == found
    assert list(size.linear_shapes) == cell.method.targets == list(found), "every linear map is a target"
    for counted in (cell, resized(make_cell, size, "full")):
        assert parameter_count(counted) == count_parameters(counted)[0]


def test_adapters_train_merge_and_go_on_exactly(make_cell, size, tmp_path):
    cell = resized(make_cell, size)
    run = train(cell, CPU, lambda step: IDS[step], tmp_path / "whole")
    assert len(adapters(run.model)) == 2 * len(size.linear_shapes)
    with pytest.raises(Stopped):
        asked = iter([False] * 10 + [True])
        train(cell, CPU, lambda step: IDS[step], tmp_path / "stopped", lambda: next(asked))
    train(cell, CPU, lambda step: IDS[step], tmp_path / "stopped")
    for part in ("model", "adapters"):
        place = f"checkpoints/step-000024/{part}.safetensors"
        assert (tmp_path / "whole" / place).read_bytes() == (tmp_path / "stopped" / place).read_bytes()
    last = tmp_path / "whole/checkpoints/step-000024"
    opened = AutoModelForCausalLM.from_pretrained(last, use_safetensors=True, trust_remote_code=False)
    assert opened.config.architectures == [type(opened).__name__]
    ids = IDS[0][:, :-1]
    torch.testing.assert_close(opened(ids).logits, run.model.eval()(ids).logits, rtol=1e-4, atol=1e-4)
    before = run.model(ids).logits
    for layer in adapters(run.model).values():
        layer.merge()
        layer.restart()
    torch.testing.assert_close(run.model(ids).logits, before, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "switches", [{"update": "galore", "projection_rank": 4}, {"factor_rank": 4}], ids=["galore", "factorized"]
)
def test_projected_and_factorized_targets_train(make_cell, size, tmp_path, switches):
    cell = resized(make_cell, size, "mine", targets=["all"], **switches)
    run = train(cell, CPU, lambda step: IDS[step], tmp_path)
    assert run.diverged_at is None
    losses = [next_token_loss(model, IDS[0]).item() for model in (run.model, build_model(size, cell.model, cell.seed))]
    assert losses[0] < losses[1]


def test_sentences_in_a_tree_score_as_they_do_alone(make_cell, size):
    model = build_model(size, make_cell("full").model, seed=1).eval()
    sentences = [tuple(row) for row in IDS[0, :, :9].tolist()] + [tuple(IDS[0, 0, :5].tolist())]
    for ids, found in zip(sentences, log_probabilities(model, sentences, 64), strict=True):
        scored = model(torch.tensor([ids[:-1]])).logits.log_softmax(-1)[0]
        expected = scored.gather(1, torch.tensor(ids[1:])[:, None]).sum().item()
        assert found == pytest.approx(expected, rel=1e-5)


def test_readings_take_each_role(make_cell, size, tmp_path):
    cell = resized(make_cell, size)
    train(cell, CPU, lambda step: IDS[step], tmp_path)
    write_yaml(tmp_path / "config.yaml", cell.model_dump())
    table = cell_table(open_subject(tmp_path, IDS[0], 2, 8), tmp_path / "dynamics")
    last = table[(table.step == 24) & (table.metric == "per")]
    wanted = {("updates", role) for role in ("w2", "v", "o")} | {("weights", "ov_circuit"), ("gradients", "v")}
    assert wanted <= set(zip(last.quantity, last.component, strict=True))
    assert last.value.notna().all()
    place = tmp_path / "checkpoints/step-000024"
    model = load_model(place)
    for role, matrix in weight_matrices(model).items():
        torch.testing.assert_close(matrix, stored_matrices(place, CPU)[role])
        assert matrix.shape[:0:-1] == size.component_shape(role)
    assert load_adapters(place).keys() == adapters_of(model, cell)


def adapters_of(model, cell: Cell) -> set[str]:
    return {name for name, part in model.named_modules() if name.rpartition(".")[2] in cell.method.targets}


def test_a_fused_map_gives_the_values_of_each_head(make_cell):
    """Heads of GPT-NeoX compute query, key and value one after the other: what v moves is what attention mixes."""
    size = SIZES["gpt_neox"]
    model = build_model(size, make_cell("full").model, seed=1).eval()
    attention = layers(model)[0].attention
    seen = []
    attention.dense.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    one = IDS[:1, 0, :1]  # a token alone attends to itself, so attention returns its values
    read = layers(model)[0].input_layernorm(model.gpt_neox.embed_in(one))
    model(one)
    bias = attention.query_key_value.bias.view(4, 3, 8)[:, 2].flatten()
    torch.testing.assert_close(seen[0], read @ weight_matrices(model)["v"][0].mT + bias)
    found = gradients(model, IDS[0])["v"]
    assert found.shape == (2, 32, 32)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"architecture": "gpt_neox", "num_key_value_heads": 2}, "num_key_value_heads 2 must be 4: heads of gpt_neox"),
        ({"architecture": "olmo2", "head_dim": 16}, "head_dim 16 must be null: olmo2"),
        ({"architecture": "gpt_neox", "d_model": 16}, "a head is 4 wide, and in gpt_neox it must be a multiple of 8"),
        ({"architecture": "bert"}, "no architecture; name one of llama, qwen3, olmo2, gpt_neox"),
    ],
)
def test_a_shape_that_an_architecture_lacks_is_an_error(keys, message):
    with pytest.raises(ValueError, match=message):
        Size(**{**SHAPE, "num_key_value_heads": 4, **keys})


def test_a_target_that_an_architecture_lacks_is_an_error(make_cell):
    with pytest.raises(ValueError, match=r"methods\.relora\.targets: gpt_neox has no q_proj; name some of query_key"):
        resized(make_cell, SIZES["gpt_neox"], targets=["q_proj"])
    with pytest.raises(UserError, match=r"no linear map of an architecture; name one of all, q_proj"):
        make_cell("relora", targets=["qproj"])


def test_an_architecture_is_added_in_one_place(make_cell, tmp_path, monkeypatch):
    monkeypatch.setitem(ARCHITECTURES, "mistral", replace(LLAMA))
    cell = resized(make_cell, Size(**SHAPE, num_key_value_heads=2, architecture="mistral", head_dim=8))
    run = train(cell, CPU, lambda step: IDS[step], tmp_path)
    assert type(run.model).__name__ == "MistralForCausalLM"
    assert type(load_model(tmp_path / "checkpoints/step-000024")) is type(run.model)
    assert parameter_count(cell) == count_parameters(cell)[0]
