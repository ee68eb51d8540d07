"""Train a byte-level BPE tokenizer on the training documents, or load an existing tokenizer."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from ..config import Tokenizer as TokenizerSettings
from ..errors import UserError
from .hub import HUB_ERRORS, commit, first_line

if TYPE_CHECKING:  # transformers takes longer to import than the other jobs of this stage to run
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

END_OF_TEXT = "<|endoftext|>"


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> "PreTrainedTokenizerFast":
    """Train a BPE (Sennrich et al. 2016) on bytes, of at most ``vocab_size`` entries; it can encode any text."""
    from transformers import PreTrainedTokenizerFast

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


def load_tokenizer(settings: TokenizerSettings, vocab_size: int) -> "PreTrainedTokenizerBase":
    """Load the tokenizer ``settings.name``, a folder or a repository on the Hub, without running any Python in it.

    Raises :class:`UserError` if it needs Python code, cannot be read as a tokenizer.json, has no end-of-text token, or
    has an id that is not below ``vocab_size``.
    """
    from transformers import AutoTokenizer

    place: dict[str, Any] = {"local_files_only": True}
    if settings.source == "hub":
        place = {"revision": commit(str(settings.name), settings.revision, "data.tokenizer.revision", "model")}
    try:
        tokenizer = AutoTokenizer.from_pretrained(settings.name, trust_remote_code=False, **place)
    except HUB_ERRORS as error:
        raise UserError(f"data.tokenizer.name: cannot open {settings.name}: {_reason(error)}") from error
    if not tokenizer.is_fast:
        raise UserError(f"data.tokenizer.name: {settings.name} cannot be read as a tokenizer.json; convert it to one")
    if tokenizer.eos_token_id is None:
        raise UserError(
            f"data.tokenizer.name: {settings.name} has no end-of-text token; set eos_token in its tokenizer_config.json"
        )
    if (size := id_count(tokenizer)) > vocab_size:
        raise UserError(
            f"data.tokenizer.name: {settings.name} has ids up to {size - 1}, so its model needs {size} entries; raise"
            " model.vocab_size"
        )
    return tokenizer


def _reason(error: Exception) -> str:
    """Say why a tokenizer cannot be opened. Transformers asks to trust Python code, which never runs here."""
    if "trust_remote_code" in str(error):
        return "it needs Python code of its own, which is never run; give one that needs only a tokenizer.json"
    return first_line(error)


def id_count(tokenizer: "PreTrainedTokenizerBase") -> int:
    """Return the largest id plus one: the model's vocabulary must be as large, even if ids have gaps."""
    return int(max(tokenizer.get_vocab().values())) + 1


def open_tokenizer(folder: Path) -> "PreTrainedTokenizerBase":
    """Open the study's tokenizer, which the command `tokenizer` wrote to ``folder``."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
