"""What bitsandbytes has compiled still is, but later; test_loading shows that the compiler stays away."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

STAND_IN = """
import torch

calls = []

def backend(graph, inputs):
    calls.append(graph)
    return graph.forward

@torch.compile(backend=backend)
def twice(x):
    return x + x

def more(x):
    return x + 1

more = torch.compile(more, backend=backend)
"""


PROGRAM = """
import torch
from promptclf.lm.light import prepare_peft
before = torch.compile
prepare_peft()
assert torch.compile is before
import bitsandbytes as stand_in
assert stand_in.calls == []
for _ in range(2):
    assert stand_in.twice(torch.ones(2)).tolist() == [2, 2]
    assert stand_in.more(torch.ones(2)).tolist() == [2, 2]
assert len(stand_in.calls) == 2
"""


def test_functions_are_compiled_when_they_are_called(tmp_path: Path) -> None:
    (tmp_path / "bitsandbytes.py").write_text(STAND_IN, encoding="utf-8")
    places = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[1])])
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM]
    subprocess.run(command, check=True, timeout=300, env={**os.environ, "PYTHONPATH": places})
