"""PEFT is imported without the compiler of torch, and what is to be compiled still is, later."""

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


def run(program: str, folder: Path | None = None) -> None:
    places = [str(Path(__file__).parents[1]), *([str(folder)] if folder else [])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(reversed(places))}
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True, timeout=300, env=environment)


def test_peft_comes_without_the_compiler() -> None:
    run("""if True:
        import sys, torch
        before = torch.compile
        from promptclf.lm.light import prepare_peft
        prepare_peft()
        import peft
        assert "torch._inductor.compile_fx" not in sys.modules
        assert torch.compile is before
    """)


def test_functions_are_compiled_when_they_are_called(tmp_path: Path) -> None:
    (tmp_path / "bitsandbytes.py").write_text(STAND_IN, encoding="utf-8")
    run(
        """if True:
        import torch
        from promptclf.lm.light import prepare_peft
        prepare_peft()
        import bitsandbytes as stand_in
        assert stand_in.calls == []
        for _ in range(2):
            assert stand_in.twice(torch.ones(2)).tolist() == [2, 2]
            assert stand_in.more(torch.ones(2)).tolist() == [2, 2]
        assert len(stand_in.calls) == 2
        """,
        tmp_path,
    )
