"""Commits of the Hub: what is fetched from a repository is always of one that the configuration names."""

from typing import Literal

from huggingface_hub import HfApi
from huggingface_hub.errors import EntryNotFoundError, HTTPError  # type: ignore[attr-defined]

from ..errors import UserError

HUB_ERRORS = (OSError, HTTPError, EntryNotFoundError, ValueError)  # what huggingface_hub raises, network and names
LONGEST_REASON = 300  # characters of a library's message, which may quote a whole file


def commit(repository: str, revision: str | None, key: str, kind: Literal["dataset", "model"]) -> str:
    """``revision``, which ``key`` of the configuration holds, where it is one.

    Raises :class:`UserError` where it is null: with the newest commit, or with why the Hub does not tell it.
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
    """What ``error`` says first, or its kind."""
    line = str(error).strip().partition("\n")[0] or type(error).__name__
    return line if len(line) <= LONGEST_REASON else f"{line[:LONGEST_REASON]}..."
