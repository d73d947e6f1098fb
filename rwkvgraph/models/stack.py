"""What is around the layers of every version: embedding, norms, head; and the slots that all frames have."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from rwkvgraph import ops
from rwkvgraph.graph import Graph
from rwkvgraph.hook import Frame as BaseFrame
from rwkvgraph.hook import Slot, site
from rwkvgraph.models import sites as at
from rwkvgraph.models.arena import Arena, Norm, Weights
from rwkvgraph.models.common import Inputs, LayerState, ModelInfo, embed_inputs, output_buffer
from rwkvgraph.op import Buffer, Tensor, in_layer, tape
from rwkvgraph.quant import Matrix
from rwkvgraph.view import O, Size, T


class Frame(BaseFrame):
    """The values that every version has at its hook sites.

    Slots of a layer are unset when the next one begins, but for x.
    """

    cursors = Slot("T", "4", note="u32: slot, its first stacked token, its tokens in this run, 0")
    input = Slot("T", "C", note="embedding rows")
    x = Slot("T", "C", note="the residual stream")
    att_x = Slot("T", "C")
    att_kx = Slot("T", "C")
    att_vx = Slot("T", "C")
    att_rx = Slot("T", "C")
    att_k = Slot("T", "C")
    att_v = Slot("T", "C")
    att_r = Slot("T", "C")
    att_o = Slot("T", "C")
    ffn_x = Slot("T", "C")
    ffn_kx = Slot("T", "C")
    ffn_k = Slot("T", "F")
    ffn_v = Slot("T", "C")
    head_x = Slot("O", "C")
    head_o = Slot("O", "V")


FrameKind = TypeVar("FrameKind", bound=Frame)
LayerKind = TypeVar("LayerKind")
LayerFunction = Callable[[FrameKind, LayerKind, LayerState, int], None]
"""Builds layer `index`: f.x becomes what it hands to the next."""


def place_around(info: ModelInfo, arena: Arena, layers: tuple[LayerKind, ...]) -> Weights[LayerKind]:
    """The weights outside the layers, with those inside. Raises LoadError.

    Also for tensors that this version does not have, as a file of another architecture would.
    """
    c, v = info.num_emb, info.num_vocab
    emb = arena.matrix("emb.weight", (v, c), "emb", is_table=True)
    head = arena.matrix("head.weight", (v, c), "head")
    weights = Weights(emb, arena.norm("blocks.0.ln0", c), arena.norm("ln_out", c), head, layers)
    arena.check_rest(is_unread)
    return weights


UNREAD = ("blocks.0.att.v0", "blocks.0.att.v1", "blocks.0.att.v2")
"""Files have them, and no engine reads them: layer 0 has no values before it to mix with."""


def is_unread(name: str) -> bool:
    """Whether a model file may have this tensor without the model reading it; tuned states are for State."""
    return name in UNREAD or name.endswith(".att.time_state")


def build_stack(
    f: FrameKind,
    w: Weights[LayerKind],
    state: tuple[LayerState, ...],
    inputs: Inputs,
    layer: LayerFunction[FrameKind, LayerKind],
    kept: tuple[str, ...] = (),
) -> tuple[Graph, Buffer]:
    """The model as a tape with its hook sites, and the buffer of logits (O, V) that it fills.

    kept: slots besides x that live on from layer to layer.
    """
    logits = output_buffer(w.head.shape[0])
    with tape() as items:
        f.cursors = inputs.cursors
        f.weights = w
        f.input = embed_inputs(w.emb, inputs)
        site(at.PostEmbedLoaded(), f)
        f.input = ops.layer_norm(f.input, w.ln0.weight, w.ln0.bias)
        f.x = ops.identity(f.input)
        site(at.PostEmbedLayerNorm(), f)
        for index, (weights, memory) in enumerate(zip(w.layers, state, strict=True)):
            with in_layer(index):
                f.forget("cursors", "x", *kept)
                f.state, f.weights = memory, weights
                layer(f, weights, memory, index)
        f.forget("cursors", "x")
        f.state, f.weights = None, w
        f.head_x = ops.gather(f.x, inputs.rows)
        site(at.PreHead(), f)
        f.head_x = ops.layer_norm(f.head_x, w.ln_out.weight, w.ln_out.bias)
        site(at.PostHeadLayerNorm(), f)
        f.head_o = ops.matmul(w.head, f.head_x)
        site(at.PostHead(), f)
        ops.blit(f.head_o, logits.tensor)
    return Graph(tuple(items)), logits


def begin_att(f: Frame, ln1: Norm, index: int) -> None:
    """f.att_x = the normalised input of time mixing."""
    f.att_x = ops.identity(f.x)
    site(at.PreAtt(index), f)
    f.att_x = ops.layer_norm(f.att_x, ln1.weight, ln1.bias)
    site(at.PostAttLayerNorm(index), f)
    site(at.PreAttTokenShift(index), f)


def end_att(f: Frame, output: Matrix, index: int) -> None:
    """f.x with what time mixing gives, `output` times f.att_x, added."""
    site(at.PreAttOut(index), f)
    f.att_o = ops.matmul(output, f.att_x)
    site(at.PostAttOut(index), f)
    f.x = f.x + f.att_o
    site(at.PostAtt(index), f)


def begin_ffn(f: Frame, ln2: Norm, index: int) -> None:
    """f.ffn_x = the normalised input of channel mixing."""
    f.ffn_x = ops.identity(f.x)
    site(at.PreFfn(index), f)
    f.ffn_x = ops.layer_norm(f.ffn_x, ln2.weight, ln2.bias)
    site(at.PostFfnLayerNorm(index), f)
    site(at.PreFfnTokenShift(index), f)


def end_ffn(f: Frame, index: int) -> None:
    """f.x with what channel mixing gives, f.ffn_x, added."""
    site(at.PostFfnChannelMix(index), f)
    f.x = f.x + f.ffn_x
    site(at.PostFfn(index), f)


def heads(x: Tensor, info: ModelInfo) -> Tensor:
    """A slot's value (T, C) seen as (T, H, S)."""
    return x.reshape(T, info.num_head, info.head_size)


def flat(x: Tensor, info: ModelInfo) -> Tensor:
    """(T, H, S) as a slot's value (T, C)."""
    return ops.identity(x.reshape(T, info.num_emb))


def frame_sizes(info: ModelInfo, **ranks: Size) -> dict[str, Size]:
    """What the axes of frame slots stand for in a model; ranks: those of the version's low-rank matrices."""
    sizes: dict[str, Size] = {"T": T, "O": O, "4": 4, "C": info.num_emb, "F": info.num_hidden}
    return {**sizes, "V": info.num_vocab, **ranks}
