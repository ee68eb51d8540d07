"""The audit: measures that can show each difference between the described method and the released code.

A measure has a key, by which sentences find it, a label for readers, a function that reads its value from the evidence,
and verdicts. The first verdict that holds is the outcome.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from . import evidence as read
from .adapter_pattern import nearest_size
from .evidence import FORMATS, Evidence, Reading
from .published import Published
from .results import Runs

COLUMNS = ["finding", "cell", "measure", "value", "published", "verdict"]
PUBLISHED_COLUMNS = ["finding", "size", "measure", "value", "verdict"]

FLAT = 0.01  # a first cycle that moves less than this share of the second looks flat
LOST = 1e-6  # share of an update: rounding in float32 loses less
LARGE_JUMP = 0.01  # nats a token: a smaller change of the loss at a merge is no jump
RESTARTED = 0.5  # of the norm before: adapters that start again have little of it, adapters that go on have all
NEAR_FIRST = 0.5  # relative distance within which a first share is as low as the published share
GROWTH = 1.5  # fold, from the first cycle to the last: noise between cycles stays below it
ALIKE = 0.5  # correlation over cycles above which one shape follows another
NEAR_LEVEL = 0.1  # of the ceiling: root mean square distance within which two levels are near
SAME_READING = 0.1  # relative difference within which two readings agree
ABOVE = 1.001  # share of the ceiling: 1, and an allowance for the rounding of the spectrum
NOISE = 100  # fold: a condition number that changes more between two precisions is round-off
OVER_EPSILON = 10  # fold: bias correction alone gives about 3, a moment divided by epsilon far more
MOST = 0.5  # share of the later resets: without spikes, noise passes its bound at one of all resets in 5 % of cases
ON_CEILING = 0.95  # of the ceiling: a level spectrum gives 1, minus rounding
NEAR_RANDOM = 0.05  # relative distance from the PER of a random product
FAR = 1000  # fold: larger ratios are written without decimals


@dataclass(frozen=True)
class Verdict:
    """An outcome: its key, its words (with ``{value}`` and ``{beside}`` to fill in), and when it holds."""

    key: str
    words: str
    holds: Callable[[Reading], bool] = lambda reading: True


@dataclass(frozen=True)
class Measure:
    """One row of the audit; ``published`` gives the value of the published model, where there is one."""

    key: str
    finding: str
    label: str
    read: Callable[[Evidence], Reading]
    verdicts: tuple[Verdict, ...]
    published: Callable[[Evidence], float] = lambda evidence: np.nan

    def verdict(self, reading: Reading) -> Verdict:
        """The first verdict that holds of ``reading``; "missing" where it has no value."""
        if np.isnan(reading.value):
            return Verdict("missing", "not measured")
        return next(verdict for verdict in self.verdicts if verdict.holds(reading))

    def row(self, evidence: Evidence) -> dict[str, Any]:
        """The row of one model."""
        reading = self.read(evidence)
        verdict = self.verdict(reading)
        return {
            "key": self.key,
            "outcome": verdict.key,
            "finding": self.finding,
            "measure": self.label,
            "value": reading.value,
            "published": self.published(evidence),
            "verdict": verdict.words.format(value=reading.value, beside=reading.beside),
        }


def _flat_where_published(evidence: Evidence) -> float:
    return read.flat_start(read.evidence_of_published()[nearest_size(evidence.cell)]).value


def _published(column: str) -> Callable[[Evidence], float]:
    """A function that gives the published value of a column of the adapters' pattern."""
    return lambda evidence: float(evidence.pattern[f"published_{column}"])


def _beyond_noise(reading: Reading) -> bool:
    """Whether the value passes the noise beside it."""
    return reading.value > reading.beside


ONE_RESET = Verdict("one_reset", "one reset shows no noise to compare with", lambda r: bool(np.isnan(r.beside)))
DEAD, MERGE, RESTART = "dead first cycle", "unscaled merge", "undone restart"
FLAT_START = "change of PER of W2 in cycle 1, over the change in cycle 2"

OF_RUNS = (
    Measure(
        "first_gradient",
        DEAD,
        "largest gradient norm of the adapters before the first reset",
        read.first_gradient,
        (
            Verdict("dead", "zero, so the adapters are dead until then", lambda r: r.value == 0),
            Verdict("alive", "above zero"),
        ),
    ),
    Measure(
        "flat_start",
        DEAD,
        FLAT_START,
        read.flat_start,
        (
            Verdict("flat", "flat, like the published curve", lambda r: r.value < FLAT),
            Verdict("moves", "moves, unlike the published curve"),
        ),
        published=_flat_where_published,
    ),
    Measure(
        "update_lost",
        MERGE,
        "median share of the update that a merge drops",
        read.merge_reading("update_lost"),
        (
            Verdict("kept", "nothing is lost", lambda r: r.value < LOST),
            Verdict("lost", "{value:.0%} of each update is lost"),
        ),
    ),
    Measure(
        "loss_jump",
        MERGE,
        "median jump of the loss on the fixed batch at a merge (nats/token)",
        read.merge_reading("loss_jump"),
        (
            Verdict("jumps", f"the loss jumps by more than {LARGE_JUMP}", lambda r: r.value > LARGE_JUMP),
            Verdict("falls", f"the loss falls by more than {LARGE_JUMP}", lambda r: r.value < -LARGE_JUMP),
            Verdict("level", "no jump"),
        ),
    ),
    Measure(
        "first_loss",
        MERGE,
        "jump of the training loss over full rank in the first step after resets: the merge alone (nats/token)",
        read.jump_after_resets(1, 1),
        (
            ONE_RESET,
            Verdict("jumps", "the merge raises the loss, beyond noise ({beside:.2g})", _beyond_noise),
            Verdict("level", "no rise beyond noise ({beside:.2g})"),
        ),
    ),
    Measure(
        "spike",
        MERGE,
        "jump of the training loss over full rank 2 to 4 steps after resets: the merge and Adam (nats/token)",
        read.jump_after_resets(2, 4),
        (
            ONE_RESET,
            Verdict("spikes", "spikes beyond noise ({beside:.2g}), like the published loss", _beyond_noise),
            Verdict("level", "no spike beyond noise ({beside:.2g}), unlike the published loss"),
        ),
    ),
    Measure(
        "norm_after_reset",
        RESTART,
        "norm of W2's B A shortly after resets, over the norm before",
        read.after_over_before("frobenius_norm"),
        (
            Verdict("restarted", "restarted", lambda r: r.value < RESTARTED),
            Verdict("carried_on", "carried on"),
        ),
    ),
    Measure(
        "first_share",
        RESTART,
        "PER of all adapters over its ceiling in the first cycle",
        read.pattern_reading("first"),
        (
            Verdict("near", "as low as the published share", lambda r: abs(r.value / r.beside - 1) < NEAR_FIRST),
            Verdict("other", "unlike the published share"),
        ),
        published=_published("first"),
    ),
    Measure(
        "growth",
        RESTART,
        "PER of V's adapters in the last cycle that both have, over PER in the first",
        read.pattern_reading("growth"),
        (
            Verdict("grows", "grows from cycle to cycle", lambda r: r.value > GROWTH),
            Verdict("level", "level"),
        ),
        published=_published("growth"),
    ),
    Measure(
        "correlation",
        RESTART,
        "correlation with the published PER over cycles",
        read.pattern_reading("correlation"),
        (
            Verdict("follows", "follows the published shape", lambda r: r.value > ALIKE),
            Verdict("other", "another shape"),
        ),
        published=lambda evidence: 1.0,
    ),
    Measure(
        "distance",
        RESTART,
        "root mean square distance from the published PER over its ceiling",
        read.pattern_reading("distance"),
        (
            Verdict("near", "near the published level", lambda r: r.value < NEAR_LEVEL),
            Verdict("other", "another level"),
        ),
        published=lambda evidence: 0.0,
    ),
    Measure(
        "reading_after_reset",
        "readings after resets",
        "PER of W2's B A shortly after resets, over PER before",
        read.after_over_before("per"),
        (
            Verdict("same", "as at the end of the cycle", lambda r: abs(r.value - 1) < SAME_READING),
            Verdict("other", "unlike the end of the cycle"),
        ),
    ),
    Measure(
        "largest_share",
        "rank ceiling",
        "largest PER of W2's B A, as a share of r / min(m, n)",
        read.largest_share,
        (
            Verdict("bounded", "bounded by r / min(m, n)", lambda r: r.value <= ABOVE),
            Verdict("above", "above the bound"),
        ),
    ),
    Measure(
        "round_off",
        "round-off",
        "condition number of W2's B A in float32, over the ratio of its r singular values",
        read.round_off,
        (
            Verdict("round_off", "the reading is round-off", lambda r: r.value > NOISE),
            Verdict("agree", "the readings agree"),
        ),
    ),
    Measure(
        "first_update",
        "Adam's state",
        "first update after resets, over the ten before, per unit of rate",
        read.first_update,
        (
            Verdict(
                "over_epsilon",
                "far larger, because Adam divides a moment that survives alone by epsilon",
                lambda r: r.value > OVER_EPSILON,
            ),
            Verdict("bias", "larger: Adam's bias correction treats new moments as old", lambda r: r.value > 1),
            Verdict("no_larger", "no larger than before"),
        ),
    ),
)


def _growing() -> Iterator[Measure]:
    """Measures: the published adapters' shares of their ceiling in the first and the last cycle."""
    verdicts = (
        Verdict("grows", "grows over cycles: an undone restart", lambda r: r.beside > GROWTH),
        Verdict("level", "level over cycles: restarted"),
    )
    for component, name in (("v", "V"), ("o", "O"), ("w2", "W2")):
        for which, cycle in (("first", 0), ("last", -1)):
            label = f"PER of {name}'s adapters over its ceiling, {which} cycle"
            reading = read.growing_share(component, cycle)
            yield Measure(f"{which}_share_{component}", RESTART, label, reading, verdicts)


def _random_products() -> Iterator[Measure]:
    """Measures: condition numbers that rounding alone gives, in each format."""
    verdicts = (
        Verdict("near", "{beside:#.4g} times away", lambda r: r.beside < FAR),
        Verdict("far", "{beside:,.0f} times away"),
    )
    for name in FORMATS:
        label = f"condition number of a random product of rank 16 in {name}"
        yield Measure(f"random_{name}", "round-off", label, read.random_condition_number(name), verdicts)


OF_PUBLISHED = (
    Measure(
        "flat_start",
        DEAD,
        FLAT_START,
        read.flat_start,
        (
            Verdict("flat", "flat until the first reset", lambda r: r.value < FLAT),
            Verdict("moves", "moves from the start"),
        ),
    ),
    Measure(
        "first_jump",
        MERGE,
        "largest loss in the 20 steps after the reset at 2,000, minus the mean before (nats/token)",
        read.first_jump,
        (
            Verdict("spikes", "a spike beyond noise ({beside:.2g})", _beyond_noise),
            Verdict(
                "level",
                "no spike beyond noise ({beside:.2g}): the adapters had learnt nothing, so neither the merge nor Adam's"
                " step moves the loss",
            ),
        ),
    ),
    Measure(
        "later_jump",
        MERGE,
        "smallest such jump at a later reset (nats/token)",
        read.later_jump,
        (
            Verdict("spikes", "beyond noise ({beside:.2g}), so every later reset has a spike", _beyond_noise),
            Verdict("level", "within noise ({beside:.2g}), so not every later reset shows a spike"),
        ),
    ),
    Measure(
        "later_spikes",
        MERGE,
        "share of later resets with a jump beyond noise",
        read.later_spikes,
        (
            Verdict("spikes", "spikes, from the merge or from Adam's first steps", lambda r: r.value > MOST),
            Verdict("few", "no spikes after most later resets"),
        ),
    ),
    *_growing(),
    Measure(
        "last_share",
        "rank ceiling",
        "PER of W2's B A over r / min(m, n), at step 20,000",
        read.last_share,
        (
            Verdict("ceiling", "on the ceiling of its rank", lambda r: r.value > ON_CEILING),
            Verdict("below", "below its ceiling"),
        ),
    ),
    Measure(
        "random_share",
        "rank ceiling",
        "PER over r / min(m, n) of a random product of rank 16 in bfloat16",
        read.random_share,
        (
            Verdict(
                "near",
                "as a level spectrum in bfloat16",
                lambda r: abs(r.beside / r.value - 1) < NEAR_RANDOM,
            ),
            Verdict("other", "not bfloat16's rounding of a level spectrum"),
        ),
    ),
    Measure(
        "condition_number",
        "round-off",
        "condition number of W2's B A at step 20,000",
        read.condition_number,
        (
            Verdict("bfloat16", "nearest to the round-off of bfloat16", lambda r: r.value < r.beside),
            Verdict("float32", "nearest to the round-off of float32"),
        ),
    ),
    *_random_products(),
)


def audit(source: Runs | Published) -> pd.DataFrame:
    """The audit of ``source``: a row for each measure of each model whose adapters are reset.

    Columns key, outcome, size, method, finding, measure, value, verdict; for our runs also cell and published.
    """
    if isinstance(source, Runs):
        return _table(read.evidence_of_runs(source), OF_RUNS, COLUMNS)
    return _table(read.evidence_of_published().values(), OF_PUBLISHED, PUBLISHED_COLUMNS)


def _table(models: Iterable[Evidence], measures: Iterable[Measure], columns: list[str]) -> pd.DataFrame:
    rows = [
        {"size": model.cell.size_name, "method": model.cell.method_name, "cell": model.row, **measure.row(model)}
        for model in models
        for measure in measures
    ]
    return pd.DataFrame(rows, columns=list(dict.fromkeys(["key", "outcome", "size", "method", *columns])))


def outcomes(audited: pd.DataFrame, key: str, outcome: str) -> pd.DataFrame:
    """The rows of one measure that have one outcome."""
    return audited[(audited.key == key) & (audited.outcome == outcome)]
