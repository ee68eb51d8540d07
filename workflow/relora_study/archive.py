"""`python -m relora_study.archive`: results without checkpoints in one file, from which the report can be remade."""

import gzip
import hashlib
import io
import os
import platform
import tarfile
import time
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path, PurePosixPath
from typing import Annotated

import typer

from .config import Selection, read_section
from .errors import UserError, command_line
from .files import write_whole

# What a study leaves besides its cells; data, checkpoints and states stay out: they are large, or not ours to share.
SHARED = [
    "schema_version",
    "settings/*.yaml",
    "figures/*",
    "tables/*",
    "paper.pdf",
    "landing.rst",
    "logs/*/*.log",
    "benchmarks/jobs/*.tsv",
]
CELL = ["config.yaml", "manifest.json", "*.csv"]
HASHES, ENVIRONMENT, CORPUS = "archive/SHA256SUMS", "archive/environment.txt", "archive/corpus.json"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def pack(
    results: Annotated[Path, typer.Option(help="the results' folder")],
    study: Annotated[Path, typer.Option(help="settings that name the cells, results/settings/study.yaml")],
    output: Annotated[Path, typer.Option(help="the .tar.gz to write")],
) -> None:
    """Write OUTPUT: configurations, logs, CSV files, tables, figures and the environment, with a hash of each.

    The same files give the same bytes: entries are sorted and carry no times, owners or modes.
    """
    contents = {file.relative_to(results).as_posix(): file.read_bytes() for file in _chosen(results, study)}
    contents[ENVIRONMENT] = _environment().encode()
    contents[CORPUS] = (results / "data" / "tokens" / "manifest.json").read_bytes()
    contents[HASHES] = "".join(f"{_sha256(contents[name])}  {name}\n" for name in sorted(contents)).encode()
    write_whole(output, lambda path: path.write_bytes(_packed(contents)))


def _chosen(results: Path, study: Path) -> Iterator[Path]:
    """The files of the study's cells, and what they share, that a reader needs to remake the report."""
    chosen = read_section(Selection, study)
    for pattern in SHARED:
        yield from (file for file in results.glob(pattern) if file.is_file())
    for cell in (results / "cells" / name for name in chosen.cell_names):
        for pattern in CELL:
            yield from cell.glob(pattern)
        for kind in ("pairs", "texts"):  # the scores of the last step, which tests and tables read
            yield from sorted(cell.glob(f"evaluation/step-*-{kind}.parquet"))[-1:]


def _environment() -> str:
    """Python, the system, and every package beside this one with its version."""
    packages = sorted({f"{found.name}=={found.version}" for found in distributions()}, key=str.lower)
    return "\n".join([f"# Python {platform.python_version()}, {platform.platform()}", *packages]) + "\n"


def _packed(contents: dict[str, bytes]) -> bytes:
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
    """Put ARCHIVE's files into RESULTS, after checking every hash, so that Snakemake takes them for up to date."""
    if any((results / "cells").glob("*")):
        raise UserError(f"{results}/cells holds cells; unpack into a fresh clone, or move them away")
    contents = _read(archive)
    for name, content in contents.items():
        (results / name).parent.mkdir(parents=True, exist_ok=True)
        (results / name).write_bytes(content)
    now = time.time_ns()  # one time for all, later than the code's: nothing looks older than what it is made from
    for name in contents:
        os.utime(results / name, ns=(now, now))
    print(f"{len(contents)} files are in {results}, and every hash fits. To remake the report from them:")
    print(f"  snakemake --cores all --configfile {results}/settings/whole.yaml --forcerun figure table paper")


def _read(archive: Path) -> dict[str, bytes]:
    """The files in ``archive`` by name; a :class:`UserError` says which one its hash does not fit."""
    try:
        with tarfile.open(archive) as opened:
            streams = {entry.name: opened.extractfile(entry) for entry in opened}
            contents = {name: stream.read() for name, stream in streams.items() if stream}
        lines = contents[HASHES].decode().splitlines()
    except (OSError, EOFError, tarfile.TarError, KeyError, ValueError) as error:
        raise UserError(f"{archive} is not a whole archive of results: {error}; fetch it again") from error
    hashes = {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
    for name in sorted(hashes.keys() | contents.keys() - {HASHES}):
        outside = PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts
        if outside or name not in contents or _sha256(contents[name]) != hashes.get(name):
            raise UserError(f"{archive}: {name} is not what {HASHES} says; fetch it again")
    return contents


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


if __name__ == "__main__":
    command_line(app)
