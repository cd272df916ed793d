"""The notebook: clean, and it runs from the first cell to the last."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from promptclf.evaluation.report import Report

nbformat = pytest.importorskip("nbformat")

FILE = Path(__file__).parent.parent / "spaces" / "colab.ipynb"


@pytest.fixture
def notebook() -> Any:
    """The notebook as it is kept."""
    return nbformat.read(FILE, as_version=4)


def test_it_is_kept_without_results(notebook: Any) -> None:
    nbformat.validate(notebook)
    assert FILE.stat().st_size < 20_000
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert (cell.outputs, cell.execution_count) == ([], None), cell.id


@pytest.mark.slow
@pytest.mark.integration
def test_it_runs_on_a_tiny_budget(
    notebook: Any, tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    rows = [f"{word} number {n},{label}" for n in range(12) for word, label in WORDS]
    (tmp_path / "letters.csv").write_text("\n".join(["text,label", *rows]) + "\n", encoding="utf-8")
    settings = {
        "PROMPTCLF_DATA": "letters.csv",
        "PROMPTCLF_MODEL": str(tiny_llama),
        "PROMPTCLF_TRAIN_ROWS": "20",
        "PROMPTCLF_TEST_ROWS": "7",
        "PROMPTCLF_TRAINING": json.dumps({"epochs": 1, "min_steps": 1}),
        "PROMPTCLF_SOURCE": "no-such-package",  # what is installed is not installed again
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "JUPYTER_PLATFORM_DIRS": "1",
        "IPYTHONDIR": str(tmp_path / "ipython"),
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)

    client = nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()

    said = {cell.id: "".join(o.get("text", "") for o in cell.outputs) for cell in code_cells(notebook)}
    assert "test: 7 rows" in said["data"]
    assert "model: ModelInfo(name=" in said["compare"]
    saved = Report.from_dict(json.loads((tmp_path / "report/report.json").read_text(encoding="utf-8")))
    names = [result.name for result in saved.results]
    assert names == ["zero-shot", "few-shot", "LoRA", "TF-IDF + SVM"]
    assert [sum(map(sum, result.confusion)) for result in saved.results] == [7] * 4
    assert saved.to_table().strip() in said["compare"]
    assert (tmp_path / "report/report.html").is_file()
    (shown,) = (o.data["text/html"] for c in code_cells(notebook) for o in c.outputs if "data" in o)
    assert "<iframe" in shown and "<script" not in shown
    assert said["next"].count(", should be ") == 3
    told = [o.text for cell in code_cells(notebook) for o in cell.outputs if o.get("name") == "stderr"]
    assert "warning" not in "".join(told).lower().replace("tqdmwarning", ""), told  # that one misses a widget


def code_cells(notebook: Any) -> list[Any]:
    """The cells that run."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


WORDS = (("the invoice", "billing"), ("a parcel", "delivery"), ("my password", "account"))
