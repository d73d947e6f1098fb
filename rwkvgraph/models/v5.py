"""RWKV-5 ("Eagle"), 5.0 to 5.2: its frame, its weights, its equations.

Mathematics: Peng et al. 2024, "Eagle and Finch", in the form that web-rwkv computes it. 5.2 has a decay and a
bonus for each channel, 5.1 one of each for a head, 5.0 no gate, and the logarithm of the bonus in its file.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rwkvgraph import ops
from rwkvgraph.graph import Graph
from rwkvgraph.hook import Slot, site
from rwkvgraph.load.reader import Reader
from rwkvgraph.models import sites as at
from rwkvgraph.models.arena import Arena, Norm
from rwkvgraph.models.arena import Layer as BaseLayer
from rwkvgraph.models.arena import Weights as BaseWeights
from rwkvgraph.models.common import (
    Inputs,
    LayerState,
    ModelInfo,
    check_heads,
    count_layers,
    has_any,
    matrix_shape,
)
from rwkvgraph.models.common import make_state as make_state
from rwkvgraph.models.gated_ffn import Ffn, GatedFrame, channel_mix, place_gated
from rwkvgraph.models.stack import begin_att, build_stack, end_att, flat, frame_sizes, heads
from rwkvgraph.op import Array, Buffer, Tensor
from rwkvgraph.quant import Matrix


class Frame(GatedFrame):
    """The values of RWKV-5 at a hook site. att_gx and att_g are never set in 5.0, which has no gate.

    Slots of a layer are unset when the next one begins, but for x.
    """

    att_gx = Slot("T", "C")
    att_g = Slot("T", "C", note="the gate before its silu")


@dataclass(frozen=True)
class Att:
    """Weights of time mixing. Vectors (C,), decay, first and the group norm (H, S), matrices (C, C).

    decay: what the state keeps, exp(-exp(time_decay)). first: the bonus of the current token.
    """

    time_mix_k: Tensor
    time_mix_v: Tensor
    time_mix_r: Tensor
    time_mix_g: Tensor | None
    decay: Tensor
    first: Tensor
    ln_x: Norm
    receptance: Matrix
    key: Matrix
    value: Matrix
    gate: Matrix | None
    output: Matrix


Layer = BaseLayer[Att, Ffn]
Weights = BaseWeights[Layer]


def detect(names: set[str]) -> bool:
    """Whether a file with these names is RWKV-5, once it is no later version: RWKV-4 has no group norm."""
    return has_any(names, ".att.ln_x.weight") and has_any(names, ".att.time_mix_k")


def read_info(reader: Reader) -> ModelInfo:
    """The model's numbers, from its file. Raises LoadError for sizes that do not fit together."""
    num_vocab, num_emb = matrix_shape(reader, "emb.weight")
    num_head = (*reader.shape("blocks.0.att.time_decay"), 0)[0]
    check_heads(reader, "blocks.0.att.time_decay", num_head, num_emb)
    hidden = matrix_shape(reader, "blocks.0.ffn.key.weight")[0]
    return ModelInfo("V5", count_layers(reader), num_emb, hidden, num_vocab, num_head)


def place_weights(info: ModelInfo, arena: Arena) -> Weights:
    """Every weight as a tensor of the arena. Raises LoadError for what is missing or has another shape."""
    return place_gated(info, arena, _place_att)


def _place_att(info: ModelInfo, arena: Arena, index: int) -> Att:
    c, by_head, att = info.num_emb, (info.num_head, info.head_size), f"blocks.{index}.att"
    has_gate = arena.has_any(".att.gate.weight", ".att.time_mix_g")

    def vector(name: str) -> Tensor:
        return arena.vector(f"{att}.{name}", (c,))

    def square(name: str) -> Matrix:
        return arena.matrix(f"{att}.{name}.weight", (c, c), arena.layer(index))

    return Att(
        time_mix_k=vector("time_mix_k"),
        time_mix_v=vector("time_mix_v"),
        time_mix_r=vector("time_mix_r"),
        time_mix_g=vector("time_mix_g") if has_gate else None,
        decay=arena.per_head(f"{att}.time_decay", by_head, stable_exp),
        first=arena.per_head(f"{att}.time_first", by_head, None if has_gate else np.exp),
        ln_x=arena.norm(f"{att}.ln_x", c).by_head(by_head),
        receptance=square("receptance"),
        key=square("key"),
        value=square("value"),
        gate=square("gate") if has_gate else None,
        output=square("output"),
    )


def stable_exp(x: Array) -> Array:
    """exp(-exp(x)), elementwise: from the logarithm of minus the logarithm of a decay."""
    return np.asarray(np.exp(-np.exp(x)))


def build(info: ModelInfo, w: Weights, state: tuple[LayerState, ...], inputs: Inputs) -> tuple[Graph, Buffer]:
    """The model as a tape with its hook sites, and the buffer of logits (O, V) that it fills."""

    def layer(f: Frame, weights: Layer, memory: LayerState, index: int) -> None:
        time_mix(f, weights, memory, inputs, info, index)
        channel_mix(f, weights.ffn, weights.ln2, memory, index)

    return build_stack(Frame(frame_sizes(info)), w, state, inputs, layer)


def time_mix(f: Frame, layer: Layer, s: LayerState, inputs: Inputs, info: ModelInfo, index: int) -> None:
    """RWKV-5 time mixing: f.x gets its output added. All slots (T, C), heads (T, H, S)."""
    w = layer.att
    begin_att(f, layer.ln1, index)
    before = ops.previous_token(f.att_x, s.att_x.tensor, f.cursors)
    f.att_kx = ops.lerp(before, f.att_x, w.time_mix_k)
    f.att_vx = ops.lerp(before, f.att_x, w.time_mix_v)
    f.att_rx = ops.lerp(before, f.att_x, w.time_mix_r)
    if w.time_mix_g is not None:
        f.att_gx = ops.lerp(before, f.att_x, w.time_mix_g)
    ops.keep_last(f.att_x, s.att_x.tensor, f.cursors)  # for the next run
    site(at.PostAttTokenShift(index), f)
    site(at.PreAttLinear(index), f)
    f.att_k = ops.matmul(w.key, f.att_kx)
    f.att_v = ops.matmul(w.value, f.att_vx)
    f.att_r = ops.matmul(w.receptance, f.att_rx)
    if w.gate is not None:
        f.att_g = ops.matmul(w.gate, f.att_gx)
    site(at.PostAttLinear(index), f)
    site(at.PreAttTimeMix(index), f)
    r, k, v = heads(f.att_r, info), heads(f.att_k, info), heads(f.att_v, info)
    y = ops.wkv6(inputs.starts, f.cursors, r, w.decay, k, v, w.first, s.wkv.tensor)
    f.att_x = flat(ops.group_norm(y, w.ln_x.weight, w.ln_x.bias), info)
    site(at.PostAttTimeMix(index), f)
    site(at.PreAttGate(index), f)
    if w.gate is not None:
        f.att_x = ops.silu(f.att_g) * f.att_x
    site(at.PostAttGate(index), f)
    end_att(f, w.output, index)
