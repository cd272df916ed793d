"""Cut and draw examples, stratified by label and seeded: the same seed takes the same rows."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from promptclf.errors import DataError
from promptclf.task import Example


def split_examples(
    examples: Sequence[Example], *, fractions: Sequence[float], seed: int
) -> tuple[tuple[Example, ...], ...]:
    """Cut examples into parts, stratified by label; each part keeps the order of `examples`.

    The first part has at least one row of every class; the others do where their size allows. Rows of
    equal texts (and pairs) land in the same part, so that nothing is tested that was learned by heart.

    Parameters
    ----------
    examples
        Examples with labels.
    fractions
        The size of each part, the first the largest, adding up to 1: ``(0.6, 0.2, 0.2)``, say.
    seed
        Seed of the draw: the same seed cuts the same parts.

    Raises
    ------
    DataError
        If a class has fewer than two rows, by name, or the fractions do not add up to 1.
    """
    if min(fractions, default=0) <= 0 or abs(sum(fractions) - 1) > 1e-9:
        raise DataError(f"fractions: expected positive numbers that add up to 1, got {list(fractions)}")
    rows = _rows_by_label(examples)
    if single := [label for label, indices in rows.items() if len(indices) < 2]:
        more = f" and {len(single) - 5} more" if len(single) > 5 else ""
        raise DataError(
            f"expected at least 2 rows of every class to split, got 1 of {', '.join(map(repr, single[:5]))}"
            f"{more}; add rows, remove the class or give the splits as files"
        )
    # Copies follow one of them, of the rarest class where they differ: that class may have no other row.
    groups = copies_by_text((e.text, e.pair) for e in examples).values()
    copies = {min(group, key=lambda row: len(rows[examples[row].label])): group for group in groups}
    left = sorted(copies)
    size_of_all, parts = len(left), []
    for part, fraction in reversed(list(enumerate(fractions))[1:]):
        size = max(1, round(fraction * size_of_all))
        drawn = _draw([examples[index] for index in left], size, (seed, part), keep=1)
        parts.append([left[index] for index in drawn])
        gone = set(drawn)
        left = [row for index, row in enumerate(left) if index not in gone]
    whole = (sorted(copy for row in part for copy in copies[row]) for part in (left, *reversed(parts)))
    return tuple(tuple(examples[index] for index in part) for part in whole)


def hold_out(
    texts: Sequence[Hashable], labels: Sequence[str], fraction: float, seed: int
) -> tuple[list[int], list[int]]:
    """Indices of the rows to learn from, and of the rows held out: `fraction` of the different texts.

    Copies of a text are on one side, or validation would ask for what was learned by heart. Stratified, if
    every class can be on both sides; else at random.

    Raises
    ------
    DataError
        If there are fewer than two different texts.
    """
    from sklearn.model_selection import train_test_split  # whoever reads data only need not wait for it

    if len(copies := list(copies_by_text(texts).values())) < 2:
        raise DataError(f"training needs at least 2 different labelled texts, got {len(copies)}")
    first = [labels[group[0]] for group in copies]
    size = max(1, round(fraction * len(copies)))
    _, counts = np.unique(first, return_counts=True)
    can = len(counts) <= size <= len(copies) - len(counts) and counts.min(initial=2) >= 2
    parts = train_test_split(copies, test_size=size, random_state=seed, stratify=first if can else None)
    rows, held = (sorted(row for group in part for row in group) for part in parts)
    return rows, held


def copies_by_text(texts: Iterable[Hashable]) -> dict[Hashable, list[int]]:
    """Text -> the rows where it stands, in order of first appearance."""
    rows: dict[Hashable, list[int]] = {}
    for index, text in enumerate(texts):
        rows.setdefault(text, []).append(index)
    return rows


def draw_examples(examples: Sequence[Example], size: int, seed: int) -> tuple[Example, ...]:
    """Draw `size` examples, stratified by label, in the order of `examples`.

    Every class keeps a row where `size` allows; otherwise the largest classes are kept. All examples
    are returned where there are no more than `size`.
    """
    if size >= len(examples):
        return tuple(examples)
    return tuple(examples[index] for index in _draw(examples, size, (seed,)))


def _draw(examples: Sequence[Example], size: int, seed: tuple[int, ...], keep: int = 0) -> list[int]:
    """Draw `size` rows in proportion to the classes, leaving at least `keep` of each; sorted indices.

    scikit-learn's stratified splitters refuse more classes than rows and may leave a class out; this
    takes the largest remainders (Hamilton's method) and one row of every class where there is room.
    """
    random = np.random.default_rng(seed)
    rows = _rows_by_label(examples)
    shuffled = [random.permutation(indices) for indices in rows.values()]
    counts = np.array([len(indices) for indices in shuffled])
    shares = _apportion(counts, size, counts - keep, random)
    return sorted(
        int(index) for indices, share in zip(shuffled, shares, strict=True) for index in indices[:share]
    )


def _apportion(
    counts: NDArray[np.int64], size: int, room: NDArray[np.int64], random: np.random.Generator
) -> NDArray[np.int64]:
    """Share `size` rows out over classes of `counts` rows, taking no more than `room` of each."""
    size = min(size, int(room.sum()))
    ties = random.random(len(counts)) * 1e-6
    quota: NDArray[np.float64] = size * counts / counts.sum() + ties
    shares: NDArray[np.int64] = np.minimum(quota.astype(np.int64), room)
    if size >= np.count_nonzero(room):
        shares = np.maximum(shares, room > 0)
    while shares.sum() < size:
        shares[np.where(shares < room, quota - shares, -np.inf).argmax()] += 1
    while shares.sum() > size:
        shares[np.where(shares > 1, shares - quota, -np.inf).argmax()] -= 1
    return shares


def _rows_by_label(examples: Sequence[Example]) -> dict[str, list[int]]:
    rows: dict[str, list[int]] = {label: [] for label in sorted({example.label for example in examples})}
    for index, example in enumerate(examples):
        rows[example.label].append(index)
    return rows
