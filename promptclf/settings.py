"""Hyper-parameters of training."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from promptclf.errors import TrainingError

LOSSES = ("vocabulary", "labels")
OPTIMIZERS = ("adamw", "sgd", "adamw8bit")
CLASS_WEIGHTS = ("none", "balanced")
MIN_STEPS = 150
STEPS_PER_LABEL = 8


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """How to train. The defaults are what worked best on several data sets with 200 to 6,000 rows.

    Parameters
    ----------
    rank, alpha, dropout, target_modules
        Of LoRA (Hu et al. 2021, arXiv:2106.09685): "all-linear", or names of modules.
    learning_rate, warmup, weight_decay, max_grad_norm
        The rate rises over the first `warmup` of all steps and then falls linearly to 0.
    optimizer
        "adamw", "sgd" or "adamw8bit" (bitsandbytes; where it cannot run, "adamw" with a warning).
    batch_size, accumulation
        Rows per optimiser step over all processes, and into how many parts they are cut.
    epochs, min_steps
        Passes over the training rows; more where they give fewer than `min_steps` optimiser steps
        (default: 150, or 8 per label if that is more).
    patience
        Stop after this many epochs without a better validation macro-F1.
    loss
        "vocabulary": cross-entropy of the answer's tokens over the full vocabulary. "labels": over
        the tokens that continue some label; scoring is then restricted in the same way.
    class_weights
        "balanced" weighs each class by the inverse of its frequency.
    validation_fraction
        Share of the training rows held out where `fit` gets no validation rows.
    save_steps
        With a checkpoint folder: also save after this many steps, not only after each epoch.
    """

    rank: int = 8
    alpha: int = 16
    dropout: float = 0.05
    target_modules: str | tuple[str, ...] = "all-linear"
    learning_rate: float = 1e-3
    warmup: float = 0.06
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    optimizer: str = "adamw"
    batch_size: int = 8
    accumulation: int = 1
    epochs: int = 3
    min_steps: int | None = None
    patience: int = 3
    loss: str = "vocabulary"
    class_weights: str = "none"
    validation_fraction: float = 0.2
    save_steps: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.target_modules, str):
            object.__setattr__(self, "target_modules", tuple(self.target_modules))
        choices = {"loss": LOSSES, "optimizer": OPTIMIZERS, "class_weights": CLASS_WEIGHTS}
        for name, allowed in choices.items():
            if (value := getattr(self, name)) not in allowed:
                raise TrainingError(f"{name}: expected one of {', '.join(allowed)}, got {value!r}")
        for name in ("rank", "alpha", "batch_size", "accumulation", "epochs", "patience"):
            if getattr(self, name) < 1:
                raise TrainingError(f"{name}: expected at least 1, got {getattr(self, name)}")
        if self.batch_size % self.accumulation:
            raise TrainingError(
                f"accumulation: expected a divisor of batch_size {self.batch_size}, got {self.accumulation}"
            )
        if not self.learning_rate > 0 or not 0 <= self.dropout < 1 or not 0 <= self.warmup <= 1:
            raise TrainingError("expected learning_rate > 0, 0 <= dropout < 1 and 0 <= warmup <= 1")
        if not 0 < self.validation_fraction < 1:
            raise TrainingError(f"validation_fraction: expected 0 to 1, got {self.validation_fraction}")

    @classmethod
    def names(cls) -> list[str]:
        """The names of all settings."""
        return [f.name for f in fields(cls)]

    def to_dict(self) -> dict[str, Any]:
        """A plain dictionary of JSON values; ``TrainConfig(**d)`` reads it back."""
        values = asdict(self)
        modules = self.target_modules
        return values | {"target_modules": modules if isinstance(modules, str) else list(modules)}

    def steps_wanted(self, labels: int) -> int:
        """The least number of optimiser steps for a task of so many labels."""
        return max(MIN_STEPS, STEPS_PER_LABEL * labels) if self.min_steps is None else self.min_steps
