"""Checkpoints: adapter, optimizer and position, written whole or not at all, verified before they are trusted."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from shared.errors import DiskFull
from shared.ids import new_id
from shared.storage import FULL, disk_errors, is_sealed, make_folder, publish_folder, seal
from worker.finetuning.reports import EvaluationMetrics

WEIGHTS, POSITION = "state.safetensors", "position.json"
MOST_MISSED = 3  # checkpoints in a row, for want of disk space, until the training gives up
_WEIGHT, _OPTIMIZER, _BEST = "weight/", "optimizer/", "best/"  # how the names of a checkpoint's tensors begin
_STAGED = ".staged-"
_NO_SPACE = tuple(f"os error {number})" for number in FULL)  # as Rust words them

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Position:
    """How far a run has come. Data order, learning rate and dropout noise follow from `step` and the seed, so that
    no generator's state has to be kept; `epoch_loss` sums over the `epoch_tokens` of the present epoch, `recent_loss`
    over the `recent_tokens` since the last evaluation (with DPO, both count pairs); `closed_at` is the last epoch end
    or evaluation step (0 included) whose evaluation, if any, is done; `step_loss` and `step_accuracy` are those of the
    last step alone."""

    step: int = 0
    num_tokens: int = 0
    num_supervised_tokens: int = 0
    seconds: float = 0.0
    epoch_loss: float = 0.0
    epoch_tokens: int = 0
    recent_loss: float = 0.0
    recent_tokens: int = 0
    step_loss: float | None = None
    step_accuracy: float | None = None
    peak_memory_bytes: int = 0
    closed_at: int | None = None
    evaluations: tuple[EvaluationMetrics, ...] = ()

    @property
    def train_loss(self) -> float | None:
        return self.epoch_loss / self.epoch_tokens if self.epoch_tokens else None


@dataclass(frozen=True)
class Checkpoint:
    """What `capture` gave, and the position it was taken at."""

    tensors: dict[str, Tensor]
    position: Position


class Checkpoints:
    """The checkpoints of one run in one folder, the newest `keep` of them.

    `identity` says what is being trained (data and configuration): those of another identity are not resumed from,
    and stay until newer ones take their place.
    """

    def __init__(self, folder: Path, *, keep: int, identity: str) -> None:
        self.folder = folder
        self.keep = keep
        self.identity = identity
        self._num_missed = 0

    def save_or_miss(self, tensors: dict[str, Tensor], position: Position, tell: Callable[[str], None]) -> None:
        """`save`, where a full disk costs the checkpoint and not the training: `tell` gets a sentence. The third in a
        row that cannot be written raises `DiskFull`: then too much would be lost by a crash."""
        try:
            self.save(tensors, position)
        except DiskFull:
            self._num_missed += 1
            if self._num_missed == MOST_MISSED:
                raise
            tell(f"No checkpoint at step {position.step}: the disk is full. Those before it stay; training goes on.")
        else:
            self._num_missed = 0

    def save(self, tensors: dict[str, Tensor], position: Position) -> None:
        """Writes beside, fsyncs, renames; then removes what is too old. Raises `DiskFull`, with nothing left behind."""
        with writing():
            make_folder(self.folder)
        staged = self.folder / f"{_STAGED}{new_id('')}"
        try:
            with writing():
                self._write(staged, tensors, position)
                publish_folder(staged, self.folder / self._next_name())
        finally:
            shutil.rmtree(staged, ignore_errors=True)
        for folder in self._newest_first()[self.keep :]:
            self._retire(folder)

    def latest(self, tell: Callable[[str], None] = log.warning) -> Checkpoint | None:
        """The newest checkpoint whose files are what was written; `tell` gets a sentence for each that is passed over.
        Damaged ones are removed on the way, and so is what a killed attempt left half written."""
        for leftover in self.folder.glob(f"{_STAGED}*"):
            shutil.rmtree(leftover, ignore_errors=True)
        for folder in self._newest_first():
            try:
                return self._load(folder)
            except _OfAnotherRun:
                tell(f"{folder.name} is not used: it belongs to a run with other data or another configuration.")
            except _Damaged as damage:
                tell(f"{folder.name} is not used: {damage}. The one before it is gone on from, if there is one.")
                self._retire(folder)
        return None

    def remove(self) -> None:
        """Removes them all: the run is over."""
        for folder in self._newest_first():
            self._retire(folder)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _retire(self, folder: Path) -> None:
        """Removes a checkpoint, which loses its name first: a kill in the midst leaves no torn one."""
        doomed = self.folder / f"{_STAGED}{new_id('')}"
        with suppress(OSError):  # it is gone
            folder.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)

    def _write(self, staged: Path, tensors: dict[str, Tensor], position: Position) -> None:
        staged.mkdir()
        save_file(tensors, staged / WEIGHTS)
        (staged / POSITION).write_text(json.dumps({"identity": self.identity, "position": asdict(position)}))
        seal(staged)

    def _load(self, folder: Path) -> Checkpoint:
        if not is_sealed(folder):
            raise _Damaged("its files are damaged")
        try:
            kept = json.loads((folder / POSITION).read_text())
            if kept["identity"] != self.identity:
                raise _OfAnotherRun
            position = _position(kept["position"])
        except (KeyError, TypeError) as error:
            raise _Damaged("another version of this program wrote it") from error
        return Checkpoint(load_file(folder / WEIGHTS), position)

    def _newest_first(self) -> list[Path]:
        return sorted(self.folder.glob("checkpoint-*"), reverse=True)

    def _next_name(self) -> str:
        newest = next(iter(self._newest_first()), None)
        number = 1 if newest is None else int(newest.name.split("-")[1]) + 1
        return f"checkpoint-{number:08d}-{new_id('')}"  # unique even beside a forgotten attempt's


class _Damaged(Exception):
    """Why a checkpoint cannot be used."""


class _OfAnotherRun(Exception):
    """It is whole, but other data or another configuration made it."""


def capture(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What learns, and the optimizer's memory of it, by parameter name."""
    tensors = {}
    for name, parameter in trainable(model):
        tensors[f"{_WEIGHT}{name}"] = parameter.detach().cpu().contiguous()
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{_OPTIMIZER}{key}/{name}"] = value.detach().cpu().contiguous()
    return tensors


def restore(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Puts back, bit for bit, what `capture` took."""
    for name, parameter in trainable(model):
        parameter.data.copy_(tensors[f"{_WEIGHT}{name}"])
        ending = f"/{name}"
        state = {
            key.removeprefix(_OPTIMIZER).removesuffix(ending): value
            for key, value in tensors.items()
            if key.startswith(_OPTIMIZER) and key.split("/", 2)[2] == name
        }
        # AdamW counts its steps on the CPU
        optimizer.state[parameter] = {
            key: value.clone() if key == "step" else value.to(parameter.device, copy=True)
            for key, value in state.items()
        }


def as_best(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies of the weights among what `capture` gave, under names of their own.

    They travel inside every later checkpoint: so they are verified with it, outlive the checkpoint of their step, and
    a damaged one costs the steps since the checkpoint before it and nothing else.
    """
    return {f"{_BEST}{name}": tensor.clone() for name, tensor in tensors.items() if name.startswith(_WEIGHT)}


def best_in(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """What `as_best` gave, out of a checkpoint's tensors; empty if there was no best yet."""
    return {name: tensor for name, tensor in tensors.items() if name.startswith(_BEST)}


def from_best(best: dict[str, Tensor]) -> dict[str, Tensor]:
    """What `as_best` gave, under the names by which `restore` knows them."""
    return {name.removeprefix(_BEST): tensor for name, tensor in best.items()}


def trainable(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """The parameters that learn, with their names."""
    return [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]


@contextmanager
def writing() -> Iterator[None]:
    """Turns a full disk into `DiskFull`, also where a library reports it in words of its own."""
    with disk_errors(), _WordsOfRust():
        yield


class _WordsOfRust(AbstractContextManager[None]):
    """Libraries written in Rust say it in a text: safetensors by an error of its own, tokenizers by a bare one."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind in (SafetensorError, Exception) and any(words in str(error) for words in _NO_SPACE):
            raise DiskFull() from error


def _position(data: dict[str, Any]) -> Position:
    evaluations = tuple(EvaluationMetrics(**one) for one in data.pop("evaluations"))
    return Position(**data, evaluations=evaluations)
