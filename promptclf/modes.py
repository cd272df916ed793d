"""The modes: one table that the command line, the app and the loader read.

A new mode is a class in a file of its own and a line here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from promptclf.classifiers.base import PromptClassifier
from promptclf.classifiers.few_shot import FewShotClassifier
from promptclf.classifiers.lora import LoraClassifier
from promptclf.classifiers.persistence import local_folder, read_config
from promptclf.classifiers.zero_shot import ZeroShotClassifier
from promptclf.errors import ArtifactError

MODES: dict[str, type[PromptClassifier]] = {
    "zero-shot": ZeroShotClassifier,
    "few-shot": FewShotClassifier,
    "lora": LoraClassifier,
}


def load_classifier(
    path: str | Path,
    *,
    mode: str = "lora",
    model: Any = None,
    revision: str | None = None,
    allow_other_base: bool = False,
) -> PromptClassifier:
    """Load a saved classifier of any mode; see `PromptClassifier.from_pretrained`.

    A folder or Hub repository says itself of which mode it is; `mode` chooses one of a packaged task's.

    Raises
    ------
    ArtifactError
        If the folder is damaged, or its mode is unknown.
    """
    if mode not in MODES:
        raise ArtifactError(f"mode: expected one of {', '.join(MODES)}, got {mode!r}")
    folder = local_folder(path, revision, mode)
    saved = read_config(folder)["mode"]
    if saved not in MODES:
        raise ArtifactError(f"{path}: expected one of the modes {', '.join(MODES)}, got {saved!r}")
    return MODES[saved].from_pretrained(folder, model=model, allow_other_base=allow_other_base)
