"""Find the adapters of any model: of PEFT, and of layers that hold two factors beside one weight."""

from collections.abc import Iterable
from numbers import Real
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ..errors import UserError

FACTOR_NAMES = (("lora_A", "lora_B"), ("lora_a", "lora_b"), ("A_lora", "B_lora"), ("A", "B"))
SCALE_NAMES = ("scaling", "scale", "s")
# What Guitaricet/relora and relora-pico call on the attribute above: a trained scale goes through tanh there.
SCALE_METHODS = ("_post_lora_scale", "_scale")


class Adapter(NamedTuple):
    """A layer that computes ``W x + s B A x``."""

    weight: Tensor  # the frozen W [out, in], or a view of it
    A: Tensor  # [rank, in]
    B: Tensor  # [out, rank]
    scale: float | Tensor  # s

    def number(self) -> float:
        """Return s, which may be a trained tensor."""
        return float(self.scale.detach() if isinstance(self.scale, Tensor) else self.scale)

    def product(self) -> Tensor:
        """Return s B A [out, in] in float64."""
        return self.number() * (self.B.double() @ self.A.double())

    def effective_weight(self) -> Tensor:
        """Return W + s B A [out, in] in float64."""
        return self.weight.double() + self.product()

    def copy(self) -> "Adapter":
        """Return copies on the CPU, each in its own precision."""
        weight, A, B = (tensor.detach().cpu().clone() for tensor in self[:3])
        return Adapter(weight, A, B, self.number())


def found_adapters(model: nn.Module) -> list[Adapter]:
    """Return the adapters of ``model`` in the order of its modules.

    Raises :class:`UserError` if there are none, or if a layer's weight or scale cannot be told.
    """
    found = [_adapter(name, module, *pair) for name, module in model.named_modules() if (pair := _factors(module))]
    if not found:
        names = " or ".join("/".join(pair) for pair in FACTOR_NAMES)
        raise UserError(f"the model has no layer with factors named {names}; give adapters()")
    return found


def checked_adapters(rows: Iterable[Any]) -> list[Adapter]:
    """Make adapters of a user's rows (W, A, B, scale), and check their shapes. Raises :class:`UserError`."""
    adapters = []
    for number, row in enumerate(rows):
        try:
            adapter = Adapter(*row)
            fits = adapter.weight.shape == (adapter.B.shape[0], adapter.A.shape[1])
        except (TypeError, AttributeError, IndexError) as error:
            raise UserError(f"adapters(): row {number} must be (W, A, B, scale): {error}") from error
        if not fits or adapter.A.shape[0] != adapter.B.shape[1]:
            shapes = ", ".join(str(list(tensor.shape)) for tensor in adapter[:3])
            raise UserError(
                f"adapters(): row {number} must have W [out, in], A [rank, in], B [out, rank], not {shapes}"
            )
        adapters.append(adapter)
    if not adapters:
        raise UserError("adapters() returned no rows (W, A, B, scale)")
    return adapters


def _factors(module: nn.Module) -> tuple[Tensor, Tensor] | None:
    """Return A and B if ``module`` holds a pair whose shapes go together."""
    for names in FACTOR_NAMES:
        A, B = (_entry(module, getattr(module, name, None)) for name in names)
        if A is not None and B is not None and A.ndim == B.ndim == 2 and A.shape[0] == B.shape[1]:
            return A, B
    return None


def _entry(module: nn.Module, value: Any) -> Any:
    """Return the tensor behind ``value``: a parameter, a layer's weight, or PEFT's active one among several."""
    if isinstance(value, (nn.ModuleDict, nn.ParameterDict, dict)):
        keys = list(value)
        active = [key for key in getattr(module, "active_adapters", keys) if key in keys]
        value = value[active[0]] if active else None
    return value if isinstance(value, Tensor) else getattr(value, "weight", None)


def _adapter(name: str, module: nn.Module, A: Tensor, B: Tensor) -> Adapter:
    """Complete A and B by the one weight of the right shape and by the scale.

    Some layers hold W as [in, out], and compute x W: Conv1D of transformers, which GPT-2 has, and what PEFT and loralib
    call ``fan_in_fan_out``. The adapter then has a view of it as [out, in].
    """
    shape, turned = (B.shape[0], A.shape[1]), bool(getattr(module, "fan_in_fan_out", isinstance(module, Conv1D)))
    fitting = (
        [one for one in tensors if one.shape == wanted and one is not A and one is not B]
        for wanted in ([shape[::-1]] if turned else [shape, shape[::-1]])
        for tensors in (module.parameters(), module.buffers())
    )
    weights = next((found for found in fitting if found), [])
    if len(weights) != 1:
        raise UserError(
            f"layer {name} has {len(weights)} weights of shape {list(shape)} beside its factors; give adapters()"
        )
    weight = weights[0].mT if turned or weights[0].shape != shape else weights[0]
    return Adapter(weight, A, B, _scale(name, module))


def _scale(name: str, module: nn.Module) -> float | Tensor:
    """Return s: a number or a tensor that ``module`` holds, or what its own method makes of it."""
    method = next((made for one in SCALE_METHODS if callable(made := getattr(module, one, None))), None)
    for value in [method()] if method else [getattr(module, attribute, None) for attribute in SCALE_NAMES]:
        number = _of_active(module, value) if isinstance(value, dict) else value
        if isinstance(number, Real) or (isinstance(number, Tensor) and number.numel() == 1):
            return number if isinstance(number, Tensor) else float(number)
    raise UserError(f"layer {name} has no number named {' or '.join(SCALE_NAMES)}, the factor of B A; give adapters()")


def _of_active(module: nn.Module, values: dict[str, Any]) -> Any:
    active = [key for key in getattr(module, "active_adapters", values) if key in values]
    return values[active[0]] if active else None


@torch.no_grad()
def zero(adapters: Iterable[Adapter]) -> list[Tensor]:
    """Set every B to zero, so that the model computes its function without adapters. Return the old ones."""
    kept = []
    for adapter in adapters:
        kept.append(adapter.B.detach().clone())
        adapter.B.zero_()
    return kept


@torch.no_grad()
def restore(adapters: Iterable[Adapter], kept: Iterable[Tensor]) -> None:
    """Undo :func:`zero`."""
    for adapter, old in zip(adapters, kept, strict=True):
        adapter.B.copy_(old)
