"""Find or download the Parquet shards of token ids that a study reads, and check them by size and hash."""

import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self, TypeVar

from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils.tqdm import disable_progress_bars
from pydantic import BaseModel

from ..config import HubPretokenized
from ..errors import UserError
from ..progress_lines import progress
from ..storage.contracts import read_contract
from ..storage.files import require_room, sha256, write_json
from .hub import HUB_ERRORS, commit, first_line

LIST = "shards.json"  # beside the shards' folder `data`: sizes and hashes from the Hub, which check every copy
KEY = "data.hub_pretokenized"

Item = TypeVar("Item")
Result = TypeVar("Result")


class Facts(BaseModel):
    """The size and hash of a shard. The hash is None for a copy that came without a list of shards."""

    bytes: int
    sha256: str | None


class Shards(BaseModel):
    """The shards in ``folder`` by path, and the commit of ``repository`` that they come from, if it is known."""

    folder: Path
    repository: str
    revision: str | None
    files: dict[str, Facts]

    def take(self, names: Iterable[str]) -> Self:
        """Return a copy with the shards ``names`` only, in the order of ``names``."""
        return self.model_copy(update={"files": {name: self.files[name] for name in names}})


def shard_name(settings: HubPretokenized, number: int) -> str:
    """Return the path of shard ``number`` in the repository and in every copy."""
    return f"data/train-{number:05d}-of-{settings.shards_in_all:05d}.parquet"


def training_names(settings: HubPretokenized) -> list[str]:
    """List the names of the shards that train, in reading order."""
    return [shard_name(settings, number) for number in settings.training_shards]


def held_out_name(settings: HubPretokenized) -> str:
    """Return the name of the shard that is held out of training."""
    return shard_name(settings, settings.held_out_shard)


def read_shards(path: Path) -> Shards:
    """Read the list of shards in ``path``. Raises :class:`UserError` if it is missing or malformed."""
    return read_contract(Shards, path, f"{path} is not a list of shards; delete it and run again")


def local_shards(settings: HubPretokenized) -> Shards:
    """Find the study's shards in the folder ``settings.path``.

    If the folder has a ``shards.json``, which a download writes, the shards are checked against it. Raises
    :class:`UserError` if a shard is missing or has another size, or if the list has another revision than configured.
    """
    folder = Path(settings.path or "")
    known = read_shards(folder / LIST) if (folder / LIST).exists() else None
    _same_revision(settings, folder, known.revision if known else None)
    files: dict[str, Facts] = {}
    for name in (*training_names(settings), held_out_name(settings)):
        if not (folder / name).is_file():
            raise UserError(f"{folder} lacks shard {name}; put it there, or change {KEY}.path or the range of shards")
        size = (folder / name).stat().st_size
        facts = known.files.get(name) if known else None
        if facts and facts.bytes != size:
            raise UserError(f"{folder / name} has {size} bytes, not the {facts.bytes} of {LIST}; copy it again")
        files[name] = facts or Facts(bytes=size, sha256=None)
    return Shards(folder=folder, repository=settings.repository, revision=settings.revision, files=files)


def _same_revision(settings: HubPretokenized, folder: Path, listed: str | None) -> None:
    if settings.revision and listed != settings.revision:
        raise UserError(
            f"{folder} holds shards of revision {listed or 'unknown'}, and {KEY}.revision is {settings.revision}:"
            " change the key, or use another folder"
        )


def download_shards(settings: HubPretokenized, folder: Path, token_bytes: int, workers: int) -> Shards:
    """Download the study's shards from the Hub to ``folder``; whole files stay, and partial downloads go on.

    The command first prints the disk space for the shards and for their token files of ``token_bytes``. Each file must
    have the SHA-256 in the Hub's metadata. Raises :class:`UserError` without room or network, if the Hub lacks a shard
    or the revision, or if ``folder`` holds shards of another revision.
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
    disable_progress_bars()  # huggingface_hub would print a bar for each shard
    in_parallel(lambda name: _download(shards, name), shards.files, workers, "downloading shards")
    return shards


def _facts_of_the_hub(settings: HubPretokenized, folder: Path) -> Shards:
    """Ask the Hub for size and hash of the study's shards at the pinned revision."""
    repository = settings.repository
    revision = commit(repository, settings.revision, f"{KEY}.revision", "dataset")
    try:
        tree = HfApi().list_repo_tree(repository, "data", revision=revision, repo_type="dataset")
        hub_files = {file.path: file for file in tree if isinstance(file, RepoFile)}
    except HUB_ERRORS as error:
        raise UserError(
            f"cannot list {repository} at revision {revision} ({first_line(error)}); check {KEY} and the network"
        ) from error
    files: dict[str, Facts] = {}
    for name in (*training_names(settings), held_out_name(settings)):
        file = hub_files.get(name)
        if file is None or file.lfs is None:
            raise UserError(f"{repository} has no shard {name} at revision {revision}; change {KEY}")
        files[name] = Facts(bytes=file.size, sha256=file.lfs.sha256)
    return Shards(folder=folder, repository=repository, revision=revision, files=files)


def _download(shards: Shards, name: str) -> None:
    """Download shard ``name`` unless it is whole; huggingface_hub goes on with a partial download."""
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
    """Return the SHA-256 of a shard. Raises :class:`UserError` if it differs from ``expected``, unless that is None."""
    digest = sha256(path)
    if expected and digest != expected:
        raise UserError(f"shard {path} has sha256 {digest}, not {expected}; delete it and run again")
    return digest


def in_parallel(work: Callable[[Item], Result], items: Iterable[Item], workers: int, description: str) -> list[Result]:
    """Call ``work`` on ``items`` in ``workers`` threads; results keep the order, and the first error ends the work."""
    items = list(items)
    with ThreadPoolExecutor(workers) as pool:
        return list(progress(pool.map(work, items), len(items), description, " shards"))
