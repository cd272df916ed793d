"""The command: see the package."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import benchmarks.speed
from benchmarks.speed import runner, table

FULL_ROUNDS = 5
KINDS = ("float32", "bfloat16", "float16")


def main(argv: list[str] | None = None, note: Callable[[str], None] = print) -> int:
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "python -m benchmarks.speed", description=benchmarks.speed.__doc__, formatter_class=layout
    )
    parser.add_argument("--full", action="store_true", help="more texts, labels and rounds")
    parser.add_argument("--rounds", type=int, help=f"default: 1 or 2, with --full {FULL_ROUNDS}")
    parser.add_argument("--only", nargs="*", metavar="GROUP", help="groups; default: all")
    parser.add_argument("--dtype", choices=KINDS, help="of the weights; default: float32 on a CPU")
    parser.add_argument("--table", action="store_true", help="print the tables and stop")
    parser.add_argument("--results", type=Path, metavar="DIR", help="their folder; each dtype has its own")
    args = parser.parse_args(argv)
    of_dtype = runner.RESULTS.with_name(f"{runner.RESULTS.name}-{args.dtype}")
    results = args.results or (of_dtype if args.dtype else runner.RESULTS)
    look = partial(runner.saved, folder=results)
    if args.table:
        note(table.everything(look))
        return 0
    from benchmarks.speed import device, scaling, scoring, serving, training

    if args.dtype:
        os.environ[device.DTYPE] = args.dtype  # for the processes of all variants, and for this one
    known = [g for part in (scoring, training, serving, scaling) for g in part.groups(args.full)]
    names = [group.name for group in known]
    if unknown := [name for name in args.only or [] if name not in names]:
        parser.error(f"no group {unknown[0]!r}; there are {', '.join(names)}")
    for group in known:
        if args.only is not None and group.name not in args.only:
            continue
        start = time.monotonic()
        note(f"{group.name}:")
        result = runner.measure(group, args.rounds or (FULL_ROUNDS if args.full else None), note)
        minutes = (time.monotonic() - start) / 60
        runner.save({**result, "machine": device.machine(), "minutes": minutes}, results)
    note(table.everything(look))
    return 0


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    sys.exit(main())
