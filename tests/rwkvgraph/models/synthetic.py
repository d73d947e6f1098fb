"""RWKV models of every version and any size with random weights, in memory or streamed to a file.

They say nothing, but calculate like real ones: activations and logits stay between 1 and 10, decays are slow,
and every term of the equations counts. The same arguments give the same weights, whichever way they are made.
As in real models, a prompt's first tokens are the most sensitive to rounding: the group norm magnifies what
little their states hold.

    python -m tests.rwkvgraph.models.synthetic model.st --layers 24 --width 2048 --version v6
"""

import argparse
import json
import math
import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from tests.rwkvgraph.models.synthetic_parts import Half as Half
from tests.rwkvgraph.models.synthetic_parts import Normal, Plan, matrix, norm
from tests.rwkvgraph.models.synthetic_v4 import channel_mix, time_mix_v4, time_mix_v5, time_mix_v6
from tests.rwkvgraph.models.synthetic_v7 import LowRank, channel_mix_v7, time_mix_v7

VERSIONS = ("v4", "v5.0", "v5.1", "v5.2", "v6", "v7")
RANKS_V6 = (32, 64)  # of mixing and of decay, in the released models below 7B


def plan(
    layers: int,
    width: int,
    head_size: int = 64,
    hidden: int | None = None,
    vocab: int = 256,
    low_rank: Sequence[int] | None = None,
    scale: float = 1.0,
    block0_value_residual: bool = True,
    version: str = "v7",
) -> Plan:
    """Every tensor of a model by name, in the converted convention: what models are drawn from.

    head_size: not for V4, which has no heads. hidden: unless given 4 · width, in V5 and V6 3.5 · width.
    low_rank: for V7 (w, a, v, g), for V6 (mixing, decay); unless given as in the released models.
    scale: multiplies what each block adds to the residual stream. block0_value_residual: real V7 files have
    an unread v0 v1 v2 in block 0.
    """
    if version not in VERSIONS:
        raise ValueError(f"there is no version {version!r}, only {', '.join(VERSIONS)}")
    if version != "v4" and width % head_size:
        raise ValueError(f"a width of {width} cannot be cut into heads of {head_size}")
    hidden = hidden or (4 * width if version in ("v4", "v7") else 7 * width // 2)
    tensors: Plan = {"emb.weight": Normal((vocab, width), 1.0)} | norm("blocks.0.ln0", width)
    gain = scale / math.sqrt(layers)
    for layer in range(layers):
        block = f"blocks.{layer}"
        tensors |= norm(f"{block}.ln1", width) | norm(f"{block}.ln2", width)
        value_residual = layer > 0 or block0_value_residual
        tensors |= _time_mix(version, f"{block}.att", width, head_size, low_rank, gain, value_residual)
        channel = channel_mix_v7 if version == "v7" else channel_mix
        tensors |= channel(f"{block}.ffn", width, hidden, gain)
    return tensors | norm("ln_out", width) | {"head.weight": matrix(vocab, width, gain=2.0)}


def _time_mix(
    version: str,
    att: str,
    width: int,
    head_size: int,
    low_rank: Sequence[int] | None,
    gain: float,
    value_residual: bool,
) -> Plan:
    match version:
        case "v4":
            return time_mix_v4(att, width, gain)
        case "v6":
            mixing, decay = low_rank or RANKS_V6
            return time_mix_v6(att, width, head_size, (mixing, decay), gain)
        case "v7":
            ranks = LowRank(*low_rank) if low_rank else LowRank.of(width)
            return time_mix_v7(att, width, head_size, ranks, gain, value_residual)
        case _:
            return time_mix_v5(att, width, head_size, gain, version)


def synthetic(
    version: str,
    layers: int,
    width: int,
    *,
    head_size: int = 64,
    hidden: int | None = None,
    vocab: int = 256,
    low_rank: Sequence[int] | None = None,
    seed: int = 0,
    scale: float = 1.0,
) -> dict[str, Half]:
    """A model's tensors by name, in the converted convention. Arguments: see `plan`."""
    return _draw(plan(layers, width, head_size, hidden, vocab, low_rank, scale, version=version), seed)


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
    """As `synthetic` of V7, whose block 0 may also lack the value residual."""
    return _draw(plan(layers, width, head_size, hidden, vocab, low_rank, scale, block0_value_residual), seed)


def write_synthetic(
    path: Path | str,
    layers: int,
    width: int,
    head_size: int = 64,
    hidden: int | None = None,
    vocab: int = 256,
    low_rank: Sequence[int] | None = None,
    seed: int = 0,
    scale: float = 1.0,
    block0_value_residual: bool = True,
    version: str = "v7",
) -> None:
    """Write a model as safetensors, in chunks. The file appears when it is complete."""
    tensors = plan(layers, width, head_size, hidden, vocab, low_rank, scale, block0_value_residual, version)
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            _write(file, tensors, seed)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _draw(tensors: Plan, seed: int) -> dict[str, Half]:
    return {
        name: np.concatenate(list(tensor.chunks((seed, index)))).reshape(tensor.shape)
        for index, (name, tensor) in enumerate(tensors.items())
    }


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
    parser = argparse.ArgumentParser(description="Write an RWKV model with random weights.")
    parser.add_argument("path", type=Path)
    parser.add_argument("--version", choices=VERSIONS, default="v7")
    parser.add_argument("--layers", type=int, required=True)
    parser.add_argument("--width", type=int, required=True)
    parser.add_argument("--head-size", type=int, default=64)
    parser.add_argument("--hidden", type=int, help="feed-forward width (default: 4 or 3.5 times the width)")
    parser.add_argument("--vocab", type=int, default=65536)
    parser.add_argument("--low-rank", type=int, nargs="+", metavar="RANK", help="V7: w a v g; V6: mix decay")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scale", type=float, default=1.0)
    options = vars(parser.parse_args())
    write_synthetic(**options)


if __name__ == "__main__":
    main()
