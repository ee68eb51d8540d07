"""Updates of a pair of factors, A [rank, in] and B [out, rank], that heed their product: Spectron, LoRA-Muon and sMuon.

Each keeps one momentum M of each factor, a moving mean of its gradients. With polar(X) = U V^T for the singular value
decomposition X = U S V^T, the factors move against:

- ``spectron`` (Janson et al. 2026, arXiv 2602.12429, algorithms 1 and 3): polar(M) of each factor, where the rate is
  divided by |A| + |B| + 1. So B A moves by a spectral norm of at most the rate. The norms are estimates: one step of
  power iteration in each step of training.
- ``lora_muon`` (Cesista et al. 2026, arXiv 2606.12921, algorithm 1): half of what moves B A by polar(G Q) Q^T, with the
  gradient G of B A and an orthonormal basis Q of the rows of A, and half of the like for the columns of B. The step of
  B A does not depend on how A and B share it.
- ``smuon`` (Anson et al. 2026, arXiv 2608.14492, equations 11, 15, 23 and 34): what moves B A by the least-squares
  approximation of polar(H), where H is the part of G that a step of A and B can express.

The papers' product has no factor alpha / rank: where it is not 1, W moves that many times as far. docs/methods.md says
where definitions came from, and what they leave open.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.linalg import matrix_norm, vector_norm

from . import Matrix, MatrixOptimizer, State, generator

# Coefficients of Polar Express (Amsel et al. 2025, arXiv 2505.16932), of which LoRA-Muon takes eight.
POLYNOMIALS = (
    *((7.2086, -15.5131, 9.0178), (3.9623, -2.5813, 0.4542), (3.9466, -2.5765, 0.4544), (3.8991, -2.5671, 0.4566)),
    *((3.7186, -2.5308, 0.4653), (3.1390, -2.3073, 0.4733), (2.1715, -1.5246, 0.3885), (1.8648, -1.2224, 0.3577)),
)
TINY = 1e-20  # added to norms that divide
ROOT_DAMPING = 1e-5  # of LoRA-Muon: added to a Gram matrix of norm 1 (appendix B.4)
DAMPING = 1e-4  # of sMuon: added to a Gram matrix, times its mean eigenvalue where that is above 1


class OfFactors(MatrixOptimizer):
    """An optimizer of pairs A and B with a momentum of each, ``momentum_buffer`` in its state."""

    def step_matrix(self, matrix: Matrix, place: int, group: dict[str, Any]) -> None:
        """Step A and B of ``matrix``."""
        (a, b), (of_a, of_b) = matrix, map(self._momentum, matrix)
        self.step_pair(a, b, of_a, of_b, place, group)

    def _momentum(self, factor: Tensor) -> Tensor:
        assert factor.grad is not None  # the caller looked
        momentum: Tensor = self.state[factor].setdefault("momentum_buffer", torch.zeros_like(factor))
        return momentum.lerp_(factor.grad, 1.0 - self.method.momentum)

    def step_pair(self, a: Tensor, b: Tensor, of_a: Tensor, of_b: Tensor, place: int, group: dict[str, Any]) -> None:
        """Step ``a`` and ``b`` by their momenta ``of_a`` and ``of_b``."""
        raise NotImplementedError


class Spectron(OfFactors):
    """Spectron, with the vectors of its power iterations, ``direction``, in the state."""

    def step_pair(self, a: Tensor, b: Tensor, of_a: Tensor, of_b: Tensor, place: int, group: dict[str, Any]) -> None:
        """Step each factor by its momentum's polar factor; weight decay is AdamW's, on each factor."""
        for factor in (a, b):
            factor.mul_(1.0 - group["lr"] * group["weight_decay"])
        norms = self._norm(a.mT, self.state[a], place, 0) + self._norm(b, self.state[b], place, 1)
        rate = group["lr"] / (norms + 1.0)
        for factor, momentum in ((a, of_a), (b, of_b)):
            factor.sub_(rate * polar(momentum))

    def _norm(self, tall: Tensor, state: State, *place: int) -> Tensor:
        """Estimate the spectral norm of ``tall`` [in or out, rank] by a step of power iteration, kept in ``state``."""
        if "direction" not in state:
            drawn = torch.randn(len(tall), generator=generator(self.seed, *place)).to(tall)
            state["direction"] = drawn / vector_norm(drawn)
        across = tall.mT @ state["direction"]
        along = tall @ across
        size = vector_norm(along)
        # A factor of zeros, such as B after a restart, leaves the direction as it is, because no other would come back.
        state["direction"] = torch.where(size > 0, along / (size + TINY), state["direction"])
        norm: Tensor = vector_norm(tall.mT @ state["direction"])
        return norm


class LoRAMuon(OfFactors):
    """LoRA-Muon, with its split weight decay."""

    def step_pair(self, a: Tensor, b: Tensor, of_a: Tensor, of_b: Tensor, place: int, group: dict[str, Any]) -> None:
        """Step both factors, each whitened by the Gram matrix of the other."""
        root_a, root_b = inverse_root(a @ a.mT), inverse_root(b.mT @ b)
        step_a, step_b = root_b @ polar(root_b @ of_a), polar(of_b @ root_a) @ root_a
        move(a, b, 0.5 * step_a, 0.5 * step_b, group)


class SMuon(OfFactors):
    """sMuon, whose momenta are carried over to the new factors."""

    def step_pair(self, a: Tensor, b: Tensor, of_a: Tensor, of_b: Tensor, place: int, group: dict[str, Any]) -> None:
        """Step both factors. Of the pair, A is the one that the least-squares step of the other never divides by.

        The paper's own first factor is zero at the start, as our B is after a restart; so this is its step of B A
        transposed.
        """
        inverse_a, inverse_b = damped_inverse(a @ a.mT), damped_inverse(b.mT @ b)

        def beside_a(rows: Tensor) -> Tensor:
            """Take from ``rows`` [any, in] their part in the row space of A."""
            return rows - rows @ a.mT @ inverse_a @ a

        # H [out, in] as a product of 2 rank columns and rows: no matrix of the weight's size is made.
        left, right = torch.cat([of_b @ inverse_a, b], dim=1), torch.cat([a, inverse_b @ beside_a(of_a)])
        basis, polar_rows = polar_of_product(left, right)
        scale = 0.2 * math.sqrt(b.shape[0] * a.shape[1] / a.shape[0])
        step_b = basis @ (polar_rows @ a.mT) @ inverse_a
        step_a = inverse_b @ (b.mT @ basis) @ beside_a(polar_rows)
        move(a, b, scale * step_a, scale * step_b, group)
        of_a.copy_(b.mT @ left @ right)
        of_b.copy_(left @ (right @ a.mT))


def move(a: Tensor, b: Tensor, step_a: Tensor, step_b: Tensor, group: dict[str, Any]) -> None:
    """Move both factors against their steps, and shrink each by the root of the decay, so that B A shrinks by it."""
    root = math.sqrt(1.0 - group["lr"] * group["weight_decay"])
    for factor, step in ((a, step_a), (b, step_b)):
        factor.mul_(root).sub_(step, alpha=group["lr"] / root)


def polar(matrix: Tensor) -> Tensor:
    """Return nearly U V^T for ``matrix`` = U S V^T, [m, n], by products alone; directions far below |S| stay short."""
    x: Tensor = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.mT
    x = x / (matrix_norm(x) + TINY)
    for first, third, fifth in POLYNOMIALS:
        gram = x @ x.mT
        x = first * x + (third * gram + fifth * gram @ gram) @ x
    return x if matrix.shape[0] <= matrix.shape[1] else x.mT


def polar_of_product(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Return Q [m, k] and R [k, n] of which Q R is `polar` of ``left`` [m, k] times ``right`` [k, n]."""
    columns, upper = torch.linalg.qr(left)
    rows, lower = torch.linalg.qr(right.mT)
    return columns, polar(upper @ lower.mT) @ rows.mT


def inverse_root(gram: Tensor) -> Tensor:
    """Return the inverse square root of ``gram`` [n, n], damped where it is small; zero for zero.

    Entries that are not finite count as 0: the decomposition would raise, and hide that the training diverged.
    """
    norm = matrix_norm(gram)
    damped = gram / (norm + TINY) + ROOT_DAMPING * torch.eye(len(gram), device=gram.device)
    sizes, directions = torch.linalg.eigh(torch.nan_to_num(damped, 0.0, 0.0, 0.0))
    root: Tensor = (directions * sizes.clamp(min=ROOT_DAMPING / 2).rsqrt()) @ directions.mT
    return root * torch.where(norm > 0, (norm + TINY).rsqrt(), 0.0)


def damped_inverse(gram: Tensor) -> Tensor:
    """Return the inverse of ``gram`` [n, n], damped where it is small."""
    damping = DAMPING * gram.diagonal().mean().clamp(min=1.0)
    # Unlike `inv`, `inv_ex` does not raise where numbers are not finite, which would hide that the training diverged.
    inverse: Tensor = torch.linalg.inv_ex(gram + damping * torch.eye(len(gram), device=gram.device)).inverse
    return inverse
