"""ReLoRA: each layer trains a low-rank adapter beside a frozen weight, merges it into the weight, and starts anew.

Lialin et al. 2023 (arXiv 2307.05695), section 3. The adapter is LoRA's (Hu et al. 2021, arXiv 2106.09685): a layer with
weight W computes ``W x + s B A x``, dropout aside; A [rank, in] and B [out, rank] train and W is frozen. A cycle ends
with a merge, which adds ``s B A`` to W: a change of rank ``rank`` at most. After k cycles, W has changed by a sum of k
such products, whose rank can reach ``k rank``. Cycles of low rank can therefore add up to a change of high rank.

A factorized layer trains the product W = B A of two narrow matrices from the start, and there is no frozen weight.
Kamalakara et al. 2022 (arXiv 2209.13569) train language models so, from a spectral initialization among others. Ours is
spectral, as Khodak et al. 2021 (arXiv 2105.01029) define it. The weight that full rank begins with is drawn, and its
singular value decomposition U S V^T is cut after the largest ``rank`` values. Then B = U S^(1/2) and A = S^(1/2) V^T:
B A is the closest matrix of this rank, and both factors are of equal size.

This module has the layers. `relora_study.config.schedule` says when a cycle ends. `relora_study.train.resets` does what
happens then: it merges, restarts, and clears the optimizer's moments.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..config import Method
from .kernels.adapted_linear import adapted_linear
from .kernels.linear import Linear, linears
from .kernels.swiglu import Gated

# Endings of the state-dict keys that a plain model does not have.
ADAPTER_KEYS = (".A", ".B", ".scale", ".master_A", ".master_B", ".unused_A")


class ReLoRALinear(nn.Module):
    """The layer ``W x + s B A dropout(x)``, with W [out, in] frozen, and A [rank, in] and B [out, rank] training.

    W is called ``weight``, as in the plain layer that this one replaces, so a base model's state loads into it. A
    ``bias`` [out] of that layer stays, and trains as norms do.
    """

    takes_gated = True  # `forward` accepts a `Gated` pair
    master_A: Tensor  # a buffer that only `train.resets.MasterCopies` adds
    master_B: Tensor
    unused_A: Tensor  # a buffer that only `restart: orthogonal` adds

    def __init__(self, weight: Tensor, method: Method, bias: Tensor | None = None) -> None:
        """Freeze ``weight`` [out, in], and add an adapter with the rank, scale and initialization of ``method``.

        ``adapter_initialization: zero`` leaves both A and B zero, as the released code does. ``frozen_dtype: bfloat16``
        rounds the weight here and at each merge.
        """
        super().__init__()
        self.bias = bias
        out_features, in_features = weight.shape
        self.frozen_dtype = method.frozen_dtype
        self.weight = nn.Parameter(as_frozen(weight.detach(), self.frozen_dtype), requires_grad=False)
        self.A = nn.Parameter(weight.new_zeros(method.rank, in_features))
        self.B = nn.Parameter(weight.new_zeros(out_features, method.rank))
        self.scale = nn.Parameter(weight.new_tensor(method.scale)) if method.trainable_scale else method.scale
        self.dropout = method.dropout
        self.scaled_merge = method.merge == "scaled"
        if method.adapter_initialization == "kaiming":
            self.restart()

    def forward(self, x: Tensor | Gated) -> Tensor:
        """Map ``x`` [..., in], a tensor or the two activations of a SwiGLU, to [..., out]."""
        dropout = self.dropout if self.training else 0.0
        mapped = adapted_linear(x, self.weight, self.A, self.B, self.scale, dropout)
        return mapped if self.bias is None else mapped + self.bias

    @torch.no_grad()
    def effective_weight(self) -> Tensor:
        """Return the effective weight W + s B A [out, in], which the forward pass applies without dropout."""
        return torch.addmm(self.weight, self.B * self.scale, self.A)

    @torch.no_grad()
    def merge(self) -> None:
        """End a cycle: add s B A to W. Without ``scaled_merge``, add B A, as the released trainer does."""
        merged = self.effective_weight() if self.scaled_merge else torch.addmm(self.weight, self.B, self.A)
        self.weight.copy_(as_frozen(merged, self.frozen_dtype))

    @torch.no_grad()
    def restart(self) -> None:
        """Begin a cycle: draw A kaiming-uniform with a = sqrt 5, and set B to zero.

        The product B A is then zero, so the layer computes W x until B has moved. A is drawn on the CPU, because a
        GPU's draws depend on its number of multiprocessors.
        """
        drawn = torch.empty_like(self.A, device="cpu")
        self.A.copy_(nn.init.kaiming_uniform_(drawn, a=math.sqrt(5)))
        nn.init.zeros_(self.B)

    @torch.no_grad()
    def narrow(self, rank: int) -> None:
        """Leave the first ``rank`` rows of A: the others, and their columns of B, are zero and get no gradient."""
        self.A[rank:] = 0.0
        self.B[:, rank:] = 0.0


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


def as_frozen(weight: Tensor, frozen_dtype: str) -> Tensor:
    """Return ``weight`` in its own type, with its entries rounded to bfloat16 if that is ``frozen_dtype``."""
    return weight.to(torch.bfloat16).to(weight.dtype) if frozen_dtype == "bfloat16" else weight


def add_adapters(model: nn.Module, method: Method) -> None:
    """Replace every linear layer that ``method.targets`` names by a :class:`ReLoRALinear`, in place.

    The other parameters (embeddings, norms, head) train as before, or are frozen with ``method.adapters_only``.
    """
    if method.adapters_only:
        model.requires_grad_(False)
    for name, linear in targeted(model, method).items():
        model.set_submodule(name, ReLoRALinear(linear.weight, method, linear.bias))


def factorize(model: nn.Module, method: Method) -> None:
    """Replace every linear layer that ``method.targets`` names by a :class:`FactorizedLinear`, in place."""
    assert method.factor_rank is not None
    for name, linear in targeted(model, method).items():
        model.set_submodule(name, FactorizedLinear(linear.weight, method.factor_rank, linear.bias))


def targeted(model: nn.Module, method: Method) -> dict[str, nn.Linear]:
    """Return the linear layers with whole weights that ``method.targets`` names, by name, in the model's order."""
    return {name: linear for name, linear in linears(model).items() if name.rpartition(".")[2] in method.targets}


def adapters(model: nn.Module) -> dict[str, ReLoRALinear]:
    """Return the adapted layers by name, in the model's order; empty for a full-rank model."""
    return {name: module for name, module in model.named_modules() if isinstance(module, ReLoRALinear)}


def factorized(model: nn.Module) -> dict[str, FactorizedLinear]:
    """Return the factorized layers by name, in the model's order."""
    return {name: module for name, module in model.named_modules() if isinstance(module, FactorizedLinear)}


def effective_state(model: nn.Module) -> dict[str, Tensor]:
    """Return the state dict of a plain model with the effective weights, which computes the function of ``model``."""
    state = {name: tensor for name, tensor in model.state_dict().items() if not name.endswith(ADAPTER_KEYS)}
    layers = adapters(model) | factorized(model)
    return state | {f"{name}.weight": layer.effective_weight() for name, layer in layers.items()}


def remove_adapters(model: nn.Module) -> None:
    """Replace every adapted layer by a plain layer with the effective weight, and let all parameters train."""
    for name, layer in adapters(model).items():
        model.set_submodule(name, Linear(nn.Parameter(layer.effective_weight()), layer.bias))
    model.requires_grad_(True)
