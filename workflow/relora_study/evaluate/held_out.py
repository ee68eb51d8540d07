"""The held-out loss: nats a token on the held-out documents, each with a sum of its own.

Every result of the project that is called held-out loss is this one: the study's cells, those of sweeps, and on
validation documents the candidates of a search. A document is read after an end-of-text token, as in training, and
every token of it is scored once, its own end of text included.
"""

from pathlib import Path

import pandas as pd
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.tokens import IdArray, open_documents
from .perplexity import Texts, score_texts, spelled_bytes

COLUMNS = ["document", "tokens", "bytes", "nats"]


def held_out_texts(tokens: Path, most: int, context_length: int, tokenizer: PreTrainedTokenizerBase) -> Texts:
    """The documents in the first ``most`` held-out ids of the folder ``tokens``. An end of text spells no bytes."""
    documents = open_documents(tokens, "held_out", most, context_length)
    return Texts([ids.tolist() for ids in documents], [_bytes(ids, tokenizer) for ids in documents])


def _bytes(ids: IdArray, tokenizer: PreTrainedTokenizerBase) -> int:
    return spelled_bytes([number for number in ids.tolist() if number != ids[0]], tokenizer)


def document_losses(model: PreTrainedModel, texts: Texts, batch_tokens: int) -> pd.DataFrame:
    """Score ``texts``, a row each: document (its number), the scored tokens, their bytes, and their summed nats.

    A document longer than the model's context is read in parts that follow each other.
    """
    scored = score_texts(model, {"": texts}, model.config.max_position_embeddings, batch_tokens)
    return scored.rename(columns={"text": "document"})[COLUMNS]


def mean_loss(losses: pd.DataFrame) -> float:
    """The loss (nats a token) of a table of :func:`document_losses`."""
    return float(losses.nats.sum(skipna=False) / losses.tokens.sum())
