"""Minimal pairs: is the good sentence likelier than the bad one? (Warstadt et al. 2020, BLiMP, section 4)."""

from collections.abc import Sequence

import pandas as pd
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from .prefix_tree import log_probabilities
from .proportions import chance_p, wilson


def encode_pairs(
    pairs: pd.DataFrame, tokenizer: PreTrainedTokenizerBase, start_token: bool, leading_space: bool = False
) -> list[list[int]]:
    """The ids of all good sentences, then of all bad ones.

    Each may begin with the end-of-text token, so that its first word is scored too, and with a space, as inside a text;
    lm_eval's BLiMP does both.
    """
    sentences = [" " * leading_space + sentence for sentence in (*pairs.sentence_good, *pairs.sentence_bad)]
    start = [tokenizer.eos_token_id] if start_token else []
    encoded = tokenizer(sentences, add_special_tokens=False, return_attention_mask=False)["input_ids"]
    return [start + ids for ids in encoded]


def judge(
    model: LlamaForCausalLM, pairs: pd.DataFrame, encoded: Sequence[Sequence[int]], batch_tokens: int
) -> pd.DataFrame:
    """A row a pair: UID, pairID, linguistics_term, and each sentence's summed log-probability (nats) and scored tokens.

    ``encoded`` is what :func:`encode_pairs` returns for ``pairs``.
    """
    sums, tokens = log_probabilities(model, list(map(tuple, encoded)), batch_tokens), [len(ids) - 1 for ids in encoded]
    half = len(pairs)
    scores = {"good": sums[:half], "bad": sums[half:], "good_tokens": tokens[:half], "bad_tokens": tokens[half:]}
    return pairs[["UID", "pairID", "linguistics_term"]].reset_index(drop=True).assign(**scores)


def accuracies(judged: pd.DataFrame) -> pd.DataFrame:
    """Columns item, metric, value for each paradigm, each phenomenon and ``overall``; intervals are Wilson's, 95 %.

    ``accuracy`` compares sums, the benchmark's rule; ``accuracy_per_token`` means over tokens. A tie is wrong.
    ``chance_p`` is the one-sided binomial test against one half.
    """
    per_token = judged.good / judged.good_tokens > judged.bad / judged.bad_tokens
    judged = judged.assign(right=judged.good > judged.bad, tie=judged.good == judged.bad, per_token=per_token)
    groups = [("overall", judged)]
    groups += [(f"phenomenon/{name}", group) for name, group in judged.groupby("linguistics_term")]
    groups += [(f"paradigm/{name}", group) for name, group in judged.groupby("UID")]
    return pd.concat([_measure(item, group) for item, group in groups], ignore_index=True)


def _measure(item: str, group: pd.DataFrame) -> pd.DataFrame:
    right, count = int(group.right.sum()), len(group)
    low, high = wilson(right, count)
    values = {
        "accuracy": right / count,
        "accuracy_low": low,
        "accuracy_high": high,
        "chance_p": chance_p(right, count),
        "accuracy_per_token": group.per_token.mean(),
        "ties": group.tie.sum(),
        "pairs": count,
    }
    return pd.DataFrame({"item": item, "metric": list(values), "value": [float(value) for value in values.values()]})
