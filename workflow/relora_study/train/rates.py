"""Groups of parameters that have learning rates of their own: `rate_ratios` of a method."""

from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from ..config import Method
from ..model.relora import adapters, factorized, targeted

RATE_RATIO = "rate_ratio"  # in an optimizer's group: its rate over the schedule's


def rate_group(ratio: float | None, parameters: list[Tensor]) -> dict[str, Any]:
    """Return an optimizer's group of ``parameters``, whose rate is ``ratio`` (None: 1) times the schedule's."""
    return {"params": parameters, RATE_RATIO: ratio or 1.0}


def by_rate(model: PreTrainedModel, method: Method, without: list[Tensor]) -> list[dict[str, Any]]:
    """Return the parameters that train, but those of ``without``, as an optimizer's groups: one for each ratio."""
    ratio_of = {
        id(parameter): getattr(method.rate_ratios, name)
        for name, parameters in named_groups(model, method).items()
        for parameter in parameters
    }
    left_out = {id(parameter) for parameter in without}
    groups: dict[float, list[Tensor]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad and id(parameter) not in left_out:
            groups.setdefault(ratio_of.get(id(parameter)) or 1.0, []).append(parameter)
    return [rate_group(ratio, parameters) for ratio, parameters in groups.items()]


def named_groups(model: PreTrainedModel, method: Method) -> dict[str, list[Tensor]]:
    """Return the parameters that each key of `rate_ratios` means, as the model is now; frozen ones are among them.

    Projections that ``method`` does not target are in no group.
    """
    low_rank = adapters(model) | factorized(model)
    return {
        "embedding": list(model.get_input_embeddings().parameters()),
        "head": list(model.get_output_embeddings().parameters()),
        "norms": [parameter for parameter in model.parameters() if parameter.ndim == 1],  # and all biases
        "targets": [layer.weight for layer in targeted(model, method).values()],
        "adapters": [
            parameter for layer in low_rank.values() for parameter in layer.parameters() if parameter.ndim != 1
        ],
    }
