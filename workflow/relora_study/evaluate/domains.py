"""The texts whose perplexity is measured, by domain: held out of the corpus, a folder, or Paloma."""

from pathlib import Path

import pandas as pd

from ..config import Perplexity
from ..data.sources import read_folder
from .hub import load_configurations, require_columns

PALOMA = "pico-lm/pretokenized-paloma-tinsy"  # the sample of Paloma that the paper's training code evaluates on
SPLIT = "val"
SOURCE = "source"  # Paloma's column that names a text's domain


def collect_texts(settings: Perplexity, held_out: Path) -> pd.DataFrame:
    """Columns domain and text, in order; text is a string, or a list of the tokenizer's ids.

    Raises :class:`UserError` where the folder or dataset cannot be read or lacks the columns that are named.
    """
    if settings.source == "held_out":
        return pd.read_parquet(held_out)[["domain", "text"]]
    if settings.source == "path":
        return read_folder(Path(settings.path or ""), settings.text_column, "evaluation.perplexity")
    return _read_hub(settings)


def _read_hub(settings: Perplexity) -> pd.DataFrame:
    """The dataset's texts; without ``domain_column``, a domain is a configuration, or else what Paloma calls source."""
    name = settings.path or PALOMA
    parts = load_configurations(name, settings.revision, SPLIT, "evaluation.perplexity")
    found = []
    for configuration, table in parts.items():
        column = settings.domain_column or (SOURCE if len(parts) == 1 and SOURCE in table else None)
        require_columns(table, {settings.text_column, column or settings.text_column}, f"{name} ({configuration})")
        domain = table[column] if column else configuration
        found.append(pd.DataFrame({"domain": domain, "text": table[settings.text_column]}))
    return pd.concat(found, ignore_index=True)
