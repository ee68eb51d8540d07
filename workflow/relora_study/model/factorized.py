"""Factorized layers: the product W = B A of two narrow matrices trains from the start, and there is no frozen weight.

Kamalakara et al. 2022 (arXiv 2209.13569) train language models so, from a spectral initialization among others. Ours is
spectral, as Khodak et al. 2021 (arXiv 2105.01029) define it. The weight that full rank begins with is drawn, and its
singular value decomposition U S V^T is cut after the largest ``rank`` values. Then B = U S^(1/2) and A = S^(1/2) V^T:
B A is the closest matrix of this rank, and both factors are of equal size.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


class FactorizedLinear(nn.Module):
    """The layer ``B A x``, with A [rank, in] and B [out, rank], which both train; a bias [out] stays."""

    def __init__(self, weight: Tensor, rank: int, bias: Tensor | None = None) -> None:
        """Begin with the closest product of ``rank`` to ``weight`` [out, in]."""
        super().__init__()
        self.bias = bias
        left, sizes, right = torch.linalg.svd(weight.detach(), full_matrices=False)
        roots = sizes[:rank].sqrt()
        self.A = nn.Parameter((roots[:, None] * right[:rank]).contiguous())
        self.B = nn.Parameter((left[:, :rank] * roots).contiguous())

    def forward(self, x: Tensor) -> Tensor:
        """Map ``x`` [..., in] to [..., out]."""
        return functional.linear(functional.linear(x, self.A), self.B, self.bias)

    @torch.no_grad()
    def effective_weight(self) -> Tensor:
        """Return the effective weight B A [out, in]."""
        return self.B @ self.A


def factorized(model: nn.Module) -> dict[str, FactorizedLinear]:
    """Return the factorized layers by name, in the model's order."""
    return {name: module for name, module in model.named_modules() if isinstance(module, FactorizedLinear)}
