"""Perplexity of texts by domain: by token, as the paper publishes it, and by byte."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from tokenizers.decoders import ByteLevel
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from .domains import MACRO_AVERAGE, OVERALL
from .scoring import negative_log_likelihoods

AVERAGED = ["token_perplexity", "mean_text_perplexity", "loss", "bits_per_byte"]


@dataclass(frozen=True)
class Texts:
    """A domain's texts as ids, cut to the most tokens, and the bytes that the scored ids (all but the first) spell."""

    ids: list[list[int]]
    scored_bytes: list[int]


def take_texts(texts: pd.Series, tokenizer: PreTrainedTokenizerBase, max_tokens: int, domain_tokens: int) -> Texts:
    """Texts in order until ``domain_tokens`` tokens, each cut to ``max_tokens``; no start token, as published.

    A text is a string, or ids already. Texts of fewer than two tokens predict nothing, and are kept to be counted.
    """
    ids: list[list[int]] = []
    taken = 0
    for text in texts:
        if taken >= domain_tokens:
            break
        ids.append(_ids_of(text, tokenizer)[:max_tokens])
        taken += len(ids[-1])
    return Texts(ids, [spelled_bytes(one[1:], tokenizer) for one in ids])


def _ids_of(text: object, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The ids of a text, or of ids already; none of a missing one, which is kept to be counted."""
    if isinstance(text, str):
        return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
    return [int(one) for one in text] if isinstance(text, Iterable) else []


def spelled_bytes(ids: list[int], tokenizer: PreTrainedTokenizerBase) -> int:
    """How many bytes of UTF-8 ``ids`` spell.

    A byte-level token has a character for each of its bytes. Decoding would count a replacement character for the
    part of a character that a cut leaves; tokenizers of other kinds, which do not split characters, are decoded.
    """
    if isinstance(getattr(getattr(tokenizer, "backend_tokenizer", None), "decoder", None), ByteLevel):
        return sum(len(token) for token in tokenizer.convert_ids_to_tokens(ids))
    return len(tokenizer.decode(ids, clean_up_tokenization_spaces=False).encode())


def windows(ids: list[int], length: int, stride: int) -> Iterator[tuple[list[int], int]]:
    """``ids`` in windows of ``length`` predictions, each ``stride`` after the one before: (window, new predictions).

    Every id but the first is new in exactly one window; the first window's are all new, and later ones see
    ``length`` - ``stride`` ids or more before their first. A text that fits is one window.
    """
    done, begin = 0, 0
    while done < len(ids) - 1:
        end = min(begin + length, len(ids) - 1)
        yield ids[begin : end + 1], end - done
        done, begin = end, begin + stride


def score_texts(model: LlamaForCausalLM, domains: dict[str, Texts], stride: int, batch_tokens: int) -> pd.DataFrame:
    """A row a text: domain, its number there, the tokens scored, the bytes they spell, their nats (NaN without any).

    Texts longer than the model's context are read in :func:`windows` of it.
    """
    length = model.config.max_position_embeddings
    cut = {name: [list(windows(ids, length, stride)) for ids in texts.ids] for name, texts in domains.items()}
    parts = [part for texts in cut.values() for text in texts for part, _ in text]
    losses = iter(negative_log_likelihoods(model, parts, batch_tokens))
    rows = []
    for name, texts in cut.items():
        for number, (text, size) in enumerate(zip(texts, domains[name].scored_bytes, strict=True)):
            nats = [float(next(losses)[-new:].double().sum()) for _, new in text]
            rows.append((name, number, sum(new for _, new in text), size, sum(nats) if nats else math.nan))
    return pd.DataFrame(rows, columns=["domain", "text", "tokens", "bytes", "nats"])


def perplexities(scored: pd.DataFrame) -> pd.DataFrame:
    """Columns item, metric, value: each domain, ``overall`` (all texts) and ``macro_average`` (mean over domains).

    ``scored`` is what :func:`score_texts` returns. ``skipped`` counts texts without a token to score, ``non_finite``
    those with an infinite or undefined loss; neither enters the other figures.
    """
    measured = {str(name): _measure(group) for name, group in scored.groupby("domain", sort=False)}
    averages = pd.DataFrame(measured).T[AVERAGED].mean()
    measured |= {OVERALL: _measure(scored), MACRO_AVERAGE: averages.to_dict()}
    rows = [(item, metric, value) for item, values in measured.items() for metric, value in values.items()]
    return pd.DataFrame(rows, columns=["item", "metric", "value"])


def _measure(texts: pd.DataFrame) -> dict[str, float]:
    """The published figure is the mean over texts of each text's perplexity (pico-train's Paloma evaluation)."""
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
