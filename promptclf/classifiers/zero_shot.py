"""The zero-shot mode: `fit` learns at most a label prior."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from numpy.typing import ArrayLike

from promptclf.classifiers import calibrate
from promptclf.classifiers.base import PromptClassifier, Text, check_texts, spread
from promptclf.errors import DataError


class ZeroShotClassifier(PromptClassifier):
    """Labels and instruction only; `fit` learns at most the label prior.

    Parameters
    ----------
    calibration
        "auto" (default): "prior" if `fit` gets at least 100 texts, else "none".
        "none": the model's own probabilities.
        "contextual": divides by the probabilities of content-free texts (Zhao et al. 2021).
        "prior": batch calibration (Zhou et al. 2023) whose prior is estimated on the unlabelled
        texts given to `fit` (up to 256 of them) and kept.
        "batch": the same over the texts of each call; a text's result then depends on its company.
    """

    mode = "zero-shot"
    choices: ClassVar = {"calibration": ("auto", "none", "contextual", "prior", "batch")}

    def fit(
        self,
        X: Sequence[Text] | None = None,
        y: Sequence[str] | None = None,
        *,
        validation: tuple[Sequence[Text], Sequence[str]] | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> ZeroShotClassifier:
        """Estimate the label prior where the calibration asks for it. Labels are not looked at.

        Raises
        ------
        DataError
            If "prior" was asked for and there are no texts.
        """
        self.check_options()
        calibration, texts = self.calibration, check_texts([] if X is None else X)
        if calibration == "auto":
            calibration = "prior" if len(texts) >= calibrate.MIN_PRIOR_TEXTS else "none"
        if calibration == "prior" and not texts:
            raise DataError("calibration 'prior' needs texts to estimate the prior on; give some to fit")
        if calibration == "prior":
            texts = spread(texts, calibrate.PRIOR_TEXTS)
        elif calibration == "contextual":
            pairs = bool(texts) and isinstance(texts[0], tuple)
            texts = [(free, free) if pairs else free for free in calibrate.CONTENT_FREE]
        with self._learning(texts):
            prior = None
            if calibration in ("prior", "contextual"):
                prior = calibrate.label_prior(self._score(self._prompts_to_learn(texts)))
            self._set_calibration(calibration, prior, 1.0)
        return self
