"""Downloads from the Hugging Face Hub, each at a commit that the configuration names, and datasets in its layouts."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import pyarrow as pa
from huggingface_hub import HfApi
from huggingface_hub.errors import EntryNotFoundError, HTTPError  # type: ignore[attr-defined]

from ..errors import UserError

# What huggingface_hub raises for a failing network or a wrong name.
HUB_ERRORS = (OSError, HTTPError, EntryNotFoundError, ValueError)
LONGEST_REASON = 300  # characters: a library's message can quote a whole file


def commit(repository: str, revision: str | None, key: str, kind: Literal["dataset", "model"]) -> str:
    """Return ``revision``, the value of ``key`` in config.yaml, unless it is null.

    Raises :class:`UserError` for null, with the newest commit of ``repository``, or the reason why the Hub gave none.
    """
    if revision:
        return revision
    try:
        newest = HfApi().repo_info(repository, repo_type=kind).sha
    except HUB_ERRORS as error:
        raise UserError(
            f"{key} must be a commit of {repository}, and the Hub does not tell the newest ({first_line(error)});"
            " check the name and the network"
        ) from error
    raise UserError(f"{key} must be a commit; the newest of {repository} is {newest}")


def first_line(error: Exception) -> str:
    """Return the first line of the message of ``error``, or its type if the message is empty."""
    line = str(error).strip().partition("\n")[0] or type(error).__name__
    return line if len(line) <= LONGEST_REASON else f"{line[:LONGEST_REASON]}..."


def load_configurations(name: str, revision: str | None, split: str, section: str) -> dict[str, pa.Table]:
    """Load ``split`` of a dataset by configuration; ``name`` is a repository, or the folder of a copy.

    A repository is read at the commit ``revision``. A dataset that needs Python code is refused. ``section`` is the
    section of config.yaml that gave ``name`` and ``revision``. Raises :class:`UserError` that names this section if the
    dataset cannot be read, or if ``revision`` is missing.
    """
    import datasets  # not in the environment of the data jobs, which load none
    from datasets.exceptions import DatasetsError

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
