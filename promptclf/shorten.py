"""The longest beginning of a text, or of a pair of texts, that fits a limit."""

from __future__ import annotations

from collections.abc import Callable

Parts = tuple[str, str | None]
_MAX = 100_000  # characters; more cannot fit, and need not be tokenised to know it


def longest_fitting(first: str, second: str | None, fits: Callable[[str, str | None], bool]) -> Parts:
    """The beginnings of a text and its pair, if any, that fit; both are empty if nothing does.

    Of a pair the longer text is cut first, until both are equally long in characters.
    """
    whole = len(first) + len(second or "")
    if whole <= _MAX and fits(first, second):
        return first, second

    def cut(length: int) -> Parts:
        kept = max(length - len(second or ""), min(len(first), length // 2))
        return first[:kept], None if second is None else second[: length - kept]

    low, high = 0, min(whole, _MAX)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(*cut(middle)) else (low, middle - 1)
    return cut(low)
