"""What products of 8-bit integers would gain in speed and cost in accuracy, beside what this project uses.

    python tests/benchmarks/int8.py --data DIR        # DIR/<name>/{train,dev,test}.csv

Weights are rounded per output channel, activations per token. Channels in which activations are large are
scaled down first, and their weights up (SmoothQuant, Xiao et al. 2023, arXiv:2211.10438), by what train
texts show. "int8, careful" keeps in float32 what suffers most: down_proj, and all of the first and last two
layers. Zero-shot over whole test files on one thread; speed is in CPU time, as a ratio to float32.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from quality import load, split
from torch import Tensor

from promptclf import Dataset, ZeroShotClassifier, load_model

DATA = ("trec", "sst2")
KINDS = ("float32", "bfloat16", "bitsandbytes", "int8", "int8, careful")
TRAIN_TEXTS, SEEN = 200, 64  # for the label prior, and for the largest activations
SMOOTH = 0.7  # how much of a channel's size goes into its weights
SENSITIVE, ENDS = "down_proj", 2


class Int8Linear(torch.nn.Module):
    """A linear layer without bias that computes in 8-bit integers.

    Parameters
    ----------
    weight
        Of the layer it stands for, out x in.
    largest
        The largest magnitude of each input channel, of size in.
    """

    def __init__(self, weight: Tensor, largest: Tensor) -> None:
        super().__init__()
        per_channel = weight.abs().amax(0).clamp(min=1e-5)
        self.smooth = largest.clamp(min=1e-5) ** SMOOTH / per_channel ** (1 - SMOOTH)
        integers, self.scale = to_int8(weight * self.smooth)
        self.integers = integers.t().contiguous()

    def forward(self, states: Tensor) -> Tensor:
        """Products (... x out) with states (... x in)."""
        integers, scale = to_int8(states.flatten(0, -2) / self.smooth)
        product = torch._int_mm(integers, self.integers).float() * scale * self.scale.t()
        return product.view(*states.shape[:-1], -1)


def to_int8(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of 8-bit integers, and by what each (n x 1) is to be multiplied."""
    scale = rows.abs().amax(1, keepdim=True).clamp(min=1e-9) / 127
    return (rows / scale).round().to(torch.int8), scale


def quantise(module: Any, look: Callable[[], Any], careful: bool) -> None:
    """Replace a model's linear layers in place; `look` runs it on some texts."""
    last = module.config.num_hidden_layers - ENDS
    parts = {
        name: part
        for name, part in module.model.layers.named_modules()
        if isinstance(part, torch.nn.Linear)
        and not (careful and (name.endswith(SENSITIVE) or not ENDS <= int(name.split(".")[0]) < last))
    }
    largest: dict[str, Tensor] = {}

    def hook(name: str) -> Callable[[Any, tuple[Tensor, ...]], None]:
        def note(_: Any, inputs: tuple[Tensor, ...]) -> None:
            found = inputs[0].flatten(0, -2).abs().amax(0)
            largest[name] = torch.maximum(largest.get(name, found), found)

        return note

    hooks = [part.register_forward_pre_hook(hook(name)) for name, part in parts.items()]
    look()
    for handle in hooks:
        handle.remove()
    for name, part in parts.items():
        module.model.layers.set_submodule(name, Int8Linear(part.weight, largest[name]))


def measure(data: Dataset, kind: str) -> tuple[np.ndarray, float]:
    """Labels of the test texts and CPU seconds for them."""
    gc.collect()  # a model that is still there would be shared, with what was changed in it
    model = load_model(
        dtype="bfloat16" if kind == "bfloat16" else "float32",
        quantization="int8" if kind == "bitsandbytes" else "none",
        device="cpu",
    )
    texts, labels = (part[:TRAIN_TEXTS] for part in split(data, "train"))
    if "int8" in kind:
        first = ZeroShotClassifier(data.task, model).fit(texts, labels)
        quantise(model.module, lambda: first.predict(texts[:SEEN]), careful=kind != "int8")
        model.engine.forget(None)
    classifier = ZeroShotClassifier(data.task, model).fit(texts, labels)
    test, _ = split(data, "test")
    start = time.process_time()
    return classifier.predict(test), time.process_time() - start


def main() -> None:
    """Measure and print."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("--data", type=Path, required=True, help="folder with one folder per data set")
    parser.add_argument("--limit", type=int, default=None, help="score so many test texts")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    print("| data | computed in | accuracy, % | labels as in float32, % | speed |")
    print("| --- | --- | ---: | ---: | ---: |")
    for name in DATA:
        data = load(name, asked.data, "zero-shot")
        if asked.limit:
            data = data.limit(test_rows=asked.limit)
        _, truth = split(data, "test")
        plain, seconds = measure(data, KINDS[0])
        for kind in KINDS:
            found, took = (plain, seconds) if kind == KINDS[0] else measure(data, kind)
            right, same = (100 * np.mean(found == other) for other in (truth, plain))
            print(f"| {name} | {kind} | {right:.1f} | {same:.1f} | {seconds / took:.2f} |", flush=True)


if __name__ == "__main__":
    main()
