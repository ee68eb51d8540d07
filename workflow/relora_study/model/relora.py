"""ReLoRA: a frozen weight with a low-rank adapter, merged into the weight and started again, cycle after cycle.

Lialin et al. 2023 (arXiv 2307.05695), section 3. The adapter is LoRA's (Hu et al. 2021, arXiv 2106.09685): a layer with
weight W computes ``W x + s B A x``, where A [rank, in] and B [out, rank] train and W does not. One cycle moves W by
``s B A``, of rank ``rank`` at most. After k cycles, each merged before the next begins, W has moved by a sum of k such
products, whose rank can reach ``k rank``. Between the cycles, `train.resets` forgets the optimizer's moments.
"""

import math

import torch
from torch import Tensor, nn

from ..config import Method
from .kernels.adapted_linear import adapted_linear
from .kernels.linear import Linear, linears
from .kernels.swiglu import Gated

ADAPTER_KEYS = (".A", ".B", ".scale", ".master_A", ".master_B", ".unused_A")


class ReLoRALinear(nn.Module):
    """The layer ``W x + s B A dropout(x)``; W [out, in] is frozen, A [rank, in] and B [out, rank] train.

    ``weight`` keeps the name it had in the layer that this one replaces, so a base model's state fits.
    """

    takes_gated = True
    master_A: Tensor  # only with `train.resets.MasterCopies`
    master_B: Tensor
    unused_A: Tensor  # only with `restart: orthogonal`

    def __init__(self, weight: Tensor, method: Method) -> None:
        """Take ``weight`` [out, in] over, frozen, and give it an adapter as ``method`` says.

        Without ``kaiming``, A and B both stay zero, as in the released code.
        """
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

    def forward(self, x: Tensor | Gated) -> Tensor:
        """Map ``x`` [..., in], a tensor or a SwiGLU's two activations, to [..., out]."""
        dropout = self.dropout if self.training else 0.0
        return adapted_linear(x, self.weight, self.A, self.B, self.scale, dropout)

    @torch.no_grad()
    def effective_weight(self) -> Tensor:
        """The weight [out, in] that the forward pass applies without dropout, W + s B A."""
        return torch.addmm(self.weight, self.B * self.scale, self.A)

    @torch.no_grad()
    def merge(self) -> None:
        """End a cycle: W becomes W + s B A, or W + B A without ``scaled_merge``, as in the released trainer."""
        self.weight.copy_(self.effective_weight() if self.scaled_merge else torch.addmm(self.weight, self.B, self.A))

    @torch.no_grad()
    def restart(self) -> None:
        """Begin a cycle: A kaiming-uniform with a = sqrt 5, and B zero, so that B A is zero and can learn.

        A is drawn on the CPU: what a GPU draws depends on its number of processors.
        """
        drawn = torch.empty_like(self.A, device="cpu")
        self.A.copy_(nn.init.kaiming_uniform_(drawn, a=math.sqrt(5)))
        nn.init.zeros_(self.B)


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
