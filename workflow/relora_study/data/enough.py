"""Whether the packed corpus is enough for a study: what it holds, against what training and the readings take."""

from ..errors import UserError
from .tokens import Manifest


def check_enough(manifest: Manifest, context_length: int, train_sequences: int, held_out_sequences: int) -> str:
    """A line on how often training repeats the data; empty where it reads none twice.

    Raises :class:`UserError` where fewer than ``held_out_sequences`` are held out, which readings would miss later.
    """
    available = manifest.held_out.tokens // (context_length + 1)
    if held_out_sequences > available:
        raise UserError(
            f"dynamics.batch_sequences {held_out_sequences} is more than the {available} sequences that are held out;"
            " lower it, or hold more text out (data.held_out_fraction)"
        )
    trained, there = train_sequences * context_length, manifest.train.tokens
    if train_sequences <= there // (context_length + 1):
        return ""
    return f"warning: {trained:,} tokens are trained of {there:,}: the data repeat {trained / there:.1f} times"
