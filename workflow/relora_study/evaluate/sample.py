"""`python -m relora_study.evaluate.sample`: what the last checkpoint of each cell writes after the same beginnings."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import torch
import typer
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.tokenizer import open_tokenizer
from ..errors import UserError, command_line
from ..model.checkpoints import list_checkpoints, open_model
from ..storage.contracts import diverged_at

BEGINNINGS = ["The", "She said that", "In the first half of the year,"]

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


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


if __name__ == "__main__":
    command_line(app)
