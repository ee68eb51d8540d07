"""Minimal pairs: is the good sentence likelier than the bad one? (Warstadt et al. 2020, BLiMP, section 4)."""

import numpy as np
import pandas as pd
from statsmodels.stats.proportion import proportion_confint
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from .scoring import negative_log_likelihoods


def encode_pairs(pairs: pd.DataFrame, tokenizer: PreTrainedTokenizerBase, start_token: bool) -> list[list[int]]:
    """The ids of all good sentences, then of all bad ones; with the end-of-text token first, if asked for."""
    sentences = [*pairs.sentence_good, *pairs.sentence_bad]
    start = [tokenizer.eos_token_id] if start_token else []
    return [start + ids for ids in tokenizer(sentences, add_special_tokens=False)["input_ids"]]


def accuracies(
    model: LlamaForCausalLM, pairs: pd.DataFrame, encoded: list[list[int]], batch_tokens: int
) -> pd.DataFrame:
    """Columns item, metric, value for each paradigm, each phenomenon and ``overall``; intervals are Wilson's, 95 %.

    A sentence's score is its summed log-probability; a tie is wrong, and counted.
    """
    losses = negative_log_likelihoods(model, encoded, batch_tokens)
    sums = np.array([float(loss.double().sum()) for loss in losses])
    good, bad = np.split(sums, 2)
    judged = pairs.assign(right=good < bad, tie=good == bad)
    groups = [("overall", judged)]
    groups += [(f"phenomenon/{name}", group) for name, group in judged.groupby("linguistics_term")]
    groups += [(f"paradigm/{name}", group) for name, group in judged.groupby("UID")]
    return pd.concat([_measure(item, group) for item, group in groups], ignore_index=True)


def _measure(item: str, group: pd.DataFrame) -> pd.DataFrame:
    right, count = int(group.right.sum()), len(group)
    low, high = proportion_confint(right, count, method="wilson")
    values = {
        "accuracy": right / count,
        "accuracy_low": low,
        "accuracy_high": high,
        "ties": int(group.tie.sum()),
        "pairs": count,
    }
    return pd.DataFrame({"item": item, "metric": list(values), "value": [float(value) for value in values.values()]})
