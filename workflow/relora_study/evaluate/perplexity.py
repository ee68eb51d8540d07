"""Perplexity of texts by domain: by token, as the paper publishes it, and by byte."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from .scoring import negative_log_likelihoods


@dataclass(frozen=True)
class Texts:
    """A domain's texts as ids, cut to the most tokens, and the bytes that the scored ids (all but the first) spell."""

    ids: list[list[int]]
    scored_bytes: list[int]
    skipped: int  # texts of fewer than two tokens: nothing to predict


def take_texts(texts: pd.Series, tokenizer: PreTrainedTokenizerBase, max_tokens: int, domain_tokens: int) -> Texts:
    """Texts in order until ``domain_tokens`` tokens, each cut to ``max_tokens``; no start token, as published."""
    ids: list[list[int]] = []
    skipped = 0
    for text in texts:
        if sum(map(len, ids)) >= domain_tokens:
            break
        cut = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"][:max_tokens]
        if len(cut) > 1:
            ids.append(cut)
        else:
            skipped += 1
    return Texts(ids, [len(tokenizer.decode(one[1:]).encode()) for one in ids], skipped)


def perplexities(model: LlamaForCausalLM, domains: dict[str, Texts], batch_tokens: int) -> pd.DataFrame:
    """Columns item, metric, value: each domain, ``overall`` (all texts) and ``macro_average`` (mean over domains)."""
    everything = [ids for texts in domains.values() for ids in texts.ids]
    scores = iter(negative_log_likelihoods(model, everything, batch_tokens))
    losses = {name: [next(scores) for _ in texts.ids] for name, texts in domains.items()}
    measured = {name: _measure(losses[name], texts) for name, texts in domains.items()}
    averages = pd.DataFrame(measured).T[["token_perplexity", "mean_text_perplexity", "loss", "bits_per_byte"]].mean()
    whole = Texts(
        everything,
        [size for texts in domains.values() for size in texts.scored_bytes],
        sum(texts.skipped for texts in domains.values()),
    )
    measured["overall"] = _measure([loss for some in losses.values() for loss in some], whole)
    measured["macro_average"] = averages.to_dict()
    rows = [(item, metric, value) for item, values in measured.items() for metric, value in values.items()]
    return pd.DataFrame(rows, columns=["item", "metric", "value"])


def _measure(losses: list[Tensor], texts: Texts) -> dict[str, float]:
    """The published figure is the mean over texts of each text's perplexity (pico-train's Paloma evaluation)."""
    nats = np.array([float(loss.double().sum()) for loss in losses])
    tokens = np.array([len(loss) for loss in losses])
    size = sum(texts.scored_bytes)
    return {
        "token_perplexity": math.exp(nats.sum() / tokens.sum()),
        "mean_text_perplexity": float(np.exp(nats / tokens).mean()),
        "loss": float(nats.sum() / tokens.sum()),
        "bits_per_byte": float(nats.sum() / math.log(2) / size),
        "texts": len(losses),
        "tokens": int(tokens.sum()),
        "bytes": size,
        "skipped": texts.skipped,
    }
