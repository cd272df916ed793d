"""Is a prompt enough, do a few examples help, or should I fine-tune?

Three ways to classify text with one causal language model (zero-shot, few-shot and LoRA) behind one
scikit-learn contract, and an honest comparison of them. Names are loaded when they are first used, so
that ``import promptclf`` imports neither torch nor gradio.
"""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from promptclf.classifiers.base import PromptClassifier
    from promptclf.classifiers.baselines import TfidfSvmClassifier
    from promptclf.classifiers.few_shot import FewShotClassifier
    from promptclf.classifiers.lora import LoraClassifier
    from promptclf.classifiers.zero_shot import ZeroShotClassifier
    from promptclf.client import Client
    from promptclf.data.clean import TextCleaner
    from promptclf.data.dataset import Dataset, load_dataset
    from promptclf.data.doctor import diagnose
    from promptclf.errors import (
        ArtifactError,
        DataError,
        MissingPackageError,
        ModelError,
        PromptClfError,
        TaskError,
        TemplateError,
        TextTooLongError,
        TrainingError,
    )
    from promptclf.evaluation.compare import compare
    from promptclf.evaluation.report import Report
    from promptclf.lm.loading import load_model
    from promptclf.modes import MODES, load_classifier
    from promptclf.prompt import PromptTemplate
    from promptclf.settings import TrainConfig
    from promptclf.task import Example, Prediction, Task

__version__ = "0.1.0"

__all__ = [
    "ArtifactError",
    "Client",
    "DataError",
    "Dataset",
    "Example",
    "FewShotClassifier",
    "LoraClassifier",
    "MODES",
    "MissingPackageError",
    "ModelError",
    "Prediction",
    "PromptClassifier",
    "PromptClfError",
    "PromptTemplate",
    "Report",
    "Task",
    "TaskError",
    "TemplateError",
    "TextCleaner",
    "TextTooLongError",
    "TfidfSvmClassifier",
    "TrainConfig",
    "TrainingError",
    "ZeroShotClassifier",
    "__version__",
    "compare",
    "diagnose",
    "load_classifier",
    "load_dataset",
    "load_model",
]

_HOMES = {
    "classifiers.base": ("PromptClassifier",),
    "classifiers.baselines": ("TfidfSvmClassifier",),
    "classifiers.few_shot": ("FewShotClassifier",),
    "classifiers.lora": ("LoraClassifier",),
    "classifiers.zero_shot": ("ZeroShotClassifier",),
    "client": ("Client",),
    "data.clean": ("TextCleaner",),
    "data.dataset": ("Dataset", "load_dataset"),
    "data.doctor": ("diagnose",),
    "evaluation.compare": ("compare",),
    "evaluation.report": ("Report",),
    "lm.loading": ("load_model",),
    "modes": ("MODES", "load_classifier"),
    "prompt": ("PromptTemplate",),
    "settings": ("TrainConfig",),
    "task": ("Example", "Prediction", "Task"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

# A library is silent until its user configures logging.
logging.getLogger(__name__).addHandler(logging.NullHandler())

if not TYPE_CHECKING:  # a checker that saw this would accept any name

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{__name__}.{_HOME_OF.get(name, 'errors')}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
