"""The training loop: one accelerate loop that tunes an adapter on the answers' tokens.

It runs unchanged in one process or several (``torchrun --nproc_per_node 2``): a batch is the global
batch, and its loss is the mean over its rows wherever they are computed.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DataLoaderConfiguration
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from promptclf.errors import TrainingError, TrainingStop
from promptclf.lm.light import prepare_peft
from promptclf.lm.model import HFModel
from promptclf.settings import TrainConfig
from promptclf.training.answer_loss import AnswerLoss, Batch, Row, collate, packs
from promptclf.training.checkpoints import Checkpoints

logger = logging.getLogger(__name__)

# Tokens of one forward and backward pass: they take some MB each, of a small model.
CPU_TOKENS, GPU_TOKENS = 1024, 16384
VALIDATION_ROWS = 256  # scored at a time

Event = dict[str, Any]
Callback = Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What training found: the best epoch's weights, its validation scores, and the history."""

    weights: dict[str, Tensor]
    scores: NDArray[np.float64]
    best_epoch: int
    history: list[dict[str, float]]
    steps: int
    seconds: float
    processes: int


class LengthSampler(Sampler[tuple[int, float]]):
    """Seeded order in which each run of `batch_size` rows is of similar length.

    Yields a row's index and its share of its batch's loss: shares of a batch sum to 1. The last run of
    an epoch is filled with rows whose share is 0, so that every batch has the same size and the same
    loss into however many parts and processes it is cut.
    """

    def __init__(self, rows: Sequence[Row], batch_size: int, seed: int) -> None:
        self.lengths = [len(row.ids) for row in rows]
        self.weights = [row.weight for row in rows]
        self.batch_size, self.seed, self.epoch = batch_size, seed, 0

    def __len__(self) -> int:
        return math.ceil(len(self.lengths) / self.batch_size) * self.batch_size

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch's order."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[tuple[int, float]]:
        rng = np.random.default_rng([self.seed, self.epoch])
        order = rng.permutation(len(self.lengths))
        # Sorted in large groups, cut into batches, and the batches shuffled: similar lengths
        # share a batch, and yet every epoch is different.
        group = self.batch_size * 32
        parts = [
            sorted(order[i : i + group], key=self.lengths.__getitem__) for i in range(0, len(order), group)
        ]
        rows = [int(i) for part in parts for i in part]
        batches = [rows[i : i + self.batch_size] for i in range(0, len(rows), self.batch_size)]
        for index in rng.permutation(len(batches)):
            batch = batches[index]
            total = sum(self.weights[row] for row in batch) or 1.0
            yield from ((row, self.weights[row] / total) for row in batch)
            yield from ((batch[0], 0.0) for _ in range(self.batch_size - len(batch)))


class Rows(torch.utils.data.Dataset[tuple[Row, float]]):
    """Training rows, looked up by what `LengthSampler` yields."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: tuple[int, float]) -> tuple[Row, float]:
        return self.rows[key[0]], key[1]


def train(
    model: HFModel,
    adapter: str,
    rows: Sequence[Row],
    config: TrainConfig,
    *,
    min_steps: int,
    evaluate: Callable[[Sequence[int]], NDArray[np.float64]] | None = None,
    measure: Callable[[NDArray[np.float64]], dict[str, float]] | None = None,
    validation_rows: int = 0,
    seed: int = 0,
    callback: Callback | None = None,
    checkpoints: Checkpoints | None = None,
) -> TrainResult:
    """Tune `adapter` and return its best epoch's weights, rounded to bfloat16; its last one's unvalidated.

    Parameters
    ----------
    rows
        Training rows.
    min_steps
        Train at least this many optimiser steps, in whole epochs.
    evaluate
        Indices of validation rows -> their scores with the adapter on, one row each.
    measure
        Validation scores of all rows -> "macro_f1", "accuracy", "log_loss".
    validation_rows
        How many validation rows there are; of none, no epoch is validated.
    callback
        Called with a dictionary after every step and epoch, in the main process.
    checkpoints
        Where to save and resume from.

    Raises
    ------
    TrainingError
        If a loss or gradient is not finite; nothing is published then.
    """
    return _Run(model, adapter, rows, config, min_steps, seed, callback, checkpoints).train(
        evaluate, validation_rows, measure
    )


class _Run:
    """One training run. The model's lock is held for a step at a time, so that others can predict."""

    def __init__(
        self,
        model: HFModel,
        adapter: str,
        rows: Sequence[Row],
        config: TrainConfig,
        min_steps: int,
        seed: int,
        callback: Callback | None,
        checkpoints: Checkpoints | None,
    ) -> None:
        self.model, self.adapter, self.config = model, adapter, config
        self.callback, self.checkpoints = callback, checkpoints
        device = model.module.device.type
        if PartialState._shared_state and PartialState().device.type != device:
            # accelerate stays on the device of the first run otherwise.
            AcceleratorState._reset_state(reset_partial_state=True)
        self.accelerator = Accelerator(
            cpu=device == "cpu",
            gradient_accumulation_steps=config.accumulation,
            dataloader_config=DataLoaderConfiguration(split_batches=True, use_seedable_sampler=True),
        )
        micro = config.batch_size // config.accumulation
        if micro % self.accelerator.num_processes:
            raise TrainingError(
                f"batch_size / accumulation: expected a multiple of the {self.accelerator.num_processes} "
                f"processes, got {micro}"
            )
        sampler = LengthSampler(rows, config.batch_size, seed)
        # A loader draws a number whenever it starts; drawn from a generator of its own, dropout after
        # a resumed start is what it would have been.
        own = torch.Generator()
        with model.lock, model.adapters.using(None):
            packed = packs(model.module, max(len(row.ids) for row in rows))
        budget = CPU_TOKENS if device == "cpu" else GPU_TOKENS
        parts = partial(collate, budget=budget, packed=packed)
        loader = DataLoader(Rows(rows), micro, sampler=sampler, collate_fn=parts, generator=own)
        per_epoch = len(sampler) // config.batch_size
        self.epochs = max(config.epochs, math.ceil(min_steps / per_epoch))
        self.steps, self.min_steps = self.epochs * per_epoch, min_steps
        with model.lock, model.adapters.training(adapter) as self.parameters:
            optimizer = make_optimizer(config, self.parameters)
            schedule = make_schedule(config, optimizer, self.steps)
            prepared = self.accelerator.prepare(AnswerLoss(model.module), optimizer, loader, schedule)
        self.loss, self.optimizer, self.loader, self.schedule = prepared
        self.step = self.epoch = self.batches = 0
        self.start = time.monotonic()
        self.history: list[dict[str, float]] = []
        self.best: dict[str, Tensor] = {}
        self.best_scores: NDArray[np.float64] = np.empty((0, 0))

    def train(self, evaluate: Any, rows: int, measure: Any) -> TrainResult:
        self.start = time.monotonic()
        if self.checkpoints:
            self.checkpoints.attach(self)
        while self.epoch < self.epochs and not self._stalled():
            self._epoch()
            if rows:
                self._evaluate(evaluate, rows, measure)
            if self.checkpoints:
                self.checkpoints.save()
        with self.model.lock:
            if not rows:
                self.best = self._rounded(self.model.adapters.state(self.adapter))
            self.model.adapters.load_state(self.adapter, self.best)
        return TrainResult(
            weights=self.best,
            scores=self.best_scores,
            best_epoch=self._best_epoch() if rows else self.epoch,
            history=self.history,
            steps=self.step,
            seconds=self.seconds,
            processes=self.accelerator.num_processes,
        )

    @property
    def seconds(self) -> float:
        """How long the run has taken, without the time between an end and a resumed start."""
        return time.monotonic() - self.start

    def _epoch(self) -> None:
        self.loader.set_epoch(self.epoch)  # the prepared loader tells the sampler
        loader, loss = self.loader, 0.0
        if self.batches:  # resumed in mid-epoch
            loader = self.accelerator.skip_first_batches(loader, self.batches)
        for batch in loader:
            loss += self._step(batch)
            self.batches += 1
            if not self.accelerator.sync_gradients:
                continue
            self.step += 1
            self._tell("step", step=self.step, steps=self.steps, loss=loss, seconds=self.seconds)
            loss = 0.0
            every = self.config.save_steps
            if self.checkpoints and every and self.step % every == 0:
                self.checkpoints.save()
        self.epoch, self.batches = self.epoch + 1, 0

    def _step(self, batch: list[Batch]) -> float:
        """Learn from a part of a batch, as many tokens at once as fit, and return its part of the loss."""
        accelerator = self.accelerator
        with self.model.lock, self.model.adapters.training(self.adapter), accelerator.accumulate(self.loss):
            self.model.module.train()
            try:
                total = torch.zeros((), device=accelerator.device)
                for left, part in zip(reversed(range(len(batch))), batch, strict=True):
                    # Processes meet in the last backward pass of a step, however many each has.
                    with accelerator.no_sync(self.loss) if left else nullcontext():
                        shares = part.pop("shares")
                        loss = (self.loss(**part) * shares).sum()
                        # Gradients are averaged over processes and accumulated parts; shares want a sum.
                        accelerator.backward(loss * accelerator.num_processes * self.config.accumulation)
                        total += loss.detach()
                norm = None
                if accelerator.sync_gradients:
                    norm = accelerator.clip_grad_norm_(self.parameters, self.config.max_grad_norm)
                value = float(accelerator.reduce(total, "sum"))
                if not math.isfinite(value) or (norm is not None and not math.isfinite(float(norm))):
                    raise self._diverged(f"the loss became {value} at step {self.step + 1}")
                self.optimizer.step()
                self.schedule.step()
                self.optimizer.zero_grad()
            finally:
                self.model.module.eval()
        return value

    def _evaluate(self, evaluate: Any, rows: int, measure: Any) -> None:
        """Validate with the weights as they would be saved, and keep them if they are the best."""
        with self.model.lock:
            exact = self.model.adapters.state(self.adapter)
            rounded = self._rounded(exact)
            self.model.adapters.load_state(self.adapter, rounded)
            self.model.engine.forget(self.adapter)
        device = self.accelerator.device
        kind = torch.float32 if device.type == "mps" else torch.float64
        parts = []
        processes = self.accelerator.num_processes
        size = math.ceil(VALIDATION_ROWS / processes) * processes  # each gets as many
        loader = self.accelerator.prepare(DataLoader(torch.arange(rows), batch_size=size))  # type: ignore[arg-type]
        for indices in loader:
            part = torch.tensor(evaluate(indices.tolist()), device=device, dtype=kind)
            parts.append(self.accelerator.gather_for_metrics(part).cpu())
        scores = torch.cat(parts).double().numpy()
        if not np.isfinite(scores).all():
            raise self._diverged(f"validation scores were not finite after epoch {self.epoch}")
        metrics = {"epoch": self.epoch, **measure(scores)}
        self.history.append(metrics)
        if self._best_epoch() == self.epoch:
            self.best, self.best_scores = rounded, scores
        with self.model.lock:
            self.model.adapters.load_state(self.adapter, exact)
            self.model.engine.forget(self.adapter)
        self._tell("epoch", epochs=self.epochs, **metrics)

    @staticmethod
    def _rounded(weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """The weights as they are saved."""
        return {key: value.to(torch.bfloat16) for key, value in weights.items()}

    def _diverged(self, what: str) -> TrainingError:
        return TrainingError(
            f"{what}; nothing was saved. Lower the learning rate (now {self.config.learning_rate:g}) "
            "or check the data"
        )

    def _best_epoch(self) -> int:
        best = max(self.history, key=lambda row: (row["macro_f1"], -row["log_loss"]))
        return int(best["epoch"])

    def _stalled(self) -> bool:
        if not self.history or self.step < self.min_steps:
            return False
        return self.epoch - self._best_epoch() >= self.config.patience

    def _tell(self, event: str, **values: Any) -> None:
        if not self.callback or not self.accelerator.is_main_process:
            return
        try:
            self.callback({"event": event, **values})
        except TrainingStop:
            if self.checkpoints and self.accelerator.num_processes == 1:
                self.checkpoints.save()
            raise


def make_optimizer(config: TrainConfig, parameters: Sequence[Tensor]) -> torch.optim.Optimizer:
    """The optimiser that the configuration names."""
    settings: Any = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
    if config.optimizer == "sgd":
        return torch.optim.SGD(parameters, momentum=0.9, **settings)
    if config.optimizer == "adamw8bit":
        try:
            from bitsandbytes.optim import AdamW8bit

            optimizer = AdamW8bit(parameters, **settings)
            _try_step(parameters, AdamW8bit)
            return optimizer  # type: ignore[no-any-return]
        except Exception as error:  # bitsandbytes fails in its own way on each device
            logger.warning("8-bit AdamW does not run here (%s); using AdamW", str(error)[:200])
    return torch.optim.AdamW(parameters, **settings)


def make_schedule(config: TrainConfig, optimizer: torch.optim.Optimizer, steps: int) -> Any:
    """The learning rate over all steps: up in the warm-up, then down to nothing."""
    prepare_peft()  # with the next import comes PEFT
    from transformers import get_linear_schedule_with_warmup

    return get_linear_schedule_with_warmup(optimizer, round(config.warmup * steps), steps)


def _try_step(parameters: Sequence[Tensor], optimizer: Any) -> None:
    """Take one step on a throw-away parameter on the same device."""
    probe = torch.zeros(8192, device=parameters[0].device, requires_grad=True)
    probe.grad = torch.ones_like(probe)
    optimizer([probe], lr=1e-3).step()
