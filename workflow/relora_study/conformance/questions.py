"""The seven questions: what sound ReLoRA does (Lialin et al. 2023, arXiv 2307.05695, section 3), and what was seen.

Each function judges one :class:`Observation`. A question that the code gave no occasion to answer is "not tested".
"""

import math
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Literal

import torch
from torch import Tensor

from .observation import Moments, Observation, Reset, norm

LOST_SHARE = 0.01  # a merge that keeps the function differs by rounding alone
LARGE_ROUNDING = 0.1  # where rounding takes more of an update, this check cannot see a fault in the merge
RETURNED_SHARE = 0.5  # an undone restart brings nearly all entries back, an honest step hardly any
SAFETY = 3.0  # on the bound of Adam's step, for weight decay and bias correction

Verdict = Literal["sound", "fault", "not tested"]


@dataclass
class Finding:
    """The answer to one question. ``mend`` says what to change, and is empty without a fault."""

    question: str
    verdict: Verdict
    evidence: str
    mend: str = ""
    numbers: dict[str, float] = field(default_factory=dict)


def findings(observation: Observation) -> list[Finding]:
    """Answer all questions, in their order."""
    return [ask(observation) for ask in QUESTIONS]


def gradient(observation: Observation) -> Finding:
    """Ask 1: A = B = 0 is dead, because each factor's gradient is a product with the other."""
    question = "1. Do the adapters get a gradient at the first step of a cycle?"
    firsts = [0, *(reset.step for reset in observation.resets)]
    live = [observation.steps[first].live for first in firsts]
    dead = sum(step.live == 0 for step in observation.steps)
    evidence = (
        f"with a gradient: {', '.join(map(str, live))} of {observation.layers} adapters in the cycles' first steps; "
    )
    evidence += f"none has one in {dead} of {len(observation.steps)} steps"
    numbers = {"least_live_adapters": float(min(live)), "steps_without_gradient": float(dead)}
    if min(live) == observation.layers:
        return Finding(question, "sound", evidence, numbers=numbers)
    mend = "start, and start again, with A random and B zero, and with a scale that is not zero"
    return Finding(question, "fault", evidence, mend, numbers)


def kept_function(observation: Observation) -> Finding:
    """Ask 2: with a scaled merge and a restart to B A = 0, the model computes the same function after a reset."""
    question = "2. Does a merge keep the function?"
    reset = observation.judged()
    if reset is None:
        return Finding(question, "not tested", "B A was zero at every reset")
    differs, kept, rounding = _weight_shares(reset)
    output, noise = _output_shares(reset)
    evidence = f"W keeps {kept:.1%} of the update s B A; the output differs by {output:.1%} of what the adapters gave"
    numbers = {"kept_share": kept, "output_change": output, "rounding_share": rounding}
    if rounding > LARGE_ROUNDING:
        evidence += f"; rounding W to {reset.before.adapters[0].weight.dtype} takes {rounding:.0%}: train more steps"
        return Finding(question, "not tested", evidence, numbers=numbers)
    allowed = LOST_SHARE + 2 * rounding
    judgeable = noise < LARGE_ROUNDING
    if differs <= allowed and (output <= allowed + noise or not judgeable):
        return Finding(question, "sound", evidence, numbers=numbers)
    mend = "add s B A to W, with the forward pass's scale s, and set B to zero after it"
    return Finding(question, "fault", evidence, mend, numbers)


def _weight_shares(reset: Reset) -> tuple[float, float, float]:
    """Return shares of the update s B A: by how much W + s B A differs after the reset, what it keeps, and rounding."""
    pairs = list(zip(reset.before.adapters, reset.after.adapters, strict=True))
    size = reset.product_norm()
    changes = [new.effective_weight() - old.effective_weight() for old, new in pairs]
    along = sum(float((change * old.product()).sum()) for change, (old, _) in zip(changes, pairs, strict=True))
    exact = [old.effective_weight() for old, _ in pairs]
    rounded = [weight.to(old.weight.dtype).double() - weight for weight, (old, _) in zip(exact, pairs, strict=True)]
    kept = round(1.0 + along / size**2, 6) + 0.0  # no "-0.0 %"
    return norm(changes) / size, kept, norm(rounded) / size


def _output_shares(reset: Reset) -> tuple[float, float]:
    """Return the output's change in the reset, and its round-off, as shares of what the adapters contribute."""
    before, without, after = (
        output.double() for output in (reset.output_before, reset.output_without_adapters, reset.output_after)
    )
    contributed = float((before - without).norm())
    if contributed == 0.0:
        return 0.0, math.inf
    types = (reset.output_before.dtype, reset.before.adapters[0].weight.dtype)
    precision = max(torch.finfo(kind).eps for kind in types if kind.is_floating_point)
    return float((after - before).norm()) / contributed, 16 * precision * float(before.norm()) / contributed


def surviving_restart(observation: Observation) -> Finding:
    """Ask 3: an optimizer with float32 master copies writes the old A and B back one step after the restart."""
    question = "3. Does the restart survive the next step?"
    reset = observation.judged()
    if reset is None:
        return Finding(question, "not tested", "B A was zero at every reset")
    parts = {part: _returned_share(reset, part) for part in ("A", "B")}
    numbers = {f"returned_share_{part}": share for part, share in parts.items() if share is not None}
    same = [part for part, share in parts.items() if share is None]
    if same:
        mend = "draw A anew and set B to zero after the merge"
        return Finding(question, "fault", f"{' and '.join(same)} did not change in the reset", mend, numbers)
    shares = " and ".join(f"{share:.1%} of {part}'s entries" for part, share in parts.items())
    evidence = f"one step later, {shares} are back at their old values"
    if max(numbers.values()) <= RETURNED_SHARE:
        return Finding(question, "sound", evidence, numbers=numbers)
    mend = "write the new A and B into the optimizer's master copies, too"
    return Finding(question, "fault", evidence, mend, numbers)


def _returned_share(reset: Reset, part: str) -> float | None:
    """Return the share of entries of all A or B that go back to their old values; None if the reset changed none.

    An entry goes back if the step leaves it within half its change in the reset of the old value. An update that
    explodes passes most old values by.
    """
    old, new, later = (
        torch.cat([getattr(adapter, part).double().flatten() for adapter in adapters])
        for adapters in (reset.before.adapters, reset.after.adapters, reset.one_step_later)
    )
    changed = old != new
    if not changed.any():
        return None
    back: Tensor = (later - old).abs() < 0.5 * (new - old).abs()
    return float(back[changed].double().mean())


def moments_alike(observation: Observation) -> Finding:
    """Ask 4: where only the first moment survives a reset, Adam divides it by epsilon in the next step."""
    question = "4. Are both moments of A and B pruned alike?"
    reset = observation.judged()
    if reset is None or not reset.before.factor_moments:
        return Finding(
            question, "not tested", "the optimizer has no exp_avg and exp_avg_sq for A and B, or nothing moved"
        )
    numbers = _pruned(reset)
    evidence = f"zeroed: {numbers['first_zeroed']:.1%} of the first and {numbers['second_zeroed']:.1%} of the second"
    evidence += f"; only one survives in {numbers['one_alone']:.0f} of {numbers['entries']:.0f} entries"
    undone = surviving_restart(observation).verdict == "fault"
    before, after = _updates(observation, reset)
    if not undone:  # the step would bring the old A and B back, which is no update of Adam's
        numbers |= {"update_before": before, "update_after": after}
        evidence += f"; largest first update {after:.3g} x rate, before the reset {before:.3g} x rate"
    if numbers["first_zeroed"] + numbers["second_zeroed"] == 0.0:
        mend = "zero the moments of A and B: the old adapters' moments move the new ones"
        return Finding(question, "fault", evidence, mend, numbers)
    if numbers["one_alone"] == 0.0 and (undone or after <= largest_update(observation.betas)):
        return Finding(question, "sound", evidence, numbers=numbers)
    return Finding(question, "fault", evidence, "zero exp_avg and exp_avg_sq by one mask, or zero both whole", numbers)


def _pruned(reset: Reset) -> dict[str, float]:
    """Count, among the entries where both moments of a factor were alive, which the reset zeroed."""
    counts = torch.zeros(4, dtype=torch.float64)
    for name, (first, second) in reset.before.factor_moments.items():
        alive = (first != 0) & (second != 0)
        new = reset.after.factor_moments.get(name, (torch.zeros_like(first), torch.zeros_like(second)))
        gone = [alive & (moment == 0) for moment in new]
        counts += torch.stack([part.sum() for part in (alive, *gone, gone[0] ^ gone[1])])
    entries, first_gone, second_gone, alone = counts.tolist()
    shares = {"first_zeroed": first_gone / max(entries, 1.0), "second_zeroed": second_gone / max(entries, 1.0)}
    return {"entries": entries, **shares, "one_alone": alone}


def _updates(observation: Observation, reset: Reset) -> tuple[float, float]:
    """Return the largest change of an entry of A or B over the rate: last before the reset, and first after it.

    Steps at rate 0 move nothing and are passed over. Without another step it is NaN, which is within no bound.
    """
    before = [step.change / step.rate for step in observation.steps[: reset.step] if step.rate > 0.0]
    after = [step.change / step.rate for step in observation.steps[reset.step :] if step.rate > 0.0]
    return before[-1] if before else math.nan, after[0] if after else math.nan


def largest_update(betas: tuple[float, float] | None) -> float:
    """Bound the largest update of an entry, in rates, that Adam can make if both moments saw the same gradients.

    By Cauchy and Schwarz, a first moment is at most c times the root of the second, with
    c = (1 - beta1) / sqrt((1 - beta2) (1 - beta1^2 / beta2)). Moments that were zeroed alike keep to it.
    """
    if betas is None or betas[0] ** 2 >= betas[1] or betas[1] >= 1.0:
        return math.inf
    bound = (1 - betas[0]) / math.sqrt((1 - betas[1]) * (1 - betas[0] ** 2 / betas[1]))
    return SAFETY * max(1.0, bound)


def other_moments(observation: Observation) -> Finding:
    """Ask 5: norms, embeddings and heads go on training, so they keep their moments."""
    question = "5. Is only the adapters' state pruned?"
    reset = observation.resets[-1]
    others = {name: pair for name, pair in reset.before.other_moments.items() if any(map(torch.any, pair))}
    if not others:
        return Finding(question, "not tested", "nothing but adapters has moments")
    changed = [name for name, pair in others.items() if not _same(pair, reset.after.other_moments.get(name))]
    evidence = f"the reset changed the moments of {len(changed)} of {len(others)} other parameters"
    numbers = {"changed": float(len(changed)), "others": float(len(others))}
    if not changed:
        return Finding(question, "sound", evidence, numbers=numbers)
    mend = "prune the state of A and B alone"
    return Finding(question, "fault", f"{evidence}, {changed[0]} among them", mend, numbers)


def _same(old: Moments, new: Moments | None) -> bool:
    return new is not None and all(torch.equal(*pair) for pair in zip(old, new, strict=True))


def frozen_weights(observation: Observation) -> Finding:
    """Ask 6: W moves at a merge, and only there."""
    question = "6. Do frozen weights move at merges alone?"
    reset, drift = observation.judged(), observation.drift
    evidence, numbers = f"between merges W moves by {drift:.2g} at most", {"drift": drift}
    if drift != 0.0:
        mend = "set requires_grad of W to False, and leave W out of the optimizer"
        return Finding(question, "fault", evidence, mend, numbers)
    if reset is None:
        return Finding(question, "not tested", f"{evidence}; B A was zero at every reset", numbers=numbers)
    pairs = zip(reset.before.adapters, reset.after.adapters, strict=True)
    moved = norm([new.weight.double() - old.weight.double() for old, new in pairs]) / reset.product_norm()
    evidence, numbers = f"{evidence}, in a merge by {moved:.2f} times s B A", numbers | {"merged_share": moved}
    if moved > 0.0:
        return Finding(question, "sound", evidence, numbers=numbers)
    return Finding(question, "fault", evidence, "merge: add s B A to W in the reset", numbers)


def rate_restart(observation: Observation) -> Finding:
    """Ask 7: the rate falls where the reset is and climbs again, because Adam's first steps are too large."""
    question = "7. Does the rate restart where the reset does?"
    rates = [step.rate for step in observation.steps]
    if len(set(rates)) == 1:
        return Finding(question, "not tested", f"the rate is {rates[0]:.3g} in every step")
    restarts = rate_restarts(rates)
    if not restarts:
        mend = "let the rate fall to about 0 at each reset, and climb again"
        return Finding(question, "fault", "after the first steps the rate never falls and climbs again", mend)
    late = [nearest_restart(restarts, reset.step) for reset in observation.resets]
    numbers = {"largest_offset": float(max(map(abs, late)))}
    pairs = ", ".join(f"{by:+d} after step {reset.step}" for by, reset in zip(late, observation.resets, strict=True))
    evidence = f"steps from the rate's restart to the reset: {pairs}"
    if not any(late):
        return Finding(question, "sound", evidence, numbers=numbers)
    return Finding(question, "fault", evidence, "reset right before the first step at the low rate", numbers)


QUESTIONS = (
    gradient,
    kept_function,
    surviving_restart,
    moments_alike,
    other_moments,
    frozen_weights,
    rate_restart,
)


IDLE_SHARE = 1e-3  # of the highest rate: such steps move next to nothing, and some schedules restart there, not at 0


def rate_restarts(rates: list[float]) -> list[tuple[int, int]]:
    """Return each restart of the rate as the first and the last reset that fit it, in finished steps.

    A restart is a fall to a rate from which it climbs. A reset fits it just before the first low step. Idle steps move
    next to nothing, so a reset also fits between or just after them.
    """
    restarts = []
    for low in range(1, len(rates)):
        next_other = next((rate for rate in rates[low:] if rate != rates[low]), 0.0)
        if rates[low - 1] > rates[low] < next_other:
            idle = takewhile(lambda rate: rate <= IDLE_SHARE * max(rates), rates[low:])
            restarts.append((low, low + len(list(idle))))
    return restarts


def nearest_restart(restarts: list[tuple[int, int]], step: int) -> int:
    """Return how many steps a reset after ``step`` steps comes after (or, below 0, before) the nearest restart."""
    distances = [step - min(max(step, first), last) for first, last in restarts]
    return min(distances, key=abs)
