"""Count the kernels of one micro-batch of a cell at its own shapes, both passes and its part of the optimizer's step.

The tensors are fake: they have a shape and no numbers. So neither a GPU nor the memory of the model is needed.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.nn import Module

from ..config import Cell
from ..model.build import first_model
from ..model.decoder import head_weight, hidden_states, layers
from ..model.kernels import cross_entropy
from ..model.kernels.device_kind import assuming
from ..train.loop import take_step
from ..train.run import Run, begin
from .operations import micro_batch_rows
from .traffic import Kernels, Recorder, joined_kernels, kernels

CPU = torch.device("cpu")


def micro_batch_kernels(cell: Cell, compiled: bool) -> Kernels:
    """Return the kernels of one micro-batch on one GPU; those of the optimizer's step are spread over micro-batches.

    Without ``compiled``, each operation is a kernel, so the bytes are an upper bound. With it, the decoder's layers and
    the head's softmax are joined as far as a compiler can (:func:`relora_study.cost.traffic.joined_kernels`).
    """
    nameless = cell.model_copy(update={"name": "", "size_name": "", "method_name": "", "seed": 0})
    eager, gain = _kernels_and_gain(nameless.model_dump_json())
    return _sum(eager, gain) if compiled else eager


def bytes_per_token(cell: Cell, compiled: bool) -> float:
    """Return the bytes that a GPU moves to train on one token of ``cell``."""
    moved = sum(times * kernel.bytes for kernel, times in micro_batch_kernels(cell, compiled).items())
    return moved / (micro_batch_rows(cell) * cell.model.context_length)


@cache
def _kernels_and_gain(cell_json: str) -> tuple[Kernels, Kernels]:
    """Return a micro-batch's kernels in eager mode, and what compiling adds to them, of a cell in JSON.

    Layers are alike, and so are the micro-batches of a batch after the first. So the kernels are a plane over both.
    """
    cell = Cell.model_validate_json(cell_json)
    parts = micro_batches(cell)
    (one, one_of_two), (deeper, deeper_of_two) = (
        [_step_kernels(cell, layers, number) for number in (1, 2)] for layers in (1, 2)
    )
    first = _along(one, deeper, cell.size.num_hidden_layers)
    second = _along(one_of_two, deeper_of_two, cell.size.num_hidden_layers)
    return _scaled(_along(first, second, parts), 1 / parts), _gain(cell)


def micro_batches(cell: Cell) -> int:
    """Return how many micro-batches each GPU takes for a batch."""
    return -(-cell.train.batch_size // (cell.runtime.processes * micro_batch_rows(cell)))


def _along(one: Kernels, two: Kernels, number: int) -> Kernels:
    """Return the kernels of ``number`` layers or micro-batches, from those of one and of two."""
    return _sum(_scaled(one, 2 - number), _scaled(two, number - 1))


def _sum(*parts: Kernels) -> Kernels:
    total: Kernels = Counter()
    for part in parts:
        total.update(part)
    return Counter({kernel: times for kernel, times in total.items() if abs(times) > 1e-9})


def _scaled(counted: Kernels, factor: float) -> Kernels:
    return Counter({kernel: times * factor for kernel, times in counted.items()})


@contextmanager
def _fake_run(cell: Cell, layers: int) -> Iterator[Run]:
    """Yield a run of fake tensors with ``layers`` layers, whose kernels choose a GPU's operations."""
    runtime = cell.runtime.model_copy(update={"device": "cpu", "compile": False, "processes": 1})
    size = cell.size.model_copy(update={"num_hidden_layers": layers})
    cell = cell.model_copy(update={"size": size, "runtime": runtime})
    with FakeTensorMode(), assuming("cuda"):
        yield begin(cell, first_model(cell), CPU, done=cell.method.full_rank_steps)


def _step_kernels(cell: Cell, layers: int, parts: int) -> Kernels:
    """Return the kernels in eager mode of an optimizer step on ``parts`` micro-batches, with ``layers`` layers."""
    with _fake_run(cell, layers) as run:
        batch = torch.zeros(parts * micro_batch_rows(cell), cell.model.context_length + 1, dtype=torch.int64)
        take_step(run, batch[:1], 1)  # the optimizer makes its moments in the first step
        with Recorder() as recorder:
            take_step(run, batch, 2)
    return kernels(recorder.operations)


def _gain(cell: Cell) -> Kernels:
    """Return what compiling adds to a micro-batch's kernels and, with negative numbers, what it takes away."""
    with _fake_run(cell, 1) as run:
        layer = _change(_layer_passes(run, micro_batch_rows(cell)))
        head = [_change([_softmax_of(run, size)]) for size in _chunks(run, micro_batch_rows(cell))]
    return _sum(_scaled(layer, cell.size.num_hidden_layers), *head)


def _change(passes: list[Callable[[], Any]]) -> Kernels:
    """Return what joining changes in the kernels of ``passes``, each of which is compiled for itself."""
    changes, results = [], []
    for run_pass in passes:
        with Recorder() as recorder:
            results.append(run_pass())
        changes += [joined_kernels(recorder.operations, recorder.kept()), _scaled(kernels(recorder.operations), -1)]
    return _sum(*changes)


def _layer_passes(run: Run, sequences: int) -> list[Callable[[], Any]]:
    """Return the forward and the backward pass of a decoder layer, as functions to call in this order."""
    layer = layers(run.model)[0]
    (hidden, *others), named = _arguments(run, layer, sequences)
    hidden = hidden.detach().requires_grad_()
    trained = [parameter for parameter in layer.parameters() if parameter.requires_grad]
    outputs: list[Tensor] = []

    def forward() -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=run.cell.runtime.precision == "bfloat16"):
            outputs.append(layer(hidden, *others, **named))
        return outputs[0]

    def backward() -> tuple[Tensor, ...]:
        return torch.autograd.grad(outputs[0], [hidden, *trained], outputs[0].detach())

    return [forward, backward]


def _arguments(run: Run, layer: Module, sequences: int) -> Any:
    """Return the arguments, with and without names, that the model gives to ``layer``."""
    found: list[Any] = []
    hook = layer.register_forward_pre_hook(lambda _, given, named: found.append((given, named)), with_kwargs=True)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=run.cell.runtime.precision == "bfloat16"):
        ids = torch.zeros(sequences, run.cell.model.context_length, dtype=torch.int64)
        hidden_states(run.model, ids)
    hook.remove()
    return found[0]


def _chunks(run: Run, sequences: int) -> list[int]:
    """Return the numbers of rows of the chunks in which the head takes a micro-batch."""
    head, tokens = head_weight(run.model), sequences * run.cell.model.context_length
    size = cross_entropy._chunk_rows(head, head)
    return [min(size, tokens - start) for start in range(0, tokens, size)]


def _softmax_of(run: Run, size: int) -> Callable[[], Any]:
    """Return the head's softmax of ``size`` rows, as a function to call."""
    dtype = torch.bfloat16 if run.cell.runtime.precision == "bfloat16" else torch.float32
    logits = torch.empty(size, run.cell.model.vocab_size, dtype=dtype)
    answers = torch.zeros(size, 1, dtype=torch.int64)
    return lambda: cross_entropy._loss_and_gradient(logits, answers, size, True)
