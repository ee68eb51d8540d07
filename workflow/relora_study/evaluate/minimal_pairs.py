"""Tasks of minimal pairs: is the good sentence likelier than the bad sentence? (BLiMP: Warstadt et al. 2020, section 4)

A suite is the project's own, BLiMP, or files in BLiMP's JSONL schema.
"""

import re
import sys
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pandas as pd
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..config import MinimalPairs
from ..config.benchmark_names import BLIMP_DATASETS, BLIMP_SHA256, BLIMP_URL, blimp_phenomena
from ..config.measuring import LEVEL
from ..data.documents import Stored
from ..data.hub import load_configurations, require_columns
from ..data.reader import is_hidden, list_documents, parse_objects, read_objects, require_unicode
from ..errors import UserError
from ..storage.files import sha256, write_whole
from .prefix_tree import log_probabilities
from .templated import templated_suite

PAIRS_A_PARADIGM = 1000  # in BLiMP
SECTION = "evaluation.minimal_pairs"
SENTENCES = ["sentence_good", "sentence_bad"]
FIELDS = [*SENTENCES, "linguistics_term", "UID", "pairID"]


class Encoded(NamedTuple):
    """The names of the pairs, and the ids of all good sentences, then of all bad sentences."""

    pairs: pd.DataFrame
    ids: list[list[int]]


def collect(settings: MinimalPairs, section: str, documents: Path, tokenizer: Path) -> pd.DataFrame:
    """Return the pairs of a suite, a row each, with BLiMP's names of columns; ``tokenizer`` is not asked.

    ``documents`` holds the corpus, and ``section`` is the place of ``settings`` in config.yaml. Raises
    :class:`UserError` as :func:`read_suite` does.
    """
    pairs = _read(settings, section, documents)
    if missing := missing_of_blimp(pairs):
        print(f"warning: BLiMP is incomplete: {missing}", file=sys.stderr)
    return pairs


def _read(settings: MinimalPairs, section: str, documents: Path) -> pd.DataFrame:
    if settings.source == "templated":
        suite = templated_suite(Stored(documents / "train.parquet").texts())
        return pd.DataFrame([pair for paradigm in suite.values() for pair in paradigm])[FIELDS]
    if settings.source == "hub":
        return read_hub(settings.path or BLIMP_DATASETS[0], settings.revision, section)
    if settings.source == "path":
        return read_suite(Path(settings.path or ""), section)
    with TemporaryDirectory() as place:
        return read_suite(download_blimp(Path(place)), section)


def encode(
    settings: MinimalPairs, table: pd.DataFrame, tokenizer: PreTrainedTokenizerBase, context_length: int, held_out: int
) -> Encoded:
    """Encode the pairs of :func:`collect`, whole."""
    return Encoded(
        table[["UID", "pairID", "linguistics_term"]],
        encode_pairs(table, tokenizer, settings.start_token, settings.leading_space),
    )


def measure(settings: MinimalPairs, judged: pd.DataFrame) -> pd.DataFrame:
    """Return the measures of the table of :func:`score` (:func:`accuracies`), and how sentences were read."""
    policy = {"start_token": float(settings.start_token), "leading_space": float(settings.leading_space)}
    rows = pd.DataFrame({"item": "policy", "metric": list(policy), "value": list(policy.values())})
    return pd.concat([accuracies(judged), rows], ignore_index=True)


def download_blimp(output: Path) -> Path:
    """Download BLiMP's public file into ``output``. Raises :class:`UserError` without network or with another hash."""
    path = output / "blimp.zip"

    def fetch(partial: Path) -> None:
        urllib.request.urlretrieve(BLIMP_URL, partial)
        if (digest := sha256(partial)) != BLIMP_SHA256:
            partial.unlink()
            raise UserError(
                f"{BLIMP_URL} has sha256 {digest}, not the pinned {BLIMP_SHA256}; run again, or fetch it by hand"
            )

    try:
        write_whole(path, fetch)
    except OSError as error:
        raise UserError(f"cannot fetch {BLIMP_URL}: {error}; fetch it by hand and set minimal_pairs.path") from error
    return path


def read_hub(name: str, revision: str | None = None, section: str = SECTION) -> pd.DataFrame:
    """Read all pairs of a dataset on the Hub at the commit ``revision``, or of a local copy.

    Each configuration of the dataset is a paradigm, as in BLiMP. Raises :class:`UserError` as :func:`read_suite` does.
    """
    parts = load_configurations(name, revision, "train", section)
    pairs = []
    for configuration, table in parts.items():
        table = table.rename_columns(["pairID" if column == "pair_id" else column for column in table.column_names])
        require_columns(table, set(FIELDS), name)
        rows = enumerate(table.select(FIELDS).to_pylist())
        pairs += [_pair(row, f"{name} ({configuration}), row {number}") for number, row in rows]
    return _checked(pd.DataFrame(pairs, columns=FIELDS), name)


def read_suite(path: Path, section: str = SECTION) -> pd.DataFrame:
    """Read all pairs of the .jsonl files in a folder or a .zip, without unpacking to disk.

    It prints which files of a folder it passes over. Raises :class:`UserError` that names the file and line of a pair
    that is not JSON or lacks a field, or the paradigm of a repeated pair, or a paradigm whose name is no plain word.
    """
    pairs = pd.DataFrame(
        [_pair(row, f"{name}, line {number}") for name, number, row in _rows(path, section)], columns=FIELDS
    )
    if pairs.empty:
        raise UserError(f"{path} holds no .jsonl file with minimal pairs; check {section}.path")
    return _checked(pairs, str(path))


def _checked(pairs: pd.DataFrame, place: str) -> pd.DataFrame:
    """Return ``pairs`` after checking that each paradigm has a plain name, and that no paradigm has a pairID twice."""
    for name in pairs.UID.unique():
        if not re.fullmatch(r"\w[\w.-]*", name):
            raise UserError(f"{place}: paradigm {name!r} must have only letters, digits, _ . - in its name")
    repeated = pairs[pairs.duplicated(["UID", "pairID"])]
    if not repeated.empty:
        first = repeated.iloc[0]
        raise UserError(f"{place}: paradigm {first.UID} has pairID {first.pairID} twice; remove one pair")
    return pairs


def missing_of_blimp(pairs: pd.DataFrame) -> str:
    """Say which of BLiMP's 67 paradigms of 1,000 pairs are missing or short in ``pairs``; empty if none are.

    A suite without any of BLiMP's paradigms is another suite, so nothing is missing.
    """
    expected = list(blimp_phenomena())
    counts = pairs.UID.value_counts().reindex(expected, fill_value=0)
    absent, short = counts[counts == 0], counts[(counts > 0) & (counts != PAIRS_A_PARADIGM)]
    if len(absent) == len(expected):
        return ""
    named = [f"no {', '.join(absent.index)}"] if len(absent) else []
    return "; ".join(named + [f"{count} pairs, not {PAIRS_A_PARADIGM}, of {name}" for name, count in short.items()])


def _rows(path: Path, section: str) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """Yield the objects in the files of a suite, each with the file's name and the line's number."""
    try:
        if path.is_dir():
            listing = list_documents(path, section, (".jsonl",))
            listing.say(section)
            for file in listing.files:
                yield from ((str(file), number, row) for number, row in read_objects(file))
        else:
            with zipfile.ZipFile(path) as archive:
                for name in sorted(archive.namelist()):
                    parts = PurePosixPath(name).parts
                    if name.lower().endswith(".jsonl") and not is_hidden(part for part in parts if part != ".."):
                        with archive.open(name) as stream:
                            yield from ((name, number, row) for number, row in parse_objects(stream, name))
    except (OSError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
        raise UserError(f"{section}.path: cannot read {path}: {error}") from error


def _pair(row: dict[str, Any], place: str) -> dict[str, str]:
    """Return the fields of a pair as texts: two sentences, and names, which may be integers in the file."""
    for name in FIELDS:
        value = row.get(name)
        if value is None:
            raise UserError(f"{place}: not a minimal pair ({name} is {'null' if name in row else 'missing'})")
        if not isinstance(value, str) and (name in SENTENCES or type(value) is not int):
            raise UserError(f"{place}: not a minimal pair ({name} is {value!r:.40}, no text)")
        if not require_unicode(str(value), place).strip() and name in SENTENCES:
            raise UserError(f"{place}: not a minimal pair ({name} is empty)")
    return {name: str(row[name]) for name in FIELDS}


def encode_pairs(
    pairs: pd.DataFrame, tokenizer: PreTrainedTokenizerBase, start_token: bool, leading_space: bool = False
) -> list[list[int]]:
    """Encode all good sentences, then all bad sentences, as lists of ids.

    ``start_token`` puts the end-of-text token before each sentence, so that the first word is scored, too.
    ``leading_space`` puts a space there, as inside a text. The harness lm_eval does both for BLiMP.
    """
    sentences = [" " * leading_space + sentence for sentence in (*pairs.sentence_good, *pairs.sentence_bad)]
    start = [tokenizer.eos_token_id] if start_token else []
    encoded = tokenizer(sentences, add_special_tokens=False, return_attention_mask=False)["input_ids"]
    return [start + ids for ids in encoded]


def score(model: PreTrainedModel, encoded: Encoded, batch_tokens: int) -> pd.DataFrame:
    """Score the pairs.

    The table has a row for each pair: UID, pairID, linguistics_term, the summed log-probability (nats) of each
    sentence (good, bad), and its scored tokens (good_tokens, bad_tokens).
    """
    sums = log_probabilities(model, list(map(tuple, encoded.ids)), batch_tokens)
    tokens = [len(ids) - 1 for ids in encoded.ids]
    half = len(encoded.pairs)
    scores = {"good": sums[:half], "bad": sums[half:], "good_tokens": tokens[:half], "bad_tokens": tokens[half:]}
    return encoded.pairs[["UID", "pairID", "linguistics_term"]].reset_index(drop=True).assign(**scores)


def accuracies(judged: pd.DataFrame) -> pd.DataFrame:
    """Return a table of item, metric and value for each paradigm, each phenomenon and ``overall``.

    ``accuracy`` compares summed log-probabilities, as BLiMP does, and has Wilson's 95 % interval.
    ``accuracy_per_token`` compares means over tokens. A tie counts as wrong. ``chance_p`` is the p-value of a
    one-sided binomial test against one half.
    """
    per_token = judged.good / judged.good_tokens > judged.bad / judged.bad_tokens
    judged = judged.assign(right=judged.good > judged.bad, tie=judged.good == judged.bad, per_token=per_token)
    groups = [("overall", judged)]
    groups += [(f"phenomenon/{name}", group) for name, group in judged.groupby("linguistics_term")]
    groups += [(f"paradigm/{name}", group) for name, group in judged.groupby("UID")]
    return pd.concat([_accuracy_metrics(item, group) for item, group in groups], ignore_index=True)


def _accuracy_metrics(item: str, group: pd.DataFrame) -> pd.DataFrame:
    from scipy.stats import binomtest  # longer than the rest of a job that collects pairs
    from statsmodels.stats.proportion import proportion_confint

    right, count = int(group.right.sum()), len(group)
    low, high = proportion_confint(right, count, alpha=LEVEL, method="wilson")
    values = {
        "accuracy": right / count,
        "accuracy_low": low,
        "accuracy_high": high,
        "chance_p": binomtest(right, count, alternative="greater").pvalue,
        "accuracy_per_token": group.per_token.mean(),
        "ties": group.tie.sum(),
        "pairs": count,
    }
    return pd.DataFrame({"item": item, "metric": list(values), "value": [float(value) for value in values.values()]})
