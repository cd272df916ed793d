"""The project as a whole: its names, its layers' first promise, its data files, its wheel."""

from __future__ import annotations

import ast
import importlib
import logging
import re
import subprocess
import sys
import tarfile
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

import promptclf
from promptclf.prompt import PromptTemplate, packaged_templates, prompts_folder
from promptclf.task import PACKAGED_TASKS, Task, packaged_tasks

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "promptclf"
MODULES = sorted(PACKAGE.rglob("*.py"))


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


# ---- names ----------------------------------------------------------------------------------------


def test_the_public_names_are_sorted_and_distinct() -> None:
    assert promptclf.__all__ == sorted(set(promptclf.__all__))
    assert set(promptclf.__all__) <= set(dir(promptclf))


@pytest.mark.parametrize("name", promptclf.__all__)
def test_every_public_name_resolves(name: str) -> None:
    value = getattr(promptclf, name)
    assert getattr(value, "__name__", name) == name


def test_type_checkers_and_people_see_the_same_names() -> None:
    """The imports for type checkers and the table for everyone else name the same homes."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    imported = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    seen = {alias.name: node.module for node in imported for alias in node.names}
    assert {*seen, "__version__"} == set(promptclf.__all__)
    for name, module in seen.items():
        assert getattr(importlib.import_module(str(module)), name) is getattr(promptclf, name)


def test_other_names_are_refused() -> None:
    with pytest.raises(AttributeError, match="module 'promptclf' has no attribute 'nope'"):
        _ = promptclf.nope


def test_star_import_works() -> None:
    found: dict[str, object] = {}
    exec("from promptclf import *", found)
    assert set(promptclf.__all__) <= set(found)


# ---- imports --------------------------------------------------------------------------------------

HEAVY = (
    "torch",
    "gradio",
    "transformers",
    "sklearn",
    "peft",
    "accelerate",
    "datasets",
    "scipy",
    "matplotlib",
)


@pytest.mark.parametrize(
    "statement",
    ["import promptclf", "from promptclf import Task, Example, PromptTemplate, PromptClfError"],
)
def test_importing_is_light(statement: str) -> None:
    code = f"import sys; {statement}; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_logging_is_quiet_by_default() -> None:
    handlers = logging.getLogger("promptclf").handlers
    assert any(isinstance(handler, logging.NullHandler) for handler in handlers)


def test_what_the_code_imports_is_declared() -> None:
    declared = {
        re.split(r"[<>=\[ ]", line)[0].lower().replace("_", "-")
        for line in re.findall(
            r'^  "([A-Za-z].*[<>].*)",$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE
        )
    }
    packages = metadata.packages_distributions()
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for top in {name.split(".")[0] for name in names} - {"promptclf", *sys.stdlib_module_names}:
                owners = {owner.lower().replace("_", "-") for owner in packages.get(top, [top])}
                assert owners & declared, (
                    f"{relative(path)} imports {top}, which pyproject.toml does not name"
                )


# ---- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [pytest.param(path, id=relative(path)) for path in MODULES])
def test_no_file_is_long_and_each_says_what_it_is(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    lines = len(text.splitlines())
    assert lines <= 400, f"{relative(path)} has {lines} lines: split it"
    assert not text or ast.get_docstring(ast.parse(text)), f"{relative(path)} does not say what it is"


@pytest.mark.parametrize("path", [pytest.param(path, id=path.name) for path in prompts_folder().iterdir()])
def test_every_file_in_prompts_is_a_template(path: Path) -> None:
    assert PromptTemplate.load(path).name == path.stem
    assert path.stem in packaged_templates()


@pytest.mark.parametrize("path", [pytest.param(path, id=path.name) for path in PACKAGED_TASKS.iterdir()])
def test_every_folder_in_tasks_is_a_task_with_data(path: Path) -> None:
    assert path.name in packaged_tasks()
    task = Task.load(path.name)
    assert task.name == path.name
    assert task.instruction
    if task.template:
        PromptTemplate.load(task.template)
    dataset = promptclf.load_dataset(path.name)
    assert dataset.task == task
    for examples in dataset.splits.values():
        assert {example.label for example in examples} == set(task.labels)


def tracked() -> list[str]:
    """The files that git tracks, or would: those it is not told to ignore."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [line for line in done.stdout.splitlines() if (ROOT / line).is_file()]


def test_no_file_names_the_machine_it_was_made_on() -> None:
    places = [str(ROOT.parent), str(ROOT), str(Path.home())]
    marks = re.compile("|".join(re.escape(place) + r"[/\\]" for place in places if len(place) > 1))
    for name in tracked():
        text = (ROOT / name).read_bytes().decode("utf-8", errors="ignore")
        assert not (found := marks.search(text)), f"{name} names {found[0]}"


def test_no_file_is_large() -> None:
    for name in tracked():
        assert (size := (ROOT / name).stat().st_size) <= 6_000_000, f"{name} has {size:,} bytes"


# ---- the release ----------------------------------------------------------------------------------


def test_the_version_is_one_and_in_the_changelog() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", promptclf.__version__)
    assert f"## [{promptclf.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_installed_package_has_the_version() -> None:
    try:
        assert metadata.version("promptclf") == promptclf.__version__
    except metadata.PackageNotFoundError:
        pytest.skip("run from a checkout that is not installed")


def test_make_names_the_embedded_model_as_the_code_does() -> None:
    from promptclf.lm.embedded import INSTALL

    assert f"EMBEDDED_MODEL := {INSTALL.split()[-1]}\n" in (ROOT / "Makefile").read_text()


@pytest.mark.slow
def test_the_sdist_builds_the_wheel_and_both_hold_everything(tmp_path: Path) -> None:
    pytest.importorskip("build")
    pytest.importorskip("hatchling")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    wheel, sdist = next(tmp_path.glob("*.whl")), next(tmp_path.glob("*.tar.gz"))
    with zipfile.ZipFile(wheel) as file:
        inside = set(file.namelist())
    data = {relative(path) for path in PACKAGE.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    prompts = {f"promptclf/prompts/{path.name}" for path in prompts_folder().iterdir()}
    code = {relative(path) for path in MODULES}
    assert {"promptclf/py.typed", "promptclf/tasks/support/train.csv"} | code <= data
    assert data | prompts <= inside
    assert {name.split("/")[0] for name in inside} == {
        "promptclf",
        f"promptclf-{promptclf.__version__}.dist-info",
    }
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    assert {"pyproject.toml", "README.md", "LICENSE", "Makefile"} | data <= names
    assert {f"prompts/{path.name}" for path in prompts_folder().iterdir()} <= names
    assert not [name for name in names if name.startswith((".venv", ".git/")) or "__pycache__" in name]
