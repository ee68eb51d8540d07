"""Count n-gram models: the yardsticks that any language model should beat.

The smoothing is interpolated Kneser-Ney with one discount for each order (Kneser and Ney 1995; Chen and Goodman 1999).
For an id w after the ids h, of which h' lacks the first,

    p(w | h) = (max(c(h w) - D, 0) + D t(h) p(w | h')) / c(h),    and p(w | h) = p(w | h') where c(h) = 0.

At the model's own order c(h w) counts occurrences; at each lower order it counts the distinct ids that come before h w.
c(h) is the sum of c(h w) over w, and t(h) counts the distinct w with c(h w) > 0. D = n1 / (n1 + 2 n2), where n1 and n2
n-grams of the order have c = 1 and c = 2; where none has c = 1, as with the ids of a small vocabulary, D = 1/2.
Below the unigrams p is uniform over the V ids of the vocabulary, so every id has a probability: in a unigram model, an
unseen id has D t / (c V), with t distinct ids among c tokens.

No n-gram crosses into the document before it: what comes before an end-of-text id counts as end-of-text ids.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ..config.settings import Diet
from ..data.tokens import IdArray, open_tokens, row_count, row_order
from ..errors import UserError
from ..storage.contracts import read_manifest

NAMES = ("unigram", "bigram", "trigram")
MOST_COUNTED = 50_000_000  # tokens: a cell that reads more is measured by the first of them, which the table says


@dataclass(frozen=True)
class Counts:
    """The n-grams of one order. Their ids are packed in a number in base V, whose last digit is the predicted id."""

    grams: IdArray  # the distinct n-grams in order: int64 [types]
    before: IdArray  # the summed counts of the n-grams before each, and of all: int64 [types + 1]
    discount: float

    def between(self, first: IdArray, end: IdArray) -> tuple[IdArray, IdArray]:
        """Return the summed counts and the number of the n-grams g with ``first`` <= g < ``end``."""
        low, high = np.searchsorted(self.grams, first), np.searchsorted(self.grams, end)
        return self.before[high] - self.before[low], high - low


@dataclass(frozen=True)
class NGramModel:
    """A model that :func:`count` made; ``orders`` are the counts of its unigrams, bigrams and so on."""

    orders: list[Counts]
    vocab_size: int
    end_of_text: int


def count(ids: IdArray, order: int, vocab_size: int, end_of_text: int) -> NGramModel:
    """Count the n-grams of ``ids`` [tokens], documents with ``end_of_text`` after each, and smooth as the module says.

    Raises :class:`UserError` if an id is not below ``vocab_size``, or if ``order`` such ids do not fit in 63 bits.
    """
    if vocab_size**order >= 2**63:
        raise UserError(
            f"model.vocab_size {vocab_size} is too large to count n-grams of {order} ids; lower it below"
            f" {round(2 ** (63 / order))}"
        )
    orders = [_counts(_packed(ids, order, vocab_size, end_of_text))]
    for lower in range(order - 1, 0, -1):
        orders.insert(0, _counts(orders[0].grams % vocab_size**lower))
    return NGramModel(orders, vocab_size, end_of_text)


def token_losses(model: NGramModel, documents: Sequence[IdArray]) -> list[IdArray]:
    """Return the negative log-likelihood in nats of each id but the first of each document: float64 [ids - 1].

    A document begins with the end-of-text id. Raises :class:`UserError` if an id is not below the vocabulary's size.
    """
    size, stream = model.vocab_size, np.concatenate(documents)
    keys = _packed(stream, len(model.orders), size, model.end_of_text)
    probability = np.full(len(stream), 1 / size)
    for order, counts in enumerate(model.orders, 1):
        gram = keys % size**order
        context = gram - gram % size
        own, _ = counts.between(gram, gram + 1)
        total, types = counts.between(context, context + size)
        mass = np.maximum(own - counts.discount, 0) + counts.discount * types * probability
        probability = np.where(total > 0, mass / np.maximum(total, 1), probability)
    ends = np.cumsum([len(document) for document in documents])[:-1]
    return [losses[1:] for losses in np.split(-np.log(probability), ends)]


def _packed(ids: IdArray, order: int, vocab_size: int, end_of_text: int) -> IdArray:
    """Pack each id with the ``order`` - 1 ids before it: int64 [tokens]."""
    if len(ids) and int(np.max(ids)) >= vocab_size:
        raise UserError(f"id {np.max(ids)} is not below model.vocab_size {vocab_size}; raise it, and run again")
    packed, earlier = ids.astype(np.int64), np.roll(ids, 1)
    earlier[:1] = end_of_text
    for place in range(1, order):
        packed += earlier * np.int64(vocab_size**place)
        earlier = np.where(earlier == end_of_text, earlier, np.roll(earlier, 1))
    return packed


def _counts(grams: IdArray) -> Counts:
    """Count ``grams`` [occurrences], or, at a lower order, [n-grams one longer]."""
    ordered = np.sort(grams)
    starts = np.flatnonzero(np.diff(ordered, prepend=-1))
    before = np.append(starts, len(ordered))
    once, twice = (int(np.count_nonzero(np.diff(before) == times)) for times in (1, 2))
    return Counts(ordered[starts], before, once / (once + 2 * twice) if once else 0.5)


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
