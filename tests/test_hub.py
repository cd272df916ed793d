"""Hub datasets: read as text, at a recorded commit, through the real `datasets` library."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from promptclf.data.dataset import load_dataset
from promptclf.errors import DataError, MissingPackageError
from promptclf.task import Example


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """The real `datasets` library, with the network replaced by tables in memory."""
    datasets = pytest.importorskip("datasets")
    import huggingface_hub

    features = datasets.Features(
        {
            "sentence": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["neg", "pos"]),
            "score": datasets.Value("float64"),
            "tokens": datasets.List(datasets.Value("string")),
        }
    )

    def table(prefix: str, labels: list[int]) -> object:
        rows = [
            {"sentence": f"{prefix} {n}", "label": label, "score": 0.5, "tokens": ["a"]}
            for n, label in enumerate(labels)
        ]
        return datasets.Dataset.from_list(rows, features=features)

    calls: dict[str, object] = {
        "splits": {
            "train": table("train", [0, 1] * 10),
            "validation": table("dev", [0, 1]),
            "test": table("test", [1, 0]),
        }
    }

    class Api:
        def dataset_info(self, name: str, revision: str | None) -> SimpleNamespace:
            calls["asked"] = (name, revision)
            return SimpleNamespace(sha="c0ffee" * 6 + "1234")

    def load(name: str, config: str | None, revision: str) -> object:
        calls["loaded"] = (name, config, revision)
        if "error" in calls:
            raise ConnectionError(calls["error"])
        return calls["splits"]

    calls["table"] = table
    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(datasets, "load_dataset", load)
    return calls


def test_a_hub_dataset_is_read_at_a_recorded_commit(hub: dict[str, object]) -> None:
    data = load_dataset("hub:owner/name:plain@main")
    assert hub["asked"] == ("owner/name", "main")
    assert hub["loaded"] == ("owner/name", "plain", "c0ffee" * 6 + "1234")
    assert data.revision == "c0ffee" * 6 + "1234"
    assert data.columns == {"text": "sentence", "label": "label"}
    assert data.test == (
        Example("test 0", "pos", meta={"score": "0.5"}),
        Example("test 1", "neg", meta={"score": "0.5"}),
    )
    assert [len(rows) for rows in data.splits.values()] == [20, 2, 2]


def test_withheld_hub_labels_mean_no_test_split(
    hub: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    splits, table = hub["splits"], hub["table"]
    assert isinstance(splits, dict)
    assert callable(table)
    splits["test"] = table("test", [-1, -1])
    data = load_dataset("hub:owner/name")
    assert [len(rows) for rows in data.splits.values()] == [16, 2, 4]
    assert "labels are withheld" in caplog.text
    splits["test"] = table("test", [-1, 1])
    with pytest.raises(DataError, match=r"hub:owner/name \(test\), row 1: expected a label"):
        load_dataset("hub:owner/name")


def test_hub_failures_are_one_line(hub: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    hub["error"] = "no\nnetwork"
    with pytest.raises(DataError, match="hub:owner/name: cannot be read from the Hub: no network; check"):
        load_dataset("hub:owner/name")
    for malformed in ("hub:", "hub:a/b/c", "hub:../x y", "hub:a/b@$(id)"):
        with pytest.raises(DataError, match="expected hub:owner/name"):
            load_dataset(malformed)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingPackageError, match="pip install datasets"):
        load_dataset("hub:owner/name")
