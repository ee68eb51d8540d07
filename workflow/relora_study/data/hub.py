"""Pin downloads from the Hugging Face Hub: each is made at a commit that the configuration names."""

from typing import Literal

from huggingface_hub import HfApi
from huggingface_hub.errors import EntryNotFoundError, HTTPError  # type: ignore[attr-defined]

from ..errors import UserError

HUB_ERRORS = (
    OSError,
    HTTPError,
    EntryNotFoundError,
    ValueError,
)  # huggingface_hub raises these for a failing network or a wrong name
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
