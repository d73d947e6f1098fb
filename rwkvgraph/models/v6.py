"""RWKV-6 ("Finch"): its frame, its weights, its equations.

Mathematics: Peng et al. 2024, "Eagle and Finch", in the form that web-rwkv computes it.
"""

from __future__ import annotations

from dataclasses import dataclass

from rwkvgraph import ops
from rwkvgraph.errors import LoadError
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
from rwkvgraph.op import Buffer, Tensor
from rwkvgraph.quant import Matrix

PARTS = "wkvrg"
"""The inputs that are mixed by amounts of their own, in the order of the rows of time_mix_w1."""


class Frame(GatedFrame):
    """The values of RWKV-6 at a hook site. web-rwkv's att_sx is att_wx … att_gx here, time_mix the same way.

    Slots of a layer are unset when the next one begins, but for x.
    """

    att_xx = Slot("T", "C")
    att_wx = Slot("T", "C")
    att_gx = Slot("T", "C")
    att_w = Slot("T", "Dw", note="the decay's low-rank part")
    att_g = Slot("T", "C", note="the gate before its silu")
    time_mix_x = Slot("T", "5Dm", note="the mixing's low-rank part, for w k v r g one after another")
    time_mix_w = Slot("T", "C")
    time_mix_k = Slot("T", "C")
    time_mix_v = Slot("T", "C")
    time_mix_r = Slot("T", "C")
    time_mix_g = Slot("T", "C")
    time_decay = Slot("T", "C")


@dataclass(frozen=True)
class Att:
    """Weights of time mixing. Vectors (C,), first and the group norm (H, S), matrices (C, C) unless noted.

    base: how much of the token before the five inputs take, without their low-rank part. mix_1 (5 Dm, C),
    mix_2 five of (C, Dm), decay_1 (Dw, C), decay_2 (C, Dw).
    """

    time_mix_x: Tensor
    base: tuple[Tensor, ...]
    mix_1: Matrix
    mix_2: tuple[Matrix, ...]
    time_decay: Tensor
    decay_1: Matrix
    decay_2: Matrix
    first: Tensor
    ln_x: Norm
    receptance: Matrix
    key: Matrix
    value: Matrix
    gate: Matrix
    output: Matrix


Layer = BaseLayer[Att, Ffn]
Weights = BaseWeights[Layer]


def detect(names: set[str]) -> bool:
    """Whether a file with these names is RWKV-6, once it is not RWKV-7: no other mixes by low-rank parts."""
    return has_any(names, ".att.time_mix_x", ".att.time_mix_w1")


def read_info(reader: Reader) -> ModelInfo:
    """The model's numbers, from its file. custom: time_mix Dm, time_decay Dw. Raises LoadError."""
    num_vocab, num_emb = matrix_shape(reader, "emb.weight")
    num_head = matrix_shape(reader, "blocks.0.att.time_first")[0]
    check_heads(reader, "blocks.0.att.time_first", num_head, num_emb)
    mixes = matrix_shape(reader, "blocks.0.att.time_mix_w1")[0]
    if mixes % len(PARTS):
        raise LoadError(
            f"{reader.path}: blocks.0.att.time_mix_w1 has {mixes} rows; they are for {len(PARTS)} inputs"
        )
    custom = {
        "time_mix": mixes // len(PARTS),
        "time_decay": matrix_shape(reader, "blocks.0.att.time_decay_w1")[0],
    }
    hidden = matrix_shape(reader, "blocks.0.ffn.key.weight")[0]
    return ModelInfo("V6", count_layers(reader), num_emb, hidden, num_vocab, num_head, custom)


def place_weights(info: ModelInfo, arena: Arena) -> Weights:
    """Every weight as a tensor of the arena. Raises LoadError for what is missing or has another shape."""
    return place_gated(info, arena, _place_att)


def _place_att(info: ModelInfo, arena: Arena, index: int) -> Att:
    c, by_head, att = info.num_emb, (info.num_head, info.head_size), f"blocks.{index}.att"
    mix, decay, home = info.custom["time_mix"], info.custom["time_decay"], arena.layer(index)

    def vector(name: str) -> Tensor:
        return arena.vector(f"{att}.{name}", (c,))

    def square(name: str) -> Matrix:
        return arena.matrix(f"{att}.{name}.weight", (c, c), home)

    return Att(
        time_mix_x=vector("time_mix_x"),
        base=tuple(vector(f"time_mix_{part}") for part in PARTS),
        mix_1=arena.matrix(f"{att}.time_mix_w1", (len(PARTS) * mix, c), home),
        mix_2=arena.matrices(f"{att}.time_mix_w2", (len(PARTS), c, mix), home),
        time_decay=vector("time_decay"),
        decay_1=arena.matrix(f"{att}.time_decay_w1", (decay, c), home),
        decay_2=arena.matrix(f"{att}.time_decay_w2", (c, decay), home),
        first=arena.vector(f"{att}.time_first", by_head),
        ln_x=arena.norm(f"{att}.ln_x", c).by_head(by_head),
        receptance=square("receptance"),
        key=square("key"),
        value=square("value"),
        gate=square("gate"),
        output=square("output"),
    )


def build(info: ModelInfo, w: Weights, state: tuple[LayerState, ...], inputs: Inputs) -> tuple[Graph, Buffer]:
    """The model as a tape with its hook sites, and the buffer of logits (O, V) that it fills."""

    def layer(f: Frame, weights: Layer, memory: LayerState, index: int) -> None:
        time_mix(f, weights, memory, inputs, info, index)
        channel_mix(f, weights.ffn, weights.ln2, memory, index, is_reversed=True)

    ranks = {"5Dm": len(PARTS) * info.custom["time_mix"], "Dw": info.custom["time_decay"]}
    return build_stack(Frame(frame_sizes(info, **ranks)), w, state, inputs, layer)


def time_mix(f: Frame, layer: Layer, s: LayerState, inputs: Inputs, info: ModelInfo, index: int) -> None:
    """RWKV-6 time mixing: f.x gets its output added. All slots (T, C) unless noted, heads (T, H, S)."""
    w = layer.att
    begin_att(f, layer.ln1, index)
    shift(f, w, s, info, index)
    site(at.PreAttLinear(index), f)
    f.att_k = ops.matmul(w.key, f.att_kx)
    f.att_v = ops.matmul(w.value, f.att_vx)
    f.att_r = ops.matmul(w.receptance, f.att_rx)
    f.att_g = ops.matmul(w.gate, f.att_gx)
    site(at.PostAttLinear(index), f)
    decay(f, w, index)
    site(at.PreAttTimeMix(index), f)
    r, kept, k, v = (heads(x, info) for x in (f.att_r, f.time_decay, f.att_k, f.att_v))
    y = ops.wkv6(inputs.starts, f.cursors, r, kept, k, v, w.first, s.wkv.tensor)
    f.att_x = flat(ops.group_norm(y, w.ln_x.weight, w.ln_x.bias), info)
    site(at.PostAttTimeMix(index), f)
    site(at.PreAttGate(index), f)
    f.att_x = ops.silu(f.att_g) * f.att_x
    site(at.PostAttGate(index), f)
    end_att(f, w.output, index)


def shift(f: Frame, w: Att, s: LayerState, info: ModelInfo, index: int) -> None:
    """The five mixed inputs; how much of the token before each takes depends on the token itself."""
    before = ops.previous_token(f.att_x, s.att_x.tensor, f.cursors)
    f.att_xx = ops.lerp(f.att_x, before, w.time_mix_x)
    ops.keep_last(f.att_x, s.att_x.tensor, f.cursors)  # for the next run
    site(at.PostAttTokenShift(index), f)
    site(at.PreAttTokenShiftAdapt(index), f)
    f.time_mix_x = ops.tanh(ops.matmul(w.mix_1, f.att_xx))
    site(at.PostAttTokenShiftAdaptActivate(index), f)
    width = info.custom["time_mix"]
    for number, part in enumerate(PARTS):
        inner = f.time_mix_x[:, number * width : (number + 1) * width]
        f.set(f"time_mix_{part}", ops.matmul(w.mix_2[number], inner))
    site(at.PostAttTokenShiftAdapt(index), f)
    for number, part in enumerate(PARTS):
        f.set(f"time_mix_{part}", f.get(f"time_mix_{part}") + w.base[number])
    site(at.PreAttGatedTokenShift(index), f)
    for part in PARTS:
        f.set(f"att_{part}x", ops.lerp(f.att_x, before, f.get(f"time_mix_{part}")))
    site(at.PostAttGatedTokenShift(index), f)


def decay(f: Frame, w: Att, index: int) -> None:
    """f.time_decay = what the state keeps at each token."""
    site(at.PreAttTimeDecayAdapt(index), f)
    f.att_w = ops.tanh(ops.matmul(w.decay_1, f.att_wx))
    site(at.PostAttTimeDecayAdaptActivate(index), f)
    f.time_decay = ops.matmul(w.decay_2, f.att_w)
    site(at.PostAttTimeDecayAdapt(index), f)
    f.time_decay = f.time_decay + w.time_decay
    site(at.PreAttTimeDecayActivate(index), f)
    f.time_decay = ops.stable_exp(f.time_decay)
    site(at.PostAttTimeDecayActivate(index), f)
