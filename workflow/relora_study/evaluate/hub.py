"""Load datasets in the Hub's layouts, from the Hub or from a local copy of a repository."""

from pathlib import Path
from tempfile import TemporaryDirectory

import datasets
import pyarrow as pa
from datasets.exceptions import DatasetsError

from ..data.hub import HUB_ERRORS, commit, first_line
from ..errors import UserError


def load_configurations(name: str, revision: str | None, split: str, section: str) -> dict[str, pa.Table]:
    """Load ``split`` of a dataset by configuration; ``name`` is a repository, or the folder of a copy.

    A repository is read at the commit ``revision``. A dataset that needs Python code is refused. ``section`` is the
    section of config.yaml that gave ``name`` and ``revision``. Raises :class:`UserError` that names this section if the
    dataset cannot be read, or if ``revision`` is missing.
    """
    is_copy = Path(name).is_dir()
    pinned = {} if is_copy else {"revision": commit(name, revision, f"{section}.revision", "dataset")}
    try:
        with TemporaryDirectory() as place:
            # The library's own cache knows a copy by its folder's last name alone, and would give another one's rows.
            cache = {"cache_dir": place, "keep_in_memory": True} if is_copy else {}
            parts = datasets.get_dataset_config_names(name, **pinned)
            loaded = {part: datasets.load_dataset(name, part, split=split, **pinned, **cache) for part in parts}
            return {part: dataset.with_format("arrow")[:] for part, dataset in loaded.items()}
    except (*HUB_ERRORS, DatasetsError, RuntimeError) as error:
        way_out = "give a dataset on the Hub, or the folder of a copy"
        raise UserError(
            f"{section}.path: cannot load split {split} of {name}: {first_line(error)}; {way_out}"
        ) from error


def require_columns(table: pa.Table, columns: set[str], name: str) -> None:
    """Raise :class:`UserError` if ``table``, from the dataset ``name``, lacks one of ``columns``."""
    if lacking := sorted(columns - set(table.column_names)):
        names = ", ".join(table.column_names)
        raise UserError(f"{name} has no column {', '.join(lacking)}; it has {names}; name one of these")
