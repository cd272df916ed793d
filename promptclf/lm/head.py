"""From final hidden states to logits, as the model's own forward pass does it.

Between their output head and their result some models cap logits (Gemma 2), scale them (Granite, Cohere)
or multiply them (Falcon H1). So the model's own forward pass is run, with a body that returns the states.

A model in half precision rounds its logits to it: in bfloat16, logits between 8 and 16 come in steps of
1/16 nat, so that labels tie or change places. Those that matter can be computed in float32.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPast

logger = logging.getLogger(__name__)


class Head:
    """Logits of hidden states. Not thread-safe: the caller holds the model's lock.

    Parameters
    ----------
    model
        A causal language model of ``transformers``.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self._own: bool | None = None  # whether the model's forward pass asks its body for the states

    def __call__(self, states: Tensor, exact: Tensor | None = None) -> Tensor:
        """Logits (m x vocabulary, float32) of final hidden states (m x size); gradients flow through.

        The columns of `exact`, distinct token ids, are products in float32, whatever the model computes in.
        """
        if self._own is None:
            self._own = self._asks_its_body(states[:1])
        modules = self.model._modules
        layer = self.model.get_output_embeddings()
        name = next((name for name, module in modules.items() if module is layer), None)
        rounds = type(layer) is torch.nn.Linear and layer.weight.dtype in (torch.bfloat16, torch.float16)
        if exact is None or name is None or not rounds:
            return self._logits(states).float()
        modules[name] = _Exact(layer, exact)
        try:
            return self._logits(states).float()
        finally:
            modules[name] = layer

    def _logits(self, states: Tensor) -> Tensor:
        return self._forward(states)[0] if self._own else self.model.get_output_embeddings()(states)  # type: ignore[no-any-return]

    def _asks_its_body(self, states: Tensor) -> bool:
        asked: list[bool] = []
        try:
            self._forward(states, asked)
        except Exception as error:  # a forward pass that needs more than states
            logger.debug("%s cannot be run on states alone: %r", type(self.model).__name__, error)
            return False
        return bool(asked)

    def _forward(self, states: Tensor, asked: list[bool] | None = None) -> Any:
        modules, name = self.model._modules, self.model.base_model_prefix
        body = modules[name]
        modules[name] = _Body(body, states[None], asked)
        try:
            return self.model(inputs_embeds=states[None], use_cache=False).logits
        finally:
            modules[name] = body


class _Exact(torch.nn.Module):
    """Stands in for an output layer: its product, with some columns in float32."""

    def __init__(self, layer: torch.nn.Linear, columns: Tensor) -> None:
        super().__init__()
        self._real, self._columns = layer, columns

    def forward(self, states: Tensor) -> Tensor:
        layer, columns = self._real, self._columns
        bias = None if layer.bias is None else layer.bias[columns].float()
        product = torch.nn.functional.linear(states.float(), layer.weight[columns].float(), bias)
        logits: Tensor = layer(states).float()
        return logits.index_copy_(-1, columns, product)


class _Body:
    """Stands in for a model's body: called, it returns states; all else is the body's own."""

    def __init__(self, body: Any, states: Tensor, asked: list[bool] | None) -> None:
        self._real, self._states, self._asked = body, states, asked

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._asked is not None:
            self._asked.append(True)
        return _Output(last_hidden_state=self._states)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


class _Output(BaseModelOutputWithPast):  # type: ignore[misc]
    """A body's output that has nothing but the states, whatever else is asked for."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("_"):
            raise AttributeError(name)
