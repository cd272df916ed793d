"""The scoring engine: the log-likelihood of every answer after every prompt.

Three things make it fast and none changes the result: the longest common token prefix of the prompts
is computed once and its keys and values are kept; the rest of all prompts is packed into rows without
padding; and all answers are scored together as a token trie behind each prompt. The output head runs
only where an answer token is predicted. A positive `epsilon` buys more speed for answers that hardly weigh.

Models on which packing does not hold get padded rows, and where the trie does not hold either,
`score_plainly`: one plain forward pass per prompt and answer. It is the reference that both are
tried against before they are used, and that tests compare with.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from promptclf.home import remembered
from promptclf.lm.attention import tolerance, window
from promptclf.lm.head import Head
from promptclf.lm.packed import filled, score_packed
from promptclf.lm.padded import batches, pad, score_padded
from promptclf.lm.prefix import CACHE, MIN_PREFIX, Ids, Layers, PrefixCache
from promptclf.lm.trie import AnswerTrie

logger = logging.getLogger(__name__)

PRUNED_NODES = 16  # how many trie nodes a pruned search is expected to feed per text
SPARE_NODES = 160  # as many at once take as long as the rounds of a search that leaves most of them out
HEAD_ROWS = 256  # rows of full-vocabulary logits held at once


class ScoringEngine:
    """Scores answers with one loaded model. Not thread-safe: the caller holds the model's lock.

    Parameters
    ----------
    model
        A causal language model of ``transformers``, in place and on its device.
    pad_id
        Any valid token id; it fills rows and is never attended to.
    batch_tokens
        How many tokens one forward pass may hold. Default: `pass_tokens`.
    path
        "packed", "padded" or "plain". Default: the first of them that the model gives right scores on.
    key
        All that the default path depends on, as JSON values: it is tried once for each, and remembered.
    spare_nodes
        Where the tries of a pass have no more nodes together, all are fed whatever `epsilon` allows.
    """

    def __init__(
        self,
        model: Any,
        pad_id: int,
        batch_tokens: int | None = None,
        path: str | None = None,
        key: Mapping[str, Any] | None = None,
        spare_nodes: int = SPARE_NODES,
    ) -> None:
        self.model = model
        self.pad_id = pad_id
        self.batch_tokens = batch_tokens or pass_tokens(model)
        self.head = Head(model)
        self.prefixes = PrefixCache(self._keys_and_values)
        self.path, self.key, self.spare_nodes = path, key, spare_nodes
        # Within a window attention is ordinary attention; beyond it keys are dropped.
        self._window = window(model)

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
        if self.path is None:
            self.path = self._find_path()
        distinct: dict[tuple[int, ...], int] = {}
        rows_of = [distinct.setdefault(tuple(prompt), len(distinct)) for prompt in prompts]
        scores = self._score([*distinct], answers, restricted, owner, epsilon, self.spare_nodes)
        return scores[rows_of]

    def _score(
        self,
        prompts: Sequence[Ids],
        answers: Sequence[Ids],
        restricted: bool,
        owner: str | None,
        epsilon: float,
        spare_nodes: int,
    ) -> NDArray[np.float64]:
        longest = max(map(len, prompts)) + max(map(len, answers))
        path = self.path if longest <= self._window else "plain"
        if path == "plain":
            return self.score_plainly(prompts, answers, restricted=restricted)
        trie = AnswerTrie(answers)
        length, prefix = self.prefixes.shared(prompts, owner)
        tokens, real = (t.to(self.model.device) for t in trie.predicted())
        distinct = tokens[real].unique()
        scores = np.empty((len(prompts), len(answers)))
        nodes = min(len(trie), PRUNED_NODES) if epsilon else len(trie)
        sizes = [len(prompt) - length + nodes for prompt in prompts]
        group = filled if path == "packed" else batches

        def predict(states: Tensor, at: Tensor) -> NDArray[np.float64]:
            return self._log_probabilities(states, at, tokens, real, distinct, restricted)

        for rows in group(sizes, self.batch_tokens):
            everything = len(rows) * len(trie) <= spare_nodes
            work = (
                self.model,
                predict,
                [prompts[row][length:] for row in rows],
                trie,
                prefix,
                length,
                0.0 if everything else epsilon,
            )
            if path == "packed":
                scores[rows] = score_packed(*work)
            else:
                scores[rows] = score_padded(*work, self.pad_id, self.batch_tokens)
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
        for rows in batches([len(text) for text in texts], self.batch_tokens):
            batch = [texts[row] for row in rows]
            ids, lengths = pad(batch, self.pad_id, self.model.device)
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
        cache = self.model.base_model(input_ids=tokens, use_cache=True)[CACHE]
        return [(layer.keys, layer.values) for layer in cache.layers]

    def _log_probabilities(
        self,
        states: Tensor,
        nodes: Tensor,
        tokens: Tensor,
        real: Tensor,
        distinct: Tensor,
        restricted: bool,
    ) -> NDArray[np.float64]:
        """Log-probabilities of the tokens to predict at trie nodes, from their hidden states.

        `states` is m x hidden and `nodes` says which node each is of; `distinct` holds all tokens to
        predict. The result is m x width.
        """
        parts = []
        for some, node in zip(states.split(HEAD_ROWS), nodes.split(HEAD_ROWS), strict=True):
            logits = self.head(some, distinct)
            wanted = logits.gather(1, tokens[node])
            total = wanted.masked_fill(~real[node], -torch.inf) if restricted else logits
            parts.append(wanted - total.logsumexp(-1, keepdim=True))
        return torch.cat(parts).double().cpu().numpy()

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

    def _find_path(self) -> str:
        if self.key is None:
            path = self._choose_path()
        else:
            path = remembered("path", self.key, self._choose_path, ("packed", "padded", "plain").__contains__)
        name = type(self.model).__name__
        if path == "plain":
            logger.warning(
                "%s cannot be scored with a shared prefix and a label trie; "
                "falling back to one forward pass per text and label, which is slower",
                name,
            )
        else:
            logger.info("%s is scored in %s rows", name, path)
        return path

    def _choose_path(self) -> str:
        """The fastest way that gives what plain forward passes give, tried on a few tokens."""
        vocabulary = self.model.config.get_text_config().vocab_size
        some = [1 + (7 * i) % (vocabulary - 1) for i in range(MIN_PREFIX + 14)]
        prompts = [some[: MIN_PREFIX + 2], [*some[:MIN_PREFIX], *some[-6:]]]
        answers = [[some[3], some[4]], [some[3], some[5], some[6]], [some[7]]]
        expected = self.score_plainly(prompts, answers)
        for path in ("packed", "padded") if self.model.device.type == "cpu" else ("padded",):
            self.path = path
            try:
                if all(self._agrees(prompts, answers, expected, epsilon) for epsilon in (0.0, 1e-9)):
                    return path
                logger.debug("%s rows differ from plain forward passes", path)
            except Exception as error:  # whatever a model does not support, another path does
                logger.debug("%s rows failed: %r", path, error)
            finally:
                self.forget(None)
        return "plain"

    def _agrees(
        self, prompts: Sequence[Ids], answers: Sequence[Ids], expected: NDArray[np.float64], epsilon: float
    ) -> bool:
        limit = tolerance(self.model, float(np.abs(expected[0] - expected[1]).max()))
        found = self._score(prompts, answers, False, None, epsilon, spare_nodes=0)
        return bool(np.abs(found - expected).max() <= limit)


def pass_tokens(model: Any) -> int:
    """How many tokens one forward pass of a model should hold: what was quickest on such devices.

    On a CPU what a thread works on should fit into its core's cache. But matrix units (AMX) multiply so fast
    that laying the weights out for them, once in each pass, takes longer: there, fewer and larger passes are
    quicker (``tests/benchmarks/passes.py``). More threads than two were not tried, hence the bound.
    """
    if model.device.type != "cpu":
        return 16384
    if model.dtype == torch.bfloat16 and _has_matrix_units():
        return 2048
    return min(448 * torch.get_num_threads(), 2048)


def _has_matrix_units() -> bool:
    """Whether the CPU has them for bfloat16, as far as this version of torch tells."""
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("amx_bf16"))


class _Reached(Exception):  # noqa: N818  (a signal, not an error)
    """Raised inside a forward pass to leave it at the wanted layer."""
