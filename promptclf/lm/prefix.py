"""Keys and values of the token prefixes that prompts share, kept for later calls."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence

from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPast

Ids = Sequence[int]
Layers = list[tuple[Tensor, Tensor]]  # keys and values, each rows x heads x tokens x size
MIN_PREFIX = 8  # shorter prefixes cost more to attach than to compute again
PREFIX_BYTES = 256 * 2**20
# What models call their cache, as an argument and in their output: renamed in transformers 5.24.
CACHE = "cache" if "cache" in BaseModelOutputWithPast.__dataclass_fields__ else "past_key_values"


class PrefixCache:
    """A bounded store of prefixes; the least recently used goes first.

    Parameters
    ----------
    compute
        Keys and values of some tokens, one pair per layer, each 1 x heads x tokens x size.
    limit
        Bytes to keep. The newest prefix stays, whatever its size.
    """

    def __init__(self, compute: Callable[[Ids], Layers], limit: float = PREFIX_BYTES) -> None:
        self.compute, self.limit = compute, limit
        self._kept: OrderedDict[tuple[str | None, tuple[int, ...]], Layers] = OrderedDict()
        self._last: dict[str | None, Ids] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[tuple[str | None, tuple[int, ...]]]:
        """Owner and tokens of every prefix, the most recently used last."""
        return iter(self._kept)

    @property
    def bytes(self) -> int:
        """The size of all that is kept."""
        tensors = (t for layers in self._kept.values() for pair in layers for t in pair)
        return sum(t.numel() * t.element_size() for t in tensors)

    def shared(self, prompts: Sequence[Ids], owner: str | None) -> tuple[int, Layers | None]:
        """How many leading tokens of all prompts need not be computed again, and what was kept of them.

        Prefixes are not shared between owners: each adapter has its own keys and values.
        """
        length = self._length(prompts, owner)
        return length, self._layers(tuple(prompts[0][:length]), owner) if length else None

    def forget(self, owner: str | None) -> None:
        """Drop what is kept for an adapter that is gone or has changed."""
        for key in [key for key in self._kept if key[0] == owner]:
            del self._kept[key]
        self._last.pop(owner, None)

    def _length(self, prompts: Sequence[Ids], owner: str | None) -> int:
        shortest = min(map(len, prompts))
        last, self._last[owner] = self._last.get(owner), prompts[0]
        common = common_length(prompts)
        if len(prompts) == 1:  # a text alone: what it shares with the call before
            common = common_length([prompts[0], last]) if last else 0
        common = min(common, shortest - 1)
        kept = [
            len(ids)
            for who, ids in self._kept
            if who == owner and len(ids) < shortest and all(tuple(p[: len(ids)]) == ids for p in prompts)
        ]
        longest = max(kept, default=0)
        # A kept prefix a little shorter than what these texts happen to share is the better one.
        if longest and longest >= common - MIN_PREFIX:
            return longest
        return common if common >= MIN_PREFIX else 0

    def _layers(self, ids: tuple[int, ...], owner: str | None) -> Layers:
        key = (owner, ids)
        if key not in self._kept:
            self._kept[key] = self.compute(ids)
        self._kept.move_to_end(key)
        while len(self._kept) > 1 and self.bytes > self.limit:
            self._kept.popitem(last=False)
        return self._kept[key]


def common_length(sequences: Sequence[Ids]) -> int:
    """Length of the longest common prefix."""
    first, last = min(map(tuple, sequences)), max(map(tuple, sequences))  # all others lie between these
    pairs = enumerate(zip(first, last, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(first), len(last)))
