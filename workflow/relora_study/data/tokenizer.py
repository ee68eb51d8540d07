"""The tokenizer: a byte-level BPE of the training documents, or one that exists."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from ..config import Tokenizer as TokenizerSettings
from ..errors import UserError
from .hub import HUB_ERRORS, commit, first_line

END_OF_TEXT = "<|endoftext|>"


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE (Sennrich et al. 2016, on bytes) with at most ``vocab_size`` entries; any text round-trips."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=END_OF_TEXT, clean_up_tokenization_spaces=False)


def load_tokenizer(settings: TokenizerSettings, vocab_size: int) -> PreTrainedTokenizerBase:
    """The tokenizer that ``settings.name`` names, a folder or a repository on the Hub.

    Raises :class:`UserError` where it cannot be opened, has no end-of-text token, or has too many entries.
    """
    place: dict[str, Any] = {"local_files_only": True}
    if settings.source == "hub":
        place = {"revision": commit(str(settings.name), settings.revision, "data.tokenizer.revision", "model")}
    try:
        tokenizer = AutoTokenizer.from_pretrained(settings.name, **place)
    except HUB_ERRORS as error:
        raise UserError(f"data.tokenizer.name: cannot open {settings.name}: {first_line(error)}") from error
    if tokenizer.eos_token_id is None:
        raise UserError(f"data.tokenizer.name: {settings.name} has no end-of-text token")
    if len(tokenizer) > vocab_size:
        raise UserError(f"data.tokenizer.name: {settings.name} has {len(tokenizer)} entries; raise model.vocab_size")
    return tokenizer


def open_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The study's tokenizer, from the workflow's own folder."""
    return AutoTokenizer.from_pretrained(folder, local_files_only=True)
