"""Optimizers of matrices, which `relora_study.config.updates` lists: each steps whole weights, or pairs of A and B."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ...config import Method

Matrix = tuple[Tensor, ...]  # a weight [out, in] alone, or A [rank, in] and B [out, rank] of the product B A
Recipe = dict[str, Any]  # AdamW's arguments: lr, betas, eps and weight_decay
State = dict[str, Tensor]


class MatrixOptimizer(torch.optim.Optimizer):
    """An optimizer that steps one matrix after another, and keeps all that a step needs in ``state``, as tensors."""

    def __init__(self, matrices: Sequence[Matrix], method: Method, recipe: Recipe, seed: int) -> None:
        """Step ``matrices`` with the ``recipe`` and the switches of ``method``; random draws depend on ``seed``."""
        super().__init__([part for matrix in matrices for part in matrix], recipe)
        self.matrices, self.method, self.seed = matrices, method, seed

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Step each matrix that has gradients. There is no ``closure``."""
        for place, matrix in enumerate(self.matrices):
            if all(part.grad is not None for part in matrix):
                self.step_matrix(matrix, place, self.param_groups[0])

    def step_matrix(self, matrix: Matrix, place: int, group: dict[str, Any]) -> None:
        """Step ``matrix``, the one at ``place``, with the rate and the recipe of ``group``."""
        raise NotImplementedError
