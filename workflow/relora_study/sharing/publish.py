"""`python -m relora_study.sharing.publish`: upload a cell's checkpoints and a model card to the Hugging Face Hub.

No rule runs this command: publishing is a user's decision.
"""

from pathlib import Path
from typing import Annotated

import pandas as pd
import typer
from huggingface_hub import EvalResult, HfApi, ModelCardData
from huggingface_hub.errors import HfHubHTTPError

from ..analysis.results import training_seconds
from ..config import Cell, read_section
from ..config.schedule import is_evaluated
from ..errors import UserError, command_line
from ..model.checkpoints import list_checkpoints
from ..storage.contracts import CellManifest, read_cell_manifest
from ..storage.files import read_result

SHOWN = [  # suite, item and metric in evaluation.csv, and the name on the card
    ("perplexity", "overall", "token_perplexity", "Perplexity a token"),
    ("perplexity", "overall", "mean_text_perplexity", "Mean text perplexity"),
    ("perplexity", "overall", "bits_per_byte", "Bits a byte"),
    ("held_out", "part", "loss", "Held-out loss (a part of the text), nats a token"),
    ("minimal_pairs", "overall", "accuracy", "Minimal-pair accuracy"),
]
CARD = """---
{metadata}
---
# {name}

A language model ({architecture}) of {parameters:,} parameters ({trainable:,} trained), {how}.
It saw {tokens:,} tokens in {steps:,} steps. It is one cell of a replication of
[Weiss et al. 2025](https://arxiv.org/abs/2509.12960), which asks what ReLoRA does to the learning dynamics of small
language models: a subject of study, not a model to use for anything else.

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("{repository}")
tokenizer = AutoTokenizer.from_pretrained("{repository}")
```
{revisions}
## Measured at step {step:,}
{results}

## Provenance
- SHA-256 of the final `model.safetensors`: `{digest}`
- Trained with {versions}, on {device}, {processes} process(es), in {hours:.2f} hours.
- `adapters.safetensors`, where there is one, holds the live factors A and B; the weights have them folded in.

All that decided this run:
```yaml
{settings}```
"""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def publish(
    cell_dir: Annotated[Path, typer.Argument(metavar="CELL", help="the cell's folder, results/cells/<cell>")],
    repository: Annotated[str, typer.Argument(help="owner/name on the Hub; a new one is private")],
    tokenizer: Annotated[Path, typer.Option(help="the tokenizer's folder")] = Path("results/data/tokenizer"),
    licence: Annotated[str, typer.Option(help="the Hub's name of the weights' licence; yours to choose")] = "other",
    public: Annotated[bool, typer.Option(help="make a new repository public")] = False,
    all_steps: Annotated[
        bool, typer.Option(help="upload earlier checkpoints, too, each as a branch step-NNNNNN")
    ] = False,
    card_only: Annotated[bool, typer.Option(help="print the card and send nothing")] = False,
) -> None:
    """Upload the last checkpoint of CELL, the tokenizer and a model card to REPOSITORY; `hf auth login` first."""
    card = model_card(cell_dir, repository, licence, all_steps)
    if card_only:
        print(card)
        return
    try:
        upload(HfApi(), cell_dir, repository, tokenizer, card, private=not public, all_steps=all_steps)
    except (HfHubHTTPError, OSError) as error:  # no network, no login, no such owner
        raise UserError(
            f"the Hub refused {repository}: {error}; log in with `hf auth login`, or check the owner's name"
        ) from error
    print(f"https://huggingface.co/{repository}")


def upload(
    api: HfApi, cell_dir: Path, repository: str, tokenizer: Path, card: str, *, private: bool, all_steps: bool
) -> None:
    """Upload the last checkpoint to the branch main and, with ``all_steps``, every other to a branch of its name."""
    *earlier, last = list_checkpoints(cell_dir).values()
    api.create_repo(repository, private=private, exist_ok=True)
    for place in earlier if all_steps else []:
        api.create_branch(repository, branch=place.name, exist_ok=True)
        _upload_checkpoint(api, place, repository, tokenizer, card, place.name)
    _upload_checkpoint(api, last, repository, tokenizer, card, "main")


def _upload_checkpoint(api: HfApi, place: Path, repository: str, tokenizer: Path, card: str, revision: str) -> None:
    """Upload the tokenizer, the weights and then the card, each in one commit, so that no card precedes its files."""
    api.upload_folder(repo_id=repository, folder_path=tokenizer, revision=revision, commit_message="Tokenizer")
    api.upload_folder(repo_id=repository, folder_path=place, revision=revision, commit_message=place.name)
    api.upload_file(path_or_fileobj=card.encode(), path_in_repo="README.md", repo_id=repository, revision=revision)


def model_card(cell_dir: Path, repository: str, licence: str, all_steps: bool) -> str:
    """Write the model card from the cell's manifest, settings and evaluation.csv.

    Raises :class:`UserError` if one of them is missing, because the cell is not trained or not evaluated yet.
    """
    settings, manifest = read_section(Cell, cell_dir / "config.yaml"), read_cell_manifest(cell_dir)
    checkpoints = list_checkpoints(cell_dir)
    step = max(step for step in checkpoints if is_evaluated(settings.train, step))
    scores = _scores(cell_dir / "evaluation.csv", step)
    steps = [place.name for place in checkpoints.values()][:-1]
    revisions = f"\nEarlier checkpoints are branches, for `revision=`: {', '.join(steps)}.\n" if all_steps else ""
    return CARD.format(
        metadata=_metadata(settings.name, licence, scores),
        name=settings.name,
        architecture=settings.size.architecture,
        parameters=manifest.parameters,
        trainable=manifest.trainable_parameters,
        how=_how(settings, manifest),
        tokens=manifest.tokens,
        steps=manifest.diverged_at or manifest.steps,
        step=step,
        repository=repository,
        revisions=revisions,
        results=scores[["what", "value"]].to_markdown(index=False, floatfmt=".4f"),
        digest=manifest.final_sha256,
        versions=", ".join(f"{name} {version}" for name, version in sorted(manifest.versions.items())),
        device=manifest.device,
        processes=manifest.processes,
        hours=training_seconds(cell_dir) / 3600,
        settings=(cell_dir / "config.yaml").read_text(encoding="utf-8"),
    )


def _scores(file: Path, step: int) -> pd.DataFrame:
    """Read the rows of evaluation.csv at ``step`` that the card shows: suite, item, metric, what, value."""
    table = read_result(file)
    wanted = pd.DataFrame(SHOWN, columns=["suite", "item", "metric", "what"])
    return wanted.merge(table[table.step == step], on=["suite", "item", "metric"])


def _metadata(name: str, licence: str, scores: pd.DataFrame) -> str:
    """Return the card's YAML head in the Hub's terms."""
    results = [
        EvalResult("text-generation", row.suite, row.suite, row.metric, float(row.value), metric_name=row.what)
        for row in scores.itertuples()
    ]
    data = ModelCardData(
        model_name=name,
        license=licence,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["relora", "llama", "replication"],
        eval_results=results,
    )
    return str(data.to_yaml())


def _how(settings: Cell, manifest: CellManifest) -> str:
    ended = f", until it diverged at step {manifest.diverged_at:,}" if manifest.diverged_at else ""
    return _trained_by(settings) + ended


def _trained_by(settings: Cell) -> str:
    method = settings.method
    if method.is_full_rank:
        return "trained at full rank"
    merged = f"merged every {method.reset_period} steps" if method.reset_period else "never merged"
    kinds = {
        f"adapters of rank {method.rank}, {merged}": method.rank,
        f"factors of rank {method.factor_rank}": method.factor_rank,
        f"{method.update} projections of rank {method.projection_rank}": method.projection_rank,
    }
    kind = next((kind for kind, rank in kinds.items() if rank), "whole weights")
    stepped = "" if method.update == "plain" or method.projection_rank else f", stepped by {method.update}"
    return f"trained by the method `{settings.method_name}`: {kind}{stepped}"


if __name__ == "__main__":
    command_line(app)
