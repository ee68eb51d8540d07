"""Build the base model: a decoder of transformers with the configured shape and initialization, run by our kernels."""

import inspect
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from ..config import Cell, Model, Size
from .kernels import attention
from .kernels.linear import Linear, linears
from .kernels.rms_norm import RMSNorm
from .kernels.swiglu import SwiGLU
from .relora import add_adapters, factorize


def decoder_config(size: Size, model: Model) -> PreTrainedConfig:
    """Describe the model to transformers, whose defaults stay where the configuration has no key.

    Embeddings are untied, and no token is special.
    """
    kind = CONFIG_MAPPING[size.architecture]
    settings: dict[str, Any] = dict(
        vocab_size=model.vocab_size,
        hidden_size=size.d_model,
        intermediate_size=size.intermediate_size,
        num_hidden_layers=size.num_hidden_layers,
        num_attention_heads=size.num_attention_heads,
        num_key_value_heads=size.num_key_value_heads,
        head_dim=size.widths["head"],
        max_position_embeddings=model.context_length,
        rms_norm_eps=model.rms_norm_eps,
        layer_norm_eps=model.rms_norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": model.rope_theta},
        initializer_range=0.02,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    known = inspect.signature(kind).parameters
    return kind(**{key: value for key, value in settings.items() if key in known})


def build_model(size: Size, model: Model, seed: int) -> PreTrainedModel:
    """Build a new model whose weights depend on ``seed`` alone, with this project's kernels.

    ``initialization: pytorch`` follows the authors' code: PyTorch's ``reset_parameters`` draws embeddings from N(0, 1)
    and linear layers kaiming-uniform with a = sqrt 5. ``normal`` is the default of transformers, N(0, 0.02).
    """
    torch.manual_seed(seed)
    config = decoder_config(size, model)
    decoder: PreTrainedModel = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)](config)
    if model.initialization == "pytorch":
        for module in decoder.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                module.reset_parameters()
    return use_kernels(decoder)


def first_model(cell: Cell) -> PreTrainedModel:
    """Build the model that the training of ``cell`` begins with, before it gets adapters: plain, or factorized."""
    model = build_model(cell.size, cell.model, cell.seed)
    if cell.method.factor_rank:
        factorize(model, cell.method)
    return model


def count_parameters(cell: Cell) -> tuple[int, int]:
    """Count all parameters of the cell's model, and those that train, without allocating any."""
    with torch.device("meta"):
        model = first_model(cell)
        if cell.method.rank:
            add_adapters(model, cell.method)
    parameters = list(model.parameters())
    return sum(p.numel() for p in parameters), sum(p.numel() for p in parameters if p.requires_grad)


def use_kernels(decoder: PreTrainedModel) -> PreTrainedModel:
    """Replace attention, linear layers, RMSNorms and SwiGLU of ``decoder`` by this project's kernels, in place.

    The weights and the function of the model stay. What has no kernel, such as LayerNorm, stays as transformers has it.
    """
    decoder.set_attn_implementation(attention.NAME)
    for name, linear in linears(decoder).items():
        decoder.set_submodule(name, Linear(linear.weight, linear.bias))
    gated = getattr(decoder.config, "hidden_act", None) == "silu"
    for name, module in list(decoder.named_modules()):
        if hasattr(module, "variance_epsilon"):  # as every RMSNorm of transformers that multiplies by its weight
            decoder.set_submodule(name, RMSNorm(module.weight, module.variance_epsilon))
        elif gated and hasattr(module, "gate_proj"):
            decoder.set_submodule(name, SwiGLU(module.gate_proj, module.up_proj, module.down_proj))
    return decoder
