"""LoRA adapters on a shared base model: each has its own name, and all are off unless one is used."""

from __future__ import annotations

import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, no_grad

from promptclf.errors import ArtifactError, TrainingError
from promptclf.lm.light import prepare_peft
from promptclf.quiet import quiet
from promptclf.settings import TrainConfig


class AdapterSet:
    """The adapters attached to one module. The caller holds the model's lock.

    PEFT changes the module in place: its linear layers get a wrapper that adds the active adapter's
    product. With adapters off the wrapper returns the plain layer's result, bit for bit. PEFT's own switches
    walk through all modules and set anew what each parameter learns, which takes as long as a short text; so
    each wrapper's switch is set here.

    Parameters
    ----------
    module
        The base model.
    removed
        Called with the name of an adapter that was removed.
    """

    def __init__(self, module: Any, removed: Callable[[str], None] = lambda name: None) -> None:
        self._module = module
        self._removed = removed
        self._discarded: list[str] = []
        self._peft: Any = None
        self._wrappers: list[Any] = []
        self._parameters: dict[str, list[Tensor]] = {}
        self._active: str | None = None

    def add(self, config: Any) -> str:
        """Attach a fresh adapter (a ``peft.LoraConfig``) and return its name; it stays off."""
        prepare_peft()
        from peft import PeftModel

        name = f"a{uuid.uuid4().hex[:12]}"
        with warnings.catch_warnings():
            # PEFT warns that the module already has adapters: that is what this class is for.
            warnings.simplefilter("ignore")
            if self._peft is None:
                self._peft = PeftModel(self._module, config, adapter_name=name)
            else:
                self._peft.add_adapter(name, config)
        self._module.requires_grad_(False)
        self._module.eval()  # the new adapter's dropout starts in training mode
        self._rewire()
        return name

    def remove(self, name: str) -> None:
        """Detach an adapter for good."""
        if self._peft is None or name not in self._peft.peft_config:
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PEFT reports which adapter becomes active instead
            self._peft.delete_adapter(name)
        self._removed(name)
        if not self._peft.peft_config:
            self._peft.unload()
            self._peft = None
        self._rewire()

    def discard(self, name: str) -> None:
        """Have an adapter detached before the next use: safe at any moment and without the lock."""
        self._discarded.append(name)

    @contextmanager
    def using(self, name: str | None) -> Iterator[None]:
        """Switch one adapter on (None: all off) for the block, then all off.

        Raises
        ------
        ValueError
            If no adapter of that name is attached.
        """
        while self._discarded:
            self.remove(self._discarded.pop())
        self._switch(name)
        try:
            yield
        finally:
            self._switch(None)

    @contextmanager
    def training(self, name: str) -> Iterator[list[Tensor]]:
        """As `using`; meanwhile the adapter's parameters, which it gives, get gradients."""
        with self.using(name):
            parameters = self.parameters(name)
            for parameter in parameters:
                parameter.requires_grad_(True)
            try:
                yield parameters
            finally:
                for parameter in parameters:
                    parameter.requires_grad_(False)

    def parameters(self, name: str) -> list[Tensor]:
        """The adapter's trainable parameters, in a fixed order."""
        if name not in self._parameters:
            self._parameters[name] = list(self._named(name).values())
        return self._parameters[name]

    def state(self, name: str) -> dict[str, Tensor]:
        """The adapter's weights under PEFT's portable names, copied to the CPU."""
        return {key: value.detach().cpu().clone() for key, value in self._named(name).items()}

    def load_state(self, name: str, state: Mapping[str, Tensor]) -> None:
        """Copy weights into an adapter.

        Raises
        ------
        ArtifactError
            If a key is missing or unknown, or a shape differs.
        """
        own = self._named(name)
        if different := sorted(set(own) ^ set(state)):
            raise ArtifactError(
                f"the adapter does not fit the model: {len(different)} weights differ in name, "
                f"such as {different[0]!r}; load it with the base model it was trained on"
            )
        for key, value in own.items():
            if value.shape != state[key].shape:
                raise ArtifactError(
                    f"the adapter does not fit the model: {key} is {tuple(state[key].shape)}, "
                    f"expected {tuple(value.shape)}"
                )
        with no_grad():
            for key, value in own.items():
                value.copy_(state[key])

    def _named(self, name: str) -> dict[str, Tensor]:
        # PEFT's own function for this may ask a hub about the base model's files.
        tag = f".{name}."
        named = self._module.named_parameters()
        return {f"base_model.model.{key.replace(tag, '.')}": p for key, p in named if tag in key}

    def _rewire(self) -> None:
        """Find the wrappers, which PEFT has just changed, and switch them off."""
        from peft.tuners.lora import LoraLayer

        self._wrappers = [part for part in self._module.modules() if isinstance(part, LoraLayer)]
        self._parameters.clear()
        self._active = "unknown"
        self._switch(None)

    def _switch(self, name: str | None) -> None:
        if name == self._active:
            return
        if name is not None and (self._peft is None or name not in self._peft.peft_config):
            raise ValueError(f"adapter: expected the name of one that is attached, got {name!r}")
        for wrapper in self._wrappers:
            wrapper._disable_adapters = name is None
            if name is not None:
                wrapper._active_adapter = [name]
        self._active = name


def lora_config(module: Any, config: TrainConfig) -> Any:
    """What PEFT needs to know to attach an adapter to a model.

    Raises
    ------
    TrainingError
        If more layers are to be tuned than there are.
    """
    prepare_peft()
    with quiet():
        from peft import LoraConfig

    modules, upper = config.target_modules, None
    if config.layers is not None:
        count = module.config.get_text_config().num_hidden_layers
        if config.layers > count:
            raise TrainingError(f"layers: expected at most the model's {count}, got {config.layers}")
        upper = list(range(count - config.layers, count))
        if modules == "all-linear":  # PEFT takes layers together with names only
            modules = _linear(module)
    return LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=modules if isinstance(modules, str) else list(modules),
        layers_to_transform=upper,
        task_type="CAUSAL_LM",
    )


def _linear(module: Any) -> tuple[str, ...]:
    """The names of the linear parts of layers, as they are within each layer."""
    from torch.nn import Linear
    from transformers.pytorch_utils import Conv1D

    names = (
        name.removesuffix(".base_layer")  # where an adapter is attached already
        for name, part in module.named_modules()
        if isinstance(part, (Linear, Conv1D))
        and part is not module.get_output_embeddings()
        and ".lora_" not in name
    )
    return tuple(sorted({name.rpartition(".")[2] for name in names}))
