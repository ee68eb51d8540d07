"""Datasets in the Hub's layouts: on the Hub, or in a local copy of the repository."""

import datasets
import pandas as pd
from datasets.exceptions import DatasetsError

from ..errors import UserError


def load_configurations(name: str, split: str, setting: str) -> dict[str, pd.DataFrame]:
    """A dataset's ``split`` by configuration; ``name`` is a repository, or a folder that holds a copy of one.

    ``setting`` is the key that gave the name, for the :class:`UserError` where it cannot be read.
    """
    try:
        configurations = datasets.get_dataset_config_names(name)
        return {part: datasets.load_dataset(name, part, split=split).to_pandas() for part in configurations}
    except (OSError, ValueError, DatasetsError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        way_out = "give a dataset on the Hub, or the folder of a copy"
        raise UserError(f"{setting}: cannot load split {split} of {name}: {reason}; {way_out}") from error


def require_columns(table: pd.DataFrame, columns: set[str], name: str) -> None:
    """Raise :class:`UserError` where ``table``, of the dataset ``name``, lacks one of ``columns``."""
    if lacking := sorted(columns - set(table.columns)):
        raise UserError(f"{name} has no column {', '.join(lacking)}; it has {', '.join(table.columns)}")
