"""The command line: exit codes, one-line errors, JSON shapes, files in and out, Ctrl-C."""

from __future__ import annotations

import ast
import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

import promptclf
import promptclf.ui
from fakes import KEYWORDS, FakeModel
from promptclf.__main__ import main as run_main
from promptclf.cli import app, frame
from promptclf.data import csv_safe
from promptclf.data.dataset import Dataset
from promptclf.data.reading import read_table
from promptclf.evaluation.report import build_report, score_predictions
from promptclf.modes import MODES, load_classifier
from promptclf.settings import TrainConfig
from promptclf.task import PACKAGED_TASKS, Task
from readme_help import all_help

COMMANDS = ("classify", "compare", "deploy", "train", "evaluate", "doctor", "prompt", "tasks", "serve")
LABELS = "billing,delivery,account"
ADAPTER = str(PACKAGED_TASKS / "support" / "adapter")
Call = Callable[..., Result]


@pytest.fixture
def call() -> Call:
    """Run a command line in this process."""

    def call(*args: str, stdin: str | bytes = "") -> Result:
        result = CliRunner().invoke(app, [str(arg) for arg in args], input=stdin)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return call


@pytest.fixture
def fake(fake_model: FakeModel, monkeypatch: pytest.MonkeyPatch) -> FakeModel:
    """What every command loads as its model; its arguments are kept in `asked`."""

    def load_model(name: str = "embedded", **options: Any) -> FakeModel:
        fake_model.asked.append({"name": name, **options})  # type: ignore[attr-defined]
        return fake_model

    fake_model.asked = []  # type: ignore[attr-defined]
    monkeypatch.setattr("promptclf.lm.loading.load_model", load_model)
    return fake_model


@pytest.fixture
def folder(dataset: Dataset, tmp_path: Path) -> Path:
    """The data set of conftest as a folder of CSV files with its task."""
    place = tmp_path / "desk"
    place.mkdir()
    (place / "task.yaml").write_text(yaml.safe_dump(dataset.task.to_dict()), encoding="utf-8")
    for split, examples in dataset.splits.items():
        with (place / f"{split}.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([["sentence", "topic"], *([e.text, e.label] for e in examples)])
    return place


def failed(result: Result) -> str:
    """The message of a user error, after checking that it is one."""
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert result.stderr.splitlines()[-1] == errors[0]
    return errors[0].removeprefix("error: ")


# ---- the frame -------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_each_command(call: Call, command: str) -> None:
    result = call(command, "--help")
    assert result.exit_code == 0
    assert result.stderr == ""
    assert f"Usage: promptclf {command}" in result.stdout
    assert all(mark not in result.stdout for mark in ("╭", "│", "\x1b"))


def test_help_without_arguments_lists_the_commands(call: Call) -> None:
    result = call()
    assert result.exit_code == 0
    listed = result.stdout.partition("Commands:\n")[2].splitlines()
    assert {line.split()[0] for line in listed} == set(COMMANDS)
    assert not any(line.endswith("...") for line in listed)


def test_readme_help_is_the_same_on_every_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    first = all_help()
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert all_help() == first
    assert max(map(len, first.splitlines())) <= 90
    assert "$ promptclf prompt show --help\n" in first
    assert "\x1b" not in first


def test_help_names_every_mode_and_every_setting_of_training(call: Call) -> None:
    assert all(mode in call("classify", "--help").stdout for mode in MODES)
    options = call("train", "--help").stdout
    for name in TrainConfig.names():
        (line,) = [line for line in options.splitlines() if f"--{name.replace('_', '-')} " in line]
        assert line.split("  ")[-1].strip(), f"{name} has no help"


def test_version(call: Call) -> None:
    assert call("--version").stdout == f"promptclf {promptclf.__version__}\n"


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["nope"], "No such command 'nope'; see promptclf --help"),
        (["classify", "--nope"], "No such option"),
        (["classify", "--quantization", "int4", "text"], "'none', 'int8', 'nf4'"),
        (["compare", "--limit", "many"], "--limit"),
        (["train", "--task", "support"], "--out"),
        (["prompt", "show", "support"], "--text"),
        (["evaluate"], "DIR"),
    ],
)
def test_usage_errors_are_one_line(call: Call, args: list[str], said: str) -> None:
    assert said in failed(call(*args))


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["classify", "text"], "expected --task, --labels or --data"),
        (["classify", "text", "--task", "support", "--labels", "a,b"], "--task or --labels, got both"),
        (["classify", "text", "--task", "missing"], "no task 'missing'"),
        (["classify", "text", "--labels", "only"], "2 to 500 labels"),
        (["classify", "text", "--labels", 'a,"b'], "expected a list such as a,b,c"),
        (["classify", "text", "--labels", "a,b", "--mode", "many-shot"], "zero-shot, few-shot, lora"),
        (["classify", "text", "--labels", "a,b", "--mode", "few-shot"], "--data"),
        (["classify", "text", "--labels", "a,b", "--mode", "lora"], "--adapter"),
        (["classify", "text", "--labels", "a,b", "--out", "x.xlsx"], ".csv or .jsonl"),
        (["classify", "text", "--labels", "a,b", "--out", "nowhere/x.csv"], "nowhere"),
        (["classify", "text", "--file", "x.csv", "--labels", "a,b"], "texts or --file, got both"),
        (["classify", "--file", "missing.csv", "--labels", "a,b"], "missing.csv"),
        (["classify", "--file", "missing.txt", "--labels", "a,b"], "missing.txt: No such file"),
        (["classify", "--labels", "a,b"], "standard input: expected texts"),
        (["classify", "text", "--adapter", "missing-folder"], "missing-folder"),
        (["classify", "text", "--adapter", "x", "--labels", "a,b"], "--labels: a saved classifier"),
        (["classify", "text", "--labels", "a,b", "--template", "nope"], "no prompt template 'nope'"),
        (["compare"], "expected --data or --task"),
        (["compare", "--data", "missing"], "no data 'missing'"),
        (["compare", "--task", "support", "--modes", "magic"], "modes: expected"),
        (["compare", "--task", "support", "--quantization", "int4"], "none, int8, nf4"),
        (["train", "--out", "x"], "expected --data or --task"),
        (["train", "--out", "x", "--task", "support", "--rank", "0"], "rank: expected 1 to 1024"),
        (["train", "--out", "x", "--task", "support", "--resume"], "--checkpoints"),
        (["train", "--out", "x", "--task", "support", "--weight-decay", "-1"], "weight_decay: expected 0 to"),
        (["train", "--out", "x", "--task", "support", "--checkpoints", "x/checkpoints"], "apart from --out"),
        (["train", "--out", "/proc/x", "--task", "support"], "--out /proc/x: cannot be written"),
        (["evaluate", "x", "--task", "support", "--out", "/proc/x"], "--out /proc/x: cannot be written"),
        (["compare", "--task", "support", "--templates", "nope"], "no prompt template 'nope'"),
        (["evaluate", "x"], "expected --data or --task"),
        (["classify", "--labels", LABELS, "fine", " "], "text 2: expected text, got an empty one"),
        (["evaluate", "missing", "--task", "support"], "no saved classifier 'missing'"),
        (["evaluate", "x", "--task", "support", "--all-rows"], "--all-rows"),
        (["doctor", "missing.csv"], "missing.csv"),
        (["doctor", "support", "--columns", "title=x"], "--columns: expected text=A"),
        (["prompt", "show", "missing", "--text", "x"], "no task 'missing'"),
        (["prompt", "show", "support", "--text", "x", "--mode", "magic"], "--mode: expected one of"),
        (["tasks", "show", "missing"], "no task 'missing'"),
    ],
)
def test_user_errors_are_one_line(
    call: Call, fake: FakeModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, args: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert said in failed(call(*args))
    assert list(tmp_path.iterdir()) == []


def test_what_is_read_is_not_written_to(call: Call, fake: FakeModel, folder: Path) -> None:
    train = folder / "train.csv"
    before = train.read_bytes()
    said = failed(call("classify", "text", "--data", str(train), "--mode", "few-shot", "--out", str(train)))
    assert "this is the file to read" in said and train.read_bytes() == before


@pytest.mark.parametrize("command", ["evaluate", "compare"])
def test_a_report_is_not_written_into_a_classifier(call: Call, tmp_path: Path, command: str) -> None:
    (tmp_path / "MANIFEST.json").write_text("{}")
    args = [command, "x"] if command == "evaluate" else [command]
    said = failed(call(*args, "--task", "support", "--out", str(tmp_path)))
    assert "a saved classifier is there; choose another folder" in said


def test_an_unexpected_error_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("promptclf.cli.tasks.packaged_tasks", lambda: 1 / 0)
    result = CliRunner().invoke(app, ["tasks"])
    assert isinstance(result.exception, ZeroDivisionError)


def test_errors_hold_no_control_characters(call: Call) -> None:
    said = failed(call("tasks", "show", "a\x1b[31m\nb"))
    assert "\x1b" not in said


def test_advice_of_the_library_is_said_in_words_of_the_command_line() -> None:
    """Every phrase that is replaced is one that the library still uses."""
    said: list[str] = []
    for file in Path(promptclf.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                said.append("".join(p.value if isinstance(p, ast.Constant) else "…" for p in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                said.append(node.value)
    library = "\n".join(said).replace("name it with …=…", "name it with text=…\nname it with label=…")
    assert [phrase for phrase in frame.ADVICE if phrase not in library] == []


def test_verbose_shows_log_lines_on_stderr(call: Call, folder: Path) -> None:
    quiet = call("doctor", folder / "train.csv")
    assert "info:" not in quiet.stderr
    loud = call("doctor", folder / "train.csv", "-v")
    assert "info: " in loud.stderr
    assert call("-v", "doctor", folder / "train.csv").stderr == loud.stderr
    assert loud.stdout == quiet.stdout


def test_very_verbose_shows_where_an_error_came_from(call: Call) -> None:
    result = call("-vv", "tasks", "show", "missing")
    assert result.exit_code == 2
    assert "Traceback" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("error: ")


# ---- classify --------------------------------------------------------------------------------------

NOTE = (
    "not calibrated: labels that the model prefers by itself come up too often; --data with at least 100"
    " texts mends that\n"
)


def test_classify_arguments(call: Call, fake: FakeModel) -> None:
    result = call("classify", "--labels", LABELS, "my parcel", "an invoice\nplease")
    assert result.exit_code == 0
    assert result.stderr == NOTE
    first, second = result.stdout.splitlines()
    assert first.split() == [first.split()[0], "delivery", "my", "parcel"]
    assert second.endswith("billing   an invoice please")
    assert fake.asked == [{"name": "embedded", "quantization": "none"}]  # type: ignore[attr-defined]


def test_classify_json(call: Call, fake: FakeModel) -> None:
    result = call("classify", "--labels", LABELS, "--json", "my “parcel”")
    found = json.loads(result.stdout)
    assert list(found)[:3] == ["schema_version", "predictions", "model"]
    (prediction,) = found["predictions"]
    assert (prediction["text"], prediction["label"]) == ("my “parcel”", "delivery")
    assert sum(prediction["probabilities"].values()) == pytest.approx(1)
    assert prediction["truncated"] is False
    assert found["model"] == fake.info.to_dict()
    assert found["classifier"]["mode"] == "zero-shot"
    assert len(found["classifier"]["template_fingerprint"]) == 64


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_classify_standard_input(call: Call, fake: FakeModel, newline: str) -> None:
    lines = newline.join(["my parcel", "", "password, please — 密码", ""])
    result = call("classify", "--labels", LABELS, "--json", stdin=lines)
    texts = [p["text"] for p in json.loads(result.stdout)["predictions"]]
    assert texts == ["my parcel", "password, please — 密码"]
    assert result.stderr == "standard input: 1 blank line skipped\n" + NOTE
    assert call("classify", "--labels", LABELS, "--file", "-", "--json", stdin=lines).stdout == result.stdout


def test_classify_refuses_input_that_is_not_utf8(call: Call, fake: FakeModel) -> None:
    said = failed(call("classify", "--labels", LABELS, stdin=b"fine\ncaf\xe9\n"))
    assert said == "standard input, line 2: expected UTF-8 text; save it as UTF-8"


def test_classify_from_csv_to_csv(call: Call, fake: FakeModel, tmp_path: Path) -> None:
    source, out = tmp_path / "in.csv", tmp_path / "out.csv"
    rows = [["id", "message", "label"], ["01", "my parcel", "x"], ["02", '=1+1, "invoice"\n', "None"]]
    with source.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    result = call("classify", "--labels", LABELS, "--file", source, "--out", out)
    assert (result.exit_code, result.stdout) == (0, "")
    assert f"{source}: guessed text = 'message'; --columns names others" in result.stderr
    assert f"{out}: 2 predictions" in result.stderr
    header, *found = csv_safe.read_rows(out.read_text(encoding="utf-8"))
    assert header[:5] == ["id", "message", "label (input)", "label", "probability"]
    assert sorted(header[5:8]) == ["p(account)", "p(billing)", "p(delivery)"]
    assert [row[:4] for row in found] == [[*rows[1], "delivery"], [*rows[2], "billing"]]
    assert [float(row[4]) for row in found] == [max(map(float, row[5:8])) for row in found]
    assert "'=1+1" in out.read_text(encoding="utf-8")
    # What was written can be read, and classified again.
    again = call("classify", "--labels", LABELS, "--file", out, "--out", tmp_path / "again.csv")
    assert again.exit_code == 0
    assert read_table(tmp_path / "again.csv").columns[3] == "label (input) (input)"


def test_classify_from_jsonl_to_jsonl(call: Call, fake: FakeModel, tmp_path: Path) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    rows = [{"n": "1", "text": "my parcel\u2028=1"}, {"text": "密码 password", "label": "NA"}]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert call("classify", "--labels", LABELS, "--file", source, "--out", out).exit_code == 0
    found = [json.loads(line) for line in out.read_text(encoding="utf-8").split("\n")[:-1]]
    assert [row["text"] for row in found] == [row["text"] for row in rows]
    assert [row["label"] for row in found] == ["delivery", "account"]
    assert found[1]["label (input)"] == "NA"
    assert next(iter(found[0]["probabilities"])) == "delivery"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["classify", "--labels", LABELS, "--calibration", "magic", "x"], "calibration: expected one of"),
        (["classify", "--labels", LABELS, "--template", "magic", "x"], "no prompt template 'magic'"),
        (["compare", "--task", "support", "--quantization", ""], "expected some of none, int8, nf4, got ''"),
        (
            ["compare", "--task", "support", "--modes", ""],
            "some of zero-shot, few-shot, lora, got ''",
        ),
        (
            ["classify", "--task", "support", "--mode", "few-shot", "--selection", "b", "x"],
            "selection: expected",
        ),
        (["classify", "--adapter", ADAPTER, "--mode", "zero-shot", "x"], "holds a lora classifier"),
        (["train", "--task", "support", "--out", "x", "--template", "magic"], "no prompt template 'magic'"),
    ],
)
def test_wrong_options_are_told_before_a_model_is_loaded(
    call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, options: list[str], message: str
) -> None:
    def load(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("promptclf.lm.loading.load_model", load)
    monkeypatch.chdir(tmp_path)
    assert message in failed(call(*options))


def test_rows_without_text_are_told(call: Call, fake: FakeModel, tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text('text\nmy parcel\n""\n')
    found = call("classify", "--labels", LABELS, "--file", source, "--json")
    assert len(json.loads(found.stdout)["predictions"]) == 2  # no row is lost
    assert f"warning: {source}: row 2 has no text; a label that comes of it means nothing" in found.stderr
    source.write_text('text\n" "\nmy parcel\n""\n')
    found = call("classify", "--labels", LABELS, "--file", source, "--json")
    assert "2 rows have no text, such as row 1; a label that comes of it means nothing" in found.stderr


def test_an_interrupt_while_the_command_line_is_imported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Interrupted(ModuleType):
        def __getattr__(self, name: str) -> Any:
            raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "promptclf.cli", Interrupted("promptclf.cli"))
    with pytest.raises(SystemExit) as ended:
        run_main()
    assert (ended.value.code, capsys.readouterr().err) == (130, "interrupted\n")


def test_columns_of_the_texts_and_of_the_data_are_apart(call: Call, fake: FakeModel, tmp_path: Path) -> None:
    source, data = tmp_path / "in.csv", tmp_path / "data.csv"
    source.write_text("a,b\nmy parcel,an invoice\n")
    rows = [f"{text} {n},{label}\n" for n in range(4) for text, label in KEYWORDS.items()]
    data.write_text("c,d\n" + "".join(rows))
    options = ["classify", "--mode", "few-shot", "--selection", "random", "--data", data]
    both = ["--columns", "text=b", "--data-columns", "text=c,label=d"]
    found = call(*options, "--file", source, *both, "--json")
    assert json.loads(found.stdout)["predictions"][0]["text"] == "an invoice"
    found = call(*options, "--columns", "text=c,label=d", "--json", "my parcel")
    assert json.loads(found.stdout)["predictions"][0]["label"] == "delivery"


def test_a_second_text_is_used_or_left_out(call: Call, fake: FakeModel, tmp_path: Path) -> None:
    source = tmp_path / "pairs.csv"
    source.write_text("premise,hypothesis,id\nmy parcel,my invoice,1\n")
    options = ["classify", "--labels", LABELS, "--file", source]
    said = call(*options).stderr
    assert "guessed text = 'premise', pair = 'hypothesis'; --columns names others (pair= for no" in said
    assert fake.calls[-1].texts == ["Text 1: my parcel\nText 2: my invoice\nLabel:"]
    call(*options, "--columns", "pair=")
    assert fake.calls[-1].texts == ["Text: my parcel\nLabel:"]
    said = failed(call(*options, "--template", "topic"))
    assert "or leave the second text out with --columns pair=" in said


def test_classify_names_columns(call: Call, fake: FakeModel, tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text("a,b\nmy parcel,an invoice\n", encoding="utf-8")
    said = failed(call("classify", "--labels", LABELS, "--file", source))
    assert "expected a text column" in said
    assert said.endswith("name it with --columns text=…")
    said = failed(call("classify", "--labels", LABELS, "--file", source, "--columns", "text=b,label=c"))
    assert said.endswith("expected the label column 'c', got a, b")
    result = call("classify", "--labels", LABELS, "--file", source, "--columns", "text=b", "--json")
    assert json.loads(result.stdout)["predictions"][0]["label"] == "billing"
    assert result.stderr == NOTE


def test_classify_does_not_write_over_its_input(call: Call, fake: FakeModel, tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text("text\nmy parcel\n", encoding="utf-8")
    assert "choose another name" in failed(
        call("classify", "--labels", LABELS, "--file", source, "--out", source)
    )


def test_classify_says_which_text_is_too_long(
    call: Call, fake: FakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("promptclf.cli.classify.PART", 2)
    fake.max_tokens = 40
    texts = ["short", "short", "short", "long " * 50]
    said = failed(call("classify", "--labels", LABELS, *texts))
    assert "expected at most 40 tokens" in said
    shortened = call("classify", "--labels", LABELS, "--truncate", "--json", *texts)
    assert [p["truncated"] for p in json.loads(shortened.stdout)["predictions"]] == [False] * 3 + [True]


def test_classify_counts_texts_over_all_parts() -> None:
    from promptclf.cli.classify import _placed

    texts = ["x"] * 257 + ["a\nlong " * 50, ("first", "second")]
    place = "a long a long a long a long a long a lon"
    assert _placed("text 2: too long, 9 tokens", 256, texts) == f"text 258 ({place}…): too long, 9 tokens"
    assert _placed("text 3: too long", 256, texts) == "text 259 (first): too long"


def test_classify_few_shot_takes_examples_from_train_only(
    call: Call, fake: FakeModel, folder: Path, dataset: Dataset
) -> None:
    result = call(
        "classify", "--mode", "few-shot", "--data", folder, "--template", "completion", "--json", "my parcel"
    )
    found = json.loads(result.stdout)
    assert found["classifier"]["mode"] == "few-shot"
    assert found["classifier"]["learned"]["pool"] == len(dataset.train)
    assert found["classifier"]["learned"]["selection"] == "tfidf"
    assert f"{folder}: guessed text = 'sentence', label = 'topic'" in result.stderr
    (call_,) = fake.calls  # no cross-validation that nobody asked for
    held = {example.text for example in (*dataset.validation, *dataset.test)}
    assert not any(text in call_.texts[0] for text in held)


@pytest.mark.parametrize("mode", ["zero-shot", "few-shot"])
def test_classify_uses_what_ships_with_a_packaged_task(call: Call, fake: FakeModel, mode: str) -> None:
    words = ["classify", "--task", "support", "--mode", mode, "--json", "my parcel"]
    learned = json.loads(call(*words).stdout)["classifier"]["learned"]
    shipped = load_classifier("support", mode=mode, model=fake)
    assert learned == shipped.provenance()["learned"]
    assert learned["calibration"] == "prior"
    assert len(fake.calls) == 1
    named = call("classify", "--adapter", "support", "--mode", mode, "--json", "my parcel")
    assert json.loads(named.stdout)["classifier"]["learned"] == learned
    ignored = call(*words, *(["--seed", "3", "--selection", "random"] if mode == "zero-shot" else []))
    assert json.loads(ignored.stdout)["classifier"]["learned"] == learned
    # With options of one's own it is fitted afresh, on the same rows.
    own = call(*words, "--template", "question")
    learned = json.loads(own.stdout)["classifier"]["learned"]
    assert learned["calibration"] == ("prior" if mode == "zero-shot" else "none")
    assert ("--selection auto is slower and may be better" in own.stderr) == (mode == "few-shot")
    assert NOTE not in own.stderr


def test_classify_pairs_does_not_learn_from_texts_that_are_none(
    call: Call, fake: FakeModel, tmp_path: Path
) -> None:
    source = tmp_path / "pairs.csv"
    source.write_text("text,pair\nmy parcel,where is it\n", encoding="utf-8")
    options = ["classify", "--task", "support", "--template", "pair", "--file", source, "--json"]
    result = call(*options)
    assert result.exit_code == 0 and result.stderr.endswith(NOTE)
    assert json.loads(result.stdout)["classifier"]["learned"]["calibration"] == "none"


def test_classify_with_a_prior_from_unlabelled_texts(call: Call, fake: FakeModel, tmp_path: Path) -> None:
    source = tmp_path / "texts.csv"
    source.write_text("text\n" + "my parcel\n" * 100, encoding="utf-8")
    result = call("classify", "--labels", LABELS, "--data", source, "--json", "my parcel")
    assert json.loads(result.stdout)["classifier"]["learned"]["calibration"] == "prior"


def test_classify_whole_batch_at_once_for_batch_calibration(
    call: Call, fake: FakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("promptclf.cli.classify.PART", 1)
    call("classify", "--labels", LABELS, "--calibration", "batch", "my parcel", "an invoice")
    assert [len(c.prompts) for c in fake.calls] == [2]


# ---- the other commands ----------------------------------------------------------------------------


def test_compare_passes_everything_on(
    call: Call, folder: Path, task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def run_comparison(dataset: Dataset, **options: Any) -> Any:
        asked.update(options, dataset=dataset)
        options["progress"]({"name": "lora", "event": "fit", "rows": 3})
        true = [example.label for example in dataset.test]
        labels = sorted(dataset.task.labels)
        proba = [[0.5, 0.3, 0.2]] * len(true)
        results = [score_predictions(name, true, proba, labels, mode=name) for name in ("lora", "svm")]
        return build_report(results, true, labels, task=dataset.task.name, resamples=50)

    monkeypatch.setattr("promptclf.evaluation.compare.run_comparison", run_comparison)
    words = f"compare --data {folder} --limit 6 --rows 9 --modes lora --quantization none,nf4 --templates all"
    result = call(
        *words.split(), "--seeds", "2", "--seed", "5", "--no-resume", "--out", str(tmp_path / "out")
    )
    assert result.exit_code == 0, result.stderr
    assert "accuracy %" in result.stdout
    dataset = asked.pop("dataset")
    assert (len(dataset.train), len(dataset.test)) == (9, 6)
    assert dataset.task == task
    assert callable(asked.pop("progress"))
    assert asked == {
        "modes": ["lora"],
        "model": "embedded",
        "quantizations": ["none", "nf4"],
        "templates": ["all"],
        "seeds": 2,
        "seed": 5,
        "truncate": False,
        "out": str(tmp_path / "out"),
        "resume": False,
    }
    as_json = call("compare", "--data", folder, "--json")
    assert json.loads(as_json.stdout)["schema"] == 1
    assert list(asked["modes"]) == list(MODES)
    assert "info: lora: fitting on 3 rows" in call("compare", "--data", folder, "-v").stderr


@pytest.mark.parametrize(
    ("command", "interrupted", "said"),
    [
        ("compare --out {0}", "promptclf.evaluation.compare.run_comparison", "finished runs are kept"),
        ("train --out {0}", "promptclf.classifiers.lora.LoraClassifier.fit", "nothing was saved\n"),
        (
            "train --out {0} --checkpoints {0}-ck",
            "promptclf.classifiers.lora.LoraClassifier.fit",
            "; --resume goes on",
        ),
    ],
)
def test_ctrl_c_says_how_to_go_on(
    call: Call,
    fake: FakeModel,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    interrupted: str,
    said: str,
) -> None:
    def interrupt(*args: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(interrupted, interrupt)
    words = command.format(tmp_path / "out").split()
    result = call(*words, "--data", folder)
    assert (result.exit_code, result.stdout) == (130, "")
    assert said in result.stderr
    assert result.stderr.endswith("\ninterrupted\n")
    assert not (tmp_path / "out").exists()


def test_train_evaluate_and_classify_with_what_was_saved(
    call: Call, folder: Path, tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved, report = tmp_path / "saved", tmp_path / "report"
    base = ["--model", str(tiny_llama)]
    words = "--epochs 3 --rank 2 --learning-rate 0.01 --target-modules q_proj,v_proj --json"
    trained = call("train", "--data", folder, "--out", saved, *base, "--rows", "12", *words.split())
    assert trained.exit_code == 0, trained.stderr
    found = json.loads(trained.stdout)
    assert found["path"] == str(saved)
    assert found["training"]["rows"] == 12
    assert found["training"]["steps"] == 6  # the epochs that were asked for, however few the steps
    assert set(found["validation"]) == {"epoch", "macro_f1", "accuracy", "log_loss"}
    assert found["dataset"]["rows"]["test"] == 18
    kept = json.loads((saved / "promptclf.json").read_text(encoding="utf-8"))["parameters"]["config"]
    assert (kept["rank"], kept["learning_rate"], kept["target_modules"]) == (2, 0.01, ["q_proj", "v_proj"])

    scored = call("evaluate", saved, "--data", folder, *base, "--out", report)
    assert scored.exit_code == 0, scored.stderr
    assert "accuracy %" in scored.stdout
    assert "18 test rows" in scored.stdout
    assert "s/1,000" in scored.stdout and "p50 ms" not in scored.stdout and "–" not in scored.stdout
    assert sorted(p.name for p in report.iterdir()) == [
        "predictions.csv",
        "report.html",
        "report.json",
        "report.md",
    ]
    whole = call("evaluate", saved, "--data", folder / "test.csv", "--all-rows", *base, "--json")
    figures = json.loads(whole.stdout)["results"][0]["metrics"]
    table = call("evaluate", saved, "--data", folder / "test.csv", "--all-rows", *base).stdout
    assert "\n18 rows, 3 labels; " in table and "McNemar" not in table
    assert "All rows were scored: if the classifier learned from some, figures are too good." in table
    assert (
        figures == json.loads((report / "report.json").read_text(encoding="utf-8"))["results"][0]["metrics"]
    )

    classified = call("classify", "--adapter", saved, *base, "--json", "my parcel")
    assert json.loads(classified.stdout)["classifier"]["mode"] == "lora"
    assert "holds a lora classifier" in failed(
        call("classify", "--adapter", saved, "--mode", "few-shot", *base, "x")
    )
    assert "with --model" in failed(call("classify", "--adapter", saved, "x"))
    # The adapter that ships with a packaged task is the default of its lora mode.
    saved_copy = shutil.copytree(saved, tmp_path / "shipped")
    found = {("support", "lora"): saved_copy}
    monkeypatch.setattr("promptclf.cli.common.packaged_classifier", lambda *wanted: found[wanted])
    shipped = call("classify", "--task", "support", "--mode", "lora", *base, "--json", "my parcel")
    assert json.loads(shipped.stdout)["predictions"] == json.loads(classified.stdout)["predictions"]
    (saved / "adapter_config.json").write_text("{}", encoding="utf-8")
    assert "adapter_config.json is damaged" in failed(call("classify", "--adapter", saved, *base, "x"))


def test_train_prints_a_table(call: Call, folder: Path, tiny_llama: Path, tmp_path: Path) -> None:
    words = f"train --data {folder} --out {tmp_path / 'saved'} --model {tiny_llama} --epochs 2 --min-steps 1"
    result = call(*words.split(), "--rows", "9", "--rank", "2", "-v")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines()[0].startswith("epoch  macro-F1")
    assert result.stdout.count("  best\n") == 1
    assert result.stdout.splitlines()[-1] == f"saved to {tmp_path / 'saved'}"
    assert "info: epoch 1 of at most" in result.stderr


def test_train_refuses_a_folder_of_others_before_training(
    call: Call, fake: FakeModel, tmp_path: Path
) -> None:
    (tmp_path / "mine.txt").write_text("mine", encoding="utf-8")
    assert "was not made by promptclf" in failed(call("train", "--task", "support", "--out", tmp_path))
    assert fake.asked == []  # type: ignore[attr-defined]


def test_only_the_main_process_speaks(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    result = call("tasks", "show", "missing")
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", "")
    assert call("tasks").stdout == ""


def test_doctor(call: Call, tmp_path: Path) -> None:
    source = tmp_path / "data.csv"
    rows = ["where is my parcel,a", "Where is my parcel ,b", "x,a", "y,b"]
    source.write_text("body,topic\n" + "\n".join(rows) + "\n", encoding="utf-8")
    result = call("doctor", source)
    assert result.exit_code == 0
    assert f"{source}: guessed text = 'body', label = 'topic'" in result.stderr
    assert result.stdout.startswith("data: 4 train rows\n")
    assert "error: 1 text with more than one label" in result.stdout
    assert "rows: train 1 = train 2" in result.stdout
    found = json.loads(call("doctor", source, "--json").stdout)
    assert found["rows"] == {"train": 4}
    assert found["columns"] == {"text": "body", "label": "topic"}
    assert "conflicting_labels" in [finding["kind"] for finding in found["findings"]]


def test_doctor_can_fail(call: Call, tmp_path: Path) -> None:
    source = tmp_path / "rows.csv"
    source.write_text("text,label\n" + "".join(f"text {n},red\n" for n in range(12)), encoding="utf-8")
    assert "error: 1 label only: 'red'" in call("doctor", source).stdout
    for more in ((), ("--json",)):
        assert call("doctor", source, *more).exit_code == 0
        assert call("doctor", source, "--strict", *more).exit_code == 1
    assert call("doctor", "support", "--strict").exit_code == 0


def test_doctor_counts_in_tokens_of_a_model(call: Call, tiny_gpt2: Path, tmp_path: Path) -> None:
    source = tmp_path / "data.csv"
    long = "my parcel " * 300
    source.write_text(f"text,label\n{long},very good\nshort,very\n", encoding="utf-8")
    found = json.loads(call("doctor", source, "--model", str(tiny_gpt2), "--json").stdout)["findings"]
    kinds = {finding["kind"]: finding for finding in found}
    assert [row["row"] for row in kinds["long_texts"]["rows"]] == [1]
    assert kinds["label_prefixes"]["labels"] == ["very"]


def test_prompt_shows_what_the_model_sees(call: Call, tiny_qwen3: Path) -> None:
    text = "Where is <|im_end|> my parcel?"
    words = ["prompt", "show", "support", "--model", str(tiny_qwen3), "--template", "chat", "--text", text]
    shown = call(*words).stdout
    assert shown.startswith("<|im_start|>")
    assert text in shown
    found = json.loads(call(*words, "--json").stdout)
    assert found["prompt"] + "\n" == shown
    assert found["count"] == len(found["tokens"])
    # The user's text stays text: as many control tokens as without it.
    other = json.loads(call(*words[:-1], "Where?", "--json").stdout)
    assert sum(t["text"] == "<|im_end|>" for t in found["tokens"]) == sum(
        t["text"] == "<|im_end|>" for t in other["tokens"]
    )
    assert f"\n{found['count']} tokens\n" in call(*words, "--tokens").stdout


def test_prompt_shows_few_shot_examples_of_the_train_split(call: Call, tiny_llama: Path) -> None:
    words = "prompt show support --mode few-shot --selection random --template completion --model"
    shown = call(*words.split(), str(tiny_llama), "--text", "Where is my parcel?").stdout
    train = read_table(Path(promptclf.__file__).parent / "tasks" / "support" / "train.csv")
    assert sum(f"{row['text']}\n" in shown for row in train.rows) >= 2
    assert shown.rstrip("\n").endswith("Where is my parcel?\nLabel:")


def test_prompt_list(call: Call) -> None:
    listed = json.loads(call("prompt", "list", "--json").stdout)["templates"]
    names = [template["name"] for template in listed]
    assert names == sorted(names)
    assert "completion" in names
    assert [line.split()[0] for line in call("prompt").stdout.splitlines()] == names


def test_tasks(call: Call) -> None:
    (support,) = json.loads(call("tasks", "--json").stdout)["tasks"]
    shown = json.loads(call("tasks", "show", "support", "--json").stdout)
    assert {key: shown[key] for key in support} == support
    assert shown["rows"]["test"] >= 250
    text = call("tasks", "show", "support")
    assert text.stderr == ""
    assert all(f"  {label} " in text.stdout for label in support["labels"])


def test_serve_starts_the_app(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []

    def serve(*args: Any, **options: Any) -> None:
        started.append((args, options))

    monkeypatch.setattr(promptclf.ui, "serve", serve, raising=False)
    result = call("serve", "--port", "7999", "--quantization", "nf4")
    assert result.exit_code == 0, result.stderr
    assert started == [(("127.0.0.1", 7999), {"model": "embedded", "quantization": "nf4"})]


def test_serve_says_that_a_port_is_taken(call: Call) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"cannot listen on 127.0.0.1:{port}" in failed(call("serve", "--port", str(port)))


# ---- in a process of its own -----------------------------------------------------------------------

SLOW = """
import signal, sys, time
sys.path[:0] = [{tests!r}]
signal.signal(signal.SIGINT, signal.default_int_handler)
from fakes import FakeModel
import promptclf.lm.loading
class Slow(FakeModel):
    def score(self, *args, **options):
        print("scoring", file=sys.stderr, flush=True)
        time.sleep({seconds})
        return super().score(*args, **options)
promptclf.lm.loading.load_model = lambda *args, **options: Slow()
from promptclf.cli import main
sys.argv[0] = "promptclf"
main()
"""


def start(*args: Any, script: str = "", seconds: float = 0.0, **options: Any) -> subprocess.Popen[str]:
    """A command line in a process of its own; with the slow fake model if it is SLOW."""
    code = script.format(tests=str(Path(__file__).parent), seconds=seconds)
    program = ["-c", code] if script else ["-m", "promptclf"]
    environment = {**os.environ, "PYTHONPATH": str(Path(promptclf.__file__).parents[1])}
    return subprocess.Popen(
        [sys.executable, *program, *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env=environment,
        **options,
    )


def test_ctrl_c_leaves_nothing_behind(tmp_path: Path) -> None:
    args = [
        "classify",
        "--labels",
        LABELS,
        "--calibration",
        "none",
        "--out",
        tmp_path / "out.csv",
        "my parcel",
    ]
    with start(*args, script=SLOW, seconds=120) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "scoring\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "interrupted\n")
    assert list(tmp_path.iterdir()) == []


def test_results_are_utf8_whatever_the_terminal_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    with start("classify", "--labels", LABELS, "我的 parcel", script=SLOW) as process:
        out, _ = process.communicate(timeout=60)
    assert (process.returncode, out.split()[1:]) == (0, ["delivery", "我的", "parcel"])


def test_a_reader_that_goes_away_is_no_error() -> None:
    texts = [f"my parcel {n} " + "x" * 200 for n in range(400)]
    with start("classify", "--labels", LABELS, "--calibration", "none", *texts, script=SLOW) as process:
        assert process.stdout is not None
        assert "delivery" in process.stdout.readline()
        process.stdout.close()
        assert process.stderr is not None
        said = process.stderr.read()
        process.wait(timeout=60)
    assert set(said.splitlines()) == {"scoring"}
    assert process.returncode == 1


@pytest.mark.parametrize(
    ("args", "heavy"),
    [
        (["--help"], ("torch", "gradio", "transformers", "sklearn", "numpy")),
        (["--version"], ("torch", "gradio", "transformers", "sklearn", "numpy")),
        (["tasks", "show", "support"], ("torch", "gradio", "transformers", "sklearn")),
        (["prompt", "list"], ("torch", "gradio", "transformers", "sklearn")),
        (["doctor", "support"], ("torch", "gradio", "transformers")),
    ],
)
def test_light_commands_import_nothing_heavy(args: list[str], heavy: tuple[str, ...]) -> None:
    check = (
        "import sys\nfrom promptclf.cli import main\ntry:\n    main()\nfinally:\n"
        f"    print([m for m in {heavy!r} if m in sys.modules], file=sys.stderr)"
    )
    with start(*args, script=check.replace("{", "{{").replace("}", "}}")) as process:
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert out
    assert err == "[]\n"


def test_python_dash_m() -> None:
    began = time.monotonic()
    with start("--version") as process:
        out, err = process.communicate(timeout=60)
    assert (out, err) == (f"promptclf {promptclf.__version__}\n", "")
    assert time.monotonic() - began < 20  # generous: a busy machine


@pytest.fixture(autouse=True)
def quiet_process() -> Iterator[None]:
    """Commands leave the process as they found it."""
    import logging

    package = logging.getLogger("promptclf")
    before = (package.level, list(package.handlers))
    yield
    assert (package.level, list(package.handlers)) == before
