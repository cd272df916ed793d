"""What is imported without its company answers as ever; what bitsandbytes has compiled still is, but later.

test_loading shows that the compiler stays away from PEFT.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from promptclf.lm.embedded import embedded_folder

ROOT = Path(__file__).parents[1]

STAND_IN = """
import logging
import torch

logging.getLogger("bitsandbytes.backends.cpu.ops").warning("one of the kernels is missing")

calls = []

def backend(graph, inputs):
    calls.append(graph)
    return graph.forward

@torch.compile(backend=backend)
def twice(x):
    return x + x

def more(x):
    return x + 1

more = torch.compile(more, backend=backend)
"""


PROGRAM = """
import logging, sys
import torch
logging.basicConfig(stream=sys.stdout)
from promptclf.lm.light import prepare_peft
before = torch.compile
prepare_peft()
assert torch.compile is before
import bitsandbytes as stand_in
assert stand_in.calls == []
for _ in range(2):
    assert stand_in.twice(torch.ones(2)).tolist() == [2, 2]
    assert stand_in.more(torch.ones(2)).tolist() == [2, 2]
assert len(stand_in.calls) == 2
"""


PREDICT = """
import sys
from pathlib import Path
import numpy as np
{prepare}
from promptclf import load_classifier
from promptclf.lm.loading import load_model
model = load_model(dtype="float32")
scores = []
for mode in ("zero-shot", "lora"):
    classifier = load_classifier("support", mode=mode, model=model)
    scores.append(classifier.log_likelihoods(["Where is my parcel?", "I was charged twice."]))
np.save(sys.argv[1], scores)
"""

QUICK = """
from promptclf.cli.frame import prepare_process, prepare_to_predict
prepare_to_predict()
assert "transformers" not in sys.modules  # this might be anyone's process
prepare_process()
prepare_to_predict()
assert "transformers" in sys.modules
left = ("scipy", "torch._dynamo", "torch.distributed.tensor", "sklearn")
assert not [name for name in left if name in sys.modules]
"""

AFTERWARDS = """
spared = ("scipy.stats", "sympy", "torch._dynamo", "torch.distributed.tensor")
assert not [name for name in spared if name in sys.modules]
import scipy.optimize, torch, torch.distributed.tensor
assert torch.distributed.is_available() and torch.distributed.tensor.DTensor
assert torch.compile(lambda x: x + 1, backend="eager")(torch.ones(2)).tolist() == [2, 2]
from transformers.masking_utils import TransformGetItemToIndex
with TransformGetItemToIndex():
    assert torch.vmap(lambda i: torch.arange(3)[i])(torch.tensor([0, 2])).tolist() == [0, 2]
"""

MEANWHILE = """
import sys
from promptclf.lm.light import STATISTICS, _instead, _when_used
with _instead({{STATISTICS: _when_used(STATISTICS)}}):
    {import_}
    assert norm.cdf(0) == 0.5
assert sys.modules[STATISTICS].norm is norm
import scipy.stats
assert scipy.stats.norm is norm
"""

SKLEARN = """
import sys
from promptclf import ZeroShotClassifier
assert "sklearn.base" in sys.modules and "scipy.stats" not in sys.modules
from sklearn.utils.fixes import _mode  # the only use of it there
assert _mode([1, 2, 2]).mode == 2
assert "scipy.stats" in sys.modules
"""

MISFIT = """
import sys
if hasattr(sys.modules.get("torch._dynamo"), "convert_frame"):
    class LlamaConfig: whole = True
    LlamaForCausalLM = LlamaConfig
else:
    import torch._dynamo.convert_frame
"""

FALLBACK = """
import logging, sys
logging.basicConfig(level=logging.INFO, stream=sys.stdout)
from promptclf.lm.light import import_to_predict
import_to_predict()
assert "torch._dynamo" not in sys.modules
import torch._dynamo, transformers
assert transformers.LlamaConfig.whole
"""


def run(program: str, *arguments: object, first: Path = ROOT) -> str:
    places = os.pathsep.join([str(first), str(ROOT)])
    command = [sys.executable, "-W", "ignore", "-c", program, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": places}
    done = subprocess.run(command, timeout=300, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_process_that_only_predicts_answers_as_ever_and_can_import_the_rest(
    tmp_path: Path, promptclf_home: Path
) -> None:
    embedded_folder()  # what converts the model once, does more than to predict
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('it wants all of torch')", encoding="utf-8")
    run(PREDICT.format(prepare=QUICK) + AFTERWARDS, tmp_path / "quick.npy", first=tmp_path)
    run(PREDICT.format(prepare=""), tmp_path / "plain.npy")
    assert np.array_equal(np.load(tmp_path / "quick.npy"), np.load(tmp_path / "plain.npy"))


def test_scikit_learn_finds_the_rest_of_scipy_when_it_needs_it() -> None:
    run(SKLEARN)


@pytest.mark.parametrize(
    "import_",
    [
        "from scipy.stats import norm",
        "from scipy import stats; norm = stats.norm",
        "import scipy.stats.distributions as d; norm = d.norm",
    ],
)
def test_who_imports_at_the_same_moment_gets_the_real_thing(import_: str) -> None:
    run(MEANWHILE.format(import_=import_))


def test_other_versions_are_imported_whole(tmp_path: Path) -> None:
    (tmp_path / "transformers.py").write_text(MISFIT, encoding="utf-8")
    assert "libraries are imported whole" in run(FALLBACK, first=tmp_path)


def test_functions_are_compiled_when_they_are_called(tmp_path: Path) -> None:
    (tmp_path / "bitsandbytes.py").write_text(STAND_IN, encoding="utf-8")
    assert run(PROGRAM, first=tmp_path) == "", "what it lacks is of no use to say in every process"
