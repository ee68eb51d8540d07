import peft
import pytest
import torch
from relora_study.config import Method, Model, Size
from relora_study.model.build import build_model, use_kernels
from relora_study.model.kernels import matmul
from relora_study.model.relora import ReLoRALinear, adapters, add_adapters, effective_state, factorize, remove_adapters
from relora_study.train.loop import mean_loss
from relora_study.train.run import start

PAPER = Model(vocab_size=50304, context_length=2048, rms_norm_eps=1e-6, rope_theta=1e4, initialization="pytorch")


def shape(width):
    return Size(
        d_model=width, intermediate_size=4 * width, num_hidden_layers=12, num_attention_heads=12, num_key_value_heads=4
    )


@pytest.mark.parametrize(
    ("width", "method", "total", "trainable"),
    [
        (96, "full", 11_282_784, 11_282_784),
        (96, "relora", 11_682_144, 10_060_128),
        (384, "full", 64_595_328, 64_595_328),
        (384, "relora", 66_192_768, 40_240_512),
    ],
)
def test_parameters_are_the_papers_to_the_unit(make_cell, width, method, total, trainable):
    model = build_model(shape(width), PAPER, seed=0)
    if method != "full":
        add_adapters(model, make_cell("relora", rank=4).method.model_copy(update={"rank": 16}))
    parameters = list(model.parameters())
    assert sum(parameter.numel() for parameter in parameters) == total
    assert sum(parameter.numel() for parameter in parameters if parameter.requires_grad) == trainable


def random_factors(model):
    for layer in adapters(model).values():
        torch.nn.init.normal_(layer.A)
        torch.nn.init.normal_(layer.B)


@pytest.fixture
def model_and_ids(make_cell):
    cell = make_cell("relora")
    model = build_model(cell.size, cell.model, seed=3)
    add_adapters(model, cell.method)
    random_factors(model)
    return cell, model.eval(), torch.randint(300, (2, 16))


def test_forward_equals_pefts_lora(monkeypatch, model_and_ids):
    monkeypatch.setattr(matmul, "USE_ONEDNN", False)  # PEFT's products are the usual ones, so rounding is alike
    cell, model, ids = model_and_ids
    plain = build_model(cell.size, cell.model, seed=3)
    other = peft.get_peft_model(plain, peft.LoraConfig(r=4, lora_alpha=8, target_modules=cell.method.targets))
    for name, layer in adapters(model).items():
        lora = other.base_model.model.get_submodule(name)
        lora.lora_A["default"].weight.data.copy_(layer.A)
        lora.lora_B["default"].weight.data.copy_(layer.B)
    other.eval()
    torch.testing.assert_close(model(ids).logits, other(ids).logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(model.double()(ids).logits, other.double()(ids).logits)


def test_a_scaled_merge_and_restart_leave_the_function(model_and_ids):
    _, model, ids = model_and_ids
    before = model(ids).logits
    for layer in adapters(model).values():
        layer.merge()
        layer.restart()
    torch.testing.assert_close(model(ids).logits, before, rtol=1e-4, atol=1e-4)


def test_an_unscaled_merge_loses_the_predicted_part(make_cell):
    method = make_cell("relora_released").method
    layer = ReLoRALinear(torch.randn(6, 10), method)
    torch.nn.init.normal_(layer.A)
    torch.nn.init.normal_(layer.B)
    lost = (layer.scale - 1) * (layer.B @ layer.A)
    before = layer.effective_weight()
    layer.merge()
    layer.restart()
    torch.testing.assert_close(before - layer.effective_weight(), lost)


def test_the_effective_state_opens_in_the_plain_model(model_and_ids):
    cell, model, ids = model_and_ids
    plain = build_model(cell.size, cell.model, seed=9).double()
    plain.load_state_dict(effective_state(model.double()))
    torch.testing.assert_close(plain.eval()(ids).logits, model(ids).logits)


@pytest.mark.parametrize(("method", "dead"), [("relora", False), ("relora_released", True)])
def test_gradients_at_the_first_step(make_cell, method, dead):
    """B = 0 leaves A without a gradient; A = 0 as well leaves B without one: the dead first cycle."""
    cell = make_cell(method)
    model = build_model(cell.size, cell.model, seed=3)
    add_adapters(model, cell.method)
    ids = torch.randint(300, (2, 16))
    model(input_ids=ids, labels=ids).loss.backward()
    for layer in adapters(model).values():
        assert layer.weight.grad is None
        assert layer.A.grad.abs().max() == 0
        assert (layer.B.grad.abs().max() == 0) == dead


@pytest.mark.parametrize("method", ["full", "relora"])
def test_bfloat16_gradients_are_those_of_float32_but_for_rounding(make_cell, method):
    ids = torch.randint(300, (4, 17), generator=torch.Generator().manual_seed(0))
    found = []
    for precision in ("float32", "bfloat16"):
        cell = make_cell(method, **({"dropout": 0.0} if method == "relora" else {}))
        cell = cell.model_copy(update={"runtime": cell.runtime.model_copy(update={"precision": precision})})
        torch.manual_seed(0)
        run = start(cell, torch.device("cpu"))
        for layer in adapters(run.model).values():
            torch.nn.init.normal_(layer.B, std=0.1)
        mean_loss(run, ids).backward()
        found.append({name: weight.grad for name, weight in run.model.named_parameters() if weight.requires_grad})
    exact, rounded = found
    for name, gradient in exact.items():
        assert rounded[name].dtype == torch.float32
        assert torch.cosine_similarity(gradient.flatten(), rounded[name].flatten(), dim=0) > 0.99, name
    assert any((exact[name] != rounded[name]).any() for name in exact)


def test_a_bias_stays_in_every_layer_that_replaces_one(make_cell):
    """The layers once copied the weight alone, so that logits of a Llama with biases moved by 0.61."""
    method = make_cell("relora").method
    for change in (use_kernels, lambda model: add_adapters(model, method), merged, factored):
        model = build_model(make_cell("full").size, make_cell("full").model, seed=1).eval()
        for name in ("q_proj", "o_proj"):
            plain = model.get_submodule(f"model.layers.1.self_attn.{name}")
            biased = torch.nn.Linear(plain.in_features, plain.out_features)
            model.set_submodule(f"model.layers.1.self_attn.{name}", biased)
        ids = torch.randint(300, (2, 16), generator=torch.Generator().manual_seed(0))
        before = model(ids).logits
        change(model)
        torch.testing.assert_close(model(ids).logits, before, rtol=1e-4, atol=1e-4)


def merged(model):
    """Adapters come and go."""
    cycled = Method(rank=4, targets=["all"], schedule="linear", warmup_steps=1, horizon_steps=9)
    add_adapters(model, cycled.model_copy(update={"targets": ["q_proj", "o_proj"]}))
    remove_adapters(model)


def factored(model):
    """Factors of full rank compute what the weight does."""
    whole = Method(
        rank=0, factor_rank=24, targets=["q_proj", "o_proj"], schedule="linear", warmup_steps=1, horizon_steps=9
    )
    factorize(model, whole)
