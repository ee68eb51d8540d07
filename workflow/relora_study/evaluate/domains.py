"""The texts whose perplexity is measured, by domain: held out of the corpus, a folder, or Paloma."""

from pathlib import Path

import datasets
import pandas as pd

from ..config import Perplexity
from ..data.sources import read_folder
from ..errors import UserError

PALOMA = "pico-lm/pretokenized-paloma-tinsy"  # the sample of Paloma that the paper's training code evaluates on
SPLIT = "val"


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
    name = settings.path or PALOMA
    try:
        table = datasets.load_dataset(name, split=SPLIT).to_pandas()
    except (OSError, ValueError) as error:
        raise UserError(f"evaluation.perplexity.path: cannot load {name}: {str(error).splitlines()[0]}") from error
    lacking = {settings.text_column, settings.domain_column or settings.text_column} - set(table.columns)
    if lacking:
        raise UserError(f"{name} has no column {', '.join(lacking)}; it has {', '.join(table.columns)}")
    domain = table[settings.domain_column] if settings.domain_column else name.rpartition("/")[2]
    return pd.DataFrame({"domain": domain, "text": table[settings.text_column]})
