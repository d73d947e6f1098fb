"""RWKV-4: its frame, its weights, its equations.

Mathematics: Peng et al. 2023, "RWKV: Reinventing RNNs for the Transformer Era", in the form that web-rwkv
computes it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rwkvgraph import ops
from rwkvgraph.graph import Graph
from rwkvgraph.hook import site
from rwkvgraph.load.reader import Reader
from rwkvgraph.models import sites as at
from rwkvgraph.models.arena import Arena
from rwkvgraph.models.arena import Layer as BaseLayer
from rwkvgraph.models.arena import Weights as BaseWeights
from rwkvgraph.models.common import (
    Inputs,
    LayerState,
    ModelInfo,
    count_layers,
    has_any,
    make_layers,
    matrix_shape,
)
from rwkvgraph.models.gated_ffn import Ffn, GatedFrame, channel_mix, place_gated
from rwkvgraph.models.stack import begin_att, build_stack, end_att, frame_sizes
from rwkvgraph.op import Buffer, Tensor
from rwkvgraph.ops.wkv4 import EMPTY_PP
from rwkvgraph.quant import Matrix


class Frame(GatedFrame):
    """The values of RWKV-4 at a hook site.

    Slots of a layer are unset when the next one begins, but for x.
    """


@dataclass(frozen=True)
class Att:
    """Weights of time mixing. Vectors (C,), matrices (C, C); decay is -exp(time_decay)."""

    time_mix_k: Tensor
    time_mix_v: Tensor
    time_mix_r: Tensor
    decay: Tensor
    time_first: Tensor
    receptance: Matrix
    key: Matrix
    value: Matrix
    output: Matrix


Layer = BaseLayer[Att, Ffn]
Weights = BaseWeights[Layer]


def detect(names: set[str]) -> bool:
    """Whether a file with these names is RWKV-4, once it is no later version: none of those's marks."""
    return has_any(names, ".att.time_decay") and has_any(names, ".att.time_mix_k")


def read_info(reader: Reader) -> ModelInfo:
    """The model's numbers, from its file. All channels are one head. Raises LoadError."""
    num_vocab, num_emb = matrix_shape(reader, "emb.weight")
    hidden = matrix_shape(reader, "blocks.0.ffn.key.weight")[0]
    return ModelInfo("V4", count_layers(reader), num_emb, hidden, num_vocab, 1)


def place_weights(info: ModelInfo, arena: Arena) -> Weights:
    """Every weight as a tensor of the arena. Raises LoadError for what is missing or has another shape."""
    return place_gated(info, arena, _place_att)


def _place_att(info: ModelInfo, arena: Arena, index: int) -> Att:
    c, att = info.num_emb, f"blocks.{index}.att"

    def square(name: str) -> Matrix:
        return arena.matrix(f"{att}.{name}.weight", (c, c), arena.layer(index))

    return Att(
        time_mix_k=arena.vector(f"{att}.time_mix_k", (c,)),
        time_mix_v=arena.vector(f"{att}.time_mix_v", (c,)),
        time_mix_r=arena.vector(f"{att}.time_mix_r", (c,)),
        decay=arena.vector(f"{att}.time_decay", (c,), lambda x: -np.exp(x)),
        time_first=arena.vector(f"{att}.time_first", (c,)),
        receptance=square("receptance"),
        key=square("key"),
        value=square("value"),
        output=square("output"),
    )


def make_state(info: ModelInfo) -> tuple[LayerState, ...]:
    """The buffers of the state: time mixing's rows are aa, bb and pp."""
    return make_layers(info, (0.0, 0.0, EMPTY_PP))


def build(info: ModelInfo, w: Weights, state: tuple[LayerState, ...], inputs: Inputs) -> tuple[Graph, Buffer]:
    """The model as a tape with its hook sites, and the buffer of logits (O, V) that it fills."""

    def layer(f: Frame, weights: Layer, memory: LayerState, index: int) -> None:
        time_mix(f, weights, memory, inputs, index)
        channel_mix(f, weights.ffn, weights.ln2, memory, index)

    return build_stack(Frame(frame_sizes(info)), w, state, inputs, layer)


def time_mix(f: Frame, layer: Layer, s: LayerState, inputs: Inputs, index: int) -> None:
    """RWKV-4 time mixing: f.x gets its output added. All slots (T, C)."""
    w = layer.att
    begin_att(f, layer.ln1, index)
    before = ops.previous_token(f.att_x, s.att_x.tensor, f.cursors)
    f.att_kx = ops.lerp(before, f.att_x, w.time_mix_k)
    f.att_vx = ops.lerp(before, f.att_x, w.time_mix_v)
    f.att_rx = ops.lerp(before, f.att_x, w.time_mix_r)
    ops.keep_last(f.att_x, s.att_x.tensor, f.cursors)  # for the next run
    site(at.PostAttTokenShift(index), f)
    site(at.PreAttLinear(index), f)
    f.att_k = ops.matmul(w.key, f.att_kx)
    f.att_v = ops.matmul(w.value, f.att_vx)
    f.att_r = ops.matmul(w.receptance, f.att_rx)
    site(at.PostAttLinear(index), f)
    site(at.PreAttTimeMix(index), f)
    y = ops.wkv4(inputs.starts, f.cursors, w.decay, w.time_first, f.att_k, f.att_v, s.wkv.tensor)
    f.att_x = ops.sigmoid(f.att_r) * y
    site(at.PostAttTimeMix(index), f)
    end_att(f, w.output, index)
