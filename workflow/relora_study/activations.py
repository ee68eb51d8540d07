"""What a forward pass leaves in memory for the backward pass, measured on small shapes."""

import weakref
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from .config import Cell
from .train.loop import mean_loss
from .train.run import start

FEW_TOKENS = (32, 64)
FEW_ENTRIES = 257  # of the vocabulary: the head keeps no logits, and its gradient is counted with the others


class _Storages(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Remembers every storage that an operation gave out, without keeping it alive."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._given: list[weakref.ref[Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run ``func``, and note what it gives."""
        given = func(*args, **(kwargs or {}))
        tensors = (leaf for leaf in tree_leaves(given) if isinstance(leaf, Tensor))
        self._given += [weakref.ref(tensor.untyped_storage()) for tensor in tensors]
        return given

    def alive(self) -> dict[int, int]:
        """The bytes of each storage that is still there, by its address."""
        return {storage._cdata: storage.nbytes() for ref in self._given if (storage := ref()) is not None}


def kept_bytes(cell: Cell, layers: int, sequences: int, tokens: int) -> int:
    """What is alive after a forward pass of ``sequences`` of ``tokens`` through ``layers``, parameters aside."""
    small = cell.model_copy(
        update={
            "size": cell.size.model_copy(update={"num_hidden_layers": layers}),
            "model": cell.model.model_copy(update={"vocab_size": FEW_ENTRIES}),
            "runtime": cell.runtime.model_copy(update={"device": "cpu", "compile": False}),
        }
    )
    run = start(small, torch.device("cpu"), done=cell.method.full_rank_steps)
    rows = torch.zeros(sequences, tokens + 1, dtype=torch.int64)
    with _Storages() as storages:
        loss = mean_loss(run, rows)
    own = {parameter.untyped_storage()._cdata for parameter in run.model.parameters()}
    found: int = sum(size for address, size in storages.alive().items() if address not in own)
    del loss  # until here, what it needs for its backward pass lives
    return found


def activation_bytes(cell: Cell) -> int:
    """What a micro-batch of ``cell`` keeps for its backward pass.

    With fused attention that is linear in the layers and in the tokens, so four small forward passes tell it. A GPU's
    kernels may keep a little else; its allocator and the head's chunk of logits (at most 1 GiB in float32) come on top.
    """
    rows = min(cell.train.micro_batch_size, cell.train.batch_size // cell.runtime.processes)
    few, more = FEW_TOKENS
    (one_few, one_more), (two_few, two_more) = (
        [kept_bytes(cell, layers, 1, tokens) for tokens in FEW_TOKENS] for layers in (1, 2)
    )
    times = (rows * cell.model.context_length - few) / (more - few)
    one, two = (at_few + times * (at_more - at_few) for at_few, at_more in ((one_few, one_more), (two_few, two_more)))
    return round(one + (cell.size.num_hidden_layers - 1) * (two - one))
