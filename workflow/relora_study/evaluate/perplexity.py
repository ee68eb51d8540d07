"""Measure perplexity by domain: per token and per text, as the paper publishes it, and bits per byte.

Bits per byte compare models with different tokenizers.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from tokenizers.decoders import ByteLevel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..model.scoring import summed_losses

OVERALL, MACRO_AVERAGE = "overall", "macro_average"  # rows of evaluation.csv: all texts, and the mean over domains
AVERAGED = ["token_perplexity", "mean_text_perplexity", "loss", "bits_per_byte"]


@dataclass(frozen=True)
class Texts:
    """The texts of a domain as ids, and the bytes that the scored ids of each text (all but the first) spell."""

    ids: list[list[int]]
    scored_bytes: list[int]


def take_texts(texts: pd.Series, tokenizer: PreTrainedTokenizerBase, max_tokens: int, domain_tokens: int) -> Texts:
    """Encode the texts of a domain in order, each cut to ``max_tokens``, until they have ``domain_tokens`` tokens.

    A text is a string or a list of ids. As in the authors' code, no start token is added. Texts of fewer than two
    tokens have nothing to score; they stay, so that they are counted as skipped.
    """
    ids: list[list[int]] = []
    taken = 0
    for text in texts:
        if taken >= domain_tokens:
            break
        ids.append(_ids_of(text, tokenizer)[:max_tokens])
        taken += len(ids[-1])
    return Texts(ids, [spelled_bytes(text_ids[1:], tokenizer) for text_ids in ids])


def _ids_of(text: object, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the ids of a text or of a list of ids; a missing text has none."""
    if isinstance(text, str):
        return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
    return [int(number) for number in text] if isinstance(text, Iterable) else []


def spelled_bytes(ids: list[int], tokenizer: PreTrainedTokenizerBase) -> int:
    """Count the bytes of UTF-8 that ``ids`` spell.

    A byte-level token has one character for each of its bytes, so its length counts them. Decoding could not: a cut can
    split a character, and decoding turns its part into a replacement character. Other tokenizers do not split
    characters, so their ids are decoded.
    """
    if isinstance(getattr(getattr(tokenizer, "backend_tokenizer", None), "decoder", None), ByteLevel):
        return sum(len(token) for token in tokenizer.convert_ids_to_tokens(ids))
    return len(tokenizer.decode(ids, clean_up_tokenization_spaces=False).encode())


def score_texts(model: PreTrainedModel, domains: dict[str, Texts], stride: int, batch_tokens: int) -> pd.DataFrame:
    """Score the texts of ``domains``; texts longer than the model's context are read in windows (model.scoring).

    The table has a row for each text: domain, text (its number in the domain), the scored tokens, the bytes that these
    spell, and their summed loss in nats, which is NaN for a text without scored tokens.
    """
    every = [ids for texts in domains.values() for ids in texts.ids]
    nats = iter(summed_losses(model, every, stride, batch_tokens))
    rows = []
    for name, texts in domains.items():
        for number, (ids, size) in enumerate(zip(texts.ids, texts.scored_bytes, strict=True)):
            rows.append((name, number, max(0, len(ids) - 1), size, next(nats)))
    return pd.DataFrame(rows, columns=["domain", "text", "tokens", "bytes", "nats"])


def perplexities(scored: pd.DataFrame) -> pd.DataFrame:
    """Summarise the table of :func:`score_texts` in a table of item, metric and value.

    Items are each domain, ``overall`` (all texts) and ``macro_average`` (the mean over domains). The metric ``skipped``
    counts texts without a token to score, and ``non_finite`` texts with an infinite or undefined loss. Such texts enter
    no other metric.
    """
    metrics = {str(name): _perplexity_metrics(group) for name, group in scored.groupby("domain", sort=False)}
    averages = pd.DataFrame(metrics).T[AVERAGED].mean()
    metrics |= {OVERALL: _perplexity_metrics(scored), MACRO_AVERAGE: averages.to_dict()}
    rows = [(item, metric, value) for item, values in metrics.items() for metric, value in values.items()]
    return pd.DataFrame(rows, columns=["item", "metric", "value"])


def _perplexity_metrics(texts: pd.DataFrame) -> dict[str, float]:
    """Return the metrics of ``texts`` by name.

    The paper publishes ``mean_text_perplexity``, as pico-train's Paloma evaluation computes it.
    """
    finite = texts[np.isfinite(texts.nats)]
    nats, tokens, size = finite.nats.sum(), finite.tokens.sum(), finite.bytes.sum()
    loss = nats / tokens if tokens else math.nan
    return {
        "token_perplexity": float(np.exp(loss)),
        "mean_text_perplexity": float(np.exp(finite.nats / finite.tokens).mean()),
        "loss": float(loss),
        "bits_per_byte": float(nats / math.log(2) / size) if size else math.nan,
        "texts": len(finite),
        "tokens": int(tokens),
        "bytes": int(size),
        "skipped": int((texts.tokens == 0).sum()),
        "non_finite": int((texts.tokens > 0).sum() - len(finite)),
    }
