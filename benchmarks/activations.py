"""Measure what a forward pass keeps in memory for its backward pass."""

import weakref
from typing import Any

import torch
from relora_study.config import Cell
from relora_study.train.loop import mean_loss
from relora_study.train.run import start
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

FEW_ENTRIES = 257  # of the vocabulary: the head keeps no logits, and its gradient is counted with the others


class _Storages(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A dispatch mode that keeps a weak reference to the storage of every tensor that an operation returns."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._storages: list[weakref.ref[Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run ``func``, and note the storages of its results."""
        result = func(*args, **(kwargs or {}))
        tensors = (leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor))
        self._storages += [weakref.ref(tensor.untyped_storage()) for tensor in tensors]
        return result

    def alive(self) -> dict[int, int]:
        """Return the size in bytes of each storage that still exists, by address."""
        return {storage._cdata: storage.nbytes() for ref in self._storages if (storage := ref()) is not None}


def kept_bytes(cell: Cell, layers: int, sequences: int, tokens: int) -> int:
    """Return the bytes that a forward pass keeps for its backward pass, without the parameters.

    The model has the width of ``cell`` and ``layers`` layers; the batch has ``sequences`` rows of ``tokens`` tokens.
    """
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
    weights = {parameter.untyped_storage()._cdata for parameter in run.model.parameters()}
    kept: int = sum(size for address, size in storages.alive().items() if address not in weights)
    del loss  # the loss keeps the activations alive up to here
    return kept
