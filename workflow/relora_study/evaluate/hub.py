"""Datasets in the Hub's layouts: on the Hub, or in a local copy of the repository."""

from pathlib import Path

import datasets
import pandas as pd
from datasets.exceptions import DatasetsError

from ..data.hub import HUB_ERRORS, commit, first_line
from ..errors import UserError


def load_configurations(name: str, revision: str | None, split: str, section: str) -> dict[str, pd.DataFrame]:
    """A dataset's ``split`` by configuration; ``name`` is a repository, or a folder that holds a copy of one.

    A repository is read at the commit ``revision``. ``section`` of the configuration gave both, for the
    :class:`UserError` where the dataset cannot be read or no commit is named.
    """
    pinned = {} if Path(name).is_dir() else {"revision": commit(name, revision, f"{section}.revision", "dataset")}
    try:
        parts = datasets.get_dataset_config_names(name, **pinned)
        return {part: datasets.load_dataset(name, part, split=split, **pinned).to_pandas() for part in parts}
    except (*HUB_ERRORS, DatasetsError) as error:
        way_out = "give a dataset on the Hub, or the folder of a copy"
        raise UserError(
            f"{section}.path: cannot load split {split} of {name}: {first_line(error)}; {way_out}"
        ) from error


def require_columns(table: pd.DataFrame, columns: set[str], name: str) -> None:
    """Raise :class:`UserError` where ``table``, of the dataset ``name``, lacks one of ``columns``."""
    if lacking := sorted(columns - set(table.columns)):
        raise UserError(f"{name} has no column {', '.join(lacking)}; it has {', '.join(table.columns)}")
