"""Run three cycles of a training, and keep what the questions need."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from ..errors import UserError
from .adapters import SCALE_NAMES, Adapter, restore, zero
from .training import Training

CYCLES = 3
Moments = tuple[Tensor, Tensor]  # Adam's exp_avg and exp_avg_sq of one parameter


@dataclass
class State:
    """Copies of the adapters, and of Adam's moments by parameter: of all A and B, and of what else trains."""

    adapters: list[Adapter]
    factor_moments: dict[str, Moments]
    other_moments: dict[str, Moments]


@dataclass
class Step:
    """One optimizer step: its rate, how many adapters had a gradient, and the largest change of an entry of A or B."""

    rate: float
    live: int
    change: float


@dataclass
class Reset:
    """A reset after ``step`` finished steps: the states around it and after one more step, and the model's outputs."""

    step: int
    before: State
    after: State
    output_before: Tensor
    output_without_adapters: Tensor  # before the reset
    output_after: Tensor
    one_step_later: list[Adapter] = field(default_factory=list)

    def product_norm(self) -> float:
        """Return the Frobenius norm of s B A, over all layers, before the reset."""
        return norm([adapter.product() for adapter in self.before.adapters])


@dataclass
class Observation:
    """What three cycles showed."""

    layers: int
    betas: tuple[float, float] | None  # Adam's
    steps: list[Step] = field(default_factory=list)
    resets: list[Reset] = field(default_factory=list)
    drift: float = 0.0  # the largest change of an entry of a W between merges

    def judged(self) -> Reset | None:
        """Return the last reset that had an update to merge: a finite s B A that is not zero. None without one."""
        return next((one for one in reversed(self.resets) if 0.0 < one.product_norm() < math.inf), None)


def norm(tensors: list[Tensor]) -> float:
    """Return the Euclidean norm of all entries of ``tensors``."""
    return float(torch.stack([tensor.double().norm() for tensor in tensors]).norm())


def observe(training: Training) -> Observation:
    """Take three cycles of steps with a reset between two cycles. Raises :class:`UserError` for unusable code."""
    observation = Observation(len(training.adapters()), _betas(training))
    start = [adapter.copy() for adapter in training.adapters()]
    for cycle in range(CYCLES):
        for _ in range(training.period + (training.offset if cycle == 0 else 0)):
            observation.steps.append(_observed_step(training))
            if observation.resets and not observation.resets[-1].one_step_later:
                observation.resets[-1].one_step_later = [adapter.copy() for adapter in training.adapters()]
        end = [adapter.copy() for adapter in training.adapters()]
        observation.drift = max(observation.drift, _largest_change(start, end, ("weight",)))
        if cycle < CYCLES - 1:
            observation.resets.append(_observed_reset(training, len(observation.steps)))
            start = observation.resets[-1].after.adapters
    return observation


def _betas(training: Training) -> tuple[float, float] | None:
    betas = training.optimizer.param_groups[0].get("betas")
    return (float(betas[0]), float(betas[1])) if betas else None


def _observed_step(training: Training) -> Step:
    """Let the training take one step. Hooks see gradients even if the step clears them at its end."""
    adapters = training.adapters()
    live: set[int] = set()

    def note(number: int, gradient: Tensor) -> None:
        if gradient.count_nonzero():
            live.add(number)

    hooks = [
        factor.register_hook(partial(note, number))  # type: ignore[no-untyped-call]
        for number, adapter in enumerate(adapters)
        for factor in (adapter.A, adapter.B)
        if factor.requires_grad
    ]
    before = [adapter.copy() for adapter in adapters]
    rates = training.step()
    for hook in hooks:
        hook.remove()
    if len(rates) != 1:
        raise UserError(f"step() took {len(rates)} steps of the optimizer; it must take one")
    after = [adapter.copy() for adapter in training.adapters()]
    return Step(rates[0], len(live), _largest_change(before, after, ("A", "B")))


def _observed_reset(training: Training, step: int) -> Reset:
    """Let the training reset, and look at it from both sides."""
    before, output_before = _state(training), training.output()
    adapters = training.adapters()
    kept = zero(adapters)
    without = training.output()
    restore(adapters, kept)
    training.reset()
    after = _state(training)
    if len(after.adapters) != len(before.adapters):
        raise UserError(f"reset() left {len(after.adapters)} of {len(before.adapters)} adapters")
    return Reset(step, before, after, output_before, without, training.output())


def _largest_change(before: list[Adapter], after: list[Adapter], parts: tuple[str, ...]) -> float:
    """Return the largest absolute change of an entry; NaN counts as infinite."""
    changes = [
        (getattr(new, part).double() - getattr(old, part).double()).abs().max()
        for old, new in zip(before, after, strict=True)
        for part in parts
    ]
    return float(torch.stack(changes).nan_to_num(nan=math.inf).max())


def _state(training: Training) -> State:
    adapters = training.adapters()
    factors = {f"{part} of {number}": getattr(one, part) for number, one in enumerate(adapters) for part in "AB"}
    parts = (part for adapter in adapters for part in adapter if isinstance(part, Tensor))
    of_adapters = {part.data_ptr() for part in parts}  # W may be a view
    others = {
        name: parameter
        for name, parameter in training.model.named_parameters()
        if parameter.data_ptr() not in of_adapters and name.rpartition(".")[2] not in SCALE_NAMES
    }
    copies = [adapter.copy() for adapter in adapters]
    return State(copies, _moments(training.optimizer, factors), _moments(training.optimizer, others))


def _moments(optimizer: torch.optim.Optimizer, parameters: Mapping[str, Tensor]) -> dict[str, Moments]:
    """Return copies of Adam's two moments of the parameters that have both, by name."""
    found = {}
    for name, parameter in parameters.items():
        state = optimizer.state.get(parameter, {})
        first, second = state.get("exp_avg"), state.get("exp_avg_sq")
        if isinstance(first, Tensor) and isinstance(second, Tensor):
            found[name] = (first.detach().cpu().clone(), second.detach().cpu().clone())
    return found
