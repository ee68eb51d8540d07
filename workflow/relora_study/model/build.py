"""Build the base model: transformers' Llama with the configured shape and initialization, run by our kernels."""

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from ..config import Cell, Model, Size
from .kernels import attention
from .kernels.linear import Linear, linears
from .kernels.rms_norm import RMSNorm
from .kernels.swiglu import SwiGLU
from .relora import add_adapters, factorize


def llama_config(size: Size, model: Model) -> LlamaConfig:
    """Describe the model to transformers: untied embeddings, no biases, grouped-query attention."""
    return LlamaConfig(
        vocab_size=model.vocab_size,
        hidden_size=size.d_model,
        intermediate_size=size.intermediate_size,
        num_hidden_layers=size.num_hidden_layers,
        num_attention_heads=size.num_attention_heads,
        num_key_value_heads=size.num_key_value_heads,
        max_position_embeddings=model.context_length,
        rms_norm_eps=model.rms_norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": model.rope_theta},
        initializer_range=0.02,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=None,
    )


def build_model(size: Size, model: Model, seed: int) -> LlamaForCausalLM:
    """Build a new model whose weights depend on ``seed`` alone, with this project's kernels.

    ``initialization: pytorch`` follows the authors' code: PyTorch's ``reset_parameters`` draws embeddings from N(0, 1)
    and linear layers kaiming-uniform with a = sqrt 5. ``normal`` is the default of transformers, N(0, 0.02).
    """
    torch.manual_seed(seed)
    llama = LlamaForCausalLM(llama_config(size, model))
    if model.initialization == "pytorch":
        for module in llama.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                module.reset_parameters()
    return use_kernels(llama)


def first_model(cell: Cell) -> LlamaForCausalLM:
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


def use_kernels(llama: LlamaForCausalLM) -> LlamaForCausalLM:
    """Replace attention, linear layers, norms and SwiGLU of ``llama`` by this project's kernels, in place.

    The weights and the function of the model stay. Raises :class:`UserError` if a linear layer has a bias.
    """
    llama.set_attn_implementation(attention.NAME)
    for name, linear in linears(llama).items():
        llama.set_submodule(name, Linear(linear.weight))
    for layer in llama.model.layers:
        layer.mlp = SwiGLU(layer.mlp.gate_proj, layer.mlp.up_proj, layer.mlp.down_proj)
        for name in ("input_layernorm", "post_attention_layernorm"):
            setattr(layer, name, _kernel_norm(getattr(layer, name)))
    llama.model.norm = _kernel_norm(llama.model.norm)
    return llama


def _kernel_norm(norm: LlamaRMSNorm) -> RMSNorm:
    return RMSNorm(norm.weight, norm.variance_epsilon)
