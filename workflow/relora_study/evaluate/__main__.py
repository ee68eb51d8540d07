"""`python -m relora_study.evaluate`: collect the evaluation data, evaluate checkpoints on them, let models write."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import pandas as pd
import torch
import typer
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..config import Cell, Evaluation, read_section
from ..config.measuring import place_of
from ..config.schedule import due_steps, is_evaluated
from ..config.settings import MeasurementSettings, YardstickSettings
from ..data.tokenizer import id_count, open_tokenizer
from ..data.tokens import open_documents
from ..errors import UserError, command_line
from ..model.checkpoints import list_checkpoints, load_model, open_model
from ..model.device import chosen_device, keep_freed_memory
from ..storage.contracts import diverged_at
from ..storage.files import write_csv, write_whole
from .ngrams import counted_losses
from .tasks import KINDS, evaluate_once, prepare, prepare_held_out
from .texts import document_losses, held_out_texts

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
Place = Annotated[Path, typer.Option()]
Count = Annotated[int, typer.Option(min=1)]
BEGINNINGS = ["The", "She said that", "In the first half of the year,"]


@app.command("collect")
def collect_task(
    settings: Place, task: Annotated[str, typer.Option()], documents: Place, tokenizer: Place, output: Place
) -> None:
    """Collect the texts or pairs of TASK in a table; where these are ids, they are held to TOKENIZER."""
    chosen = read_section(Evaluation, settings).every_task[task]
    table = KINDS[chosen.kind].collect(chosen, place_of(task), documents, tokenizer)
    write_whole(output, table.to_parquet)


@app.command("cell")
def evaluate_cell(
    settings: Place,
    cell_dir: Annotated[Path, typer.Option("--cell")],
    data: Place,
    tasks: Place,
    threads: Count,
    output: Place,
) -> None:
    """Evaluate the checkpoints of CELL that are due and not evaluated yet, and write all scores to OUTPUT.

    TASKS is the folder with the table of each task.
    """
    torch.set_num_threads(threads)
    keep_freed_memory()  # taking the pages again in every layer costs a seventh of the time
    evaluation, cell = read_section(MeasurementSettings, settings), read_section(Cell, cell_dir / "config.yaml")
    tokenizer = _tokenizer_of(cell, data / "tokenizer")
    most = min(evaluation.checkpoint_tokens, evaluation.held_out_tokens)
    held_out = held_out_texts(data / "tokens", most, cell.model.context_length, tokenizer)
    on = [
        *(
            prepare(name, chosen, pd.read_parquet(tasks / f"{name}.parquet"), tokenizer, evaluation, cell)
            for name, chosen in evaluation.every_task.items()
        ),
        prepare_held_out(held_out, evaluation.batch_tokens),
    ]
    device = chosen_device(cell.runtime.device)
    checkpoints = list_checkpoints(cell_dir, due_steps(cell, diverged_at(cell_dir)))
    due = {step: path for step, path in checkpoints.items() if is_evaluated(cell.train, step)}
    progress = tqdm(due.items(), desc=f"evaluating {cell_dir.name}", disable=None)
    tables = [evaluate_once(on, path, cell_dir / "evaluation", device).assign(step=step) for step, path in progress]
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


@app.command()
def sample(
    prompts: Annotated[list[str] | None, typer.Argument(help="what the models go on with")] = None,
    results: Annotated[Path, typer.Option(help="the results of a study")] = Path("results"),
    tokens: Annotated[int, typer.Option(min=1, help="most tokens of a continuation")] = 30,
    temperature: Annotated[float, typer.Option(min=0, help="0: always the likeliest token")] = 0.8,
    seed: Annotated[int, typer.Option(help="of the draws, the same for every cell")] = 42,
) -> None:
    """Print how each trained cell goes on with each of PROMPTS, after an end-of-text token, as documents begin."""
    tokenizer = open_tokenizer(results / "data/tokenizer")
    places = sorted(place.parent for place in (results / "cells").glob("*/manifest.json"))
    if not places:
        raise UserError(f"{results}/cells has no trained cell; run snakemake, or name another folder with --results")
    for place in places:
        if ended := diverged_at(place):
            print(f"{place.name}: diverged at step {ended}\n")
            continue
        step, checkpoint = max(list_checkpoints(place).items())
        model = open_model(checkpoint)
        print(f"{place.name}, after step {step:,}")
        for prompt, text in continued(model, tokenizer, prompts or BEGINNINGS, tokens, temperature, seed):
            print(f"  {prompt} |{text}")
        print()


def continued(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Iterable[str],
    tokens: int,
    temperature: float,
    seed: int,
) -> Iterable[tuple[str, str]]:
    """Yield each of ``prompts`` with what ``model`` writes after it, on one line; every prompt has draws of its own."""
    drawn = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature else {"do_sample": False}
    for number, prompt in enumerate(prompts):
        torch.manual_seed(seed + number)
        ids = torch.tensor([[tokenizer.eos_token_id, *tokenizer(prompt, add_special_tokens=False)["input_ids"]]])
        end = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.eos_token_id}
        written = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, **drawn, **end)
        text = tokenizer.decode(written[0, ids.shape[1] :], skip_special_tokens=True)
        yield prompt, text.replace("\n", " ")


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
