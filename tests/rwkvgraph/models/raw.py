"""A model as BlinkDL publishes it: the inverse of web-rwkv's converter, for tests of loading such files."""

from collections.abc import Mapping

import numpy as np

from tests.rwkvgraph.models.oracle_common import Array

TRANSPOSED = {
    "v6": ("time_mix_w1", "time_mix_w2", "time_decay_w1", "time_decay_w2"),
    "v7": ("w1", "w2", "a1", "a2", "v1", "v2", "g1", "g2"),
}
"""Matrices of time mixing whose last two axes the converter swaps."""


def raw(version: str, tensors: Mapping[str, Array]) -> dict[str, Array]:
    """The tensors by their names, and in their shapes, of the original .pth; in the converted file's order.

    Low-rank matrices are (in, out). V6's time_mix is time_maa; time_first is time_faaaa from V5.1 on; V5.1's
    decays and bonuses are one a head, (H,).
    """
    made = {}
    for name, value in tensors.items():
        last = name.rpartition(".att.")[2]
        if last in TRANSPOSED.get(version, ()):
            value = np.ascontiguousarray(np.swapaxes(value, -1, -2))
        if version == "v5.1" and last in ("time_decay", "time_first"):
            value = np.ascontiguousarray(value[:, 0])
        made[_name(version, name)] = value
    return made


def _name(version: str, name: str) -> str:
    if version in ("v5.1", "v5.2", "v6"):
        name = name.replace("time_first", "time_faaaa")
    return name.replace("time_mix", "time_maa") if version == "v6" else name
