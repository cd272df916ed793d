"""The scoring engine: the log-likelihood of every answer after every prompt.

Three things make it fast and none changes the result: the longest common token prefix of the prompts
is computed once and its keys and values are kept; the rest is batched by length; and all answers are
scored together as a token trie behind each prompt, whose attention mask lets a node see exactly the
prompt and its own ancestors. The output head runs only where an answer token is predicted.

`score_plainly` does the same with one plain forward pass per prompt and answer. It is the reference
that tests compare with, and the fallback for models on which the trie does not hold.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from promptclf.prefix import MIN_PREFIX, Ids, Layers, PrefixCache
from promptclf.trie import AnswerTrie

logger = logging.getLogger(__name__)

PRUNED_NODES = 16  # how many trie nodes a pruned search is expected to feed per text
HEAD_ROWS = 128  # rows of full-vocabulary logits held at once


class ScoringEngine:
    """Scores answers with one loaded model. Not thread-safe: the caller holds the model's lock.

    Parameters
    ----------
    model
        A causal language model of ``transformers``, in place and on its device.
    pad_id
        Any valid token id; it fills rows and is never attended to.
    batch_tokens
        How many padded tokens one forward pass may hold. Default: by device.
    """

    def __init__(self, model: Any, pad_id: int, batch_tokens: int | None = None) -> None:
        self.model = model
        self.pad_id = pad_id
        on_cpu = model.device.type == "cpu"
        self.batch_tokens = batch_tokens or (1024 if on_cpu else 16384)
        self.prefixes = PrefixCache(self._keys_and_values)
        self._trie_holds: bool | None = None
        # Within a sliding window attention is ordinary attention; beyond it keys are dropped.
        self._window = getattr(model.config.get_text_config(), "sliding_window", None) or math.inf

    # ---- public -------------------------------------------------------------------------------

    @torch.inference_mode()
    def score(
        self,
        prompts: Sequence[Ids],
        answers: Sequence[Ids],
        *,
        restricted: bool = False,
        owner: str | None = None,
        epsilon: float = 0.0,
    ) -> NDArray[np.float64]:
        """Log-likelihood of each answer after each prompt.

        Parameters
        ----------
        prompts, answers
            n and k token sequences. No answer may begin another.
        restricted
            Normalise each token over the answers' tokens at that point, not over the vocabulary.
        owner
            The adapter that is switched on: kept prefixes are not shared between adapters.
        epsilon
            If positive, answers that together weigh at most this share of all answers may get an
            upper bound instead of their log-likelihood, which saves most of the work where many
            labels are compared and few are likely. All others are exact.

        Returns
        -------
        Array of shape (n, k), natural logarithms.
        """
        if self._trie_holds is None:
            self._trie_holds = self._check_trie()
        distinct: dict[tuple[int, ...], int] = {}
        rows_of = [distinct.setdefault(tuple(prompt), len(distinct)) for prompt in prompts]
        scores = self._score([*distinct], answers, restricted, owner, epsilon)
        return scores[rows_of]

    def _score(
        self,
        prompts: Sequence[Ids],
        answers: Sequence[Ids],
        restricted: bool,
        owner: str | None,
        epsilon: float,
    ) -> NDArray[np.float64]:
        longest = max(map(len, prompts)) + max(map(len, answers))
        if not self._trie_holds or longest > self._window:
            return self.score_plainly(prompts, answers, restricted=restricted)
        trie = AnswerTrie(answers)
        length, prefix = self.prefixes.shared(prompts, owner)
        scores = np.empty((len(prompts), len(answers)))
        nodes = min(len(trie), PRUNED_NODES) if epsilon else len(trie)
        for rows in _batches([len(p) - length + nodes for p in prompts], self.batch_tokens):
            batch = _Batch(self, [prompts[row][length:] for row in rows], trie, prefix, length, restricted)
            scores[rows] = batch.score(epsilon)
        return scores

    @torch.inference_mode()
    def score_plainly(
        self, prompts: Sequence[Ids], answers: Sequence[Ids], *, restricted: bool = False
    ) -> NDArray[np.float64]:
        """The same by one plain forward pass of prompt + answer for every pair: slow, and simple."""
        trie = AnswerTrie(answers)
        scores = np.empty((len(prompts), len(answers)))
        for n, prompt in enumerate(prompts):
            for k, answer in enumerate(answers):
                ids = torch.tensor([[*prompt, *answer[:-1]]], device=self.model.device)
                logits = self.model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 :].float()
                if restricted:
                    steps = zip(logits, trie.paths[k], strict=True)
                    parts = (row[list(trie.children[node])].log_softmax(-1)[c] for row, (node, c) in steps)
                    scores[n, k] = float(sum(parts))
                else:
                    target = torch.tensor(answer, device=logits.device)[:, None]
                    scores[n, k] = float(logits.log_softmax(-1).gather(1, target).double().sum())
        return scores

    @torch.inference_mode()
    def embed(self, texts: Sequence[Ids], layer: int) -> NDArray[np.float32]:
        """Mean hidden state after `layer` layers, over all tokens but the first (an attention sink).

        Returns an array of shape (n, hidden size).
        """
        out = np.empty((len(texts), self.model.config.get_text_config().hidden_size), dtype=np.float32)
        for rows in _batches([len(text) for text in texts], self.batch_tokens):
            batch = [texts[row] for row in rows]
            ids, lengths = self.pad(batch)
            keep = torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]
            hidden = self._hidden_at(ids, keep.long(), layer)
            keep[:, 0] &= lengths == 1
            weight = keep.to(hidden.dtype)[..., None]
            out[rows] = ((hidden * weight).sum(1) / weight.sum(1)).float().cpu().numpy()
        return out

    def forget(self, owner: str | None) -> None:
        """Drop what is kept for an adapter that is gone or has changed."""
        self.prefixes.forget(owner)

    # ---- pieces -------------------------------------------------------------------------------

    def _keys_and_values(self, ids: Ids) -> Layers:
        tokens = torch.tensor([ids], device=self.model.device)
        cache = self.model.base_model(input_ids=tokens, use_cache=True).past_key_values
        return [(layer.keys, layer.values) for layer in cache.layers]

    def body(
        self, ids: Tensor, positions: Tensor, past: Layers | None, mask: Tensor | None, keep: bool
    ) -> Any:
        """The model without its head, behind kept keys and values."""
        inputs: dict[str, Any] = {"use_cache": keep or past is not None, "attention_mask": mask}
        if past is not None:
            inputs["past_key_values"] = cache = DynamicCache()
            for keys, values in past:
                layer = DynamicLayer()  # a sliding layer would not know how long the past is
                layer.lazy_initialization(keys, values)
                # Expanding copies nothing; the cache copies when it grows, and ours stays as it is.
                layer.keys, layer.values = (t.expand(len(ids), -1, -1, -1) for t in (keys, values))
                cache.layers.append(layer)
        return self.model.base_model(input_ids=ids, position_ids=positions, **inputs)

    def log_probabilities(
        self, states: Tensor, nodes: Tensor, predicted: tuple[Tensor, Tensor], restricted: bool
    ) -> NDArray[np.float64]:
        """Log-probabilities of the tokens to predict at trie nodes, from their hidden states.

        `states` is m x hidden and `nodes` says which node each is of; the result is m x width.
        """
        tokens, real = predicted
        head = self.model.get_output_embeddings()
        parts = []
        for some, node in zip(states.split(HEAD_ROWS), nodes.split(HEAD_ROWS), strict=True):
            logits = head(some).float()
            wanted = logits.gather(1, tokens[node])
            total = wanted.masked_fill(~real[node], -torch.inf) if restricted else logits
            parts.append(wanted - total.logsumexp(-1, keepdim=True))
        return torch.cat(parts).double().cpu().numpy()

    def pad(self, sequences: Sequence[Ids]) -> tuple[Tensor, Tensor]:
        """Ids padded on the right (rows x width), and the true lengths."""
        lengths = torch.tensor([len(s) for s in sequences])
        ids = torch.full((len(sequences), int(lengths.max())), self.pad_id)
        for row, sequence in enumerate(sequences):
            ids[row, : len(sequence)] = torch.tensor(sequence)
        return ids.to(self.model.device), lengths.to(self.model.device)

    def _hidden_at(self, ids: Tensor, mask: Tensor, layer: int) -> Tensor:
        """The hidden states after `layer` layers, without running the later ones."""
        count = self.model.config.get_text_config().num_hidden_layers
        stacks = [m for m in self.model.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == count]
        if not stacks or not 0 < layer < count:
            hidden = self.model.base_model(
                input_ids=ids, attention_mask=mask, output_hidden_states=True, use_cache=False
            ).hidden_states
            return hidden[layer]  # type: ignore[no-any-return]
        found: list[Tensor] = []

        def stop(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            found.append(args[0] if args else kwargs["hidden_states"])
            raise _Reached

        handle = stacks[0][layer].register_forward_pre_hook(stop, with_kwargs=True)
        try:
            self.model.base_model(input_ids=ids, attention_mask=mask, use_cache=False)
        except _Reached:
            pass
        finally:
            handle.remove()
        return found[0]

    def _check_trie(self) -> bool:
        """Whether the trie gives what plain forward passes give, tried on a few tokens."""
        vocabulary = self.model.config.get_text_config().vocab_size
        some = [1 + (7 * i) % (vocabulary - 1) for i in range(MIN_PREFIX + 14)]
        prompts = [some[: MIN_PREFIX + 2], [*some[:MIN_PREFIX], *some[-6:]]]
        answers = [[some[3], some[4]], [some[3], some[5], some[6]], [some[7]]]
        self._trie_holds = True
        try:
            fast = self.score(prompts, answers)
            slow = self.score_plainly(prompts, answers)
            holds = bool(np.allclose(fast, slow, rtol=1e-3, atol=self._tolerance()))
        except Exception as error:  # whatever a model does not support, the plain path does
            logger.debug("the trie failed: %r", error)
            holds = False
        self.forget(None)
        if not holds:
            logger.warning(
                "%s cannot be scored with a shared prefix and a label trie; "
                "falling back to one forward pass per text and label, which is slower",
                type(self.model).__name__,
            )
        return holds

    def _tolerance(self) -> float:
        return 1e-3 if self.model.dtype == torch.float32 else 0.5


class _Batch:
    """A few prompts of similar length: first the prompts alone, then trie nodes behind them."""

    def __init__(
        self,
        engine: ScoringEngine,
        suffixes: Sequence[Ids],
        trie: AnswerTrie,
        prefix: Layers | None,
        past: int,
        restricted: bool,
    ) -> None:
        self.engine, self.trie, self.past, self.restricted = engine, trie, past, restricted
        ids, self.lengths = engine.pad(suffixes)
        self.device, (rows, self.width) = ids.device, ids.shape
        self.predicted = tuple(t.to(self.device) for t in trie.predicted())
        self.real = torch.arange(self.width, device=self.device) < self.lengths[:, None]
        positions = past + torch.arange(self.width, device=self.device).expand(rows, -1)
        # Without a prefix no mask is needed: right padding is invisible to causal attention.
        mask = None if prefix is None else torch.cat([self.real.new_ones(rows, past), self.real], 1).long()
        out = engine.body(ids, positions, prefix, mask, keep=len(trie) > 0)
        last = out.last_hidden_state[torch.arange(rows, device=self.device), self.lengths - 1]
        self.layers = (
            [(layer.keys, layer.values) for layer in out.past_key_values.layers] if len(trie) else []
        )
        # Log-probability of each predicted token; 0 is the upper bound of one not looked at.
        self.edges = np.zeros((rows, len(trie.tokens), trie.width))
        self.edges[:, 0] = self._predict(last, torch.zeros(rows, dtype=torch.long, device=self.device))

    def score(self, epsilon: float) -> NDArray[np.float64]:
        """Log-likelihoods, rows x answers; see `ScoringEngine.score`."""
        if not len(self.trie):
            return self.trie.totals(self.edges)
        first = np.where(self.predicted[1][0].cpu().numpy(), self.edges[:, 0], -np.inf)
        opened = np.zeros(first.shape, dtype=bool)
        branch = np.array([path[0][1] for path in self.trie.paths])
        single = np.array([len(path) == 1 for path in self.trie.paths])
        # All answers together weigh at most what their first tokens do: less cannot be enough. What
        # the answers fed then really weigh says what else is needed, and after that it is certain.
        mass = np.exp(first).sum(axis=1)
        for _ in range(2):
            wanted = self.trie.open_branches(first, opened, mass, epsilon)
            if not wanted.any():
                break
            self._feed(wanted)
            opened |= wanted
            known = single | opened[:, branch]
            mass = np.where(known, np.exp(self.trie.totals(self.edges)), 0.0).sum(axis=1)
        return self.trie.totals(self.edges)

    def _feed(self, branches: NDArray[np.bool_]) -> None:
        """Feed the nodes of the chosen branches (rows x width) and read what they predict."""
        of = np.array(self.trie.branches[1:])
        nodes = [np.flatnonzero(row[of]) + 1 for row in branches]
        budget = self.engine.batch_tokens
        for rows in _batches([len(n) for n in nodes], budget):
            if rows := [row for row in rows if len(nodes[row])]:
                self._feed_rows(rows, [nodes[row] for row in rows])

    def _feed_rows(self, rows: list[int], nodes: list[NDArray[np.intp]]) -> None:
        index = torch.tensor(rows, device=self.device)
        chosen = torch.zeros(len(rows), max(map(len, nodes)), dtype=torch.long)  # 0: padding
        for i, some in enumerate(nodes):
            chosen[i, : len(some)] = torch.from_numpy(some)
        mask = self._mask(chosen, index)
        chosen = chosen.to(self.device)
        tokens = torch.tensor(self.trie.tokens, device=self.device).clamp(min=0)[chosen]
        depths = torch.tensor(self.trie.depths, device=self.device)[chosen]
        positions = self.past + self.lengths[index][:, None] - 1 + depths
        whole = rows == list(range(len(self.lengths)))
        layers = self.layers if whole else [(k[index], v[index]) for k, v in self.layers]
        hidden = self.engine.body(tokens, positions, layers, mask, keep=True).last_hidden_state
        real = chosen > 0
        logs = self._predict(hidden[real], chosen[real])
        at = index[:, None].expand_as(chosen)[real].cpu().numpy()
        self.edges[at, chosen[real].cpu().numpy()] = logs

    def _mask(self, chosen: Tensor, index: Tensor) -> Tensor:
        """Rows x 1 x nodes x keys, true where attention is allowed; keys are prefix, text, nodes."""
        rows, count = chosen.shape
        own = self.trie.visible()[chosen[:, :, None], chosen[:, None, :]].to(self.device)
        # Padding sees itself, since a row without any key has no softmax.
        own |= torch.eye(count, dtype=torch.bool, device=self.device)
        text = self.real[index][:, None].expand(-1, count, -1)
        prefix = text.new_ones(rows, count, self.past)
        return torch.cat([prefix, text, own], 2)[:, None]

    def _predict(self, states: Tensor, nodes: Tensor) -> NDArray[np.float64]:
        tokens, real = self.predicted
        return self.engine.log_probabilities(states, nodes, (tokens, real), self.restricted)


class _Reached(Exception):  # noqa: N818  (a signal, not an error)
    """Raised inside a forward pass to leave it at the wanted layer."""


def _batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Indices grouped by similar length, each group within `budget` padded tokens."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        if batch and (len(batch) + 1) * lengths[index] > budget:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
