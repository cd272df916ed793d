"""How fast labels are scored on a CPU by the tokens that one forward pass may hold.

    PYTHONPATH=tests python tests/benchmarks/passes.py --dtype bfloat16 --threads 2

Sizes take turns, each round beginning with another one; the median of the rounds, and in brackets the
slowest and the quickest. The default is `promptclf.lm.engine.pass_tokens`.
"""

from __future__ import annotations

import argparse
import time

import torch

from benchmarks.speed.runner import Spread
from benchmarks.speed.workload import Work
from promptclf import load_model
from promptclf.lm.engine import pass_tokens

SIZES = (224, 448, 896, 1344, 2048, 3072, 4096)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dtype", default="float32", help="of the weights (default float32)")
    parser.add_argument("--works", nargs="+", default=["zero-shot"], metavar="WORK", help="see Work")
    parser.add_argument("--texts", type=int, default=384, help="default 384, a pass or more of any size")
    parser.add_argument("--rounds", type=int, default=3, help="how many (default 3)")
    parser.add_argument("--threads", type=int, default=1, help="how many (default 1)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    # Other programs do not count in CPU time, but the CPU time of two threads is not how long they take.
    clock = time.process_time if args.threads == 1 else time.perf_counter
    model = load_model(dtype=args.dtype, device="cpu")
    print(f"{args.dtype}, {args.threads} threads; default: {pass_tokens(model.module)} tokens")
    for work in args.works:
        prompts, answers = Work(work).prompts(args.texts), Work(work).answers
        model.score(prompts[:4], answers)
        rates: dict[int, list[float]] = {size: [] for size in SIZES}
        for turn in range(args.rounds):
            turn %= len(SIZES)
            for size in SIZES[turn:] + SIZES[:turn]:
                model.engine.batch_tokens = size
                start = clock()
                model.score(prompts, answers)
                rates[size].append(args.texts / (clock() - start))
        for size, found in rates.items():
            rate = Spread.of(found)
            print(f"{work}, {size:,} tokens: {rate.middle:.2f} texts/s ({rate.least:.2f} to {rate.most:.2f})")


if __name__ == "__main__":
    main()
