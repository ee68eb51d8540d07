"""Judge minimal pairs: is the good sentence likelier than the bad sentence? (BLiMP: Warstadt et al. 2020, section 4)"""

from collections.abc import Sequence

import pandas as pd
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .prefix_tree import log_probabilities
from .proportions import chance_p, wilson


def encode_pairs(
    pairs: pd.DataFrame, tokenizer: PreTrainedTokenizerBase, start_token: bool, leading_space: bool = False
) -> list[list[int]]:
    """Encode all good sentences, then all bad sentences, as lists of ids.

    ``start_token`` puts the end-of-text token before each sentence, so that the first word is scored, too.
    ``leading_space`` puts a space there, as inside a text. The harness lm_eval does both for BLiMP.
    """
    sentences = [" " * leading_space + sentence for sentence in (*pairs.sentence_good, *pairs.sentence_bad)]
    start = [tokenizer.eos_token_id] if start_token else []
    encoded = tokenizer(sentences, add_special_tokens=False, return_attention_mask=False)["input_ids"]
    return [start + ids for ids in encoded]


def judge(
    model: PreTrainedModel, pairs: pd.DataFrame, encoded: Sequence[Sequence[int]], batch_tokens: int
) -> pd.DataFrame:
    """Score ``pairs``, whose ids ``encoded`` come from :func:`encode_pairs`.

    The table has a row for each pair: UID, pairID, linguistics_term, the summed log-probability (nats) of each
    sentence (good, bad), and its scored tokens (good_tokens, bad_tokens).
    """
    sums, tokens = log_probabilities(model, list(map(tuple, encoded)), batch_tokens), [len(ids) - 1 for ids in encoded]
    half = len(pairs)
    scores = {"good": sums[:half], "bad": sums[half:], "good_tokens": tokens[:half], "bad_tokens": tokens[half:]}
    return pairs[["UID", "pairID", "linguistics_term"]].reset_index(drop=True).assign(**scores)


def accuracies(judged: pd.DataFrame) -> pd.DataFrame:
    """Return a table of item, metric and value for each paradigm, each phenomenon and ``overall``.

    ``accuracy`` compares summed log-probabilities, as BLiMP does, and has Wilson's 95 % interval.
    ``accuracy_per_token`` compares means over tokens. A tie counts as wrong. ``chance_p`` is the p-value of a
    one-sided binomial test against one half.
    """
    per_token = judged.good / judged.good_tokens > judged.bad / judged.bad_tokens
    judged = judged.assign(right=judged.good > judged.bad, tie=judged.good == judged.bad, per_token=per_token)
    groups = [("overall", judged)]
    groups += [(f"phenomenon/{name}", group) for name, group in judged.groupby("linguistics_term")]
    groups += [(f"paradigm/{name}", group) for name, group in judged.groupby("UID")]
    return pd.concat([_accuracy_metrics(item, group) for item, group in groups], ignore_index=True)


def _accuracy_metrics(item: str, group: pd.DataFrame) -> pd.DataFrame:
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
