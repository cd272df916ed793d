"""What is measured on: the device, its clock, its matrix-product peak, and a process's memory."""

from __future__ import annotations

import os
import platform
import re
import resource
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

SHAPES = ((2048, 2048, 2048), (512, 576, 1536))  # square, and one of the embedded model's layers
PEAK_SECONDS = 1.0
DTYPE = "PROMPTCLF_BENCH_DTYPE"  # in the environment: what `dtype` is


def name() -> str:
    """Where models run: "cuda" where there is one, else "cpu". Without torch, none runs."""
    torch = sys.modules.get("torch")
    return "cuda" if torch is not None and torch.cuda.is_available() else "cpu"


def dtype() -> Any:
    """What ours and peers load their weights as, where nothing else is said."""
    import torch

    if asked := os.environ.get(DTYPE):
        return getattr(torch, asked)
    if name() == "cpu":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


def dtype_name() -> str:
    """The same, as `load_model` takes it."""
    return str(dtype()).removeprefix("torch.")


def clock() -> float:
    """Seconds: of CPU time on a CPU, where other programs then do not count; else of a finished device."""
    if name() == "cpu":
        return time.process_time()
    import torch

    torch.cuda.synchronize()
    return time.perf_counter()


def matrix_product_peak() -> float:
    """The most GFLOP/s of some matrix products in the dtype of the weights."""
    import torch

    best = 0.0
    for m, k, n in SHAPES if name() == "cpu" else ((8192, 8192, 8192),):
        a, b = (torch.randn(shape, device=name(), dtype=dtype()) for shape in ((m, k), (n, k)))
        end = clock() + PEAK_SECONDS / len(SHAPES)
        while clock() < end:
            start = clock()
            torch.nn.functional.linear(a, b)
            best = max(best, 2e-9 * m * k * n / (clock() - start))
    return best


def forget_peak_memory() -> None:
    """Let `peak_memory` begin anew, where the system can do that."""
    if name() == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_memory(process: int | None = None) -> float:
    """The most memory of this or another process so far, in MiB: of the device, if that is not the CPU."""
    if process is None and name() == "cuda":
        import torch

        return torch.cuda.max_memory_allocated() / 2**20
    with suppress(OSError):  # on Linux getrusage counts what the parent held when a process began
        status = Path(f"/proc/{process or 'self'}/status").read_text(encoding="ascii")
        if found := re.search(r"VmHWM:\s+(\d+) kB", status):
            return int(found[1]) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if platform.system() == "Darwin" else peak / 2**10


def machine() -> dict[str, Any]:
    """What figures depend on besides the code."""
    import torch

    from promptclf.classifiers.base import versions

    model = platform.processor() or platform.machine()
    with suppress(OSError):
        if found := re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text(encoding="utf-8")):
            model = found[1]
    return {
        "device": torch.cuda.get_device_name() if name() == "cuda" else model,
        "kind": name(),
        "dtype": dtype_name(),
        "cores": os.cpu_count(),
        "versions": versions(),
    }
