"""Hook sites of RWKV-7, in order of execution, with the names of web-rwkv.

Each says which frame slots are new there.
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
    """The token was mixed with the one before. New: att_rx att_wx att_kx att_vx att_ax att_gx."""


class PreAttLinear(LayerHook):
    """As PostAttTokenShift."""


class PostAttLinear(LayerHook):
    """New: att_r att_k att_v."""


class PreAttAdapt(LayerHook):
    """As PostAttLinear."""


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
    """The last place to change att_r att_w att_k att_v att_a att_kk."""


class PostAttTimeMix(LayerHook):
    """The state was updated. New: att_x = group norm of the recurrence, and the bonus."""


class PreAttGate(LayerHook):
    """As PostAttTimeMix."""


class PostAttGate(LayerHook):
    """New: att_x times att_g."""


class PreAttOut(LayerHook):
    """As PostAttGate."""


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
    """New: ffn_kx."""


class PreFfnLinear(LayerHook):
    """As PostFfnTokenShift."""


class PostFfnActivate(LayerHook):
    """New: ffn_k, squared and rectified."""


class PostFfnLinear(LayerHook):
    """New: ffn_v."""


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


V7 = (
    PostEmbedLoaded,
    PostEmbedLayerNorm,
    PreAtt,
    PostAttLayerNorm,
    PreAttTokenShift,
    PostAttTokenShift,
    PreAttLinear,
    PostAttLinear,
    PreAttAdapt,
    PostAttAdapt,
    PreAttControl,
    PostAttControl,
    PreAttValueResidual,
    PostAttValueResidual,
    PreAttTimeMix,
    PostAttTimeMix,
    PreAttGate,
    PostAttGate,
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
"""The sites of RWKV-7."""
