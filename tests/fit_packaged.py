"""Fit the zero-shot and few-shot classifiers that ship with packaged tasks: python tests/fit_packaged.py

Each as `promptclf compare` fits it with its first seed, in float32: about ten minutes of one core a task.
The adapter beside them is what ``promptclf train --task NAME`` makes.
"""

from __future__ import annotations

from promptclf import FewShotClassifier, ZeroShotClassifier, load_dataset, load_model
from promptclf.evaluation.measure import columns
from promptclf.task import PACKAGED_TASKS, packaged_tasks


def main() -> None:
    """Fit, and replace what ships."""
    model = load_model(dtype="float32")
    for name in packaged_tasks():
        dataset = load_dataset(name)
        for kind in (ZeroShotClassifier, FewShotClassifier):
            classifier = kind(dataset.task, model).fit(*columns(dataset.train))
            print(classifier.save_pretrained(PACKAGED_TASKS / name / kind.mode))


if __name__ == "__main__":
    main()
