"""How cost grows: with texts, with labels, and how it falls with a second core."""

from __future__ import annotations

from benchmarks.speed.runner import Group
from benchmarks.speed.scoring import ours

TEXTS = (10, 100, 1000)
MANY_TEXTS = 10_000
LABELS = {2: 32, 8: 32, 32: 16, 128: 4, 500: 2}  # and on how many texts


def groups(full: bool) -> list[Group]:
    """All groups; `full` adds 10,000 texts."""
    counts = (*TEXTS, MANY_TEXTS) if full else TEXTS
    both = (1, 2)
    return [
        Group(
            "texts",
            tuple(
                # A hundred texts are rounds enough.
                ours("zero-shot", count, f"{count:,} texts", rounds=1 if count > 10 else 0)
                for count in counts
            ),
        ),
        Group(
            "labels",
            tuple(ours(f"labels-{count}", n, f"{count} labels") for count, n in LABELS.items()),
            rounds=1,
        ),
        Group(
            "cores",
            tuple(
                ours("zero-shot", 64, f"{threads} thread{'s' * (threads > 1)}", threads=threads)
                for threads in both
            ),
            clock="wall",
        ),
    ]
