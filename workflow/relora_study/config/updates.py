"""The registry of updates: how an optimizer may step the matrices of the targets, which `update` of a method names.

An entry of `UPDATES` is all that the rest asks of an update: the schema's checks, the plan, the disk, the trainer, the
report and the claims. The optimizers themselves are in `relora_study.train.updates`, and are imported when a training
begins, because the configuration must be read without torch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol


class Projecting(Protocol):
    """What an update reads of a method to count what it keeps."""

    @property
    def projection_rank(self) -> int | None:
        """Rank of the projection."""


Numbers = Callable[[tuple[int, ...], Projecting], int]


@dataclass(frozen=True)
class Update:
    """What an update of matrices is.

    ``numbers`` counts what it keeps of a parameter of a shape, single numbers left out. ``optimizer`` makes the torch
    optimizer of the matrices, or is the place of such a function below `relora_study.train.updates`; its arguments are
    the matrices (tuples: a weight alone, or an adapter's or a product's A and B), the method, the recipe (AdamW's
    arguments) and the seed. ``keys`` are those of the method that it alone reads.
    """

    numbers: Numbers
    optimizer: Callable[..., Any] | str | None = None
    weights: bool = False  # whether it steps whole weights
    factors: bool = False  # whether it steps A and B, of adapters or of factorized layers
    low_rank: bool = False  # whether the step of a whole weight is of low rank, or is computed from a low-rank state
    keys: frozenset[str] = frozenset()


def _two_moments(shape: tuple[int, ...], method: Projecting) -> int:
    return 2 * shape[0] * shape[1]


def _projected(shape: tuple[int, ...], method: Projecting) -> int:
    """Two moments of the projected gradient, and the projection."""
    return (method.projection_rank or 0) * (2 * max(shape) + min(shape))


PROJECTION = frozenset({"projection_rank", "projection_period", "projection_scale"})


def _momentum(shape: tuple[int, ...], method: Projecting) -> int:
    return shape[0] * shape[1]


def _momentum_and_vector(shape: tuple[int, ...], method: Projecting) -> int:
    """A momentum, and the vector of a power iteration."""
    return shape[0] * shape[1] + max(shape)


MOMENTUM = frozenset({"momentum"})

UPDATES = {
    "plain": Update(_two_moments),
    "galore": Update(_projected, "projected:Projected", weights=True, low_rank=True, keys=PROJECTION),
    "fira": Update(_projected, "projected:Projected", weights=True, low_rank=True, keys=PROJECTION),
    "apollo": Update(
        _projected, "projected:Projected", weights=True, low_rank=True, keys=PROJECTION | {"projection_scaling"}
    ),
    "muon": Update(_momentum, "muon:muon", weights=True, factors=True, keys=MOMENTUM),
    "spectron": Update(_momentum_and_vector, "factors:Spectron", factors=True, keys=MOMENTUM),
    "lora_muon": Update(_momentum, "factors:LoRAMuon", factors=True, keys=MOMENTUM),
    "smuon": Update(_momentum, "factors:SMuon", factors=True, keys=MOMENTUM),
}


def keys_of_updates() -> frozenset[str]:
    """Return the keys of a method that only some update reads."""
    return frozenset().union(*(update.keys for update in UPDATES.values()))


def known_update(name: str) -> str:
    """Return ``name``. Raises :class:`ValueError` if no update has it."""
    if name not in UPDATES:
        raise ValueError(f"must be one of {', '.join(UPDATES)}")
    return name
