"""The base model: transformers' Llama, in the shape and with the first weights that the configuration asks for."""

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from ..config import Model, Size
from . import attention
from .swiglu import SwiGLU


def llama_config(size: Size, model: Model) -> LlamaConfig:
    """The shape of a model as transformers describes it: untied embeddings, no biases, grouped-query attention."""
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
        attn_implementation=attention.NAME,
    )


def build_model(size: Size, model: Model, seed: int) -> LlamaForCausalLM:
    """A fresh model whose weights depend on ``seed`` alone; transformers' own but for attention and SwiGLU's memory.

    ``initialization: pytorch`` is what the paper's code does (Embedding N(0, 1), Linear kaiming-uniform with
    a = sqrt 5: PyTorch's ``reset_parameters``); ``normal`` is transformers' own N(0, 0.02).
    """
    torch.manual_seed(seed)
    llama = LlamaForCausalLM(llama_config(size, model))
    if model.initialization == "pytorch":
        for module in llama.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                module.reset_parameters()
    for layer in llama.model.layers:
        layer.mlp = SwiGLU(layer.mlp.gate_proj, layer.mlp.up_proj, layer.mlp.down_proj)
    return llama
