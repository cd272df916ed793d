"""Hyper-parameters of training."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from numbers import Integral, Real
from typing import Any

from promptclf.errors import TrainingError

LOSSES = ("vocabulary", "labels")
OPTIMIZERS = ("adamw", "sgd", "adamw8bit")
CLASS_WEIGHTS = ("none", "balanced")
EPOCHS = 3
MIN_STEPS = 150
STEPS_PER_LABEL = 8


_BOUNDS: dict[str, tuple[float, float]] = {
    "rank": (1, 1024),
    "alpha": (1, 65536),
    "dropout": (0, 0.99),
    "learning_rate": (1e-12, 1e30),
    "warmup": (0, 1),
    "weight_decay": (0, 1e6),
    "max_grad_norm": (1e-12, 1e30),
    "batch_size": (1, 65536),
    "accumulation": (1, 65536),
    "epochs": (1, 100_000),
    "min_steps": (0, 10**9),
    "patience": (1, 100_000),
    "validation_fraction": (0.001, 0.999),
    "save_steps": (1, 10**9),
    "layers": (1, 100_000),
}
_FRACTIONS = ("dropout", "learning_rate", "warmup", "weight_decay", "max_grad_norm", "validation_fraction")
_OPTIONAL = ("min_steps", "save_steps", "layers")


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
        Passes over the training rows; more where they give fewer than `min_steps` optimiser steps.
        Default of `min_steps`: 150, or 8 per label if that is more; 0 where `epochs` is not 3, so that
        a chosen number of epochs is kept to. (For exactly 3 give ``min_steps=0``.)
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
    layers
        Tune the last so many layers only, which saves the backward pass through the others. Default: all.
    refit
        Once the best epoch and the temperature are known, train afresh for so many epochs on all rows,
        validation rows included: twice the work, worth it where rows are few. The temperature stays that of
        the first training, so probabilities may be less well calibrated.
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
    epochs: int = EPOCHS
    min_steps: int | None = None
    patience: int = 3
    loss: str = "vocabulary"
    class_weights: str = "none"
    validation_fraction: float = 0.2
    save_steps: int | None = None
    layers: int | None = None
    refit: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.target_modules, str):
            object.__setattr__(self, "target_modules", tuple(self.target_modules))
        choices = {"loss": LOSSES, "optimizer": OPTIMIZERS, "class_weights": CLASS_WEIGHTS}
        for name, allowed in choices.items():
            if (value := getattr(self, name)) not in allowed:
                raise TrainingError(f"{name}: expected one of {', '.join(allowed)}, got {value!r}")
        if not isinstance(self.refit, bool):
            raise TrainingError(f"refit: expected True or False, got {self.refit!r}")
        for name, (least, most) in _BOUNDS.items():
            value = getattr(self, name)
            if value is None and name in _OPTIONAL:
                continue
            whole = name not in _FRACTIONS
            number = isinstance(value, Integral if whole else Real) and not isinstance(value, bool)
            if not number or not least <= value <= most:  # NaN lies nowhere
                kind = "a whole number" if whole else "a number"
                raise TrainingError(f"{name}: expected {least:g} to {most:g}, {kind}, got {value!r}")
            object.__setattr__(self, name, int(value) if whole else float(value))  # NumPy's are no JSON
        if self.batch_size % self.accumulation:
            raise TrainingError(
                f"accumulation: expected a divisor of batch_size {self.batch_size}, got {self.accumulation}"
            )

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
        if self.min_steps is not None:
            return self.min_steps
        return max(MIN_STEPS, STEPS_PER_LABEL * labels) if self.epochs == EPOCHS else 0
