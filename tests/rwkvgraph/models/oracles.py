"""Which oracle reads a model: the version is told by the tensors it has."""

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike

from tests.rwkvgraph.models import oracle_v4, oracle_v5, oracle_v6, oracle_v7
from tests.rwkvgraph.models.oracle_common import Array, LayeredOracle

AnyOracle: TypeAlias = LayeredOracle[Any]

ORACLES: dict[str, type[AnyOracle]] = {
    "r_k": oracle_v7.Oracle,
    "time_mix_w1": oracle_v6.Oracle,
    "ln_x.weight": oracle_v5.Oracle,
    "time_decay": oracle_v4.Oracle,
}
"""Oracles by a tensor of time mixing that no version further down has."""


def oracle_for(tensors: Mapping[str, Array], dtype: DTypeLike = np.float64) -> AnyOracle:
    """The oracle of the version that the tensors are of. Raises ValueError where they are of none."""
    for name, oracle in ORACLES.items():
        if f"blocks.0.att.{name}" in tensors:
            return oracle(tensors, dtype)
    raise ValueError(f"no version has block 0 with only {sorted(name for name in tensors if '.0.' in name)}")
