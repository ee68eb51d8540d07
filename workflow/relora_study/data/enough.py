"""Whether the packed corpus is enough for a study: what it holds, against what training and the readings take."""

from ..errors import UserError
from ..settings import CorpusNeeds
from .tokens import Manifest


def check_enough(manifest: Manifest, needs: CorpusNeeds) -> str:
    """A line on how often training repeats the data; empty where it reads none twice.

    Raises :class:`UserError` where fewer sequences are held out than the study reads, which readings would miss later.
    """
    available = manifest.held_out.tokens // (needs.context_length + 1)
    if needs.held_out_sequences > available:
        raise UserError(
            f"dynamics.batch_sequences {needs.held_out_sequences} is more than the {available} sequences that are held"
            " out; lower it, or hold more text out (data.held_out_fraction)"
        )
    trained, there = needs.train_sequences * needs.context_length, manifest.train.tokens
    if needs.train_sequences <= there // (needs.context_length + 1):
        return ""
    return f"warning: {trained:,} tokens are trained of {there:,}: the data repeat {trained / there:.1f} times"
