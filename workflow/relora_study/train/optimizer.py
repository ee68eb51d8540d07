"""Make the optimizer of a training: AdamW, and beside it the method's `update` for the matrices that it steps."""

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from ..config import Cell, Method
from ..config.updates import UPDATES
from ..model.build import first_model
from ..model.relora import adapters, add_adapters, factorized, targeted
from .rates import RATE_RATIO, by_rate
from .updates import Matrix


class SideBySide(torch.optim.Optimizer):
    """Several optimizers, of different parameters, as one with their groups and states."""

    def __init__(self, *optimizers: torch.optim.Optimizer) -> None:
        """Join ``optimizers``, which step in this order."""
        groups = [group for optimizer in optimizers for group in optimizer.param_groups]
        super().__init__(groups, {})
        self.param_groups, self._optimizers = groups, optimizers
        for optimizer in optimizers:
            optimizer.state = self.state

    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Step all parameters that have a gradient. There is no ``closure``."""
        for optimizer in self._optimizers:
            optimizer.step()


def make_optimizer(cell: Cell, model: PreTrainedModel) -> torch.optim.Optimizer:
    """Make AdamW for all parameters that train, with weight decay on each of them, as in the authors' code.

    With an ``update`` of the method, the matrices that it steps get it instead.
    """
    method, recipe = cell.method, cell.train.model_dump(include={"betas", "eps", "weight_decay"})
    recipe |= {"lr": cell.train.learning_rate, "betas": tuple(cell.train.betas)}
    matrices = updated_matrices(method, model)
    groups = by_rate(model, method, without=[part for matrix in matrices for part in matrix])
    optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, fused=True, **recipe)] if groups else []
    if matrices:
        optimizers.append(_maker(method.update)(matrices, method, recipe, cell.seed))
        ratios = method.rate_ratios
        for group in optimizers[-1].param_groups:
            group[RATE_RATIO] = (ratios.targets if len(matrices[0]) == 1 else ratios.adapters) or 1.0
    return optimizers[0] if len(optimizers) == 1 else SideBySide(*optimizers)


def updated_matrices(method: Method, model: nn.Module) -> list[Matrix]:
    """Return the matrices that the ``update`` of ``method`` steps in place of AdamW, as the model is now."""
    update = UPDATES[method.update]
    weights = targeted(model, method).values() if update.weights else ()
    layers = (adapters(model) | factorized(model)).values() if update.factors else ()
    return [*((layer.weight,) for layer in weights), *((layer.A, layer.B) for layer in layers)]


def count_optimizer_numbers(cell: Cell) -> int:
    """Count the numbers that the optimizer of ``cell`` keeps, while there are adapters if any; single ones left out."""
    method = cell.method
    with torch.device("meta"):
        model = first_model(cell)
        if method.rank:
            add_adapters(model, method)
    updated = {id(part) for matrix in updated_matrices(method, model) for part in matrix}
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    kept = UPDATES[method.update].numbers
    return sum(kept(tuple(p.shape), method) if id(p) in updated else 2 * p.numel() for p in trained)


def _maker(update: str) -> Callable[..., torch.optim.Optimizer]:
    """Return what makes the optimizer of ``update``."""
    maker = UPDATES[update].optimizer
    if isinstance(maker, str):
        module, _, name = maker.partition(":")
        maker = getattr(importlib.import_module(f"..updates.{module}", __name__), name)
    assert callable(maker)  # `updated_matrices` is empty for `plain`
    return maker
