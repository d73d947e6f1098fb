"""Channel mixing of RWKV-4, 5 and 6: a feed-forward whose output a gate of the input scales."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from rwkvgraph import ops
from rwkvgraph.hook import Slot, site
from rwkvgraph.models import sites as at
from rwkvgraph.models.arena import Arena, Layer, Norm, Weights
from rwkvgraph.models.common import LayerState, ModelInfo
from rwkvgraph.models.stack import Frame, begin_ffn, end_ffn, place_around
from rwkvgraph.op import Tensor
from rwkvgraph.quant import Matrix

AttKind = TypeVar("AttKind")
PlaceAtt = Callable[[ModelInfo, Arena, int], AttKind]
"""Places the weights of a layer's time mixing."""


class GatedFrame(Frame):
    """The slots of this channel mixing."""

    ffn_rx = Slot("T", "C")
    ffn_r = Slot("T", "C", note="the gate's logit")


@dataclass(frozen=True)
class Ffn:
    """Weights of channel mixing: time_mix_k and _r (C,), key (F, C), value (C, F), receptance (C, C)."""

    time_mix_k: Tensor
    time_mix_r: Tensor
    key: Matrix
    value: Matrix
    receptance: Matrix


def place_ffn(info: ModelInfo, arena: Arena, index: int) -> Ffn:
    """A layer's. Raises LoadError for what is missing or has another shape."""
    c, f, block = info.num_emb, info.num_hidden, f"blocks.{index}"
    return Ffn(
        arena.vector(f"{block}.ffn.time_mix_k", (c,)),
        arena.vector(f"{block}.ffn.time_mix_r", (c,)),
        arena.matrix(f"{block}.ffn.key.weight", (f, c), arena.layer(index)),
        arena.matrix(f"{block}.ffn.value.weight", (c, f), arena.layer(index)),
        arena.matrix(f"{block}.ffn.receptance.weight", (c, c), arena.layer(index)),
    )


def place_gated(info: ModelInfo, arena: Arena, place_att: PlaceAtt[AttKind]) -> Weights[Layer[AttKind, Ffn]]:
    """All weights of a model with this channel mixing. Raises LoadError for what is missing or misshapen."""
    layers = []
    for index in range(info.num_layer):
        ln1 = arena.norm(f"blocks.{index}.ln1", info.num_emb)
        ln2 = arena.norm(f"blocks.{index}.ln2", info.num_emb)
        layers.append(Layer(ln1, ln2, place_att(info, arena, index), place_ffn(info, arena, index)))
    return place_around(info, arena, tuple(layers))


def channel_mix(
    f: GatedFrame, w: Ffn, ln2: Norm, s: LayerState, index: int, is_reversed: bool = False
) -> None:
    """sigmoid(Wr rx) * (Wv relu(Wk kx)²), added to f.x.

    kx and rx mix the token with the one before by time_mix_k and _r: how much of the token, or, reversed, of
    the one before.
    """
    begin_ffn(f, ln2, index)
    before = ops.previous_token(f.ffn_x, s.ffn_x.tensor, f.cursors)
    ends = (f.ffn_x, before) if is_reversed else (before, f.ffn_x)
    f.ffn_kx = ops.lerp(*ends, w.time_mix_k)
    f.ffn_rx = ops.lerp(*ends, w.time_mix_r)
    ops.keep_last(f.ffn_x, s.ffn_x.tensor, f.cursors)
    site(at.PostFfnTokenShift(index), f)
    site(at.PreFfnLinear(index), f)
    f.ffn_k = ops.squared_relu(ops.matmul(w.key, f.ffn_kx))
    site(at.PostFfnActivate(index), f)
    f.ffn_v = ops.matmul(w.value, f.ffn_k)
    f.ffn_r = ops.matmul(w.receptance, f.ffn_rx)
    site(at.PostFfnLinear(index), f)
    site(at.PreFfnChannelMix(index), f)
    f.ffn_x = ops.sigmoid(f.ffn_r) * f.ffn_v
    end_ffn(f, index)
