"""Numbers and names for readers: values rounded to their uncertainty, cells and columns in words."""

import math
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

import pandas as pd

from ..config.reading import PROJECT
from ..config.variants import KEYS
from ..storage.files import read_yaml

NAMES = {"relora": "ReLoRA", "lora": "LoRA", "galore": "GaLore", "fira": "Fira", "apollo": "APOLLO"}
SETTINGS = {key for keys in KEYS.values() for key in keys}  # keys that users write
HEADERS = {
    "train_loss": "train loss (nats/token)",
    "held_out_loss": "held-out loss (nats/token)",
    "over_full_rank": "over full rank",
    "published_size": "published size",
    "first": "first cycle",
    "mean_text_perplexity": "mean text perplexity",
    "bits_per_byte": "bits/byte",
    "tokens_per_second": "tokens/s",
    "peak_MiB": "peak memory (MiB)",
    "mcnemar_p": "McNemar p",
    "chance_p": "chance p",
    "p_holm": "Holm p",
    "dropped_after": "dropped after step",
    "device_hours": "device-hours",
    "paloma_perplexity": "Paloma perplexity",
    "blimp_accuracy": "BLiMP accuracy",
    "gpu_hours": "A100 GPU-hours",
    "published_value": "published",
    "diverged_at": "diverged at step",
    "against_diverged_at": "against: diverged at step",
}
P_VALUES = ("p", "p_holm", "mcnemar_p", "chance_p")
MISSING = "–"
FEW_DIGITS = 3.55
DIGITS = 3  # of a number without an interval

Rows = list[list[str]]


_labels_of_study: Mapping[str, str] | None = None


def use_labels(labels: Mapping[str, str]) -> None:
    """Call the methods of a study by its ``labels``, instead of those of the default study and the presets."""
    global _labels_of_study
    _labels_of_study = labels


@cache
def _labels_of_presets() -> dict[str, str]:
    """The labels of the default study's and the presets' methods by name, for words about no study in particular."""
    presets = sorted((PROJECT / "workflow" / "presets").glob("*.yaml"), reverse=True)
    contents = (read_yaml(file) for file in [*presets, PROJECT / "config.yaml"])
    blocks = (block for content in contents for block in content.get("methods", {}).items())
    return {name: method["label"] for name, method in blocks if "label" in method}


def method_label(method: str) -> str:
    """A method in words: its label, else its own name, with names in it as usual."""
    known = _labels_of_presets() if _labels_of_study is None else _labels_of_study
    return known.get(method) or " ".join(NAMES.get(word, word) for word in method.split("_"))


def in_words(name: object) -> str:
    """A name of the configuration, such as a size's or a sweep's, in words."""
    return str(name).replace("_", " ")


def cell_label(cell: str, seed: bool = True) -> str:
    """The name of a cell, `{size}-{method}-s{seed}`, in words."""
    size, method, number = cell.split("-")
    return f"{in_words(size)}, {method_label(method)}" + f", seed {number[1:]}" * seed


def cell_labels(cells: pd.Series) -> pd.Series:
    """The names of cells in words, without the seed where all cells share one."""
    several = cells.str.rsplit("-s", n=1).str[-1].nunique() > 1
    return cells.map(lambda cell: cell_label(cell, seed=several))


def decimals(uncertainty: float) -> int:
    """Decimal places that keep two significant digits of ``uncertainty`` up to 35, and one above.

    It is the rule of the Particle Data Group (Review of Particle Physics, introduction), for an uncertainty above 0.
    """
    power = math.floor(math.log10(uncertainty))
    return max(0, (1 if uncertainty / 10**power < FEW_DIGITS else 0) - power)


def with_interval(value: float, low: float, high: float) -> str:
    """``value [low, high]``, rounded to two digits of the half width; ``value`` alone where there is no interval."""
    half = (high - low) / 2
    if not (math.isfinite(half) and half > 0):
        return plain(value)
    places = decimals(half)
    return "{} [{}, {}]".format(*(minus(f"{number:,.{places}f}") for number in (value, low, high)))


def signed(value: float, places: int = 2) -> str:
    """``value`` with its sign, a true minus among them."""
    return minus(f"{value:+.{places}f}")


def minus(number: str) -> str:
    """A number's text with a true minus; a number that rounds to 0 has no sign."""
    return number if not number.startswith("-") else "−" * any(digit in number for digit in "123456789") + number[1:]


def spread(values: pd.Series, spelled: str) -> str:
    """The smallest to the largest of ``values``, in the format ``spelled``; one number where both read alike."""
    if values.isna().all():
        return MISSING
    low, high = (f"{value:{spelled}}" for value in (values.min(), values.max()))
    return low if low == high else f"{low} to {high}"


def listed(parts: Iterable[str]) -> str:
    """``a, b and c``; clauses that hold commas are parted by semicolons."""
    *first, last = parts
    if any(", " in part for part in (*first, last)):
        return "; and ".join(["; ".join(first), last] if first else [last])
    return f"{', '.join(first)} and {last}" if first else last


def plain(value: Any) -> str:
    """A value without an interval: integers in full, others to three digits, extreme ones as powers of ten."""
    if isinstance(value, str | bool):
        return value if isinstance(value, str) else "yes" if value else "no"
    if value is None or pd.isna(value) or not math.isfinite(value):
        return MISSING
    if value == int(value) and abs(value) < 1e15:
        return minus(f"{int(value):,}")
    if not 1e-3 <= abs(value) < 1e6:
        return minus(f"{value:.1e}".replace("e+0", "e").replace("e+", "e").replace("e-0", "e-"))
    places = ",.0f" if abs(value) >= 1000 else ".1f" if abs(value) >= 100 else f"#.{DIGITS}g"
    return minus(f"{value:{places}}")


def setting(value: Any) -> str:
    """A value that a user wrote, or several, as short as it was written."""
    if isinstance(value, list | tuple):
        return ", ".join(map(setting, value))
    exact = isinstance(value, float) and math.isfinite(value) and not value.is_integer()
    return f"{value:g}" if exact else plain(value)


def p_value(value: float) -> str:
    """A p-value, to two digits."""
    return plain(value) if not value >= 1e-3 else f"{value:#.2g}"


def shown_columns(table: pd.DataFrame) -> list[str]:
    """The columns of ``table`` that readers see: all but the ends of intervals, which stand behind their value."""
    ends = {f"{name}_{end}" for name in table for end in ("low", "high")}
    return [name for name in table if name not in ends]


def _header(name: str) -> str:
    return HEADERS.get(name) or in_words(name)


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """``table`` as text: intervals (`x`, `x_low`, `x_high`) in one column, cells and headers in words."""
    shown = {}
    for name in shown_columns(table):
        if name in ("cell", "against"):
            shown[name] = cell_labels(table[name]).tolist()
        elif name in ("method", "compared_with"):
            shown[name] = [MISSING if pd.isna(value) else method_label(value) for value in table[name]]
        elif name in ("size", "measure", "verdict", "edge"):
            filled = table[name].fillna("")
            shown[name] = [_header(value) for value in filled]
        elif f"{name}_low" in table:
            ranges = table[[name, f"{name}_low", f"{name}_high"]].itertuples(index=False)
            shown[name] = [with_interval(*bounds) for bounds in ranges]
        else:
            words = p_value if name in P_VALUES else setting if name in SETTINGS else plain
            shown[name] = [words(value) for value in table[name].tolist()]
    return pd.DataFrame(shown).rename(columns=_header)


def in_rows(table: pd.DataFrame) -> Rows:
    """``table`` as text (:func:`readable`): its header, and a list a row."""
    words = readable(table)
    return [list(words.columns), *words.astype(str).to_numpy().tolist()]
