"""What a training run consists of: the model, its optimizer, and the moment at which adapters take over."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from transformers import LlamaForCausalLM

from ..config import Cell
from ..model.build import build_model
from ..model.relora import adapters, add_adapters, remove_adapters
from ..schedule import has_adapters
from .parallel import rank
from .resets import MasterCopies


@dataclass
class Run:
    """A cell's model and optimizer while it trains; ``data`` is a hash of the token ids that it trains on.

    ``diverged_at`` is the step that ended the training where its numbers were no longer finite.
    """

    cell: Cell
    model: LlamaForCausalLM
    optimizer: torch.optim.Optimizer
    device: torch.device
    masters: MasterCopies | None = None
    data: str = ""
    diverged_at: int | None = None


def start(cell: Cell, device: torch.device, done: int = 0, data: str = "") -> Run:
    """The cell's model and optimizer after ``done`` steps, as far as they are made and not learnt."""
    model = build_model(cell.size, cell.model, cell.seed).to(device)
    model.train()
    run = Run(cell, model, _optimizer(cell, model), device, data=data)
    if has_adapters(cell.method, done):
        begin_adapters(run)
    else:
        _compile_layers(run)
    if rank():  # every process starts from the same weights and drops out on its own
        torch.manual_seed(cell.seed + rank())
    return run


def begin_adapters(run: Run) -> None:
    """Give the model its adapters; what goes on training keeps its moments, and what is frozen no old gradient."""
    _change_parameters(run, lambda: add_adapters(run.model, run.cell.method))
    if run.cell.method.restart == "undone":
        run.masters = MasterCopies(adapters(run.model).values())
    if run.cell.method.restart == "orthogonal":
        for layer in adapters(run.model).values():
            layer.register_buffer("unused_A", torch.eye(layer.A.shape[1], device=run.device))


def end_adapters(run: Run) -> None:
    """Fold the adapters into the weights, all of which train from here on; the weights begin without moments."""
    _change_parameters(run, lambda: remove_adapters(run.model))
    run.masters = None


def _change_parameters(run: Run, change: Callable[[], None]) -> None:
    """Let ``change`` replace some of the model's layers; parameters that stay and train keep their moments."""
    run.optimizer.zero_grad()
    moments = {name: run.optimizer.state.get(parameter) for name, parameter in run.model.named_parameters()}
    change()
    run.optimizer = _optimizer(run.cell, run.model)
    for name, parameter in run.model.named_parameters():
        if parameter.requires_grad and moments.get(name):
            run.optimizer.state[parameter] = moments[name]
    _compile_layers(run)


def _compile_layers(run: Run) -> None:
    """With ``runtime.compile``, compile each of the decoder's layers: they are alike, so one compilation serves all."""
    if run.cell.runtime.compile:
        for layer in run.model.model.layers:
            layer.compile()


def _optimizer(cell: Cell, model: LlamaForCausalLM) -> torch.optim.AdamW:
    """AdamW on all that trains, decaying all of it, as the paper's code does."""
    recipe = cell.train
    return torch.optim.AdamW(
        [parameter for parameter in model.parameters() if parameter.requires_grad],
        lr=recipe.learning_rate,
        betas=(recipe.betas[0], recipe.betas[1]),
        eps=recipe.eps,
        weight_decay=recipe.weight_decay,
        fused=True,
    )
