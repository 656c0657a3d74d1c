"""A meta-trained LSTM: its files, and its use as an optimizer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from sol_learner.networks.lstm import LSTMNetwork
from sol_symbols import SolError, write_atomically
from sol_symbols.errors import quoted

__all__ = ["LSTM_FILE", "LSTM_WEIGHTS", "LSTMOptimizer", "TrainedLSTM"]

LSTM_FILE = "lstm.json"
"""The file that identifies a folder with a trained LSTM."""

LSTM_WEIGHTS = "lstm.safetensors"
"""Its weights."""

_SCHEMA = 1


@dataclass(frozen=True)
class TrainedLSTM:
    """An LSTM and the learning rate that it was trained with.

    Attributes:
        network: The network.
        lr: Multiplies its output: theta <- theta - lr phi.
        provenance: Origin: ``tasks``, ``seed``, ``objective``, ``spent`` (episodes of the training stream
            that meta-training took), ``loss`` (on the validation stream).
    """

    network: LSTMNetwork
    lr: float
    provenance: dict[str, Any] = field(default_factory=dict)

    def save(self, folder: str | Path) -> list[str]:
        """Write both files to an existing folder, the weights first; returns their names.

        Raises:
            SolError: A file cannot be written.
        """
        content = safetensors.torch.save({name: value.cpu() for name, value in self.network.state_dict().items()})
        record = {
            "schema": _SCHEMA,
            "units": self.network.units,
            "layers": self.network.layers,
            "lr": self.lr,
            "provenance": self.provenance,
            "sha256": hashlib.sha256(content).hexdigest(),
        }
        write_atomically(Path(folder) / LSTM_WEIGHTS, content)
        write_atomically(Path(folder) / LSTM_FILE, json.dumps(record, indent=1) + "\n")
        return [LSTM_FILE, LSTM_WEIGHTS]

    @classmethod
    def load(cls, folder: str | Path) -> TrainedLSTM:
        """The LSTM that :meth:`save` wrote.

        Raises:
            SolError: The folder has none, or its files are damaged.
        """
        path = Path(folder) / LSTM_FILE
        if not path.is_file():
            raise SolError(f"{folder} has no {LSTM_FILE}: it is not the folder of a finished sol learn-lstm run")
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            content = path.with_name(LSTM_WEIGHTS).read_bytes()
            if record["schema"] != _SCHEMA:
                raise ValueError(f"schema {record['schema']}, this version reads {_SCHEMA}")
            if hashlib.sha256(content).hexdigest() != record["sha256"]:
                raise ValueError("the weights are not those that were saved with it")
            units, layers, lr, provenance = (record[name] for name in ("units", "layers", "lr", "provenance"))
            if not (type(units) is type(layers) is int and 0 < units <= 4096 and 0 < layers <= 64):
                raise ValueError(f"{quoted(units)} units in {quoted(layers)} layers")
            if not (type(lr) in (int, float) and 0 < lr < 1e100 and isinstance(provenance, dict)):
                raise ValueError(f"the learning rate {quoted(lr)}, or its provenance")
            network = LSTMNetwork(units, layers)
            network.load_state_dict(safetensors.torch.load(content))
            return cls(network, float(lr), provenance)
        except (
            *(OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, RecursionError),
            safetensors.SafetensorError,
        ) as error:
            raise SolError(f"cannot read {path}: {error}") from None


class LSTMOptimizer(torch.optim.Optimizer):
    """A trained LSTM as a PyTorch optimizer.

    Its states, 2 H numbers for each layer and coordinate (80 of them for the usual size), are in ``state_dict``; the
    network, which does not change, is not.

    Args:
        params: Parameters or groups of them.
        trained: The LSTM, or the folder of a ``sol learn-lstm`` run.
        lr: Replaces the learning rate that it was trained with.

    Raises:
        SolError: The folder has no LSTM.
    """

    def __init__(self, params: Any, trained: TrainedLSTM | str | Path, lr: float | None = None) -> None:
        trained = trained if isinstance(trained, TrainedLSTM) else TrainedLSTM.load(trained)
        self.network, lr = trained.network, trained.lr if lr is None else lr
        if not lr >= 0:
            raise ValueError(f"lr must be at least 0, got {lr!r}")
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; returns what ``closure``, which evaluates the loss again, returns.

        Raises:
            RuntimeError: A gradient is sparse.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, parameter.grad, group["lr"])
        return loss

    def _move(self, parameter: Tensor, gradient: Tensor, lr: float) -> None:
        if gradient.is_sparse:
            raise RuntimeError("LSTMOptimizer does not support sparse gradients")
        runner = self.network.to(parameter.device).runner()
        flat = gradient.reshape(-1)
        state = self.state[parameter] or runner.begin(flat, 0)
        phi, state = runner.step(flat, state, flat, 0)
        self.state[parameter] = state
        parameter.sub_(lr * phi.view_as(parameter))
