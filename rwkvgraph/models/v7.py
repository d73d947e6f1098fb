"""RWKV-7 ("x070"): its frame and hook sites, its weights, its equations.

Mathematics: Peng et al. 2025, "RWKV-7 Goose", in the form that web-rwkv computes it.
"""

from __future__ import annotations

from dataclasses import dataclass

from rwkvgraph import ops
from rwkvgraph.graph import Graph
from rwkvgraph.hook import Slot, site
from rwkvgraph.load.reader import Reader
from rwkvgraph.models import sites as at
from rwkvgraph.models.arena import Arena, LowRank, Norm
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
from rwkvgraph.models.stack import Frame as BaseFrame
from rwkvgraph.models.stack import (
    begin_att,
    begin_ffn,
    build_stack,
    end_att,
    end_ffn,
    flat,
    frame_sizes,
    heads,
    place_around,
)
from rwkvgraph.op import Buffer, Tensor
from rwkvgraph.quant import Matrix


class Frame(BaseFrame):
    """The values of RWKV-7 at a hook site.

    Slots of a layer are unset when the next one begins, but for x, att_v0.
    """

    att_v0 = Slot("T", "C", note="the first layer's values")
    att_wx = Slot("T", "C")
    att_ax = Slot("T", "C")
    att_gx = Slot("T", "C")
    att_w = Slot("T", "C", note="the decay's logit")
    att_a = Slot("T", "C")
    att_g = Slot("T", "C")
    att_kk = Slot("T", "C")
    att_vv = Slot("T", "C")
    aux_w = Slot("T", "Dw")
    aux_a = Slot("T", "Da")
    aux_g = Slot("T", "Dg")
    aux_v = Slot("T", "Dv")


@dataclass(frozen=True)
class Att:
    """Weights of time mixing. Vectors (C,), r_k and the group norm (H, S), matrices (out, in)."""

    x_r: Tensor
    x_w: Tensor
    x_k: Tensor
    x_v: Tensor
    x_a: Tensor
    x_g: Tensor
    w0: Tensor
    a0: Tensor
    v0: Tensor | None
    w: LowRank
    a: LowRank
    g: LowRank
    v: LowRank | None
    k_k: Tensor
    k_a: Tensor
    r_k: Tensor
    ln_x: Norm
    receptance: Matrix
    key: Matrix
    value: Matrix
    output: Matrix


@dataclass(frozen=True)
class Ffn:
    """Weights of channel mixing: x_k (C,), key (F, C), value (C, F)."""

    x_k: Tensor
    key: Matrix
    value: Matrix


Layer = BaseLayer[Att, Ffn]
Weights = BaseWeights[Layer]


def detect(names: set[str]) -> bool:
    """Whether a file with these names is RWKV-7: no other version has `r_k`."""
    return has_any(names, ".att.r_k")


def read_info(reader: Reader) -> ModelInfo:
    """The model's numbers, from its file. Raises LoadError for sizes that do not fit together."""
    layers = count_layers(reader)
    num_vocab, num_emb = matrix_shape(reader, "emb.weight")
    num_head = matrix_shape(reader, "blocks.0.att.r_k")[0]
    check_heads(reader, "blocks.0.att.r_k", num_head, num_emb)
    custom = {key: matrix_shape(reader, f"blocks.0.att.{key}1")[0] for key in "wag"}
    custom["v"] = matrix_shape(reader, "blocks.1.att.v1")[0] if layers > 1 else 0
    hidden = matrix_shape(reader, "blocks.0.ffn.key.weight")[0]
    return ModelInfo("V7", layers, num_emb, hidden, num_vocab, num_head, custom)


def place_weights(info: ModelInfo, arena: Arena) -> Weights:
    """Every weight as a tensor of the arena. Raises LoadError for what is missing or has another shape."""
    return place_around(
        info, arena, tuple(_place_layer(info, arena, index) for index in range(info.num_layer))
    )


def _place_layer(info: ModelInfo, arena: Arena, index: int) -> Layer:
    c, f, block = info.num_emb, info.num_hidden, f"blocks.{index}"
    ffn = Ffn(
        arena.vector(f"{block}.ffn.x_k", (c,)),
        arena.matrix(f"{block}.ffn.key.weight", (f, c), arena.layer(index)),
        arena.matrix(f"{block}.ffn.value.weight", (c, f), arena.layer(index)),
    )
    att = _place_att(info, arena, index)
    return Layer(arena.norm(f"{block}.ln1", c), arena.norm(f"{block}.ln2", c), att, ffn)


def _place_att(info: ModelInfo, arena: Arena, index: int) -> Att:
    c, by_head, home = info.num_emb, (info.num_head, info.head_size), arena.layer(index)

    def vector(name: str) -> Tensor:
        return arena.vector(f"blocks.{index}.att.{name}", (c,))

    def square(name: str) -> Matrix:
        return arena.matrix(f"blocks.{index}.att.{name}.weight", (c, c), home)

    def low_rank(name: str) -> LowRank:
        return arena.low_rank(f"blocks.{index}.att.{name}", c, info.custom[name], home)

    is_first = index == 0  # its values are what those of the others are mixed with; its v0 v1 v2 are not read
    return Att(
        x_r=vector("x_r"), x_w=vector("x_w"), x_k=vector("x_k"),
        x_v=vector("x_v"), x_a=vector("x_a"), x_g=vector("x_g"),
        receptance=square("receptance"), key=square("key"), value=square("value"),
        w0=vector("w0"), a0=vector("a0"), v0=None if is_first else vector("v0"),
        w=low_rank("w"), a=low_rank("a"), g=low_rank("g"), v=None if is_first else low_rank("v"),
        k_k=vector("k_k"), k_a=vector("k_a"), r_k=arena.vector(f"blocks.{index}.att.r_k", by_head),
        ln_x=arena.norm(f"blocks.{index}.att.ln_x", c).by_head(by_head),
        output=square("output"),
    )  # fmt: skip


def build(info: ModelInfo, w: Weights, state: tuple[LayerState, ...], inputs: Inputs) -> tuple[Graph, Buffer]:
    """The model as a tape with its hook sites, and the buffer of logits (O, V) that it fills."""

    def layer(f: Frame, weights: Layer, memory: LayerState, index: int) -> None:
        time_mix(f, weights, memory, inputs, info, index)
        channel_mix(f, weights, memory, index)

    ranks = {f"D{name}": size for name, size in info.custom.items()}
    return build_stack(Frame(frame_sizes(info, **ranks)), w, state, inputs, layer, kept=("att_v0",))


def time_mix(f: Frame, layer: Layer, s: LayerState, inputs: Inputs, info: ModelInfo, index: int) -> None:
    """RWKV-7 time mixing: f.x gets its output added. All slots (T, C) unless noted."""
    w = layer.att
    begin_att(f, layer.ln1, index)
    before = ops.previous_token(f.att_x, s.att_x.tensor, f.cursors)
    f.att_rx = ops.lerp(f.att_x, before, w.x_r)
    f.att_wx = ops.lerp(f.att_x, before, w.x_w)
    f.att_kx = ops.lerp(f.att_x, before, w.x_k)
    f.att_vx = ops.lerp(f.att_x, before, w.x_v)
    f.att_ax = ops.lerp(f.att_x, before, w.x_a)
    f.att_gx = ops.lerp(f.att_x, before, w.x_g)
    ops.keep_last(f.att_x, s.att_x.tensor, f.cursors)  # for the next run
    site(at.PostAttTokenShift(index), f)
    site(at.PreAttLinear(index), f)
    f.att_r = ops.matmul(w.receptance, f.att_rx)
    f.att_k = ops.matmul(w.key, f.att_kx)
    f.att_v = ops.matmul(w.value, f.att_vx)
    site(at.PostAttLinear(index), f)
    site(at.PreAttAdapt(index), f)
    f.aux_w = ops.tanh(ops.matmul(w.w.inner, f.att_wx))
    f.att_w = ops.matmul(w.w.outer, f.aux_w) + w.w0
    f.aux_a = ops.matmul(w.a.inner, f.att_ax)
    f.att_a = ops.sigmoid(ops.matmul(w.a.outer, f.aux_a) + w.a0)
    f.aux_g = ops.sigmoid(ops.matmul(w.g.inner, f.att_gx))
    f.att_g = ops.matmul(w.g.outer, f.aux_g)
    site(at.PostAttAdapt(index), f)
    recur(f, w, s, inputs, info, index)
    end_att(f, w.output, index)


def recur(f: Frame, w: Att, s: LayerState, inputs: Inputs, info: ModelInfo, index: int) -> None:
    """From r w k v a g to the gated output of the recurrence, f.att_x. Heads are (T, H, S)."""
    site(at.PreAttControl(index), f)
    f.att_kk = flat(ops.l2_norm(heads(f.att_k * w.k_k, info)), info)
    f.att_k = ops.scale_key(f.att_k, f.att_a, w.k_a)
    site(at.PostAttControl(index), f)
    site(at.PreAttValueResidual(index), f)
    value_residual(f, w)
    site(at.PostAttValueResidual(index), f)
    site(at.PreAttTimeMix(index), f)
    values = (f.att_r, ops.decay(f.att_w), f.att_k, f.att_v, f.att_kk, f.att_a)
    r, kept, k, v, kk, a = (heads(value, info) for value in values)
    y = ops.wkv7(inputs.starts, f.cursors, r, kept, k, v, kk, a, s.wkv.tensor)
    y = ops.group_norm(y, w.ln_x.weight, w.ln_x.bias)
    f.att_x = flat(y + ops.bonus(r, k, w.r_k, v), info)
    site(at.PostAttTimeMix(index), f)
    site(at.PreAttGate(index), f)
    f.att_x = f.att_x * f.att_g
    site(at.PostAttGate(index), f)


def value_residual(f: Frame, w: Att) -> None:
    """f.att_v mixed with the first layer's values; in the first layer those are kept as f.att_v0."""
    if w.v is None or w.v0 is None:
        f.att_v0 = ops.identity(f.att_v)
        return
    f.aux_v = ops.matmul(w.v.inner, f.att_vx)
    f.att_vv = ops.sigmoid(ops.matmul(w.v.outer, f.aux_v) + w.v0)
    f.att_v = ops.lerp(f.att_v, f.att_v0, f.att_vv)


def channel_mix(f: Frame, layer: Layer, s: LayerState, index: int) -> None:
    """RWKV-7 channel mixing: f.x gets its output added."""
    w = layer.ffn
    begin_ffn(f, layer.ln2, index)
    before = ops.previous_token(f.ffn_x, s.ffn_x.tensor, f.cursors)
    f.ffn_kx = ops.lerp(f.ffn_x, before, w.x_k)
    ops.keep_last(f.ffn_x, s.ffn_x.tensor, f.cursors)
    site(at.PostFfnTokenShift(index), f)
    site(at.PreFfnLinear(index), f)
    f.ffn_k = ops.squared_relu(ops.matmul(w.key, f.ffn_kx))
    site(at.PostFfnActivate(index), f)
    f.ffn_v = ops.matmul(w.value, f.ffn_k)
    site(at.PostFfnLinear(index), f)
    site(at.PreFfnChannelMix(index), f)
    f.ffn_x = ops.identity(f.ffn_v)
    end_ffn(f, index)
