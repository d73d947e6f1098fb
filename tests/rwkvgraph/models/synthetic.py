"""RWKV-7 models of any size with random weights, in memory or streamed to a file of many gigabytes.

They say nothing, but calculate like real ones: activations and logits stay between 1 and 10, decays are slow,
and every term of the equations counts. The same arguments give the same weights, whichever way they are made.
As in real models, a prompt's first tokens are the most sensitive to rounding: the group norm magnifies what
little their states hold.

    python tests/rwkvgraph/models/synthetic.py model.st --layers 24 --width 2048
"""

import argparse
import json
import math
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Half: TypeAlias = NDArray[np.float16]

CHUNK = 1 << 20  # weights drawn at a time: 4 MB of float32 is all that writing holds


class LowRank(NamedTuple):
    """The inner widths of the low-rank products: decay, learning rate, value residual, gate."""

    w: int
    a: int
    v: int
    g: int

    @classmethod
    def of(cls, width: int) -> "LowRank":
        """What the released models of this width have, from 768 up; multiples of 32."""
        sizes = (1.8 * width**0.5, 1.8 * width**0.5, 1.3 * width**0.5, 0.6 * width**0.8)
        return cls(*(max(32, 32 * round(size / 32)) for size in sizes))


@dataclass(frozen=True)
class Normal:
    """A tensor of normally distributed weights."""

    shape: tuple[int, ...]
    std: float
    mean: float = 0.0

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def chunks(self, seed: tuple[int, int]) -> Iterator[Half]:
        """The weights in order, flat, at most CHUNK of them at a time."""
        random = np.random.Generator(np.random.SFC64(seed))
        for start in range(0, self.size, CHUNK):
            drawn = random.standard_normal(min(CHUNK, self.size - start), np.float32)
            drawn *= np.float32(self.std)
            drawn += np.float32(self.mean)
            yield drawn.astype(np.float16)


Plan: TypeAlias = dict[str, Normal]


def plan(
    layers: int,
    width: int,
    head_size: int = 64,
    hidden: int | None = None,
    vocab: int = 256,
    low_rank: tuple[int, int, int, int] | None = None,
    scale: float = 1.0,
    block0_value_residual: bool = True,
) -> Plan:
    """Every tensor of a model by name: what `synthetic_v7` and `write_synthetic` draw from.

    Unless given, `hidden` is 4 · width and `low_rank` (w, a, v, g) follows the released models. `scale`
    multiplies what each block adds to the residual stream. Real files have an unread v0 v1 v2 in block 0.
    """
    if width % head_size:
        raise ValueError(f"a width of {width} cannot be cut into heads of {head_size}")
    ranks = LowRank(*low_rank) if low_rank else LowRank.of(width)
    tensors: Plan = {"emb.weight": Normal((vocab, width), 1.0)} | _norm("blocks.0.ln0", width)
    gain = scale / math.sqrt(layers)
    for layer in range(layers):
        block = f"blocks.{layer}"
        tensors |= _norm(f"{block}.ln1", width) | _norm(f"{block}.ln2", width)
        tensors |= _time_mix(f"{block}.att", width, head_size, ranks, gain)
        if layer > 0 or block0_value_residual:
            tensors |= _low_rank(f"{block}.att.v", width, ranks.v, mean=0.7, std=0.3)
        tensors |= _channel_mix(f"{block}.ffn", width, hidden or 4 * width, gain)
    return tensors | _norm("ln_out", width) | {"head.weight": _matrix(vocab, width, gain=2.0)}


def synthetic_v7(
    layers: int,
    width: int,
    head_size: int = 64,
    hidden: int | None = None,
    vocab: int = 256,
    low_rank: tuple[int, int, int, int] | None = None,
    seed: int = 0,
    scale: float = 1.0,
    block0_value_residual: bool = True,
) -> dict[str, Half]:
    """A model's tensors by name, in the converted convention. Arguments: see `plan`."""
    tensors = plan(layers, width, head_size, hidden, vocab, low_rank, scale, block0_value_residual)
    return {
        name: np.concatenate(list(tensor.chunks((seed, index)))).reshape(tensor.shape)
        for index, (name, tensor) in enumerate(tensors.items())
    }


def write_synthetic(
    path: Path | str,
    layers: int,
    width: int,
    head_size: int = 64,
    hidden: int | None = None,
    vocab: int = 256,
    low_rank: tuple[int, int, int, int] | None = None,
    seed: int = 0,
    scale: float = 1.0,
    block0_value_residual: bool = True,
) -> None:
    """Write `synthetic_v7`'s tensors as safetensors, in chunks. The file appears when it is complete."""
    tensors = plan(layers, width, head_size, hidden, vocab, low_rank, scale, block0_value_residual)
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            _write(file, tensors, seed)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _time_mix(att: str, width: int, head_size: int, ranks: LowRank, gain: float) -> Plan:
    return {
        **{f"{att}.x_{c}": _vector(width, std=0.25, mean=0.4) for c in "rwkvag"},
        **{f"{att}.{name}.weight": _matrix(width, width) for name in ("receptance", "key", "value")},
        # Of the state a token leaves 95 %, in the median channel; 65 % to 99.5 % in nearly all others.
        **_low_rank(f"{att}.w", width, ranks.w, mean=-2.5, std=1.5),
        **_low_rank(f"{att}.a", width, ranks.a, mean=-0.3, std=0.4),
        f"{att}.g1": _matrix(ranks.g, width),
        # Sigmoids go in: their mean square is about 0.3.
        f"{att}.g2": _matrix(width, ranks.g, gain=1.8),
        f"{att}.k_k": _vector(width, std=0.2, mean=0.7),
        f"{att}.k_a": _vector(width, std=0.1, mean=1.0),
        f"{att}.r_k": Normal((width // head_size, head_size), 0.05),
        **_norm(f"{att}.ln_x", width),
        f"{att}.output.weight": _matrix(width, width, gain),
    }


def _channel_mix(ffn: str, width: int, hidden: int, gain: float) -> Plan:
    return {
        f"{ffn}.x_k": _vector(width, std=0.25, mean=0.4),
        f"{ffn}.key.weight": _matrix(hidden, width),
        f"{ffn}.value.weight": _matrix(width, hidden, gain),
    }


def _low_rank(name: str, width: int, rank: int, mean: float, std: float) -> Plan:
    """c0 + C2 f(C1 x), where the second term has a spread of about a half."""
    return {
        f"{name}0": _vector(width, std, mean),
        f"{name}1": _matrix(rank, width),
        f"{name}2": _matrix(width, rank, gain=0.5),
    }


def _norm(name: str, width: int) -> Plan:
    return {f"{name}.weight": Normal((width,), 0.1, 1.0), f"{name}.bias": Normal((width,), 0.1)}


def _vector(width: int, std: float, mean: float) -> Normal:
    return Normal((1, 1, width), std, mean)


def _matrix(rows: int, columns: int, gain: float = 1.0) -> Normal:
    """Turns inputs of spread 1 into outputs of spread `gain`."""
    return Normal((rows, columns), gain / math.sqrt(columns))


def _write(file: BinaryIO, tensors: Plan, seed: int) -> None:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + 2 * tensor.size
        header[name] = {"dtype": "F16", "shape": tensor.shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the data begins at a multiple of eight
    file.write(struct.pack("<Q", len(text)) + text)
    for index, tensor in enumerate(tensors.values()):
        for chunk in tensor.chunks((seed, index)):
            file.write(chunk.astype("<f2", copy=False).data)


def main() -> None:
    """Write a model to the path on the command line."""
    parser = argparse.ArgumentParser(description="Write an RWKV-7 model with random weights.")
    parser.add_argument("path", type=Path)
    parser.add_argument("--layers", type=int, required=True)
    parser.add_argument("--width", type=int, required=True)
    parser.add_argument("--head-size", type=int, default=64)
    parser.add_argument("--hidden", type=int, help="feed-forward width (default: four times the width)")
    parser.add_argument("--vocab", type=int, default=65536)
    parser.add_argument("--low-rank", type=int, nargs=4, metavar=("W", "A", "V", "G"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scale", type=float, default=1.0)
    options = vars(parser.parse_args())
    write_synthetic(**options)


if __name__ == "__main__":
    main()
