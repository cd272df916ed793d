"""The measured figures beside what they should be, as Markdown; README's table is this one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from benchmarks.speed.runner import (
    RESULTS,
    NoFigureError,
    Result,
    Spread,
    peak_memory,
    rates,
    ratio,
    saved,
    variant,
)
from benchmarks.speed.scaling import LABELS, MANY_TEXTS, TEXTS
from benchmarks.speed.scoring import LLAMA, OURS_SHIPPED, SHIPPED

GROUPS = (
    "zero-shot",
    "short-labels",
    "few-shot",
    "banking77",
    "training",
    "training-prefix",
    "serving",
    "texts",
    "labels",
    "cores",
)
# Folders with results of the same machine with both sides in bfloat16, and of others.
ELSEWHERE = ("speed-bfloat16", "speed-avx512", "speed-avx2")
Look = Callable[[str], Result | None]
Form = Literal["times", "share", "difference"]


@dataclass(frozen=True)
class Row:
    """A line of the table: a figure of a group, and its targets.

    Parameters
    ----------
    figure
        The group's result -> the figure.
    must, aim
        At least this; for a "difference" and a memory share, at most.
    ours, other
        The variants that it compares.
    dtype
        What both sides must compute in, if the line means nothing otherwise.
    """

    against: str
    work: str
    group: str
    figure: Callable[[Result | None], Spread]
    must: float | None
    aim: float | None
    ours: str = "ours"
    other: str | None = None
    form: Form = "times"
    dtype: str | None = None

    def cells(self, look: Look = saved) -> list[str]:
        """The line's cells."""
        result = look(self.group)
        goals = [show(goal, self.form) if goal is not None else "" for goal in (self.must, self.aim)]
        try:
            if not self.suits(result):
                raise NoFigureError(f"asked of {self.dtype} only")
            found = self.figure(result)
        except NoFigureError as why:
            return [self.against, self.work, *goals, str(why), "", "", ""]
        names = [name for name in (self.ours, self.other) if name]
        return [
            self.against,
            self.work,
            *goals,
            spread(found, self.form),
            self.reached(found.middle),
            " / ".join(f"{variant(result, name)['items']:,}" for name in names),
            " / ".join(f"{peak_memory(result, name):,.0f}" for name in names),
        ]

    def suits(self, result: Result | None) -> bool:
        """Whether the line means anything for this result."""
        return self.dtype is None or result is None or result["machine"]["dtype"] == self.dtype

    def reached(self, value: float) -> str:
        """Which of the targets is met."""
        if self.must is None:
            return ""
        sign = -1 if self.form == "difference" else 1
        if sign * value < sign * self.must:
            return "no"
        return "must" if self.aim is not None and sign * value < sign * self.aim else "yes"


def times(
    against: str,
    work: str,
    group: str,
    ours: str,
    other: str,
    must: float | None,
    aim: float | None,
    dtype: str | None = None,
) -> Row:
    """A line about how many times as fast ours is."""
    return Row(against, work, group, lambda r: ratio(r, ours, other), must, aim, ours, other, dtype=dtype)


def of_peak(work: str, group: str, aim: float) -> Row:
    """A line about the share of the matrix-product peak that useful operations reach."""
    return Row("matrix-product peak", work, group, fraction, 0.65, aim, form="share")


def fraction(result: Result | None, name: str = "ours") -> Spread:
    """Useful operations per second of each round, as a share of the peak measured in that round."""
    found, peak = variant(result, name), variant(result, "peak")
    shares = []
    for mine, best in zip(found["rounds"], peak["rounds"], strict=False):
        shares.append(mine["facts"]["needed_gflop"] / mine["seconds"] / best["facts"]["peak_gflops"])
    return Spread.of(shares)


def difference(result: Result | None) -> Spread:
    """The largest difference of a log-likelihood from that of lm-evaluation-harness."""
    variant(result, "lm-eval")
    assert result is not None
    return Spread.of([result["checks"]["lm_eval_difference"]])


def argmax_only(result: Result | None) -> Spread:
    """How many times as fast the search is that may stop when the arg-max is certain."""
    found = ratio(result, "ours, arg-max only", "ours")
    assert result is not None
    if (same := result["checks"]["argmax_only_same_argmax"]) < 1:
        raise NoFigureError(f"wrong: another arg-max on {100 * (1 - same):.0f} % of the texts")
    return found


def memory_share(result: Result | None) -> Spread:
    """Our peak memory as a share of the other's."""
    return Spread.of([peak_memory(result, "ours") / peak_memory(result, "prefix repeated")])


def same_scores(work: str, group: str) -> Row:
    """A line about the largest difference of log-likelihoods, which is that of rounding."""
    name = f"{work}, log-likelihoods"
    return Row(LM_EVAL, name, group, difference, 1e-4, None, "ours", "lm-eval", "difference", "float32")


DECISION, LM_EVAL = '`pipeline("decision")`, our prefix included', "lm-evaluation-harness 0.4.13"
LLAMA_ROW = "llama.cpp, Q4_0 (lossy), prefix kept"
MANY, ONE = "200 at once", "one at a time"
HF, LORA = "HF Trainer + PEFT, dynamic padding", "LoRA, "
ROWS = (
    times(DECISION, "6 labels of one token", "zero-shot", "ours, prefix included", "decision", 2.8, 3.3),
    times(DECISION, "4 short labels", "short-labels", "ours, prefix included", "decision", 2.8, 3.3),
    times(LM_EVAL, "6 labels of one token, 60-token prefix", "zero-shot", "ours", "lm-eval", 3.5, 4),
    times(LM_EVAL, "few-shot, 650-token prefix", "few-shot", "ours, same texts", "lm-eval", 14, 18),
    times(LM_EVAL, "77 labels, exact", "banking77", "ours", "lm-eval", 100, 150),
    same_scores("zero-shot", "zero-shot"),
    same_scores("few-shot", "few-shot"),
    same_scores("77 labels", "banking77"),
    times("`generate` one by one", "zero-shot", "zero-shot", "ours", "generate", 4, 4.5),
    times("`generate` one by one", "few-shot", "few-shot", "ours", "generate", 14, 17),
    times("skorch.llm `ZeroShotClassifier`", "6 labels of one token", "zero-shot", "ours", "skorch", 5, 10),
    times(LLAMA_ROW, "zero-shot, ours in float32", "zero-shot", "ours", LLAMA, 1.2, 1.4, "float32"),
    times(
        LLAMA_ROW,
        "zero-shot, ours in the precision it chooses",
        "zero-shot",
        OURS_SHIPPED,
        LLAMA,
        1.2,
        1.4,
    ),
    times("llama.cpp, Q4_1 (as shipped), prefix kept", "zero-shot", "zero-shot", "ours", SHIPPED, None, None),
    Row(
        "own exact trie",
        "77 labels, arg-max only, always the same one",
        "banking77",
        argmax_only,
        3,
        3.5,
        "ours, arg-max only",
        "ours",
    ),
    of_peak("zero-shot", "zero-shot", 0.80),
    of_peak("few-shot", "few-shot", 0.85),
    of_peak("77 labels", "banking77", 0.78),
    times(HF, LORA + "equal full-sequence loss", "training", "ours, full sequence", "HF Trainer", 1.4, 1.6),
    times(HF, LORA + "label-only loss for ours", "training", "ours, label only", "HF Trainer", 1.6, 2),
    times(
        "TRL SFTTrainer, fp32, no checkpointing",
        LORA + "completion loss",
        "training",
        "ours, label only",
        "TRL SFTTrainer",
        2,
        2.5,
    ),
    times(
        "the guide's way (padding to 128)",
        "LoRA",
        "training",
        "ours, label only",
        "HF Trainer, padded to 128",
        3.9,
        4.4,
    ),
    times(
        "prefix repeated per example",
        LORA + "650-token prefix, batch 8, equal loss",
        "training-prefix",
        "ours",
        "prefix repeated",
        5,
        6.5,
    ),
    Row(
        "prefix repeated per example",
        "the same, peak memory",
        "training-prefix",
        memory_share,
        1 / 3,
        None,
        "ours",
        "prefix repeated",
        "difference",
    ),
    times(
        "one call at a time", "200 `/classify` at once", "serving", "200 at once", "one at a time", 1.6, 2.5
    ),
    times("one core", "zero-shot, two cores, wall time", "cores", "2 threads", "1 thread", 1.7, None),
)


def show(value: float, form: Form) -> str:
    """A figure with its unit."""
    if form == "share":
        return f"{100 * value:.0f} %"
    if form == "difference":
        return f"{value:.2g}"
    return f"{value:.3g}x" if value < 100 else f"{value:,.0f}x"


def spread(found: Spread, form: Form) -> str:
    """A median, and what it lies between."""
    if found.least == found.most:
        return show(found.middle, form)
    return f"{show(found.middle, form)} ({show(found.least, form)} to {show(found.most, form)})"


def markdown(head: Iterable[str], lines: Iterable[Iterable[str]], left: int = 1) -> str:
    """A Markdown table whose first `left` columns are text."""
    names = list(head)
    rule = ["---"] * left + ["---:"] * (len(names) - left)
    return "\n".join(f"| {' | '.join(line)} |" for line in [names, rule, *map(list, lines)])


def targets(look: Look = saved, rows: Iterable[Row] = ROWS) -> str:
    """The table of targets."""
    head = ["against", "work", "must", "aim", "measured", "reached", "texts", "peak MiB"]
    return markdown(head, (row.cells(look) for row in rows), left=2)


def growth(look: Look = saved) -> str:
    """Texts per second by how many texts and labels there are."""
    sizes = [("texts", f"{n:,} texts") for n in (*TEXTS, MANY_TEXTS)]
    sizes += [("labels", f"{n} labels") for n in LABELS]
    lines = []
    for group, name in sizes:
        try:
            found = Spread.of(rates(look(group), name))
            needed = variant(look(group), name)["rounds"][0]["facts"]["needed_tokens"]
            tokens = needed / variant(look(group), name)["items"]
            lines.append([name, f"{found.middle:.2f}", f"{tokens:.0f}", f"{found.middle * tokens:,.0f}"])
        except NoFigureError as why:
            lines.append([name, str(why), "", ""])
    return markdown(["zero-shot", "texts/s", "tokens a text", "tokens/s"], lines)


def details(look: Look = saved) -> str:
    """Every variant's rate, operations and memory; tokens that it processed, and those that are needed.

    What is needed is said by `Work.needed`, for training by `training.facts`.
    """
    head = ["group", "variant", "texts", "texts/s", "tokens", "needed", "needed/s", "GFLOP/s", "of peak"]
    head += ["peak MiB"]
    lines = [_detail(group, name, look) for group in GROUPS for name in _names(look(group))]
    return markdown(head, lines, left=2)


def _names(result: Result | None) -> list[str]:
    return [name for name in result["variants"] if name != "peak"] if result else []


def _detail(group: str, name: str, look: Look) -> list[str]:
    result = look(group)
    try:
        found = variant(result, name)
    except NoFigureError as why:
        return [group, name, str(why), *[""] * 7]
    rounds = found["rounds"]
    rate = Spread.of(rates(result, name))
    needed = rounds[0]["facts"]
    cells = [group, name, f"{found['items']:,}", f"{rate.middle:.3g} ({rate.least:.3g} to {rate.most:.3g})"]
    cells += [f"{rounds[0]['tokens']:,}" if rounds[0]["tokens"] else "", "", "", "", ""]
    if "needed_gflop" in needed:
        middle = Spread.of([this["seconds"] for this in rounds]).middle
        cells[5] = f"{needed['needed_tokens']:,}"
        cells[6] = f"{needed['needed_tokens'] / middle:,.0f}"
        cells[7] = f"{needed['needed_gflop'] / middle:,.1f}"
        if result and "peak" in result["variants"]:
            cells[8] = f"{100 * fraction(result, name).middle:.0f} %"
    return [*cells, f"{peak_memory(result, name):,.0f}"]


def machine(look: Look = saved) -> str:
    """What it was measured on, and the matrix-product peak of all rounds."""
    results = [result for group in GROUPS if (result := look(group))]
    if not results:
        return ""
    kinds = {
        f"{m['device']}, {m['cores']} cores, {m['dtype']}, torch {m['versions']['torch']}"
        for m in (result["machine"] for result in results)
    }
    peaks = [
        this["facts"]["peak_gflops"]
        for result in results
        for this in result["variants"].get("peak", {}).get("rounds", [])
    ]
    text = "Measured on: " + "; ".join(sorted(kinds)) + "."
    if peaks:
        peak = Spread.of(peaks)
        text += f" Matrix-product peak: {peak.middle:,.0f} GFLOP/s ({peak.least:,.0f} to {peak.most:,.0f})."
    return text


def readme(look: Look = saved) -> str:
    """README's part: targets, growth and machine."""
    return "\n\n".join([targets(look), growth(look), machine(look)]) + "\n"


def elsewhere(name: str) -> str:
    """What was measured of the same for one of `ELSEWHERE`."""
    look = partial(saved, folder=RESULTS.with_name(name))
    if look("texts"):
        return readme(look)
    rows = [row for row in ROWS if (result := look(row.group)) and row.suits(result)]
    return f"{targets(look, rows)}\n\n{machine(look)}\n"


def everything(look: Look = saved) -> str:
    """All tables."""
    return "\n\n".join([targets(look), growth(look), details(look), machine(look)])
