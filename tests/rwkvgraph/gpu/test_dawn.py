"""The package on Dawn, Chromium's WebGPU: by wgpudawn, on the software adapter that Chromium brings."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.rwkvgraph.sight.chromium import find_chromium

ON_DAWN = """
import sys
from dataclasses import replace

import numpy as np

import rwkvgraph as rg

PROMPT = [1, 2, 3]


def logits(device):
    model = rg.Model.load(sys.argv[1], device)
    state = model.state(2)
    rows = [model.run([PROMPT[:], PROMPT[::-1]], state)[0]]
    return np.array([*rows, *(model.run([[token], []], state)[0] for token in (5, 9))])


wanted = logits("cpu")
context = rg.Context.create()
assert context.target.dialect.name == "tint" and context.target.subgroups, context.target
print(float(np.abs(logits(context) - wanted).max()))
context.target = replace(context.target, kind="gpu", lanes=0, looks=True)
print(float(np.abs(logits(context) - wanted).max()))
"""

MOST = 1e-4
"""Logits of about 10 in f32, sums in other orders."""


def software_adapter() -> Path | None:
    """The description of SwiftShader as a Vulkan driver, beside Chromium."""
    found = find_chromium()
    folders = [Path("/usr/lib/chromium"), *([Path(found).resolve().parent] if found else [])]
    return next((path for folder in folders if (path := folder / "vk_swiftshader_icd.json").exists()), None)


@pytest.mark.skipif(find_spec("wgpudawn") is None, reason="wgpudawn is not installed")
def test_the_small_model_runs_on_dawn() -> None:
    adapter = software_adapter()
    if adapter is None:
        pytest.skip("Chromium, which brings an adapter that Dawn takes, is not installed")
    model = Path(__file__).parents[3] / "assets" / "models" / "rwkv7-tiny.st"
    done = subprocess.run(
        [sys.executable, "-c", ON_DAWN, str(model)],
        env={
            **os.environ,
            "RWKVGRAPH_WGPU": "dawn",
            "PYTHONPATH": os.pathsep.join(sys.path),
            "VK_ICD_FILENAMES": str(adapter),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    errors = [float(line) for line in done.stdout.split()]
    assert len(errors) == 2
    assert all(error < MOST for error in errors), errors  # so that what is no number fails
