"""The card (README.md) beside a saved classifier: what it is, how to use it, what it was measured at."""

from __future__ import annotations

import json
from typing import Any

LIBRARY = "promptclf"


def model_card(config: dict[str, Any]) -> str:
    """A model card in the Hub's format.

    Parameters
    ----------
    config
        What `save_pretrained` writes to ``promptclf.json``.
    """
    task, base, learned = config["task"], config["base_model"], config["learned"]
    tags = [LIBRARY, "text-classification", config["mode"], *(["lora"] if config["mode"] == "lora" else [])]
    head = ["---", "library_name: promptclf", "pipeline_tag: text-classification", "tags:"]
    head += [f"  - {tag}" for tag in dict.fromkeys(tags)]
    if base["source"] == "hub":
        head.append(f"base_model: {base['name']}")
    lines = [
        *head,
        "---",
        "",
        f"# {_plain(task['name'])}: {config['mode']} classifier",
        "",
        f"Chooses one of {len(task['labels'])} labels: " + ", ".join(_plain(x) for x in task["labels"]) + ".",
        "",
        f"- Base model: {_plain(base['name'])}, from {_plain(base['source'])}",
        f"- Its revision: `{base['revision']}`",
        f"- Quantisation: {base['quantization']} (asked for: {base['requested_quantization']})",
        f"- Prompt template: {_plain(config['template']['name'])}",
        f"- Calibration: {learned['calibration']}, temperature {learned['temperature']:.3f}",
    ]
    if training := learned.get("training"):
        lines += ["", "## Training", ""]
        lines += [
            f"- {name.replace('_', ' ')}: {value}" for name, value in training.items() if name != "history"
        ]
        lines += ["", "| epoch | macro-F1 | accuracy | log-loss |", "| ---: | ---: | ---: | ---: |"]
        lines += [
            f"| {row['epoch']} | {row['macro_f1']:.4f} | {row['accuracy']:.4f} | {row['log_loss']:.4f} |"
            for row in training.get("history", [])
        ]
        lines += ["", "Measured on the validation rows, which also chose the epoch and the temperature."]
        if "refit_rows" in training:
            rows = training["refit_rows"]
            lines.append(
                f"The weights here come from a second training on all {rows} rows, measured on none."
            )
    parameters = json.dumps(config["parameters"], ensure_ascii=False, indent=1)
    lines += [
        "",
        "## Use",
        "",
        "```python",
        "from promptclf import load_classifier",
        "",
        'classifier = load_classifier("PATH-OR-HUB-ID")',
        'print(classifier.classify(["a text"])[0])',
        "```",
        "",
        "The folder is verified against `MANIFEST.json` before it is used.",
        "",
        "<details><summary>Parameters</summary>",
        "",
        "```json",
        parameters,
        "```",
        "",
        "</details>",
        "",
    ]
    return "\n".join(lines)


def _plain(text: str) -> str:
    """Text without Markdown or HTML meaning."""
    return "".join("\\" + char if char in "\\`*_[]<>|#" else char for char in text)
