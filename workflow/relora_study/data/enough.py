"""Check that the packed corpus is large enough for a study, before anything trains."""

from ..config.settings import CorpusNeeds
from ..errors import UserError
from ..storage.token_manifest import Manifest


def check_enough(manifest: Manifest, needs: CorpusNeeds) -> str:
    """Return a warning if training repeats the data, else an empty text.

    Raises :class:`UserError` if fewer sequences are held out than the fixed batch needs, which would stop the readings
    after hours of training.
    """
    available = manifest.held_out.tokens // (needs.context_length + 1)
    if needs.held_out_sequences > available:
        raise UserError(
            f"dynamics.batch_sequences {needs.held_out_sequences} is more than the {available} sequences that are held"
            " out; lower it, or hold more text out (data.held_out_fraction)"
        )
    trained, stored = needs.train_sequences * needs.context_length, manifest.train.tokens
    if needs.train_sequences <= stored // (needs.context_length + 1):
        return ""
    return (
        f"warning: training reads {trained:,} tokens of a corpus of {stored:,}: it repeats {trained / stored:.1f} times"
    )
