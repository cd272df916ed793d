"""Which number format a model computes fastest in here: measured once, then known.

It is not to be told from a processor's kind: of two without matrix units, float32 was 1.7 times as fast as
bfloat16 on one, and half as fast on another, which has vector instructions for it. The products that are
timed are those of the model's own widest layers.
"""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from promptclf.home import remembered

logger = logging.getLogger(__name__)

KINDS = ("float32", "bfloat16", "float16")
GAIN = 1.2  # half the bits must pay: float32 is the more exact
OPERATIONS = 2e9  # of one product, at most; fewer rows where a layer is wide
ROWS = (16, 512)
SMALLEST = 512
SECONDS, TIMES = (0.3, 1.5), 5  # try for as long as the first, until the second if there were few products


def fastest(config: Any, device: str) -> str:
    """The name of the format to compute in, such as "float32".

    Parameters
    ----------
    config
        A model's configuration; it gives the sizes.
    device
        "cpu", "cuda" or "mps".
    """
    import torch

    if device == "mps":
        return "float32"
    half = "float16" if device == "cuda" and not torch.cuda.is_bf16_supported() else "bfloat16"
    text = config.get_text_config()
    # In products that are any smaller, more time goes into calling them.
    width = max(SMALLEST, int(getattr(text, "hidden_size", None) or 0))
    inner = max(2 * SMALLEST, int(getattr(text, "intermediate_size", None) or 4 * width))
    key = {
        "device": torch.cuda.get_device_name() if device == "cuda" else _cpu(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "sizes": [width, inner],
    }
    return remembered("precision", key, lambda: _measured(width, inner, device, half), KINDS.__contains__)


def _measured(width: int, inner: int, device: str, half: str) -> str:
    rows = int(min(max(OPERATIONS / (2 * width * inner), ROWS[0]), ROWS[1]))
    try:
        plain, quick = shortest(rows, width, inner, device, ("float32", half))
    except RuntimeError as error:  # there is no kernel for it
        logger.info("%s does not run on %s: %s", half, device, error)
        return "float32"
    # On a GPU half the bits are the rule: they take half the memory and its traffic.
    chosen = half if plain > quick * (GAIN if device == "cpu" else 1 / GAIN) else "float32"
    logger.info("a product takes %.2f ms in float32, %.2f ms in %s", 1e3 * plain, 1e3 * quick, half)
    return chosen


def shortest(rows: int, width: int, inner: int, device: str, kinds: Sequence[str]) -> list[float]:
    """The shortest time of a product in each format; they take turns, so that what disturbs is fair."""
    import torch

    # On a GPU the time on the clock counts; on a CPU other programs do not, which may take most of it.
    clock = time.perf_counter if device == "cuda" else time.process_time

    def matrix(height: int, kind: str) -> torch.Tensor:
        return torch.ones(height, width, dtype=getattr(torch, kind), device=device)

    pairs = {kind: (matrix(rows, kind), matrix(inner, kind)) for kind in kinds}
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    begin = time.perf_counter()
    with torch.inference_mode():
        while True:
            for kind, (left, right) in pairs.items():
                start = clock()
                torch.nn.functional.linear(left, right)
                if device == "cuda":
                    torch.cuda.synchronize()
                times[kind].append(clock() - start)
            spent = time.perf_counter() - begin
            if spent > SECONDS[1] or (spent > SECONDS[0] and len(times[kinds[0]]) > TIMES):
                return [min(times[kind]) for kind in kinds]


def _cpu() -> str:
    """The processor's name, as far as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    # The name alone can be that of a whole family.
    told = [line.partition(":")[2].strip() for line in lines if line.startswith(("model", "flags"))][:3]
    return " ".join(told) or platform.processor() or platform.machine()
