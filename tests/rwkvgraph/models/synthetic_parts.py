"""What synthetic models are made of: tensors of random weights, described before they are drawn."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Half: TypeAlias = NDArray[np.float16]

CHUNK = 1 << 20  # weights drawn at a time: 4 MB of float32 is all that writing holds


@dataclass(frozen=True)
class Normal:
    """A tensor of normally distributed weights; each stands `repeat` times in a row."""

    shape: tuple[int, ...]
    std: float
    mean: float = 0.0
    repeat: int = 1

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def chunks(self, seed: tuple[int, int]) -> Iterator[Half]:
        """The weights in order, flat, drawn at most CHUNK at a time."""
        random = np.random.Generator(np.random.SFC64(seed))
        count = self.size // self.repeat
        for start in range(0, count, CHUNK):
            drawn = random.standard_normal(min(CHUNK, count - start), np.float32)
            drawn *= np.float32(self.std)
            drawn += np.float32(self.mean)
            half = drawn.astype(np.float16)
            yield half if self.repeat == 1 else np.repeat(half, self.repeat)


Plan: TypeAlias = dict[str, Normal]


def norm(name: str, width: int) -> Plan:
    """The weight and bias of a layer norm."""
    return {f"{name}.weight": Normal((width,), 0.1, 1.0), f"{name}.bias": Normal((width,), 0.1)}


def vector(width: int, std: float, mean: float) -> Normal:
    """A vector as files have most of them: (1, 1, C)."""
    return Normal((1, 1, width), std, mean)


def matrix(rows: int, columns: int, gain: float = 1.0) -> Normal:
    """Turns inputs of spread 1 into outputs of spread `gain`."""
    return Normal((rows, columns), gain / math.sqrt(columns))
