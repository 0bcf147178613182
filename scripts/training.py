"""What a training run keeps: averaged weights, checkpoints, early stopping, a log, and how it goes on after a stop."""

from __future__ import annotations

import csv
import logging
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from ignite.handlers import EarlyStopping, ProgressBar
from ignite.metrics import Average
from monai.data.utils import set_rnd
from monai.engines import Evaluator
from monai.utils import optional_import
from torch import nn
from torch.optim.swa_utils import AveragedModel

from custom_transforms.files.whole_files import atomic_path
from scripts.networks import save_tensors
from scripts.records.weights import WeightsRecord, write_record
from scripts.tiling.heap import blocks_from_heap, heap_kept

__all__ = ["TrainingRun", "average_weights", "select_channel"]

logger = logging.getLogger(__name__)


def average_weights(network: nn.Module, device: torch.device | str, decay: float = 0.999) -> AveragedModel:
    """Keep an exponential moving average of a network's weights: what is validated, saved and shipped.

    The average follows quickly at first, ``min(decay, (1 + n) / (10 + n))`` after n steps, so that short runs work.
    Batch-norm statistics are averaged too.
    """

    def average(averaged: torch.Tensor, current: torch.Tensor, count: torch.Tensor | int) -> torch.Tensor:
        weight = min(decay, (1 + int(count)) / (10 + int(count)))
        return averaged * weight + current * (1 - weight)

    return AveragedModel(network, device=torch.device(device), avg_fn=average, use_buffers=True)


def select_channel(channel: int, keys: tuple[str, str] = ("pred", "label"), count: int | None = 1) -> Any:
    """Give an ``output_transform`` for metrics: predictions, and one channel of the labels, or ``count`` from there on.

    Returns
    -------
    callable
        Takes ignite's list of decollated outputs; returns (list of (C, Z, Y, X), list of (count, Z, Y, X)). A count of
        None takes all channels from there on.
    """

    def transform(output: list[dict[str, torch.Tensor]]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        return [item[keys[0]] for item in output], [item[keys[1]][channel:][:count] for item in output]

    return transform


class TrainingRun:
    """Attach to a trainer what makes a run safe to stop and useful to have.

    Every epoch starts from random states that depend on the seed and the epoch alone, so a run that was killed and
    resumed on a CPU ends with the weights of one that was not, to the last bit with the same number of threads. With
    another number sums are added up in another order: the training losses of four epochs with one and with two threads
    agreed to four decimals. On a GPU nothing is promised.

    Parameters
    ----------
    folder : path
        Gets ``model.pt`` (best averaged weights, a flat state dict on the CPU), ``last.pt`` (everything needed to
        go on), ``metrics.csv`` (a row per epoch) and ``model.json`` (best epoch, score, data). Where validation has
        nothing to score, ``model.pt`` holds the latest weights, and the score is null.
    trainer, evaluator : ignite engines
        The evaluator's key metric decides what is best; higher is better. It is run by MONAI's ValidationHandler.
    network : nn.Module
        The network without a DDP wrapper.
    average : AveragedModel
        From `average_weights`.
    optimizer, lr_scheduler
        The scheduler is stepped once per iteration.
    dataset : Dataset
        The training dataset, whose random transforms are reseeded.
    seed : int
    patience : int
        Validations without a better key metric before the run ends early; 0 never ends it.
    resume : bool
        Go on from ``last.pt``. Otherwise the folder of an earlier run is moved aside first, never overwritten.
    progress : bool
        Show a progress bar.
    record : mapping, optional
        What the run is trained on (`describe_training`); goes into ``model.json``.
    """

    def __init__(
        self,
        folder: str | Path,
        trainer: Engine,
        evaluator: Evaluator,
        network: nn.Module,
        average: AveragedModel,
        optimizer: torch.optim.Optimizer,
        lr_scheduler: torch.optim.lr_scheduler.LRScheduler,
        dataset: Any,
        seed: int = 0,
        patience: int = 0,
        resume: bool | str = False,
        progress: bool | str = True,
        record: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.trainer, self.evaluator = trainer, evaluator
        self.network, self.average = network, average
        self.optimizer, self.lr_scheduler = optimizer, lr_scheduler
        self.dataset, self.seed = dataset, int(seed)
        self.resume, self.progress = as_truth("resume", resume), as_truth("progress", progress)
        self.record = dict(record or {})
        self.best: dict[str, Any] = {"epoch": 0, "score": None, "metric": None}
        self.started, self.warned = time.time(), False
        self.early_stopping = EarlyStopping(patience, self._score, trainer) if patience > 0 else None

    def run(self) -> None:
        """Train, from the last state with ``resume``, to the last epoch or until early stopping."""
        self._attach()
        epochs = self.trainer.state.max_epochs or 0
        if self.trainer.state.epoch >= epochs:
            logger.info("%s: all %d epochs are done, nothing to train; give more with --epochs", self.folder, epochs)
            return
        with heap_kept(), blocks_from_heap():
            self.trainer.run()
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.barrier()  # nobody goes on before the first process has written the last state
        logger.info(
            "%s: best %s %s in epoch %s", self.folder, self.best["metric"], self.best["score"], self.best["epoch"]
        )

    def _attach(self) -> None:
        if self.early_stopping is not None:
            self.evaluator.add_event_handler(Events.COMPLETED, self._stop_early)
        self.trainer.add_event_handler(Events.EPOCH_STARTED, self._reseed)
        self.trainer.add_event_handler(Events.ITERATION_COMPLETED, self._after_step)
        self.trainer.add_event_handler(Events.EPOCH_COMPLETED, self._judge_last_epoch)
        Average(output_transform=lambda output: output["loss"]).attach(self.trainer, "train_loss")
        if self.resume:
            self._load()
        if _rank() != 0:
            return
        if not self.resume:
            self._move_earlier_run_aside()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.trainer.add_event_handler(Events.EPOCH_COMPLETED, self._after_epoch)
        if self.progress:
            bar = ProgressBar(desc=self.folder.name, persist=False)
            bar.attach(self.trainer, output_transform=lambda output: {"loss": output["loss"]})

    def _score(self, evaluator: Engine) -> float:
        return float(evaluator.state.metrics[evaluator.state.key_metric_name])  # type: ignore[attr-defined]

    def _stop_early(self, evaluator: Engine) -> None:
        if self.early_stopping is not None and not math.isnan(self._score(evaluator)):
            self.early_stopping(evaluator)

    def _keep(self, epoch: int, score: float, metric: str) -> None:
        """Keep the averaged weights if they are better; while no validation gave a score (NaN), the latest."""
        known = not math.isnan(score)
        if not known and not self.warned:
            self.warned = True
            logger.warning(
                "%s: %s cannot be computed, because the validation region holds no labelled voxel or no particle. "
                "The latest weights are kept instead of the best. Give validation tomograms with labels there, "
                "or a larger --val_region.",
                self.folder, metric,
            )  # fmt: skip
        best = self.best["score"]
        if best is not None and not (known and score > best):
            return
        self.best = {"epoch": epoch, "score": score if known else None, "metric": metric}
        weights = {name: value.cpu() for name, value in self.average.module.state_dict().items()}
        save_tensors(self.folder / "model.pt", weights)
        made = WeightsRecord.model_validate({**self.best, "seed": self.seed, "training": self.record})
        write_record(self.folder / "model.pt", made)

    def _reseed(self, engine: Engine) -> None:
        seed = (self.seed + 1_000_003 * engine.state.epoch + 7919 * _rank()) % 2**31
        torch.manual_seed(seed)
        set_rnd(self.dataset, seed)
        sampler = getattr(engine.state.dataloader, "sampler", None)
        if isinstance(sampler, torch.utils.data.DistributedSampler):
            sampler.set_epoch(engine.state.epoch)

    def _after_step(self, engine: Engine) -> None:
        self.lr_scheduler.step()
        self.average.update_parameters(self.network)

    def _judge_last_epoch(self, engine: Engine) -> None:
        """Validate after the last epoch, whatever the interval; in every process, because metrics are gathered."""
        if engine.state.epoch == engine.state.max_epochs and self.evaluator.state.epoch != engine.state.epoch:
            self.evaluator.run(engine.state.epoch)

    def _after_epoch(self, engine: Engine) -> None:
        state = self.evaluator.state
        validated = bool(state.metrics) and state.epoch == engine.state.epoch
        if validated:
            self._keep(engine.state.epoch, self._score(self.evaluator), state.key_metric_name)
        row = {
            "epoch": engine.state.epoch,
            "train_loss": round(float(engine.state.metrics["train_loss"]), 6),
            **{name: round(float(value), 6) for name, value in (state.metrics if validated else {}).items()},
            "learning_rate": f"{self.optimizer.param_groups[0]['lr']:.3g}",
            "seconds": round(time.time() - self.started, 1),
        }
        logger.info("  ".join(f"{name} {value}" for name, value in row.items()))
        self._log(row)
        save_tensors(self.folder / "last.pt", self._state())

    def _log(self, row: dict[str, Any]) -> None:
        path = self.folder / "metrics.csv"
        rows = [row]
        if path.is_file():
            with path.open(newline="") as file:
                # a run that resumes repeats no epoch, but may have died between log and checkpoint
                rows = [old for old in csv.DictReader(file) if int(old["epoch"]) < row["epoch"]] + rows
        names = list(dict.fromkeys(name for one in rows for name in one))
        with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(rows)
        summary_writer, found = optional_import("torch.utils.tensorboard", name="SummaryWriter")
        if found:
            with summary_writer(str(self.folder / "tensorboard")) as board:
                for name, value in row.items():
                    board.add_scalar(name, float(value), row["epoch"])

    def _state(self) -> dict[str, Any]:
        scaler = getattr(self.trainer, "scaler", None)
        return {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler_step": self.lr_scheduler.last_epoch,
            "epoch": self.trainer.state.epoch,
            "iteration": self.trainer.state.iteration,
            "best": self.best,
            "early_stopping": None if self.early_stopping is None else dict(self.early_stopping.state_dict()),
            "scaler": None if scaler is None else scaler.state_dict(),
            "seconds": time.time() - self.started,
        }

    def _load(self) -> None:
        path = self.folder / "last.pt"
        if not path.is_file():
            logger.warning("%s: nothing to resume, the run starts at epoch 1", path)
            return
        state = torch.load(path, map_location="cpu", weights_only=True)
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        # The schedule itself comes from the config, which may ask for more epochs now; only the place in it is kept.
        self.lr_scheduler.last_epoch = state["scheduler_step"] - 1
        self.lr_scheduler.step()
        self.trainer.state.epoch = state["epoch"]
        self.trainer.state.iteration = state["iteration"]
        self.best = state["best"]
        self.started = time.time() - state["seconds"]
        if self.early_stopping is not None and state["early_stopping"] is not None:
            self.early_stopping.load_state_dict(state["early_stopping"])
        if state["scaler"] is not None:  # MONAI's trainer makes its gradient scaler when it starts
            self.trainer.add_event_handler(
                Events.STARTED, lambda engine: engine.scaler.load_state_dict(state["scaler"])
            )
        logger.info("%s: goes on after epoch %d", path, state["epoch"])

    def _move_earlier_run_aside(self) -> None:
        last = self.folder / "last.pt"
        if last.is_file():
            stamp = time.strftime("%Y%m%d_%H%M%S", time.localtime(last.stat().st_mtime))
            aside = self.folder.with_name(f"{self.folder.name}_{stamp}")
            os.replace(self.folder, aside)
            logger.warning("%s held an earlier run: moved to %s (--resume true goes on instead)", self.folder, aside)


def as_truth(name: str, value: bool | str) -> bool:
    """Read a truth value as MONAI's command line gives it, where ``--resume false`` is the text "false".

    Raises
    ------
    ValueError
        If it is neither true nor false.

    Examples
    --------
    >>> as_truth("resume", "false"), as_truth("resume", True)
    (False, True)
    """
    text = str(value).lower()
    if text not in ("true", "false"):
        raise ValueError(f"--{name}: expected true or false, got {value!r}.")
    return text == "true"


def _rank() -> int:
    distributed = torch.distributed
    return distributed.get_rank() if distributed.is_available() and distributed.is_initialized() else 0
