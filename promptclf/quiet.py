"""Keeps the libraries' loading bars and start-up messages away from users."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

NOISY = ("bitsandbytes", "accelerate", "peft", "torchao", "huggingface_hub")


@contextmanager
def quiet_logs() -> Iterator[None]:
    """Silence log lines of the libraries beside transformers that are less than an error, then restore.

    The first import of bitsandbytes, for one, warns of kernels that it would rather have.
    """
    levels = {name: logging.getLogger(name).level for name in NOISY}
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence progress bars and everything below an error of the model libraries, then restore."""
    from huggingface_hub.utils import are_progress_bars_disabled
    from transformers import modeling_gguf_pytorch_utils as gguf_reader
    from transformers.utils import logging as transformers_logging

    verbosity = transformers_logging.get_verbosity()
    bars = not are_progress_bars_disabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        # The reader of GGUF files draws its bar past the switch of transformers; here it obeys it.
        with quiet_logs(), mock.patch.object(gguf_reader, "tqdm", transformers_logging.tqdm, create=True):
            yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()


def hush_casts() -> None:
    """Silence what bitsandbytes says in each 8-bit layer of each pass: that it computes in float16."""
    logging.getLogger("bitsandbytes.autograd._functions").addFilter(_not_a_cast)


def _not_a_cast(record: logging.LogRecord) -> bool:
    return "inputs will be cast" not in str(record.msg)
