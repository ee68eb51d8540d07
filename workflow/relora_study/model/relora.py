"""ReLoRA's layer: a frozen weight with a low-rank adapter that is merged into it and started again.

Lialin et al. 2023 (arXiv 2307.05695), section 3; the adapter itself is LoRA (Hu et al. 2021, arXiv 2106.09685).
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from ..config import Method
from .matmul import Linear, linears, matmul, matmul_transposed

ADAPTER_KEYS = (".A", ".B", ".scale", ".master_A", ".master_B", ".unused_A")


def _keep_mask(x: Tensor, dropout: float) -> Tensor:
    """A boolean mask like ``x``, true with probability 1 - ``dropout`` to within 2^-16.

    One 64-bit draw serves four entries: on a CPU, the draws of `torch.nn.Dropout` cost a third of an adapted layer.
    """
    draws = torch.empty(-(-x.numel() // 4), dtype=torch.int64, device=x.device).random_(-(2**63), None)
    return (draws.view(torch.int16)[: x.numel()] >= round(dropout * 2**16) - 2**15).view(x.shape)


class _AdaptedLinear(torch.autograd.Function):
    """``x W^T + (x * keep) A^T C`` for x [n, in], frozen W [out, in], A [rank, in], C [rank, out].

    W gets no gradient, the wide product and the adapter's share one buffer, and each narrow product is written in
    the order of transposes that is fastest on a CPU (benchmarks/README.md).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, down: Tensor, up: Tensor, keep: Tensor | None) -> Tensor:
        """The output, [n, out]."""
        narrow = matmul(_thinned(x, keep), down.mT)
        ctx.save_for_backward(x, weight, down, up, narrow, keep)
        return matmul(narrow, up, plus=matmul(x, weight.mT))

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, Tensor, Tensor, None]:
        """The gradients of x, A and C."""
        (gradient,) = upstream
        x, weight, down, up, narrow, keep = ctx.saved_tensors
        narrow_gradient = matmul(gradient, up.mT)
        mask = None if keep is None else keep.to(x.dtype)
        x_gradient = matmul(gradient, weight, plus=_thinned(matmul(narrow_gradient, down), mask))
        down_gradient = matmul_transposed(narrow_gradient, _thinned(x, mask))
        return x_gradient, None, down_gradient, matmul_transposed(narrow, gradient), None


def _thinned(x: Tensor, keep: Tensor | None) -> Tensor:
    """``x`` where ``keep`` is true or 1, else 0; a product with numbers takes a sixth of one with booleans."""
    return x if keep is None else x * keep.to(x.dtype)


def _as_autocast(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """``tensors`` in autocast's type where it is on: it leaves alone what runs in place, as our products do."""
    kind = tensors[0].device.type
    if not torch.is_autocast_enabled(kind):
        return tensors
    return tuple(tensor.to(torch.get_autocast_dtype(kind)) for tensor in tensors)


class ReLoRALinear(nn.Module):
    """A linear map ``x W^T + scale * dropout(x) A^T B^T``; W is frozen, A [rank, in] and B [out, rank] train.

    ``weight`` keeps the name it had in the layer that this one replaces, so a base model's state fits.
    """

    master_A: Tensor  # only with `train.resets.MasterCopies`
    master_B: Tensor
    unused_A: Tensor  # only with `restart: orthogonal`

    def __init__(self, weight: Tensor, method: Method) -> None:
        """Take ``weight`` [out, in] over, frozen, and give it an adapter as ``method`` says."""
        super().__init__()
        out_features, in_features = weight.shape
        self.weight = nn.Parameter(weight.detach(), requires_grad=False)
        self.A = nn.Parameter(weight.new_zeros(method.rank, in_features))
        self.B = nn.Parameter(weight.new_zeros(out_features, method.rank))
        self.scale = nn.Parameter(weight.new_tensor(method.scale)) if method.trainable_scale else method.scale
        self.dropout = method.dropout
        self.scaled_merge = method.merge == "scaled"
        if method.adapter_initialization == "kaiming":
            self.restart()

    def forward(self, x: Tensor) -> Tensor:
        """Map ``x`` [..., in] to [..., out]."""
        dropout = self.dropout if self.training else 0.0
        keep = _keep_mask(x.flatten(0, -2), dropout) if dropout else None
        up = (self.B * (self.scale / (1.0 - dropout))).mT.contiguous()
        operands = _as_autocast((x.flatten(0, -2), self.weight, self.A, up))
        mapped = _AdaptedLinear.apply(*operands, keep)  # type: ignore[no-untyped-call]
        return mapped.view(*x.shape[:-1], -1)  # type: ignore[no-any-return]

    @torch.no_grad()
    def merge(self) -> None:
        """Add the adapter's product to W: times the scale, or without it, as the released trainer does."""
        self.weight.copy_(self.effective_weight() if self.scaled_merge else torch.addmm(self.weight, self.B, self.A))

    @torch.no_grad()
    def restart(self) -> None:
        """Draw A anew (kaiming-uniform, a = sqrt 5) and set B to zero, so that B A is zero and can learn."""
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))
        nn.init.zeros_(self.B)

    @torch.no_grad()
    def effective_weight(self) -> Tensor:
        """The weight [out, in] that the forward pass applies without dropout, W + scale B A."""
        return torch.addmm(self.weight, self.B * self.scale, self.A)


def add_adapters(model: nn.Module, method: Method) -> None:
    """Replace every linear layer that ``method.targets`` names; all else (embeddings, norms, head) trains whole.

    With ``method.adapters_only``, all else is frozen.
    """
    if method.adapters_only:
        model.requires_grad_(False)
    for name, linear in linears(model).items():
        if name.rpartition(".")[2] in method.targets:
            model.set_submodule(name, ReLoRALinear(linear.weight, method))


def adapters(model: nn.Module) -> dict[str, ReLoRALinear]:
    """The adapted layers by name, in the model's order; empty for a full-rank model."""
    return {name: module for name, module in model.named_modules() if isinstance(module, ReLoRALinear)}


def effective_state(model: nn.Module) -> dict[str, Tensor]:
    """The state of the plain model that computes what ``model`` computes in evaluation: adapters folded in."""
    state = {name: tensor for name, tensor in model.state_dict().items() if not name.endswith(ADAPTER_KEYS)}
    return state | {f"{name}.weight": layer.effective_weight() for name, layer in adapters(model).items()}


def remove_adapters(model: nn.Module) -> None:
    """Replace every adapted layer by a plain one with its effective weight; all of the model trains from here on."""
    for name, layer in adapters(model).items():
        model.set_submodule(name, Linear(nn.Parameter(layer.effective_weight())))
    model.requires_grad_(True)
