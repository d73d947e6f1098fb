"""Hook sites of all versions, in order of execution, with the names of web-rwkv.

Each says which frame slots are new there; V4 to V7 at the end list the sites that a version has.
"""

from rwkvgraph.hook import Hook, LayerHook


class PostEmbedLoaded(Hook):
    """The embedding rows were gathered. New: input."""


class PostEmbedLayerNorm(Hook):
    """They were normalised (ln0). New: input again, x."""


class PreAtt(LayerHook):
    """Before time mixing. New: att_x = x."""


class PostAttLayerNorm(LayerHook):
    """New: att_x = ln1(x)."""


class PreAttTokenShift(LayerHook):
    """As PostAttLayerNorm."""


class PostAttTokenShift(LayerHook):
    """The token was mixed with the one before.

    New: att_kx att_vx att_rx, in V5 att_gx too, in V7 att_wx att_ax att_gx too. In V6: att_xx.
    """


class PreAttTokenShiftAdapt(LayerHook):
    """As PostAttTokenShift. V6."""


class PostAttTokenShiftAdaptActivate(LayerHook):
    """New: time_mix_x, the low-rank part of the mixing, after its tanh. V6."""


class PostAttTokenShiftAdapt(LayerHook):
    """New: time_mix_w time_mix_k time_mix_v time_mix_r time_mix_g, without their bases. V6."""


class PreAttGatedTokenShift(LayerHook):
    """New: the same with their bases: how much of the token before each input takes. V6."""


class PostAttGatedTokenShift(LayerHook):
    """New: att_wx att_kx att_vx att_rx att_gx. V6."""


class PreAttLinear(LayerHook):
    """Before the projections of the mixed inputs."""


class PostAttLinear(LayerHook):
    """New: att_r att_k att_v, in V5 and V6 att_g too; before any activation."""


class PreAttTimeDecayAdapt(LayerHook):
    """As PostAttLinear. V6."""


class PostAttTimeDecayAdaptActivate(LayerHook):
    """New: att_w, the low-rank part of the decay, after its tanh. V6."""


class PostAttTimeDecayAdapt(LayerHook):
    """New: time_decay, without its base. V6."""


class PreAttTimeDecayActivate(LayerHook):
    """New: time_decay with its base: the logarithm of minus the logarithm of the decay. V6."""


class PostAttTimeDecayActivate(LayerHook):
    """New: time_decay = exp(-exp(time_decay)), what the state keeps. V6."""


class PreAttAdapt(LayerHook):
    """As PostAttLinear. V7."""


class PostAttAdapt(LayerHook):
    """The low-rank parts. New: aux_w aux_a aux_g, att_w (before its activation), att_a, att_g."""


class PreAttControl(LayerHook):
    """As PostAttAdapt."""


class PostAttControl(LayerHook):
    """New: att_kk, normalised per head; att_k scaled by att_a."""


class PreAttValueResidual(LayerHook):
    """As PostAttControl."""


class PostAttValueResidual(LayerHook):
    """New in layer 0: att_v0. In the others: aux_v, att_vv (how much of att_v0), att_v mixed."""


class PreAttTimeMix(LayerHook):
    """The last place to change att_r att_k att_v, in V6 time_decay, in V7 att_w att_a att_kk."""


class PostAttTimeMix(LayerHook):
    """The state was updated.

    New: att_x = the recurrence's output; in V4 times sigmoid(att_r), from V5 on group-normed, in V7 with the
    bonus.
    """


class PreAttGate(LayerHook):
    """As PostAttTimeMix. V5 to V7."""


class PostAttGate(LayerHook):
    """New: att_x times the gate att_g, which V5 (but for 5.0, without a gate) and V6 take silu of first."""


class PreAttOut(LayerHook):
    """As the site before."""


class PostAttOut(LayerHook):
    """New: att_o."""


class PostAtt(LayerHook):
    """New: x, with att_o added."""


class PreFfn(LayerHook):
    """Before channel mixing. New: ffn_x = x."""


class PostFfnLayerNorm(LayerHook):
    """New: ffn_x = ln2(x)."""


class PreFfnTokenShift(LayerHook):
    """As PostFfnLayerNorm."""


class PostFfnTokenShift(LayerHook):
    """New: ffn_kx, before V7 ffn_rx too."""


class PreFfnLinear(LayerHook):
    """As PostFfnTokenShift."""


class PostFfnActivate(LayerHook):
    """New: ffn_k, squared and rectified."""


class PostFfnLinear(LayerHook):
    """New: ffn_v, before V7 ffn_r too."""


class PreFfnChannelMix(LayerHook):
    """As PostFfnLinear."""


class PostFfnChannelMix(LayerHook):
    """New: ffn_x = what channel mixing gives."""


class PostFfn(LayerHook):
    """After the feed-forward output was added to the stream. New: x."""


class PreHead(Hook):
    """The rows whose logits are wanted were gathered. New: head_x."""


class PostHeadLayerNorm(Hook):
    """New: head_x = ln_out(head_x)."""


class PostHead(Hook):
    """New: head_o, the logits."""


V4: tuple[type[Hook], ...] = (
    PostEmbedLoaded,
    PostEmbedLayerNorm,
    PreAtt,
    PostAttLayerNorm,
    PreAttTokenShift,
    PostAttTokenShift,
    PreAttLinear,
    PostAttLinear,
    PreAttTimeMix,
    PostAttTimeMix,
    PreAttOut,
    PostAttOut,
    PostAtt,
    PreFfn,
    PostFfnLayerNorm,
    PreFfnTokenShift,
    PostFfnTokenShift,
    PreFfnLinear,
    PostFfnActivate,
    PostFfnLinear,
    PreFfnChannelMix,
    PostFfnChannelMix,
    PostFfn,
    PreHead,
    PostHeadLayerNorm,
    PostHead,
)
"""The sites of RWKV-4: those that every version has."""


def _with(sites: tuple[type[Hook], ...], before: type[Hook], *more: type[Hook]) -> tuple[type[Hook], ...]:
    at = sites.index(before)
    return (*sites[:at], *more, *sites[at:])


V5 = _with(V4, PreAttOut, PreAttGate, PostAttGate)
"""The sites of RWKV-5."""

V6 = _with(
    _with(
        V5,
        PreAttLinear,
        PreAttTokenShiftAdapt,
        PostAttTokenShiftAdaptActivate,
        PostAttTokenShiftAdapt,
        PreAttGatedTokenShift,
        PostAttGatedTokenShift,
    ),
    PreAttTimeMix,
    PreAttTimeDecayAdapt,
    PostAttTimeDecayAdaptActivate,
    PostAttTimeDecayAdapt,
    PreAttTimeDecayActivate,
    PostAttTimeDecayActivate,
)
"""The sites of RWKV-6."""

V7 = _with(
    V5,
    PreAttTimeMix,
    PreAttAdapt,
    PostAttAdapt,
    PreAttControl,
    PostAttControl,
    PreAttValueResidual,
    PostAttValueResidual,
)
"""The sites of RWKV-7."""
