"""The smallest models of every version: those whose every site, slot and weight the tests go through."""

from dataclasses import replace
from functools import cache
from typing import Any

from rwkvgraph.gpu.engine import GpuEngine
from rwkvgraph.model import Model
from tests.rwkvgraph.conftest import Device
from tests.rwkvgraph.models.synthetic import Half, synthetic

LAYERS, WIDTH, HIDDEN, VOCAB = 2, 32, 48, 40
RANKS = {"v6": (8, 12), "v7": (8, 8, 8, 12)}


@cache
def tensors_of(version: str) -> dict[str, Half]:
    """A model's tensors by name; from RWKV-5 on two heads of 16."""
    options: dict[str, Any] = {} if version == "v4" else {"head_size": 16}
    return synthetic(
        version, LAYERS, WIDTH, hidden=HIDDEN, vocab=VOCAB, low_rank=RANKS.get(version), **options
    )


def small_model(version: str, device: Device) -> Model:
    """A new one, for runs of up to 7 tokens and hooks of its own.

    On software adapters it has the kernels for few lanes, whose matmuls take four tokens at a time instead of
    16, each with a copy of what is fused to it: llvmpipe compiles them in a tenth of the time, and what hooks
    add is compiled for this model alone. On GPUs the kernels are the usual ones.
    """
    model = Model.load(tensors_of(version), device)
    if isinstance(model.engine, GpuEngine):
        model.engine.target = replace(model.engine.target, lanes=0)
    return model
