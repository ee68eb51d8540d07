"""Parquet shards of token ids: which ones a study reads, where they lie, and what vouches for them."""

import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self, TypeVar

from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils.tqdm import disable_progress_bars
from pydantic import BaseModel, ValidationError

from ..config import HubPretokenized
from ..errors import UserError
from ..files import require_room, sha256, write_json
from .hub import HUB_ERRORS, commit, first_line
from .progress import progress

LIST = "shards.json"  # beside the shards' folder `data`: the facts of the Hub that every copy is checked against
KEY = "data.hub_pretokenized"

Item = TypeVar("Item")
Result = TypeVar("Result")


class Facts(BaseModel):
    """What is known of a shard before it is opened; a copy without a list of shards has no hash to be checked by."""

    bytes: int
    sha256: str | None


class Shards(BaseModel):
    """Shards by their path in ``folder``, and the commit of the repository that they are of, where it is known."""

    folder: Path
    repository: str
    revision: str | None
    files: dict[str, Facts]

    def take(self, names: Iterable[str]) -> Self:
        """The shards ``names`` alone, in their order."""
        return self.model_copy(update={"files": {name: self.files[name] for name in names}})


def shard_name(settings: HubPretokenized, number: int) -> str:
    """The path, in the repository and in every copy of it, of shard ``number``."""
    return f"data/train-{number:05d}-of-{settings.shards_in_all:05d}.parquet"


def training_names(settings: HubPretokenized) -> list[str]:
    """The shards that train, in the order in which they are read."""
    return [shard_name(settings, number) for number in settings.training_shards]


def held_out_name(settings: HubPretokenized) -> str:
    """The shard that is held out of training."""
    return shard_name(settings, settings.held_out_shard)


def read_shards(path: Path) -> Shards:
    """The shards that ``path`` lists. Raises :class:`UserError` where it is no such list."""
    try:
        return Shards.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError) as error:
        raise UserError(f"{path} is not a list of shards; delete it and run again") from error


def local_shards(settings: HubPretokenized) -> Shards:
    """The study's shards in the folder ``settings.path``.

    They are held to the folder's own list (``shards.json``, which a download writes) where there is one. Raises
    :class:`UserError` where a shard is missing or of another size, or the list is not of the configured revision.
    """
    folder = Path(settings.path or "")
    known = read_shards(folder / LIST) if (folder / LIST).exists() else None
    _same_revision(settings, folder, known.revision if known else None)
    files: dict[str, Facts] = {}
    for name in (*training_names(settings), held_out_name(settings)):
        if not (folder / name).is_file():
            raise UserError(f"{folder} lacks shard {name}; put it there, or change {KEY}.path or the range of shards")
        found = (folder / name).stat().st_size
        facts = known.files.get(name) if known else None
        if facts and facts.bytes != found:
            raise UserError(f"{folder / name} has {found} bytes, not the {facts.bytes} of {LIST}; copy it again")
        files[name] = facts or Facts(bytes=found, sha256=None)
    return Shards(folder=folder, repository=settings.repository, revision=settings.revision, files=files)


def _same_revision(settings: HubPretokenized, folder: Path, found: str | None) -> None:
    if settings.revision and found != settings.revision:
        raise UserError(
            f"{folder} holds shards of revision {found or 'unknown'}, and {KEY}.revision is {settings.revision}:"
            " change the key, or use another folder"
        )


def download_shards(settings: HubPretokenized, folder: Path, token_bytes: int, workers: int) -> Shards:
    """The study's shards from the Hub, in ``folder``: what is there whole is kept, what was cut off goes on.

    Says first what disk is needed for them and for the ``token_bytes`` that they become. Every file's SHA-256 is the
    one in the Hub's metadata. Raises :class:`UserError` without room or network, where the Hub lacks a shard or its
    revision, or where ``folder`` holds another revision's.
    """
    known = read_shards(folder / LIST) if (folder / LIST).exists() else None
    if known:
        _same_revision(settings, folder, known.revision)
    shards = _facts_of_the_hub(settings, folder)
    missing = sum(facts.bytes for name, facts in shards.files.items() if not (folder / name).exists())
    print(
        f"{len(shards.files)} shards: {missing / 1e9:.1f} GB to download to {folder}, then {token_bytes / 1e9:.1f} GB"
        " of token ids",
        file=sys.stderr,
    )
    require_room(folder, missing + token_bytes, "shards and token ids")
    all_known = shards.model_copy(update={"files": (known.files if known else {}) | shards.files})
    write_json(folder / LIST, all_known.model_dump(mode="json"))
    disable_progress_bars()  # one bar for all shards instead of one for each
    in_parallel(lambda name: _download(shards, name), shards.files, workers, "downloading shards")
    return shards


def _facts_of_the_hub(settings: HubPretokenized, folder: Path) -> Shards:
    """Size and hash of the study's shards, as the Hub gives them for the pinned revision."""
    repository = settings.repository
    revision = commit(repository, settings.revision, f"{KEY}.revision", "dataset")
    try:
        tree = HfApi().list_repo_tree(repository, "data", revision=revision, repo_type="dataset")
        there = {file.path: file for file in tree if isinstance(file, RepoFile)}
    except HUB_ERRORS as error:
        raise UserError(
            f"cannot list {repository} at revision {revision} ({first_line(error)}); check {KEY} and the network"
        ) from error
    files: dict[str, Facts] = {}
    for name in (*training_names(settings), held_out_name(settings)):
        file = there.get(name)
        if file is None or file.lfs is None:
            raise UserError(f"{repository} has no shard {name} at revision {revision}; change {KEY}")
        files[name] = Facts(bytes=file.size, sha256=file.lfs.sha256)
    return Shards(folder=folder, repository=repository, revision=revision, files=files)


def _download(shards: Shards, name: str) -> None:
    """Make ``name`` whole in its folder; huggingface_hub goes on where it was cut off."""
    path, expected = shards.folder / name, shards.files[name].sha256
    if path.exists() and sha256(path) == expected:
        return
    try:
        hf_hub_download(
            shards.repository,
            name,
            repo_type="dataset",
            revision=shards.revision,
            local_dir=shards.folder,
            force_download=path.exists(),
        )
    except HUB_ERRORS as error:
        raise UserError(f"cannot download {name} ({first_line(error)}); run again to go on") from error
    verify(path, expected)


def verify(path: Path, expected: str | None) -> str:
    """The SHA-256 of a shard. Raises :class:`UserError` where it is not the one ``expected``."""
    found = sha256(path)
    if expected and found != expected:
        raise UserError(f"shard {path} has sha256 {found}, not {expected}; delete it and run again")
    return found


def in_parallel(work: Callable[[Item], Result], items: Iterable[Item], workers: int, description: str) -> list[Result]:
    """``work`` on all ``items`` by ``workers`` threads, results in order; the first error leaves later items undone."""
    items = list(items)
    with ThreadPoolExecutor(workers) as pool:
        return list(progress(pool.map(work, items), len(items), description, " shards"))
