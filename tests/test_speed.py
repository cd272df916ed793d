"""The benchmark's own arithmetic, its turns, and what its table says where there is no figure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.speed import runner, table, workload
from benchmarks.speed.runner import Group, NoFigureError, Spread, Variant
from promptclf import load_dataset

HALVES = "speed_jobs:Halves"


def result(**seconds: list[float]) -> dict[str, Any]:
    """A group's result with four items a variant, by its rounds' seconds."""
    rounds = {name: [{"seconds": s, "peak_mb": 10 * s} for s in some] for name, some in seconds.items()}
    return {"variants": {name: {"items": 4, "rounds": some} for name, some in rounds.items()}, "checks": {}}


def test_ratio_is_the_median_over_rounds_with_its_spread() -> None:
    found = runner.ratio(result(ours=[1, 2, 4], peer=[10, 10, 10]), "ours", "peer")
    assert found == Spread(middle=5, least=2.5, most=10)


def test_ratio_counts_items_and_pairs_rounds() -> None:
    some = result(ours=[2, 2, 2], peer=[1, 4])
    some["variants"]["ours"]["items"] = 32  # 16 a second against 4 and 1
    assert runner.ratio(some, "ours", "peer") == Spread(middle=10, least=4, most=16)


def test_peak_memory_is_the_largest_of_any_round() -> None:
    assert runner.peak_memory(result(ours=[1, 3, 2]), "ours") == 30


def test_share_of_peak_uses_the_peak_of_the_same_round() -> None:
    some = result(ours=[1, 2], peak=[1, 1])
    for this in some["variants"]["ours"]["rounds"]:
        this["facts"] = {"needed_gflop": 100}
    for this, rate in zip(some["variants"]["peak"]["rounds"], (200, 50), strict=True):
        this["facts"] = {"peak_gflops": rate}
    assert table.fraction(some) == Spread(middle=0.75, least=0.5, most=1)


def test_what_was_not_measured_has_no_figure() -> None:
    for there in (None, result(ours=[1]), {"variants": {"peer": {"items": 1, "rounds": []}}}):
        with pytest.raises(NoFigureError, match="not measured"):
            runner.rates(there, "peer")


def test_missing_peer_names_package_and_install_line() -> None:
    some = result(ours=[1])
    some["variants"]["lm-eval"] = {"items": 1, "missing": "lm_eval"}
    row = next(row for row in table.ROWS if row.other == "lm-eval" and row.form == "times")
    cells = row.cells(lambda group: some)
    assert cells[4] == "lm_eval is not installed: pip install -r tests/benchmarks/requirements.txt"
    assert cells[5:] == ["", "", ""]
    assert not any(character.isdigit() for character in cells[4])


def test_failed_peer_says_why() -> None:
    some = {"variants": {"ours": {"items": 1, "failed": "ValueError: no such thing"}}, "checks": {}}
    row = table.times("peer", "work", "group", "ours", "peer", 2, 3)
    assert row.cells(lambda group: some)[4] == "failed: ValueError: no such thing"


@pytest.mark.parametrize(
    ("value", "form", "expected"),
    [(1.5, "times", "no"), (2, "times", "must"), (3, "times", "yes"), (1e-5, "difference", "yes")],
)
def test_reached(value: float, form: Any, expected: str) -> None:
    must, aim = (1e-4, None) if form == "difference" else (2.0, 3.0)
    row = table.Row("a", "b", "c", lambda r: Spread.of([value]), must, aim, form=form)
    assert row.reached(value) == expected


def test_a_line_without_targets_reaches_none() -> None:
    row = table.times("a", "b", "c", "ours", "peer", None, None)
    cells = row.cells(lambda group: result(ours=[1], peer=[2]))
    assert cells[2:6] == ["", "", "2x", ""]


def test_every_row_compares_variants_that_are_measured() -> None:
    from benchmarks.speed import scaling, scoring, serving, training

    for full in (False, True):
        known = [g for part in (scoring, training, serving, scaling) for g in part.groups(full)]
        names = {group.name: [v.name for v in group.variants] for group in known}
        assert len(names) == len(known)
        assert set(table.GROUPS) <= set(names)
        for row in table.ROWS:
            assert {row.ours, row.other or row.ours} <= set(names[row.group]), row
        for group, sizes in (("labels", table.LABELS), ("texts", table.TEXTS)):
            assert {f"{size:,} {group}" for size in sizes} <= set(names[group])


# ---- real workers -------------------------------------------------------------------------------


def job(name: str, make: str = HALVES, items: int = 4, **options: Any) -> Variant:
    return Variant(name, make, items, **options)


def test_variants_take_turns_in_their_own_processes() -> None:
    lines: list[str] = []
    group = Group(
        "group",
        (
            job("a", arguments={"number": 3}),
            job("b", arguments={"number": 5}, rounds=1, warm_up=False),
            job("gone", "speed_jobs:Gone"),
            job("broken", "speed_jobs:Broken"),
            job("dies", "speed_jobs:Dies"),
        ),
        checks=lambda found: {"sum": sum(found.values())},
    )
    measured = runner.measure(group, rounds=2, note=lines.append)
    there = measured["variants"]
    assert measured["checks"] == {"sum": 8}
    assert [len(there[name]["rounds"]) for name in "ab"] == [2, 1]
    assert [line.split(":")[0].strip() for line in lines] == ["a", "b", "a"]
    processes = {name: there[name]["facts"]["process"] for name in "ab"}
    assert processes["a"] != processes["b"]
    assert [this["tokens"] for this in there["a"]["rounds"]] == [7, 7]  # and not those of the warm-up
    assert there["gone"]["missing"] == "no_such_package"
    assert there["broken"]["failed"] == "ValueError: no luck"
    assert "status 3" in there["dies"]["failed"]


def test_a_worker_that_dies_in_a_round_leaves_no_figure() -> None:
    group = Group("group", (job("a", arguments={"number": 1, "dies_after": 2}),))
    found = runner.measure(group, rounds=3, note=lambda line: None)["variants"]["a"]
    assert "rounds" not in found and "status 3" in found["failed"]


def test_saved_result_is_read_back(tmp_path: Path) -> None:
    runner.save({"group": "g", "variants": {}}, tmp_path)
    assert runner.saved("g", tmp_path) == {"group": "g", "variants": {}}
    assert runner.saved("h", tmp_path) is None
    assert [path.name for path in tmp_path.iterdir()] == ["g.json"]


def test_order_is_json() -> None:
    order = json.loads(job("a", threads=2).order())
    assert order == {"make": HALVES, "arguments": {}, "warm_up": True}


# ---- the work -----------------------------------------------------------------------------------


def test_any_first_texts_are_about_as_long_as_all() -> None:
    texts = workload.ordered()[:280]
    assert sorted(texts) == sorted(row.text for row in load_dataset("support").test)
    mean = sum(map(len, texts)) / len(texts)
    for count in (1, 2, 4, 8, 32):
        first = sum(map(len, texts[:count])) / count
        assert 0.75 < first / mean < 1.25, count


def test_texts_and_labels_are_distinct() -> None:
    texts = workload.texts(2000)
    assert len(set(texts)) == 2000
    assert texts[:5] == workload.texts(5)
    assert len(set(workload.labels(500))) == 500
    assert workload.labels(2) == ("parcel late", "card lost")
    assert len(workload.Work("banking77").task.labels) == 77


# ---- tables -------------------------------------------------------------------------------------


CHECKS = {"lm_eval_difference": 2e-5, "argmax_only_same_argmax": 1.0}


def measured(group: str) -> dict[str, Any]:
    """A made-up result in which every variant of the tables was measured."""
    names = {name for row in table.ROWS for name in (row.ours, row.other) if name}
    names |= {f"{n:,} texts" for n in table.TEXTS} | {f"{n} labels" for n in table.LABELS}
    facts = {"needed_gflop": 5.0, "needed_tokens": 100, "peak_gflops": 10.0}
    this = {"seconds": 2.0, "tokens": 120, "peak_mb": 1000.0, "facts": facts}
    variants = {name: {"items": 4, "rounds": [this, this]} for name in (*names, "peak")}
    kind = {"device": "a CPU", "cores": 2, "dtype": "float32", "versions": {"torch": "2"}}
    return {"variants": variants, "checks": CHECKS, "machine": kind}


def test_tables_show_figures() -> None:
    targets = table.targets(measured).splitlines()
    assert len(targets) == 2 + len(table.ROWS)
    assert {line.count("|") for line in targets} == {9}
    assert any(
        "matrix-product peak | zero-shot | 65 % | 80 % | 25 % | no | 4 | 1,000 |" in t for t in targets
    )
    assert "| 8 labels | 2.00 | 25 | 50 |" in table.growth(measured)
    assert "| 10,000 texts | not measured |  |  |" in table.growth(measured)
    details = table.details(measured)
    assert "| labels | 8 labels | 4 | 2 (2 to 2) | 120 | 100 | 50 | 2.5 | 25 % | 1,000 |" in details
    assert table.machine(measured) == (
        "Measured on: a CPU, 2 cores, float32, torch 2. Matrix-product peak: 10 GFLOP/s (10 to 10)."
    )


def test_what_means_something_in_float32_only_is_not_shown_of_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    half = measured("zero-shot")
    half["machine"]["dtype"] = "bfloat16"
    assert table.same_scores("zero-shot", "zero-shot").cells(lambda group: half)[4] == "asked of float32 only"

    some = {"zero-shot": half}
    monkeypatch.setattr(table, "saved", lambda name, folder: some.get(name))
    shown = table.elsewhere("speed-bfloat16")
    assert "ours in the precision it chooses" in shown and "a CPU, 2 cores, bfloat16" in shown
    assert not any(
        words in shown for words in ("ours in float32", "log-likelihoods", "not measured", "texts/s")
    )


def test_the_dtype_that_is_asked_for_reaches_the_workers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from benchmarks.speed import __main__ as command
    from benchmarks.speed import device

    monkeypatch.setenv(device.DTYPE, "float32")  # and it is what it was afterwards
    monkeypatch.setattr(runner, "RESULTS", tmp_path / "speed")
    monkeypatch.setattr(runner, "measure", lambda group, rounds, note: {"group": group.name, **told()})

    def told() -> dict[str, Any]:
        worker = runner.Process(job("kind", "speed_jobs:Kind"))
        try:
            return {"variants": {}, "kind": worker.answer()["facts"]["dtype"]}
        finally:
            worker.end()

    command.main(["--dtype", "bfloat16", "--only", "few-shot"], note=lambda line: None)
    found = runner.saved("few-shot", tmp_path / "speed-bfloat16")
    assert found is not None
    assert found["kind"] == found["machine"]["dtype"] == "bfloat16"
    assert not (tmp_path / "speed").exists()


def test_a_wrong_argmax_is_no_figure() -> None:
    some = measured("banking77") | {"checks": {"argmax_only_same_argmax": 0.75}}
    row = next(row for row in table.ROWS if row.ours == "ours, arg-max only")
    assert row.cells(lambda group: some)[4] == "wrong: another arg-max on 25 % of the texts"


def test_agreement_with_others_on_their_texts() -> None:
    from benchmarks.speed.scoring import agreement

    found = {
        "ours": [[-1.0, -2.0], [-3.0, -1.0], [-1.0, -9.0]],
        "lm-eval": [[-1.0, -2.5], [-1.0, -3.0]],
        "ours, arg-max only": [[-1.0, -1.5], [-2.0, -1.0], [-1.0, -2.0]],
    }
    assert agreement(found) == {
        "lm_eval_same_argmax": 0.5,
        "lm_eval_difference": 2.0,
        "argmax_only_same_argmax": 1.0,
    }
    assert agreement({"lm-eval": [[0.0]]}) == {}


def test_training_needs_a_shared_beginning_once_a_step() -> None:
    from types import SimpleNamespace

    import torch

    from benchmarks.speed.training import BATCH, facts

    module = torch.nn.ModuleDict(
        {"layers": torch.nn.ModuleDict({"first": torch.nn.Linear(3, 5, bias=False)})}
    )
    outer = torch.nn.ModuleDict({"model": module})
    rows = [[1, 2, 3, 10 + n] for n in range(2 * BATCH)]
    found = facts(SimpleNamespace(module=outer), rows)  # type: ignore[arg-type]
    assert found["needed_tokens"] == 2 * (3 + BATCH)
    assert found["needed_gflop"] == pytest.approx(4e-9 * 15 * found["needed_tokens"])
