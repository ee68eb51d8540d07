"""Sections about measuring, showing and sharing: evaluation, learning dynamics, the report, and the archive."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from .fields import (
    Name,
    NonNegativeNumber,
    PositiveInt,
    Revision,
    Section,
    Sequences,
    Tokens,
    Unit,
    at_default,
    is_none,
)

MARGIN = 0.03  # nats a token: 3 % of perplexity
LEVEL = 0.05  # significance level of every test and interval


class Perplexity(Section):
    """The texts for perplexity."""

    kind: ClassVar[str] = "texts"

    source: Literal["held_out", "path", "hub"]
    """held_out (of the corpus, by domain) | path (a folder of texts) | hub.

    In a folder each sub-folder is a domain.
    """
    path: str | None
    """Folder (path); or dataset, or folder of a copy (hub).

    Null with hub: the sample of Paloma that the paper's code evaluates on.
    """
    revision: Revision = None
    """The dataset's commit (hub); while it is null, a run stops and names the newest."""
    text_column: str
    """Column of texts, or of lists of the tokenizer's ids."""
    domain_column: str | None
    """Column that names a text's domain (hub).

    Null: the dataset's configurations are the domains, or else its column `source` names them.
    """
    max_tokens: Annotated[int, Field(ge=2), Unit("tokens")]
    """Most tokens of a text that are read; the paper cuts at its context length."""
    stride: Tokens | None
    """Tokens from one window to the next in longer texts; null: the context length."""

    @model_validator(mode="after")
    def _placed(self) -> Self:
        if self.source == "path" and not self.path:
            raise ValueError("path must name a folder when source is path")
        return self


class MinimalPairs(Section):
    """The minimal pairs."""

    kind: ClassVar[str] = "minimal_pairs"

    source: Literal["templated", "path", "url", "hub"]
    """templated (the project's own small suite) | path | url (BLiMP) | hub."""
    path: str | None
    """A .zip or folder of .jsonl files (path), or dataset (hub).

    The files are in BLiMP's schema. Null with hub: BLiMP.
    """
    revision: Revision = None
    """The dataset's commit (hub); while it is null, a run stops and names the newest."""
    start_token: bool
    """Whether the end-of-text token is put before each sentence."""
    leading_space: bool
    """Whether a space is put before each sentence.

    The harness lm_eval puts both, the paper's code neither.
    """

    @model_validator(mode="after")
    def _placed(self) -> Self:
        if self.source == "path" and not self.path:
            raise ValueError("path must name a .zip or a folder when source is path")
        return self


class Task(Section):
    """A task beside the two of every study; it is read and scored as the one of its kind."""

    kind: Literal["texts", "minimal_pairs"]
    """texts (as `evaluation.perplexity`) | minimal_pairs (as `evaluation.minimal_pairs`)."""
    source: Literal["path", "hub"] = "path"
    """path (files of yours) | hub (a dataset, or the folder of a copy)."""
    path: str
    """Folder of texts, .zip or folder of pairs (path); or dataset (hub)."""
    revision: Revision = None
    """The dataset's commit (hub); while it is null, a run stops and names the newest."""
    text_column: Annotated[str | None, Field(exclude_if=is_none)] = None
    """Column of texts; null: as in `evaluation.perplexity`."""
    domain_column: Annotated[str | None, Field(exclude_if=is_none)] = None
    """Column that names a text's domain (hub); null: as in `evaluation.perplexity`."""
    licence: Annotated[str | None, Field(exclude_if=is_none)] = None
    """Licence of the data, such as CC-BY-4.0, for the report; null: unknown."""

    def settings(self, alike: Perplexity | MinimalPairs) -> Perplexity | MinimalPairs:
        """Return the task's own settings over those of ``alike``, the task of its kind that every study has."""
        own: dict[str, Any] = {"source": self.source, "path": self.path, "revision": self.revision}
        columns = {key: getattr(self, key) for key in ("text_column", "domain_column")}
        return alike.model_copy(update=own | {key: value for key, value in columns.items() if value})

    @model_validator(mode="after")
    def _of_its_kind(self) -> Self:
        if self.kind != "texts" and (self.text_column or self.domain_column):
            raise ValueError(f"text_column and domain_column are for kind texts, not {self.kind}; remove them")
        return self


HEADLINES = {  # what tables and differences show of a kind: item and metric of evaluation.csv
    "texts": ("macro_average", "token_perplexity"),
    "minimal_pairs": ("overall", "accuracy"),
}
BUILT_IN = ("perplexity", "minimal_pairs")  # the tasks of every study
RESERVED = ("held_out", *BUILT_IN)


def place_of(task: str) -> str:
    """Return the place of a task in config.yaml."""
    return f"evaluation.{task}" if task in BUILT_IN else f"evaluation.tasks.{task}"


class Evaluation(Section):
    """The data on which each checkpoint is evaluated."""

    perplexity: Perplexity
    """Texts whose perplexity is measured."""
    minimal_pairs: MinimalPairs
    """Pairs of a good and a bad sentence; the good one should be likelier."""
    tasks: Annotated[dict[Name, Task], at_default({})] = Field(default={})
    """More tasks by name, each of a kind (docs/evaluation.md)."""
    checkpoint_tokens: Tokens
    """Tokens of held-out documents that score every checkpoint; all of them score the last one."""
    batch_tokens: Tokens
    """Tokens in one forward pass; more helps a GPU, and leaves a CPU's cache."""

    @property
    def every_task(self) -> dict[str, Perplexity | MinimalPairs]:
        """Return the settings of every task by name, the two of every study first."""
        alike: dict[str, Perplexity | MinimalPairs] = {"texts": self.perplexity, "minimal_pairs": self.minimal_pairs}
        own = {name: task.settings(alike[task.kind]) for name, task in self.tasks.items()}
        return {"perplexity": self.perplexity, "minimal_pairs": self.minimal_pairs, **own}

    @model_validator(mode="after")
    def _named_apart(self) -> Self:
        if taken := [name for name in self.tasks if name in RESERVED]:
            raise ValueError(f"tasks: {taken[0]} is a task that every study has; give yours another name")
        return self


class Dynamics(Section):
    """The settings of readings."""

    batch_sequences: Sequences
    """Sequences of the fixed batch, on which gradients and merges are read."""
    subspace_dimensions: PositiveInt
    """Leading directions of successive updates whose overlap is read."""


class Report(Section):
    """The look of figures and the paper."""

    title: str
    """Title of the paper."""
    introduction: Annotated[str | None, Field(exclude_if=is_none)] = None
    """First paragraph of the paper's introduction; null: none."""
    kind: Literal["replication", "experiment"] = "replication"
    """replication (the whole paper) | experiment (without dynamics, audit and published values).

    The web report has every figure and table in either case.
    """
    margin: Annotated[NonNegativeNumber, Unit("nats/token"), at_default(MARGIN)] = MARGIN
    """Difference in loss (nats/token) that counts as none; state it before the run.

    A verdict compares the 95 % interval of a difference with it.
    """
    published: Literal["auto", "overlay", "off"]
    """auto (where all shapes are the paper's) | overlay | off: the published curves.

    `overlay` draws them in any case; the sizes must be called as the paper's, tiny and small.
    """
    suite: Annotated[str | None, Field(exclude_if=is_none)] = None
    """Name of the minimal pairs in figures.

    Null: BLiMP where they are BLiMP's 67 paradigms, else the name of their file or dataset.
    """
    texts: Annotated[str | None, Field(exclude_if=is_none)] = None
    """Name of the texts for perplexity in the report.

    Null: Paloma for Paloma's datasets on the Hub, else the name of their folder or dataset.
    """


class Sharing(Section):
    """What an archive says of the run beside its results (docs/sharing.md)."""

    run_by: str | None = None
    """Name of the person who ran the study; null: the archive names nobody."""
    orcid: Annotated[str, Field(pattern=r"^\d{4}-\d{4}-\d{4}-\d{3}[\dX]$")] | None = None
    """The person's ORCID, such as 0000-0002-1825-0097; null: none."""
    licence: Annotated[str, Field(pattern=r"^[A-Za-z0-9.+-]+$")] | None = None
    """SPDX identifier of the results' licence, such as CC-BY-4.0; null: none chosen."""

    @model_validator(mode="after")
    def _of_somebody(self) -> Self:
        if self.orcid and not self.run_by:
            raise ValueError("run_by must name the person whose orcid this is")
        return self
