"""`python -m relora_study.evaluate`: collect the evaluation data, and evaluate every checkpoint of a cell on them."""

import json
import sys
from pathlib import Path
from typing import Annotated

import pandas as pd
import torch
import typer
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from ..config import Cell, Evaluation, read_section
from ..config.schedule import due_steps, is_evaluated
from ..config.settings import MeasurementSettings, YardstickSettings
from ..data.documents import Stored
from ..data.tokenizer import id_count, open_tokenizer
from ..data.tokens import open_documents
from ..errors import UserError, command_line
from ..model.checkpoints import list_checkpoints, load_model
from ..model.device import chosen_device, keep_freed_memory
from ..storage.contracts import diverged_at
from ..storage.files import write_csv, write_text, write_whole
from .checkpoint import EvaluationData, evaluate_once
from .domains import collect_texts
from .held_out import document_losses, held_out_texts
from .minimal_pairs import encode_pairs
from .perplexity import Texts, take_texts
from .suite import download_blimp, missing_of_blimp, read_hub, read_suite
from .templated import templated_suite
from .yardsticks import counted_losses

BLIMP_ON_THE_HUB = "nyu-mll/blimp"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
Place = Annotated[Path, typer.Option()]
Count = Annotated[int, typer.Option(min=1)]


@app.command()
def minimal_pairs(settings: Place, documents: Place, output: Place) -> None:
    """Collect the suite of minimal pairs, with one .jsonl file for each paradigm."""
    chosen = read_section(Evaluation, settings).minimal_pairs
    if chosen.source == "templated":
        suite = templated_suite(Stored(documents / "train.parquet").texts())
        pairs = pd.DataFrame([pair for paradigm in suite.values() for pair in paradigm])
    elif chosen.source == "hub":
        pairs = read_hub(chosen.path or BLIMP_ON_THE_HUB, chosen.revision)
    else:
        output.mkdir(parents=True, exist_ok=True)
        pairs = read_suite(download_blimp(output) if chosen.source == "url" else Path(chosen.path or ""), tell=True)
    if missing := missing_of_blimp(pairs):
        print(f"warning: BLiMP is incomplete: {missing}", file=sys.stderr)
    for paradigm, group in pairs.groupby("UID"):
        lines = [json.dumps(pair) for pair in group.to_dict("records")]
        write_text(output / f"{paradigm}.jsonl", "\n".join(lines) + "\n")


@app.command()
def texts(settings: Place, documents: Place, tokenizer: Place, output: Place) -> None:
    """Collect the texts for perplexity in a table of domain and text; a text is a string or ids of TOKENIZER."""
    known = frozenset(open_tokenizer(tokenizer).get_vocab().values())
    collected = collect_texts(read_section(Evaluation, settings).perplexity, documents / "held_out.parquet", known)
    write_whole(output, collected.to_parquet)


@app.command("cell")
def evaluate_cell(
    settings: Place,
    cell_dir: Annotated[Path, typer.Option("--cell")],
    data: Place,
    pairs: Place,
    texts: Place,
    threads: Count,
    output: Place,
) -> None:
    """Evaluate the checkpoints of CELL that are due and not evaluated yet, and write all scores to OUTPUT."""
    torch.set_num_threads(threads)
    keep_freed_memory()  # taking the pages again in every layer costs a seventh of the time
    evaluation, cell = read_section(MeasurementSettings, settings), read_section(Cell, cell_dir / "config.yaml")
    tokenizer = _tokenizer_of(cell, data / "tokenizer")
    most = min(evaluation.checkpoint_tokens, evaluation.held_out_tokens)
    held_out = held_out_texts(data / "tokens", most, cell.model.context_length, tokenizer)
    on = open_evaluation_data(evaluation, cell, tokenizer, read_suite(pairs), pd.read_parquet(texts), held_out)
    checkpoints = list_checkpoints(cell_dir, due_steps(cell, diverged_at(cell_dir)))
    due = {step: path for step, path in checkpoints.items() if is_evaluated(cell.train, step)}
    progress = tqdm(due.items(), desc=f"evaluating {cell_dir.name}", disable=None)
    tables = [evaluate_once(on, path, cell_dir / "evaluation").assign(step=step) for step, path in progress]
    write_csv(output, pd.concat(tables)[["step", "suite", "item", "metric", "value"]])


@app.command("held-out")
def score_cell(
    settings: Place, cell_dir: Annotated[Path, typer.Option("--cell")], data: Place, threads: Count, output: Place
) -> None:
    """Write the loss of CELL's last checkpoint on each held-out document; no numbers where it diverged."""
    torch.set_num_threads(threads)
    keep_freed_memory()
    evaluation, cell = read_section(MeasurementSettings, settings), read_section(Cell, cell_dir / "config.yaml")
    tokenizer, diverged = _tokenizer_of(cell, data / "tokenizer"), diverged_at(cell_dir)
    texts = held_out_texts(data / "tokens", evaluation.held_out_tokens, cell.model.context_length, tokenizer)
    _, checkpoint = max(list_checkpoints(cell_dir, due_steps(cell, diverged)).items())
    model = load_model(checkpoint, chosen_device(cell.runtime.device))
    losses = document_losses(model, texts, evaluation.batch_tokens)
    write_csv(output, losses.assign(nats=float("nan")) if diverged else losses)


@app.command()
def yardsticks(settings: Place, tokens: Place, output: Place) -> None:
    """Write the held-out losses of n-gram models counted on what the cells read, a row a diet and order."""
    wanted = read_section(YardstickSettings, settings)
    documents = open_documents(tokens, "held_out", wanted.held_out_tokens, wanted.context_length)
    tables = [counted_losses(tokens, diet, wanted.context_length, documents) for diet in wanted.diets]
    write_csv(output, pd.concat(tables))


def open_evaluation_data(
    evaluation: MeasurementSettings,
    cell: Cell,
    tokenizer: PreTrainedTokenizerBase,
    suite: pd.DataFrame,
    texts: pd.DataFrame,
    held_out: Texts,
) -> EvaluationData:
    """Encode ``suite`` and ``texts`` for the model of ``cell``.

    Held-out texts are cut to the configured tokens of each domain; texts from elsewhere are read whole.
    """
    policy, chosen = evaluation.minimal_pairs, evaluation.perplexity
    domain_tokens = evaluation.held_out_tokens_per_domain if chosen.source == "held_out" else sys.maxsize
    by_domain = texts.groupby("domain")
    return EvaluationData(
        domains={
            str(name): take_texts(group.text, tokenizer, chosen.max_tokens, domain_tokens) for name, group in by_domain
        },
        stride=chosen.stride or cell.model.context_length,
        suite=suite,
        encoded=encode_pairs(suite, tokenizer, policy.start_token, policy.leading_space),
        held_out=held_out,
        batch_tokens=evaluation.batch_tokens,
        start_token=policy.start_token,
        leading_space=policy.leading_space,
        device=chosen_device(cell.runtime.device),
    )


def _tokenizer_of(cell: Cell, place: Path) -> PreTrainedTokenizerBase:
    """Open the tokenizer in ``place``. Raises :class:`UserError` if it has ids that the cell's model lacks."""
    tokenizer, known = open_tokenizer(place), cell.model.vocab_size
    if (size := id_count(tokenizer)) > known:
        raise UserError(
            f"the tokenizer in {place} has ids up to {size - 1}, and the model of {cell.name} has {known} entries;"
            " take the tokenizer that the cell was trained with, or raise model.vocab_size and train it again"
        )
    return tokenizer


if __name__ == "__main__":
    command_line(app)
