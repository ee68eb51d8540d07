"""`python -m relora_study.sharing.archive`: pack results without checkpoints into one file, and unpack it.

A reader can remake the report from the file without training anything. The unpacked folder is an RO-Crate.
"""

import gzip
import hashlib
import io
import lzma
import os
import platform
import shutil
import tarfile
import tempfile
import time
import zlib
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path, PurePosixPath
from typing import Annotated

import typer

from ..config import Study, read_section
from ..config.settings import Experiments, experiments_of
from ..errors import UserError, command_line
from ..storage.contracts import read_cell_manifest, read_manifest
from ..storage.files import write_whole
from .crate import CODE, METADATA, ROOT, Archive, metadata
from .inputs import inputs

# Files outside the cells. Data, checkpoints and states stay out, because they are large or not ours to share.
SHARED_FILES = [
    "schema_version",
    "settings/*.yaml",
    "settings/code-*.txt",
    "tuning/base/*.yaml",
    "evaluation/yardsticks.csv",
    "figures/*",
    "tables/*",
    "paper.pdf",
    "landing.rst",
    "summary.*",
    "explore.html",
    "figures.html",
    "tables.html",
    "reproducibility.*",
    "logs/*/*.log",
    "benchmarks/jobs/*.tsv",
]
CELL_FILES = ["config.yaml", "manifest.json", "*.csv"]
SEARCH_FILES = ["settings.yaml", "rung-*.csv"]
CANDIDATE_FILES = ["config.yaml", "rung-*.json", "*.csv"]
# What made the report. The package's files alone, because a user may keep other files beside them.
CODE_FILES = [
    "CITATION.cff",
    "LICENSE",
    "Snakefile",
    "paper/*",
    "resources/**/*",
    "workflow/Snakefile",
    "workflow/relora_study/**/*.py",
    "workflow/report/*",
    "workflow/rules/*.smk",
]
REPORT_RULES = ["figure", "table", "experiment_figure", "experiment_table", "paper"]
HASHES, ENVIRONMENT = "archive/SHA256SUMS", "archive/environment.txt"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def pack(
    results: Annotated[Path, typer.Option(help="the results' folder")],
    study: Annotated[Path, typer.Option(help="the whole configuration, results/settings/whole.yaml")],
    output: Annotated[Path, typer.Option(help="the .tar.gz to write")],
    engine: Annotated[str, typer.Option(help="Snakemake's version")],
) -> None:
    """Pack configurations, logs, CSV files, tables, figures, code and environment, each with its hash, into OUTPUT.

    Equal results give equal bytes: entries are sorted and carry no times, owners or modes.
    """
    chosen = read_section(Study, study)
    experiments = experiments_of(chosen)
    cells = list(dict.fromkeys([*chosen.study.cell_names, *experiments.cells]))
    files = _chosen(results, cells, experiments, list(chosen.evaluation.every_task))
    contents = {file.relative_to(results).as_posix(): file.read_bytes() for file in files}
    contents |= {f"{CODE}/{file.relative_to(ROOT).as_posix()}": file.read_bytes() for file in _code()}
    contents |= {f"archive/{name}": content for name, content in _corpus(results / "data" / "tokens")}
    contents[ENVIRONMENT] = _environment().encode()
    hashes = {name: _sha256(content) for name, content in contents.items()}
    manifests = [read_cell_manifest(results / "cells" / name) for name in cells]
    read = inputs(chosen, read_manifest(results / "data" / "tokens"), results)
    contents[METADATA] = metadata(Archive(contents, hashes, chosen, manifests, read, engine))
    hashes[METADATA] = _sha256(contents[METADATA])
    contents[HASHES] = "".join(f"{hashes[name]}  {name}\n" for name in sorted(hashes)).encode()
    write_whole(output, lambda path: path.write_bytes(_packed(contents)))


def _chosen(results: Path, cells: list[str], experiments: Experiments, tasks: list[str]) -> Iterator[Path]:
    """Yield the files that a reader needs to remake the report: the study's, then those of cells and searches."""
    yield from _matching(results, SHARED_FILES)
    for cell_dir in (results / "cells" / name for name in cells):
        yield from _matching(cell_dir, CELL_FILES)
        for task in tasks:  # significance tests read the scores of the last step
            yield from sorted(cell_dir.glob(f"evaluation/step-*-{task}-*.parquet"))[-1:]
    for search, (_, candidates) in experiments.searches.items():
        yield from _matching(results / "tuning" / search, SEARCH_FILES)
        for name in candidates:
            yield from _matching(results / "tuning" / search / name, CANDIDATE_FILES)


def _matching(folder: Path, patterns: list[str]) -> Iterator[Path]:
    """Yield the files of ``folder`` that match one of ``patterns``."""
    return (file for pattern in patterns for file in folder.glob(pattern) if file.is_file())


def _code() -> Iterator[Path]:
    """Yield the files of the workflow."""
    return _matching(ROOT, CODE_FILES)


def _corpus(tokens: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the corpus's manifest and, for shards, their lists with hashes, by their names in `archive/`."""
    yield "corpus.json", (tokens / "manifest.json").read_bytes()
    for split in ("train", "held_out"):
        if (tokens / f"{split}.csv").exists():
            yield f"shards_{split}.csv", (tokens / f"{split}.csv").read_bytes()


def _environment() -> str:
    """List Python, the system and every installed package, with their versions."""
    packages = sorted({f"{package.name}=={package.version}" for package in distributions()}, key=str.lower)
    return "\n".join([f"# Python {platform.python_version()}, {platform.platform()}", *packages]) + "\n"


def _packed(contents: dict[str, bytes]) -> bytes:
    """Return the .tar.gz of ``contents`` by name, sorted and without times."""
    tar, whole = io.BytesIO(), io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in sorted(contents):
            entry = tarfile.TarInfo(name)
            entry.size = len(contents[name])
            archive.addfile(entry, io.BytesIO(contents[name]))
    with gzip.GzipFile(fileobj=whole, mode="wb", filename="", mtime=0) as stream:
        stream.write(tar.getvalue())
    return whole.getvalue()


@app.command()
def unpack(
    archive: Annotated[Path, typer.Argument(help="the .tar.gz that `pack` wrote")],
    results: Annotated[Path, typer.Option(help="the results' folder of a clone that has no cells")] = Path("results"),
) -> None:
    """Check every hash of ARCHIVE and write its files into RESULTS, so that Snakemake takes them for up to date."""
    if any((results / "cells").glob("*")):
        raise UserError(f"{results}/cells holds cells; unpack into a fresh clone, or move them away")
    contents = _read(archive)
    results.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=results) as place:
        aside = Path(place)  # where the disk may refuse a file, and leave nothing of the others in RESULTS
        _write(contents, aside)
        for name in sorted(contents, key=lambda name: name.startswith("cells/")):  # by which a next try sees this one
            (results / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.move(aside / name, results / name)
    print(f"{len(contents)} files are in {results}, and every hash matches. To remake the report from them:")
    print(f"  snakemake --cores all --configfile {results}/settings/whole.yaml --forcerun {' '.join(REPORT_RULES)}")


def _write(contents: dict[str, bytes], folder: Path) -> None:
    """Write ``contents`` by name into ``folder``, with one time, later than the code's: no output looks outdated."""
    now = time.time_ns()
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
        os.utime(folder / name, ns=(now, now))


def _read(archive: Path) -> dict[str, bytes]:
    """Read the files of ``archive`` by name. Raises :class:`UserError` that names a file whose hash does not match."""
    try:
        with tarfile.open(archive) as opened:
            streams = {entry.name: opened.extractfile(entry) for entry in opened}
            contents = {name: stream.read() for name, stream in streams.items() if stream}
        lines = contents[HASHES].decode().splitlines()
    except (OSError, EOFError, tarfile.TarError, zlib.error, lzma.LZMAError, KeyError, ValueError) as error:
        raise UserError(f"{archive} is not a whole archive of results: {error}; fetch it again") from error
    hashes = {name or digest: digest for digest, _, name in (line.partition("  ") for line in lines)}
    for name in sorted(hashes.keys() | contents.keys() - {HASHES}):
        outside = PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts
        if outside or name not in contents or _sha256(contents[name]) != hashes.get(name):
            raise UserError(f"{archive}: {name} does not match its hash in {HASHES}; fetch it again")
    return contents


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


if __name__ == "__main__":
    command_line(app)
