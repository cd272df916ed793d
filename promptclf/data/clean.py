"""Clean texts before they are classified: a scikit-learn transformer without surprises."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Any

from sklearn.base import BaseEstimator, TransformerMixin

from promptclf.errors import DataError

# ASCII only, so that Chinese text right after an address, or a full stop, is not taken for part of it.
_URL = re.compile(r"(?<![a-z0-9])(?:https?://|www\.)[!-~]*[a-z0-9/]", re.IGNORECASE | re.ASCII)
# Not after a letter or digit, where it would be an e-mail address; with marks that NFC may leave apart.
_USER = re.compile("(?<![A-Za-z0-9._%+@-])@\\w[\\w\u0300-\u036f]*")
# Control characters other than white space, the byte order mark, halves of surrogate pairs.
_CONTROL = re.compile("[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\ufeff\ud800-\udfff]")


class TextCleaner(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Normalise texts: Unicode NFC, no control characters, single spaces.

    It learns nothing, so it may be used without `fit`, alone or as a step of a `Pipeline`. Cleaning
    twice changes nothing more.

    Parameters
    ----------
    lowercase
        Turn letters into lower case.
    mask_urls
        Write ``http`` for every web address (as TweetEval does: Barbieri et al., 2020).
    mask_users
        Write ``@user`` for every user name that begins with ``@``; e-mail addresses are left alone.
    """

    def __init__(self, *, lowercase: bool = False, mask_urls: bool = False, mask_users: bool = False) -> None:
        self.lowercase = lowercase
        self.mask_urls = mask_urls
        self.mask_users = mask_users

    def fit(self, X: Iterable[Any], y: Any = None) -> TextCleaner:
        """Do nothing; there is nothing to learn."""
        return self

    def transform(self, X: Iterable[Any]) -> list[Any]:
        """Clean texts, or (text, pair) tuples whose pair may be None.

        Parameters
        ----------
        X
            n texts or tuples.

        Returns
        -------
        list
            n texts or tuples, as in `X`.

        Raises
        ------
        DataError
            If `X` is a single text, or something in it is not a text.
        """
        if isinstance(X, str):
            raise DataError("expected a list of texts, got a single text; put it in a list")
        return [self._clean(item, index) for index, item in enumerate(X)]

    def clean(self, text: str) -> str:
        """Clean one text."""
        text = unicodedata.normalize("NFC", _CONTROL.sub("", text))
        if self.lowercase:
            text = text.lower()
        if self.mask_urls:
            text = _URL.sub("http", text)
        if self.mask_users:
            text = _USER.sub("@user", text)
        return " ".join(unicodedata.normalize("NFC", text).split())

    def _clean(self, item: Any, index: int) -> Any:
        if isinstance(item, str):
            return self.clean(item)
        if isinstance(item, tuple) and all(part is None or isinstance(part, str) for part in item):
            return tuple(part if part is None else self.clean(part) for part in item)
        raise DataError(
            f"row {index + 1}: expected a text or a tuple (text, pair), got {type(item).__name__};"
            " read the file as text, without type inference"
        )

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        return tags
