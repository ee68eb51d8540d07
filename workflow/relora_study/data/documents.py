"""Documents, cleaned and split: each document's hash alone decides where it goes."""

import hashlib

import pandas as pd

from ..errors import UserError

COLUMNS = ["id", "domain", "text"]


def hash_of(identifier: str) -> str:
    """The SHA-256 of a document's id: an order and a split that depend on nothing else."""
    return hashlib.sha256(identifier.encode()).hexdigest()


def split(documents: pd.DataFrame, held_out_fraction: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Training and held-out documents (id, domain, text), each ordered by hash, so that a prefix is a fair sample.

    Empty documents and repeated texts are dropped. Raises :class:`UserError` where either part is left empty.
    """
    kept = documents[documents.text.str.strip() != ""].drop_duplicates("text")
    kept = kept.assign(hash=kept.id.map(hash_of)).sort_values("hash", kind="stable")
    held_out = kept.held_out_only | (kept.hash.map(lambda value: int(value, 16) / 2**256) < held_out_fraction)
    train, rest = kept.loc[~held_out, COLUMNS], kept.loc[held_out, COLUMNS]
    if train.empty or rest.empty:
        raise UserError(f"{len(kept)} documents with text leave no training or no held-out document; add documents")
    return train, rest
