"""Other programs that run the same models, to compare with: each where it is installed.

A model's file is as web-rwkv reads it, in its names. Chooses devices for none of them.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rwkvgraph.bench.subject import synthetic
from rwkvgraph.load.convention import SWAPPED
from rwkvgraph.load.conversion import convert
from rwkvgraph.load.reader import open_tensors

Run = Callable[[list[int]], object]
"""Takes tokens through a model, on from those before, up to the logits after the last."""
Load = Callable[[Path, int], tuple[str, Run]]
"""Opens a model's file for at most so many tokens at once: how it will run, and its run."""

KEPT: list[object] = []
"""web-rwkv's models: one that goes closes the process's EGL display, and wgpu panics looking for adapters."""


def write(model: str, path: Path) -> None:
    """Write the file that all of them read: of a model's file, or of noise, as `synthetic` names it.

    Raises LoadError for a file that cannot be read or written, ValueError for sizes that are none.
    """
    if ":" not in model:
        convert(model, path)
        return
    reader = synthetic(model)
    noise = {name: reader.rows(name, 0, reader.shape(name)[0]) for name in reader.names()}
    convert(noise, path, names="converted")


def web_rwkv_py(path: Path, most: int) -> tuple[str, Run]:
    """How it runs, and the run of a model, at most so many tokens at once.

    Raises ImportError where it is not installed, ValueError for a model that it does not take: RWKV-7, as of
    version 0.2.3.
    """
    model: Any = importlib.import_module("web_rwkv_py").Model(str(path))
    KEPT.append(model)
    return "f16, the adapter that it picks", lambda ids: model.run(ids, token_chunk_size=most)


def rwkv(path: Path, most: int) -> tuple[str, Run]:
    """How it runs, and the run of a model, which takes all tokens at once; writes a `.pth` beside the file.

    Raises ImportError where it or torch is not installed.
    """
    torch: Any = importlib.import_module("torch")
    reader, tensors = open_tensors(path), {}
    for name in reader.names():  # back to the names and shapes of the training code
        array = reader.rows(name, 0, reader.shape(name)[0])
        if "blocks.0.att.time_mix_x" in reader.names():
            name = name.replace("time_mix", "time_maa").replace("time_first", "time_faaaa")
        tensors[name] = torch.from_numpy((array.swapaxes(-1, -2) if name.endswith(SWAPPED) else array).copy())
    torch.save(tensors, path.with_suffix(".pth"))
    os.environ["RWKV_V7_ON"] = str(int("blocks.0.att.r_k" in tensors))  # read when it is imported
    strategy = "cuda fp16" if torch.cuda.is_available() else "cpu fp32"
    model: Any = importlib.import_module("rwkv.model").RWKV(str(path.with_suffix("")), strategy)
    state = model.forward([0], None)[1]
    return f"{strategy}, torch {torch.__version__}", lambda ids: model.forward(ids, state)
