"""Texts, settings and models with which a tiny model is fitted in a second."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from fakes import KEYWORDS
from promptclf.classifiers.lora import LoraClassifier
from promptclf.lm.loading import load_model
from promptclf.lm.model import HFModel
from promptclf.settings import TrainConfig
from promptclf.task import Task

TASK = Task("desk", ("billing", "delivery", "account"))
CONFIG = TrainConfig(
    rank=4, alpha=8, dropout=0.0, learning_rate=5e-3, batch_size=4, epochs=2, min_steps=1, patience=99
)
SUBJECTS = ("Hello, the", "Where is my", "Please, that", "About one", "No", "What a", "The other", "Your")


def rows(count: int, start: int = 0) -> tuple[list[str], list[str]]:
    """Texts with a keyword each, no two equal, and their labels in turn."""
    words = list(KEYWORDS)
    numbers = range(start, start + count)
    texts = [f"{SUBJECTS[n // 3 % len(SUBJECTS)]} {words[n % 3]} {'again ' * (n % 4)}{n}" for n in numbers]
    return texts, [KEYWORDS[words[n % 3]] for n in numbers]


def own_model(folder: Path, place: Path, **options: Any) -> HFModel:
    """A model of its own under another name, since `load_model` shares what it has loaded."""
    place.mkdir(exist_ok=True)
    link = place / f"{folder.name}-{'-'.join(options.values()) or 'plain'}"
    link.symlink_to(folder, target_is_directory=True)
    return load_model(str(link), device="cpu", **options)


def adapters(model: HFModel) -> set[str]:
    """Names of the adapters whose weights are in the module."""
    with model.lock, model.adapters.using(None):
        parts = [name.split(".lora_A.") for name, _ in model.module.named_parameters()]
        return {part[1].split(".")[0] for part in parts if len(part) == 2}


def digest(classifier: LoraClassifier) -> str:
    """SHA-256 of a fitted adapter's weights."""
    state = classifier.model_.adapters.state(classifier.adapter_)
    total = hashlib.sha256()
    for key in sorted(state):
        total.update(key.encode() + state[key].float().numpy().tobytes())
    return total.hexdigest()
