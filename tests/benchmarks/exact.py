"""Whose log-likelihoods are nearer to the truth: ours, or those of lm-evaluation-harness, in the same format.

    PYTHONPATH=tests .venv-bench/bin/python tests/benchmarks/exact.py  # which `make bench` installs

The truth is what the plain model of transformers says in float64: a prompt once, then each answer after it.
It is not quite that: norms and the angles of positions are computed in float32 in any case.
The work is that of the speed comparison (77 labels of one text take lm-evaluation-harness three minutes).
"""

from __future__ import annotations

import argparse
import copy
import os

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM, DynamicCache

from benchmarks.speed import device
from benchmarks.speed.scoring_peers import LmEval
from benchmarks.speed.workload import Work
from promptclf import load_model
from promptclf.lm.embedded import embedded_folder

TEXTS = {"zero-shot": 8, "few-shot": 2, "banking77": 1}
Array = NDArray[np.float64]


def truth(module: torch.nn.Module, prompts: list[list[int]], answers: list[list[int]]) -> Array:
    """Log-likelihood of each answer after each prompt, prompts x answers."""
    return np.array([[*_after(module, prompt, answers)] for prompt in prompts])


@torch.inference_mode()
def _after(module: torch.nn.Module, prompt: list[int], answers: list[list[int]]) -> list[float]:
    start = module(torch.tensor([prompt]), past_key_values=DynamicCache())
    found = []
    for answer in answers:
        cache = copy.deepcopy(start.past_key_values)
        rest = module(torch.tensor([answer]), past_key_values=cache).logits[0, :-1]
        logits = torch.cat([start.logits[0, -1:], rest])
        found.append(float(logits.log_softmax(-1)[range(len(answer)), answer].sum()))
    return found


def main() -> None:
    """Measure and print."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("--work", nargs="+", choices=TEXTS, default=[*TEXTS])
    parser.add_argument("--dtype", default="float32", help="of both (default float32)")
    asked = parser.parse_args()
    os.environ[device.DTYPE] = asked.dtype
    model = load_model(dtype=asked.dtype, device="cpu")
    exact = AutoModelForCausalLM.from_pretrained(embedded_folder()[0], dtype=torch.float64).eval()
    print("largest difference of a log-likelihood\n")
    print("| work | labels | ours to float64 | lm-eval to float64 | ours to lm-eval |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name in asked.work:
        work, count = Work(name), TEXTS[name]
        prompts, answers = work.prompts(count), work.answers
        encoded = model.encode(prompts, answers)
        true = truth(exact, encoded.prompts, encoded.answers)
        ours, theirs = model.score(prompts, answers), np.array(LmEval(name, count).run())
        pairs = ((ours, true), (theirs, true), (ours, theirs))
        differences = " | ".join(f"{np.abs(a - b).max():.1e}" for a, b in pairs)
        print(f"| {name} | {len(answers)} | {differences} |", flush=True)


if __name__ == "__main__":
    main()
