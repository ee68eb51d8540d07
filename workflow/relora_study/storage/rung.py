"""What a candidate of a search left at a rung, `rung-N.json`: the training writes, the search reads."""

from .contracts import Contract


class Rung(Contract):
    """What a candidate, trained with a seed, left at a rung.

    ``step`` is the rung's, or that of the divergence. ``loss`` is the mean over the validation ids in nats a token; it
    is None where the training diverged, and where the candidate was dropped at an earlier rung.
    """

    candidate: str
    seed: int
    step: int
    loss: float | None
    diverged: bool = False
    dropped: bool = False
