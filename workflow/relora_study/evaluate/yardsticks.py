"""The losses of counted n-gram models on held-out documents: what a model of a study should at least reach."""

from pathlib import Path

import numpy as np
import pandas as pd

from ..config.settings import Diet
from ..data.tokens import IdArray, open_tokens, row_count, row_order
from ..storage.contracts import read_manifest
from .ngrams import count, token_losses

NAMES = ("unigram", "bigram", "trigram")
MOST_COUNTED = 50_000_000  # tokens: a cell that reads more is measured by the first of them, which the table says


def counted_losses(tokens: Path, diet: Diet, context_length: int, documents: list[IdArray]) -> pd.DataFrame:
    """The losses (nats a token) on ``documents`` of n-grams counted on the text of ``diet``, a row an order.

    Columns: seed, sequences, tokens counted, yardstick, loss. A text that training repeats is counted once. Rows that
    do not follow each other in the corpus are joined, so that one n-gram in a row's length is of no text.
    """
    manifest, ids = read_manifest(tokens), read_rows(tokens, diet, context_length)
    rows = []
    for order, name in enumerate(NAMES, 1):
        model = count(ids, order, manifest.vocab_size, manifest.end_of_text_id)
        loss = float(np.concatenate(token_losses(model, documents)).mean())
        named = {"seed": diet.seed, "sequences": diet.sequences, "tokens": len(ids)}
        rows.append(named | {"yardstick": name, "loss": loss})
    return pd.DataFrame(rows)


def read_rows(tokens: Path, diet: Diet, context_length: int) -> IdArray:
    """The ids that a cell of ``diet`` reads, in the corpus's order and each row once, at most ``MOST_COUNTED``."""
    ids = open_tokens(tokens, "train")
    length, rows = context_length + 1, row_count(ids, context_length)
    most = min(diet.sequences, MOST_COUNTED // length)
    if diet.seed is None:
        return np.asarray(ids[: min(most, rows) * length])
    row_at = row_order(diet.seed, rows)
    chosen = np.unique([row_at(place) for place in range(most)])
    read: IdArray = ids[: rows * length].reshape(rows, length)[chosen].ravel()
    return read
