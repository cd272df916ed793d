"""Runs app.py with the real package ``spaces`` as if on ZeroGPU: ``python zero_gpu.py`` in a Space's folder.

The GPU is missing: what the emulation would move to it stays where it is, and the few places where a
build of torch without CUDA differs are filled in. All else is real: what the main thread believes, the
forked processes, what is pickled, and the requests to the device API.
"""

from __future__ import annotations

import os
import runpy
import sys
from typing import Any

import torch


def in_bad_fork() -> bool:
    """In place of a lambda, which cannot be pickled."""
    return False


def pretend_cuda() -> None:
    """Fill in what ``spaces`` and ``bitsandbytes`` look for in a build of torch with CUDA."""
    missing: Any = torch
    missing.version.cuda = "13.0"
    missing._C._cuda_init = lambda: None
    missing._C._cuda_getCurrentRawStream = lambda device: 0
    missing.cuda._is_in_bad_fork = in_bad_fork


def stay_on_the_cpu() -> None:
    """In a worker, put the real tensors in the place of those that only seem to be on a GPU."""
    from spaces.zero import torch as emulation
    from spaces.zero.torch.patching import cuda_aliases

    def move(callback: Any = None) -> None:
        for fake, original in cuda_aliases.items():
            if original is not None:
                fake.data = original

    emulation.pack = lambda: 0
    emulation.init = lambda uuid: None
    emulation.move = move


if __name__ == "__main__":
    pretend_cuda()
    stay_on_the_cpu()
    sys.path.insert(0, os.getcwd())
    runpy.run_path("app.py", run_name="__main__")
