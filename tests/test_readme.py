"""README shows what the program does: its example runs, its help and its tables are the real ones."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from in_place import in_place
from promptclf.cli import app
from promptclf.lm.model import HFModel
from promptclf.prompt import PromptTemplate
from promptclf.task import Task
from readme_help import all_help

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
# What is inside a block that starts with a fence of this kind.
BLOCK = r"```{}\n(.*?)```"


def section(name: str) -> str:
    """What stands between the marks of a generated part."""
    found = re.search(rf"<!-- {name} -->\n(.*?)<!-- /{name} -->", README, re.DOTALL)
    assert found, name
    return found[1]


def commands() -> list[str]:
    """The promptclf commands in README's shell blocks."""
    blocks = re.findall(BLOCK.format("sh"), README, re.DOTALL)
    lines = [line.split("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith("promptclf ")]


def test_help_is_current() -> None:
    assert section("help") == f"```\n{all_help()}```\n", "run: python tests/readme_parts.py"


def test_quality_tables_are_current() -> None:
    from benchmarks.quality import others, table

    assert section("quality") == table() + "\n", "run: python tests/readme_parts.py"
    assert section("others") == others() + "\n", "run: python tests/readme_parts.py"


def test_speed_tables_are_current() -> None:
    from benchmarks.speed.table import ELSEWHERE, elsewhere, readme

    assert section("speed") == readme(), "run: python tests/readme_parts.py"
    for name in ELSEWHERE:
        assert section(name) == elsewhere(name), "run: python tests/readme_parts.py"


def test_compare_table_is_current() -> None:
    from readme_parts import compare_part

    assert section("compare") == compare_part(), "run: python tests/readme_parts.py"


def test_the_chinese_readme_has_the_same_code_and_figures() -> None:
    from readme_parts import FENCED, chinese, shared_blocks

    text = (ROOT / "README.zh.md").read_text(encoding="utf-8")
    assert FENCED.findall(text) == shared_blocks(README), "run: python tests/readme_parts.py"
    assert text == chinese(text, README), "run: python tests/readme_parts.py"
    assert "](README.zh.md)" in README and "](README.md)" in text


@pytest.mark.parametrize("name", ["README.md", "README.zh.md"])
def test_what_is_linked_is_there(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^):]+)\)", text):
        path, _, anchor = target.partition("#")
        assert (ROOT / path).exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {heading.lower().replace(" ", "-") for heading in headings}, target


def test_every_module_is_in_the_file_tree() -> None:
    tree = README.split("## How the code is arranged")[1].split("```")[1]
    package = ROOT / "promptclf"
    for path in [*package.glob("*.py"), *package.glob("*/*.py")]:
        if path.stem.strip("_") not in ("init", "main") and path.parent.name != "cli":
            assert path.name in tree or path.name.startswith("report"), path.name


def test_the_task_in_readme_is_valid() -> None:
    import yaml

    values = yaml.safe_load(re.search(BLOCK.format("yaml"), README, re.DOTALL)[1])  # type: ignore[index]
    task = Task.from_dict(values)
    assert PromptTemplate.load(str(task.template)).render(task, "Who?").text.startswith("Question: Who?")


@pytest.mark.integration
@pytest.mark.slow
def test_example(embedded: HFModel, capsys: pytest.CaptureFixture[str]) -> None:
    code = re.search(r"<!-- example -->\n" + BLOCK.format("python"), README, re.DOTALL)
    assert code and len(code[1].splitlines()) <= 12
    exec(compile(code[1], "README.md", "exec"), {})  # our own text
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["zero-shot", "few-shot", "lora"]
    assert lines[2].split()[1:3] == ["delivery", "status"]


@pytest.mark.integration
def test_commands(embedded: HFModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each command of README works in a folder with the files that it names, on a few rows."""
    monkeypatch.chdir(tmp_path)
    rows = [f"{word} film number {n},{label}" for n in range(6) for word, label in REVIEWS]
    (tmp_path / "reviews.csv").write_text("\n".join(["text,label", *rows]) + "\n", encoding="utf-8")
    (tmp_path / "new.csv").write_text("text\na fine film\n", encoding="utf-8")
    lines = commands()
    assert [shlex.split(line)[1] for line in lines] == ["doctor", "compare", "train", "classify"]
    for line in lines:
        arguments = shlex.split(line)[1:] + QUICKLY.get(shlex.split(line)[1], [])
        with in_place():
            result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, (line, result.output)
    assert (tmp_path / "report" / "report.html").is_file()
    assert "label" in (tmp_path / "labelled.csv").read_text(encoding="utf-8").splitlines()[0]


REVIEWS = (("great", "good"), ("awful", "bad"))
QUICKLY: dict[str, Any] = {
    "compare": ["--modes", "zero-shot", "--limit", "2"],
    "train": ["--epochs", "1", "--min-steps", "1", "--rows", "8"],
}
