"""What a user's file gives to the check: a model, an optimizer, a step and a reset.

The file has a function ``training()`` that returns any object with these attributes:

- ``model``: a `torch.nn.Module`, and ``optimizer``: a `torch.optim.Optimizer`.
- ``step()``: forward, backward and one optimizer step, with the schedule's step if there is one.
- ``reset()``: merge, restart and the clearing of moments. ``step()`` does not do it.

These are optional:

- ``adapters()``: rows (W, A, B, scale) for each layer, where :mod:`.adapters` cannot find them.
- ``forward()``: the model's output on fixed data. Otherwise the model's first call in ``step()`` is repeated.
- ``period`` (10) and ``offset`` (0): the steps of a cycle, and how many more the first cycle has.

``model`` and ``optimizer`` are read anew each time, so a reset may replace them.
"""

import importlib.util
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from numbers import Integral
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from ..errors import UserError
from .adapters import Adapter, checked_adapters, found_adapters

NEEDED = ("model", "optimizer", "step", "reset")
PERIOD = 10
SHORTEST_PERIOD = 3  # a schedule must have room to fall and to climb


class Training:
    """A user's training, with what is optional filled in."""

    def __init__(self, given: Any, file: Path = Path("training")) -> None:
        """Check what ``given`` has; ``file`` is named in errors. Raises :class:`UserError`."""
        self._given, self._file = given, file
        missing = [name for name in NEEDED if not hasattr(given, name)]
        if missing:
            raise UserError(f"{file}: training() returned an object without {', '.join(missing)}")
        self.period, self.offset = (
            _count(file, given, name, least, default)
            for name, least, default in (("period", SHORTEST_PERIOD, PERIOD), ("offset", 0, 0))
        )
        self._call: tuple[tuple[Any, ...], dict[str, Any]] | None = None
        for name, kind in (("model", nn.Module), ("optimizer", torch.optim.Optimizer)):
            if not isinstance(getattr(given, name), kind):
                raise UserError(f"{file}: {name} must be a {kind.__module__}.{kind.__qualname__}")

    @property
    def model(self) -> nn.Module:
        """Return the model that trains now."""
        model: nn.Module = self._given.model
        return model

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """Return the optimizer that steps now: the one inside, where a library wraps it as accelerate does."""
        optimizer: torch.optim.Optimizer = self._given.optimizer
        while isinstance(inner := getattr(optimizer, "optimizer", None), torch.optim.Optimizer):
            optimizer = inner
        return optimizer

    def adapters(self) -> list[Adapter]:
        """Return the adapters as they are now. Raises :class:`UserError` if they cannot be told."""
        if not hasattr(self._given, "adapters"):
            return found_adapters(self.model)
        with _calling(self._file, "adapters()"):
            return checked_adapters(self._given.adapters())

    def step(self) -> list[float]:
        """Let the user's code take a step, and return the adapters' rate in each step of the optimizer."""
        rates: list[float] = []
        running: list[None] = []  # a subclass's step may call its base's, which is the same step

        def begins(*_: Any) -> None:
            if not running:
                rates.append(_rate(self.optimizer, self.adapters()))
            running.append(None)

        hooks = [
            self.optimizer.register_step_pre_hook(begins),
            self.optimizer.register_step_post_hook(lambda *_: running.pop()),
            self.model.register_forward_pre_hook(self._remember, with_kwargs=True),
        ]
        try:
            with _calling(self._file, "step()"):
                self._given.step()
        finally:
            for hook in hooks:
                hook.remove()
        return rates

    def reset(self) -> None:
        """Let the user's code reset."""
        with _calling(self._file, "reset()"):
            self._given.reset()

    @torch.no_grad()
    def output(self) -> Tensor:
        """Return the model's output without dropout, on the CPU."""
        modes = [(module, module.training) for module in self.model.modules()]
        self.model.eval()
        try:
            with _calling(self._file, "forward()"):
                return _first_tensor(self._forward()).detach().cpu().clone()
        finally:
            for module, mode in modes:
                module.training = mode

    def _forward(self) -> Any:
        if hasattr(self._given, "forward"):
            return self._given.forward()
        if self._call is None:
            raise UserError(
                f"{self._file}: step() does not call the model itself; give forward(), which returns an output"
            )
        arguments, named = self._call
        return self.model(*arguments, **named)

    def _remember(self, _module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        self._call = self._call or (arguments, named)


def load(target: str) -> Training:
    """Load ``file.py`` or ``file.py:function``, and call the function (``training``).

    Raises :class:`UserError` for a file that is missing, fails, or does not keep the contract.
    """
    name, _, function = target.partition(".py:")
    file = Path(f"{name}.py" if function else target)
    if not file.is_file() or file.suffix != ".py":
        raise UserError(f"{file}: no such Python file")
    make = _loaded(file, function or "training")
    with _calling(file, f"{function or 'training'}()"):
        return Training(make(), file)


def _loaded(file: Path, function: str) -> Callable[[], Any]:
    """Run ``file`` as Python runs a script: its folder is first on the path."""
    sys.path.insert(0, str(file.resolve().parent))
    spec = importlib.util.spec_from_file_location(f"checked_{file.stem}", file)  # another name than any library's
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where a dataclass looks up its annotations
    with _calling(file, "the file"):
        spec.loader.exec_module(module)
    if not callable(getattr(module, function, None)):
        raise UserError(f"{file}: no function {function}(), which returns model, optimizer, step and reset")
    made: Callable[[], Any] = getattr(module, function)
    return made


@contextmanager
def _calling(file: Path, what: str) -> Iterator[None]:
    """Turn an error of the user's code into one line that names the place in the user's file."""
    try:
        with _end_of_python_raised():
            yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # a script without a main guard may end Python
        places = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
        line = f", line {places[-1]}" if places else ""
        raise UserError(f"{file}{line}: {what} raised {type(error).__name__}: {error}") from error


@contextmanager
def _end_of_python_raised() -> Iterator[None]:
    """Make `os._exit` raise :class:`SystemExit` in this process: its code would be taken for the check's answer."""
    end, process = os._exit, os.getpid()

    def raising(status: int) -> NoReturn:
        if os.getpid() == process:
            raise SystemExit(status)
        end(status)  # a worker that the user's code forked

    os._exit = raising
    try:
        yield
    finally:
        os._exit = end


def _rate(optimizer: torch.optim.Optimizer, adapters: list[Adapter]) -> float:
    """Return the learning rate of the first A, or of the first group if the optimizer holds copies."""
    for group in optimizer.param_groups:
        if any(parameter is adapters[0].A for parameter in group["params"]):
            return float(group["lr"])
    return float(optimizer.param_groups[0]["lr"])


def _first_tensor(output: Any) -> Tensor:
    """Return the logits, or the first tensor of floating-point numbers. Raises :class:`TypeError` without one."""
    output = getattr(output, "logits", output)
    if isinstance(output, Tensor) and output.is_floating_point():
        return output
    parts = output.values() if isinstance(output, Mapping) else output if isinstance(output, Sequence) else ()
    for part in parts:
        if isinstance(part, Tensor) and part.is_floating_point():
            return part
    raise TypeError(f"the output holds no tensor of floating-point numbers: {type(output).__name__}")


def _count(file: Path, given: Any, name: str, least: int, default: int) -> int:
    value = getattr(given, name, default)
    if not isinstance(value, Integral) or value < least:
        raise UserError(f"{file}: {name} must be a whole number of steps, at least {least}, not {value}")
    return int(value)
