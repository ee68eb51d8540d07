"""Where a decoder of transformers keeps what this package uses: its layers, hidden states, head, and matrices by role.

Every module of the package that looks into a model does it through this one, so that an architecture is known here
alone.
"""

from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from .kernels.cross_entropy import head_cross_entropy


def layers(model: PreTrainedModel) -> nn.ModuleList:
    """Return the decoder's layers, first to last."""
    found: nn.ModuleList = model.base_model.layers
    return found


def hidden_states(model: PreTrainedModel, ids: Tensor, **positions: Any) -> Tensor:
    """Return what the head reads, [sequences, tokens, d_model], of ``ids`` [sequences, tokens].

    ``positions`` are `position_ids` and `attention_mask`, as transformers takes them; without them, a token follows the
    token before it and sees all earlier ones.
    """
    states: Tensor = model.base_model(input_ids=ids, use_cache=False, **positions).last_hidden_state
    return states


def head_weight(model: PreTrainedModel) -> nn.Parameter:
    """Return the weight of the output head, [vocabulary, d_model]."""
    weight: nn.Parameter = model.get_output_embeddings().weight
    return weight


def next_token_loss(model: PreTrainedModel, rows: Tensor, fused: bool = False) -> Tensor:
    """Compute the mean cross-entropy (nats a token) of ``rows``, int64 [sequences, tokens + 1].

    Each id predicts the next. ``fused`` has torch.compile join the softmax's passes.
    """
    return head_cross_entropy(hidden_states(model, rows[:, :-1]), head_weight(model), rows[:, 1:], fused)
