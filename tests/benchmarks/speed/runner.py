"""Taking turns: the variants of a group do the same work, round by round, each in its own process."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

HERE = Path(__file__).parent
RESULTS = HERE.parent / "results" / "speed"
REQUIREMENTS = "tests/benchmarks/requirements.txt"
INSTALL = f"pip install -r {REQUIREMENTS}"

Result = dict[str, Any]


@dataclass(frozen=True)
class Variant:
    """One way to do a piece of work.

    Parameters
    ----------
    name
        In results and tables.
    make
        "module:function" that makes the `worker.Job` from `arguments`.
    items
        How many texts or rows one round handles.
    threads
        Of the process.
    rounds
        How many rounds at most, for the slowest; 0: all.
    warm_up
        Whether to do some of the work before the first round.
    """

    name: str
    make: str
    items: int
    arguments: dict[str, Any] = field(default_factory=dict)
    threads: int = 1
    rounds: int = 0
    warm_up: bool = True

    def order(self) -> str:
        """What its worker is told."""
        keys = ("make", "arguments", "warm_up")
        return json.dumps({key: getattr(self, key) for key in keys})


@dataclass(frozen=True)
class Group:
    """Variants that take turns.

    Parameters
    ----------
    clock
        "cpu" (which is the time of the finished device where models do not run on the CPU) or "wall".
    rounds
        How many, if nobody says.
    checks
        What variants returned (by name) -> figures to keep beside the times, such as a difference.
    """

    name: str
    variants: tuple[Variant, ...]
    clock: Literal["cpu", "wall"] = "cpu"
    rounds: int = 2
    checks: Callable[[dict[str, Any]], dict[str, float]] = lambda found: {}


class Process:
    """A variant's worker."""

    def __init__(self, variant: Variant) -> None:
        threads = str(variant.threads)
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_OFFLINE": "1",
            "PYTHONPATH": os.pathsep.join([str(HERE.parents[1]), str(HERE.parents[2])]),
        }
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "benchmarks.speed.worker", variant.order()],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def answer(self) -> Result:
        """Its next line; why it ended, if it did."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            return {"failed": f"its process ended with status {self.process.wait()}"}
        found: Result = json.loads(line)
        return found

    def round(self) -> Result:
        """One round."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write("\n")
            self.process.stdin.flush()
        except OSError:
            return {"failed": f"its process ended with status {self.process.wait()}"}
        return self.answer()

    def end(self) -> None:
        """Let it finish: it ends with its input."""
        assert self.process.stdin is not None and self.process.stdout is not None
        with suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


def measure(
    group: Group,
    rounds: int | None = None,
    note: Callable[[str], None] = print,
    start: Callable[[Variant], Any] = Process,
) -> Result:
    """Run a group. A variant that cannot run has "missing" or "failed" instead of rounds."""
    workers = {variant.name: start(variant) for variant in group.variants}
    results: dict[str, Result] = {}
    found: dict[str, Any] = {}
    try:
        for variant in group.variants:
            result = {"items": variant.items, "threads": variant.threads, **workers[variant.name].answer()}
            if "facts" in result:
                result["rounds"] = []
            results[variant.name] = result
        for number in range(rounds or group.rounds):
            # Each round begins with another variant: none always comes after the same one.
            turn = number % len(group.variants)
            for variant in group.variants[turn:] + group.variants[:turn]:
                result = results[variant.name]
                if "rounds" not in result or 0 < variant.rounds <= number:
                    continue
                this = workers[variant.name].round()
                if "failed" in this:
                    result.update(this)
                    del result["rounds"]
                    continue
                if "found" in this:
                    found[variant.name] = this.pop("found")
                result["rounds"].append({"seconds": this[group.clock], **this})
                note(f"  {variant.name}: {variant.items / this[group.clock]:,.2f} a second")
    finally:
        for worker in workers.values():
            worker.end()
    return {
        "group": group.name,
        "clock": group.clock,
        "variants": results,
        "checks": group.checks(found),
    }


def save(result: Result, folder: Path = RESULTS) -> None:
    """Write a group's result; it appears complete or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{result['group']}.json"
    partial = path.with_suffix(f".{os.getpid()}")
    partial.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(path)


def saved(name: str, folder: Path = RESULTS) -> Result | None:
    """A group's result, if it was measured."""
    path = folder / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


# ---- arithmetic ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spread:
    """A figure measured in several rounds."""

    middle: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Median, smallest and largest."""
        return cls(statistics.median(values), min(values), max(values))


class NoFigureError(Exception):
    """Why there is no figure: the message is what the table says in its place."""


def variant(result: Result | None, name: str) -> Result:
    """A variant of a result that has rounds.

    Raises
    ------
    NoFigureError
        If it was not measured, or could not run.
    """
    if result is None or name not in result["variants"]:
        raise NoFigureError("not measured")
    found: Result = result["variants"][name]
    if package := found.get("missing"):
        raise NoFigureError(f"{package} is not installed: {INSTALL}")
    if why := found.get("failed"):
        raise NoFigureError(f"failed: {why}")
    if not found["rounds"]:
        raise NoFigureError("not measured")
    return found


def rates(result: Result | None, name: str) -> list[float]:
    """Items per second of each round."""
    found = variant(result, name)
    return [found["items"] / this["seconds"] for this in found["rounds"]]


def ratio(result: Result | None, ours: str, other: str) -> Spread:
    """How many times as fast ours is, by the rounds that both took part in."""
    return Spread.of([a / b for a, b in zip(rates(result, ours), rates(result, other), strict=False)])


def peak_memory(result: Result | None, name: str) -> float:
    """The largest of any round, in MiB."""
    return float(max(this["peak_mb"] for this in variant(result, name)["rounds"]))
