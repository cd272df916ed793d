"""One variant in its process: told to, it does its work once and says how long that took.

It reads a line for each round from standard input and answers with a line of JSON on standard output.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from typing import Any, TextIO

from benchmarks.speed import device


class Job:
    """What a variant makes: work, ready to be done again and again.

    Attributes
    ----------
    processed
        Tokens that went through the model so far, padding included; 0 where nobody can tell.
    facts
        What else belongs into the result, as JSON values.
    """

    processed = 0

    def __init__(self) -> None:
        self.facts: dict[str, Any] = {}

    def prepare(self) -> None:
        """What a round needs beforehand, and is not timed."""

    def run(self) -> Any:
        """Do the work. What it returns the first time (JSON values) is given to `Group.checks`."""
        raise NotImplementedError

    def warm_up(self) -> None:
        """What is done before the first round, so that work which is done only once is in none."""
        self.run()

    def peak_memory(self) -> float:
        """The most memory so far, in MiB."""
        return device.peak_memory()

    def close(self) -> None:
        """End what was started."""


class TokenCounter:
    """Counts the tokens that a model embeds, wherever they come from."""

    def __init__(self, model: Any) -> None:
        self.tokens = 0
        model.get_input_embeddings().register_forward_hook(self._count)

    def _count(self, module: Any, args: tuple[Any, ...], output: Any) -> None:
        self.tokens += output.shape[:-1].numel()


def main(order: dict[str, Any]) -> None:
    """Make the variant's job, then do a round for every line that comes."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is not an answer
    try:
        work(order, answers)
    except ImportError as error:
        say(answers, missing=error.name or str(error))
    except Exception as error:  # the others of its group go on, and the table says why there is no figure
        say(answers, failed=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
        raise


def work(order: dict[str, Any], answers: TextIO) -> None:
    module, name = order["make"].split(":")
    job: Job = getattr(importlib.import_module(module), name)(**order["arguments"])
    try:
        loaded = job.peak_memory()
        if order["warm_up"]:
            job.prepare()
            job.warm_up()
        device.forget_peak_memory()
        say(answers, loaded_mb=loaded, facts=job.facts)
        for number, _ in enumerate(sys.stdin):
            job.prepare()
            before = job.processed
            wall, cpu = time.perf_counter(), device.clock()
            found = job.run()
            cpu, wall = device.clock() - cpu, time.perf_counter() - wall
            tokens, peak = job.processed - before, job.peak_memory()
            first = {} if number else {"found": found}
            say(answers, cpu=cpu, wall=wall, tokens=tokens, peak_mb=peak, facts=job.facts, **first)
    finally:
        job.close()


def say(answers: TextIO, **values: Any) -> None:
    print(json.dumps(values), file=answers, flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
