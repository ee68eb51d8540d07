"""Make and change a run, the model and optimizer of a training: add adapters to it, or fold them in."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from ..config import Cell
from ..config.schedule import has_adapters, rank_after
from ..model.build import first_model
from ..model.decoder import layers
from ..model.relora import adapters, add_adapters, remove_adapters
from .optimizer import make_optimizer
from .parallel import rank
from .resets import MasterCopies


@dataclass
class Run:
    """The model and optimizer of a cell in training.

    ``masters`` exists only with ``restart: undone``. ``data`` is the hash of the token ids. ``diverged_at`` is the step
    at which the numbers stopped being finite, or None.
    """

    cell: Cell
    model: PreTrainedModel
    optimizer: torch.optim.Optimizer
    device: torch.device
    masters: MasterCopies | None = None
    data: str = ""
    diverged_at: int | None = None


def start(cell: Cell, device: torch.device, done: int = 0, data: str = "") -> Run:
    """Make a run in the form that it has after ``done`` steps, with or without adapters, and with untrained weights.

    For ``done`` above 0, the caller loads the trained weights and moments from a state.
    """
    return begin(cell, first_model(cell).to(device), device, done, data)


def begin(cell: Cell, model: PreTrainedModel, device: torch.device, done: int = 0, data: str = "") -> Run:
    """Make the run of :func:`start` of ``model``, the cell's first one without adapters, which lies on ``device``."""
    model.train()
    run = Run(cell, model, make_optimizer(cell, model), device, data=data)
    if has_adapters(cell.method, done):
        begin_adapters(run, done)
    else:
        _compile_layers(run)
    if rank():  # processes share the first weights, and draw different dropout masks
        torch.manual_seed(cell.seed + rank())
    return run


def begin_adapters(run: Run, done: int) -> None:
    """Add adapters to the model after ``done`` steps. Parameters that still train keep their moments."""
    _change_parameters(run, lambda: add_adapters(run.model, run.cell.method))
    for layer in adapters(run.model).values():
        layer.narrow(rank_after(run.cell.method, done))
    if run.cell.method.restart == "undone":
        run.masters = MasterCopies(adapters(run.model).values())
    if run.cell.method.restart == "orthogonal":
        for layer in adapters(run.model).values():
            layer.register_buffer("unused_A", torch.eye(layer.A.shape[1], device=run.device))


def end_adapters(run: Run) -> None:
    """Fold the adapters into the weights, and train all weights from here on; folded weights begin without moments."""
    _change_parameters(run, lambda: remove_adapters(run.model))
    run.masters = None


def _change_parameters(run: Run, change: Callable[[], None]) -> None:
    """Call ``change``, which replaces layers, and make a new optimizer.

    Parameters that stay and train keep their moments. Old gradients go, so that frozen weights hold no memory.
    """
    run.optimizer.zero_grad()
    moments = {name: run.optimizer.state.get(parameter) for name, parameter in run.model.named_parameters()}
    change()
    run.optimizer = make_optimizer(run.cell, run.model)
    for name, parameter in run.model.named_parameters():
        if parameter.requires_grad and moments.get(name):
            run.optimizer.state[parameter] = moments[name]
    _compile_layers(run)


def _compile_layers(run: Run) -> None:
    """With ``runtime.compile``, compile the decoder's layers. They are alike, so one compilation serves all."""
    if run.cell.runtime.compile:
        for layer in layers(run.model):
            layer.compile()
