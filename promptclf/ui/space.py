"""The service that app.py runs: the model that the environment names, ready for a Space."""

from __future__ import annotations

import logging
import os
from importlib import import_module
from typing import Any

from promptclf.errors import PromptClfError
from promptclf.lm.embedded import HUB_ID
from promptclf.lm.loading import load_model
from promptclf.task import packaged_tasks
from promptclf.ui.core.ready import Source
from promptclf.ui.core.service import Service
from promptclf.ui.core.zerogpu import lend_gpu, on_space, on_zero_gpu

logger = logging.getLogger(__name__)


def space_service() -> Service:
    """A service with the model that the environment names.

    ``PROMPTCLF_MODEL`` is "embedded", a folder or a Hub id; the default is the embedded model, on a Space
    its original on the Hub. ``PROMPTCLF_QUANTIZATION`` is "none", "int8" or "nf4". On ZeroGPU the model
    and the packaged adapters are loaded here, elsewhere when they are first used.

    Raises
    ------
    ModelError
        On ZeroGPU, if the model cannot be found or loaded.
    """
    name = os.environ.get("PROMPTCLF_MODEL") or (HUB_ID if on_space() else "embedded")
    quantization: Any = os.environ.get("PROMPTCLF_QUANTIZATION") or "none"
    if not on_zero_gpu():
        return Service(name, quantization=quantization)
    spaces = import_module("spaces")  # before anything asks for a GPU; absent everywhere else
    # transformers loads weights in threads, but only in the main one does there seem to be a GPU.
    os.environ["HF_DEACTIVATE_ASYNC_LOAD"] = "1"
    service = Service(lend_gpu(load_model(name, quantization=quantization), spaces.GPU))
    for source in map(Source, packaged_tasks()):
        try:
            service.ready.classifier(source, "lora")
        except PromptClfError as error:  # a model that it was not trained on; told again to who asks for LoRA
            logger.warning("no LoRA for %s: %s", source.name, error)
    return service
