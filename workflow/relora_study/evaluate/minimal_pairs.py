"""Minimal pairs: is the good sentence likelier than the bad one? (Warstadt et al. 2020, BLiMP, section 4)."""

from collections.abc import Sequence

import pandas as pd
from statsmodels.stats.proportion import proportion_confint
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from .paired import pair_log_probabilities


def encode_pairs(pairs: pd.DataFrame, tokenizer: PreTrainedTokenizerBase, start_token: bool) -> list[list[int]]:
    """The ids of all good sentences, then of all bad ones; with the end-of-text token first, if asked for."""
    sentences = [*pairs.sentence_good, *pairs.sentence_bad]
    start = [tokenizer.eos_token_id] if start_token else []
    return [start + ids for ids in tokenizer(sentences, add_special_tokens=False)["input_ids"]]


def judge(
    model: LlamaForCausalLM, pairs: pd.DataFrame, encoded: Sequence[Sequence[int]], batch_tokens: int
) -> pd.DataFrame:
    """A row a pair: UID, pairID, linguistics_term, and each sentence's summed log-probability (nats) and scored tokens.

    ``encoded`` is what :func:`encode_pairs` returns for ``pairs``.
    """
    good_ids, bad_ids = (list(map(tuple, half)) for half in (encoded[: len(pairs)], encoded[len(pairs) :]))
    sums = pair_log_probabilities(model, list(zip(good_ids, bad_ids, strict=True)), batch_tokens)
    scores = {
        "good": sums[:, 0],
        "bad": sums[:, 1],
        "good_tokens": [len(ids) - 1 for ids in good_ids],
        "bad_tokens": [len(ids) - 1 for ids in bad_ids],
    }
    return pairs[["UID", "pairID", "linguistics_term"]].reset_index(drop=True).assign(**scores)


def accuracies(judged: pd.DataFrame) -> pd.DataFrame:
    """Columns item, metric, value for each paradigm, each phenomenon and ``overall``; intervals are Wilson's, 95 %.

    ``accuracy`` compares sums, the benchmark's rule; ``accuracy_per_token`` means over tokens. A tie is wrong.
    """
    per_token = judged.good / judged.good_tokens > judged.bad / judged.bad_tokens
    judged = judged.assign(right=judged.good > judged.bad, tie=judged.good == judged.bad, per_token=per_token)
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
        "accuracy_per_token": group.per_token.mean(),
        "ties": group.tie.sum(),
        "pairs": count,
    }
    return pd.DataFrame({"item": item, "metric": list(values), "value": [float(value) for value in values.values()]})
