"""Write and read token ids: flat memory-mapped files of a small integer type, with a manifest of their hashes."""

import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any

import numpy as np
from tokenizers import Tokenizer
from tokenizers.normalizers import NFC, NFD
from tokenizers.pre_tokenizers import ByteLevel

from ..config.settings import CorpusNeeds
from ..errors import UserError
from ..storage.contracts import Manifest, Split, read_manifest
from ..storage.files import sha256, write_whole
from ..storage.hashes import has_sha256
from .documents import batches

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BATCH_CHARACTERS = 2**21  # characters of text encoded at a time
PIECE_CHARACTERS = 2**16  # characters of a piece of a long text: a batch has enough pieces for all threads
CUT = re.compile(r"(?<=\S)(?=[ \n]\S)")

IdArray = np.ndarray[Any, np.dtype[Any]]


def encode(texts: Iterable[str], tokenizer: "PreTrainedTokenizerBase", dtype: str) -> Iterator[IdArray]:
    """Yield the ids of all texts in order, with an end-of-text id after each text, in arrays of several tokens.

    The tokenizer's threads encode a batch at a time, so memory does not grow with the corpus.
    """
    backend, cuts = bare(tokenizer), cuts_at_spaces(tokenizer)
    pieces = ((piece, last) for text in texts for piece, last in pieces_of(text, cuts))
    for batch in batches(pieces, lambda item: len(item[0]), BATCH_CHARACTERS):
        for encoding, (_, last) in zip(
            backend.encode_batch_fast([piece for piece, _ in batch], add_special_tokens=False), batch, strict=True
        ):
            yield np.asarray([*encoding.ids, tokenizer.eos_token_id] if last else encoding.ids, dtype=dtype)


def bare(tokenizer: "PreTrainedTokenizerBase") -> Tokenizer:
    """Return the tokenizer's backend without truncation and padding, which its file may ask for."""
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = bool(getattr(tokenizer, "split_special_tokens", False))
    return backend


def cuts_at_spaces(tokenizer: "PreTrainedTokenizerBase") -> bool:
    """Tell whether a text may be cut before a single space or line break without changing its ids.

    GPT-2's words allow it: a space belongs to the word after it (Radford et al. 2019, section 2.2). Other tokenizers,
    and added tokens with spaces, need the whole text.
    """
    backend = tokenizer.backend_tokenizer
    words = isinstance(backend.pre_tokenizer, ByteLevel) and backend.pre_tokenizer.use_regex
    added = backend.get_added_tokens_decoder().values()
    local = not any(token.lstrip or token.rstrip or re.search(r"\s", token.content) for token in added)
    return words and local and isinstance(backend.normalizer, NFC | NFD | NoneType)


def pieces_of(text: str, cuts: bool) -> Iterator[tuple[str, bool]]:
    """Yield pieces of ``text``, and whether each is the last: about ``PIECE_CHARACTERS`` long, or all if not ``cuts``.

    Encoding a long text as a whole would take some seventy times its size in memory.
    """
    begin = 0
    while cuts and len(text) - begin > PIECE_CHARACTERS and (cut := CUT.search(text, begin + PIECE_CHARACTERS)):
        yield text[begin : cut.end()], False
        begin = cut.end()
    yield text[begin:], True


def write_split(
    path: Path, ids: Iterable[IdArray], size: tuple[int, int], context_length: int, most: int | None
) -> Split:
    """Write ``ids`` little-endian to ``path``, at most ``most`` of them; ``size`` counts the documents and their bytes.

    Raises :class:`UserError` if the ids do not fill one sequence.
    """
    tokens = 0

    def write(partial: Path) -> None:
        nonlocal tokens
        with partial.open("wb") as stream:
            for part in ids:
                kept = part[: None if most is None else most - tokens]
                stream.write(kept.astype(kept.dtype.newbyteorder("<")).tobytes())
                tokens += len(kept)
                if tokens == most:
                    break
        if tokens <= context_length:
            raise UserError(f"{path.name} would hold {tokens} tokens, fewer than one sequence; add documents")

    write_whole(path, write)
    return Split(documents=size[0], tokens=tokens, bytes=size[1], sha256=sha256(path))


def open_tokens(folder: Path, split: str, check_hash: bool = True) -> IdArray:
    """Open the ids of ``split`` (train, held_out or validation), memory-mapped: [tokens].

    Raises :class:`UserError` if the file differs from its manifest in length or, with ``check_hash``, in its hash. The
    hash takes about a second a gigabyte, so only one process of a job checks it, and a machine remembers a large one.
    """
    manifest = read_manifest(folder)
    path, expected = folder / f"{split}.bin", getattr(manifest, split)
    if expected is None:
        raise UserError(f"{folder} has no {split} ids; set data.validation_fraction, and run again")
    dtype = np.dtype(manifest.dtype).newbyteorder("<")
    if not path.exists() or path.stat().st_size != expected.tokens * dtype.itemsize:
        raise UserError(
            f"{path} does not hold the {expected.tokens} tokens of its manifest; delete {folder} and run again"
        )
    if check_hash and not has_sha256(path, expected.sha256):
        raise UserError(f"{path} is damaged: its hash differs from its manifest; delete {folder} and run again")
    return np.memmap(path, dtype=dtype, mode="r")


def row_count(ids: IdArray, context_length: int) -> int:
    """Count the rows of ``context_length + 1`` ids."""
    return len(ids) // (context_length + 1)


def held_out_batch(tokens: Path, sequences: int, context_length: int) -> IdArray:
    """Return the fixed batch: the first ``sequences`` rows of the held-out ids, int64 [sequences, context_length + 1].

    Gradients and merges of every checkpoint of every method are read on it. Raises :class:`UserError` if the held-out
    text is too short.
    """
    ids = open_tokens(tokens, "held_out")
    available = row_count(ids, context_length)
    if sequences > available:
        raise UserError(
            f"dynamics.batch_sequences {sequences} is more than the {available} sequences of {tokens / 'held_out.bin'};"
            " lower it or hold more text out (data.held_out_fraction)"
        )
    return np.stack([row(ids, index, context_length) for index in range(sequences)])


def open_documents(folder: Path, split: str, most: int, context_length: int) -> list[IdArray]:
    """Return the documents in the first ``most`` ids of ``split``, each int64 [1 + tokens]; the first is not scored.

    A document ends with an end-of-text id, or where it is cut at ``most``. It begins after one, as in training. Shards
    hold rows of several documents, so there a row ends one, too.
    """
    manifest, ids = read_manifest(folder), np.asarray(open_tokens(folder, split)[:most], dtype=np.int64)
    ends = np.flatnonzero(ids == manifest.end_of_text_id) + 1
    if getattr(manifest, split).documents is None:
        ends = np.union1d(ends, np.arange(0, len(ids), context_length + 1))
    return [np.insert(part, 0, manifest.end_of_text_id) for part in np.split(ids, ends) if len(part)]


def row_order(seed: int | None, rows: int) -> Callable[[int], int]:
    """Return which row of the corpus a training reads at each place: in the corpus's order, or as ``seed`` draws it.

    Each pass over the corpus draws an order of its own. The order does not depend on how long a cell trains.
    """
    if seed is None:
        return lambda place: place % rows

    @lru_cache(maxsize=2)
    def drawn(number: int) -> IdArray:
        return np.random.default_rng((seed, number)).permutation(rows)

    return lambda place: int(drawn(place // rows)[place % rows])


def row(ids: IdArray, index: int, context_length: int) -> IdArray:
    """Return row ``index``, int64 [context_length + 1], in which each id but the last predicts the next."""
    start = index * (context_length + 1)
    return np.asarray(ids[start : start + context_length + 1], dtype=np.int64)


def check_corpus_size(manifest: Manifest, needs: CorpusNeeds) -> str:
    """Return a warning if training repeats the data, else an empty text.

    Raises :class:`UserError` if fewer sequences are held out than the fixed batch needs, which would stop the readings
    after hours of training.
    """
    available = manifest.held_out.tokens // (needs.context_length + 1)
    if needs.held_out_sequences > available:
        raise UserError(
            f"dynamics.batch_sequences {needs.held_out_sequences} is more than the {available} sequences that are held"
            " out; lower it, or hold more text out (data.held_out_fraction)"
        )
    trained, stored = needs.train_sequences * needs.context_length, manifest.train.tokens
    if needs.train_sequences <= stored // (needs.context_length + 1):
        return ""
    return (
        f"warning: training reads {trained:,} tokens of a corpus of {stored:,}: it repeats {trained / stored:.1f} times"
    )
