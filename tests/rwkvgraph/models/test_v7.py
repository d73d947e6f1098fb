"""RWKV-7 on both devices: the shipped model against its goldens, odd sizes against the oracle, hook sites."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from rwkvgraph import ops
from rwkvgraph.gpu import Context
from rwkvgraph.hook import Frame
from rwkvgraph.hooks import Hooks
from rwkvgraph.model import Model
from rwkvgraph.models.sites import V7
from rwkvgraph.op import Buffer, DType
from tests.rwkvgraph.conftest import ASSETS, Device
from tests.rwkvgraph.hardware import hardware, is_shared, need_lanes, program_of
from tests.rwkvgraph.models.oracle_v7 import Array, Oracle, float32_noise
from tests.rwkvgraph.models.synthetic import synthetic_v7
from tests.rwkvgraph.models.yardstick import Expected, cut_at, expect, feed, within

# Every site of web-rwkv's Hook enum for V7, in order of execution, and what has just become valid there.
NEW_SLOTS = {
    "PostEmbedLoaded": "input",
    "PostEmbedLayerNorm": "input x",
    "PreAtt": "att_x",
    "PostAttLayerNorm": "att_x",
    "PreAttTokenShift": "",
    "PostAttTokenShift": "att_rx att_wx att_kx att_vx att_ax att_gx",
    "PreAttLinear": "",
    "PostAttLinear": "att_r att_k att_v",
    "PreAttAdapt": "",
    "PostAttAdapt": "aux_w aux_a aux_g att_w att_a att_g",
    "PreAttControl": "",
    "PostAttControl": "att_kk att_k",
    "PreAttValueResidual": "",
    "PostAttValueResidual": "att_v0 att_v",
    "PreAttTimeMix": "",
    "PostAttTimeMix": "att_x",
    "PreAttGate": "",
    "PostAttGate": "att_x",
    "PreAttOut": "",
    "PostAttOut": "att_o",
    "PostAtt": "x",
    "PreFfn": "ffn_x",
    "PostFfnLayerNorm": "ffn_x",
    "PreFfnTokenShift": "",
    "PostFfnTokenShift": "ffn_kx",
    "PreFfnLinear": "",
    "PostFfnActivate": "ffn_k",
    "PostFfnLinear": "ffn_v",
    "PreFfnChannelMix": "",
    "PostFfnChannelMix": "ffn_x",
    "PostFfn": "x",
    "PreHead": "head_x",
    "PostHeadLayerNorm": "head_x",
    "PostHead": "head_o",
}
# A slot that is read after the site, by its name in NEW_SLOTS; at the others the last of the new slots is.
READ_LATER = {
    "PreAttTokenShift": "att_x",
    "PreAttLinear": "att_kx",
    "PreAttAdapt": "att_wx",
    "PreAttControl": "att_a",
    "PreAttValueResidual": "att_v",
    "PreAttTimeMix": "att_r",
    "PreAttGate": "att_g",
    "PreAttOut": "att_x",
    "PreFfnTokenShift": "ffn_x",
    "PreFfnLinear": "ffn_kx",
    "PreFfnChannelMix": "ffn_v",
}

# Head sizes from 1 to 256, widths that are no multiple of 4, nobody's hidden sizes, vocabularies and ranks.
SIZES: dict[str, dict[str, Any]] = {
    "head of 1": {"layers": 2, "width": 5, "head_size": 1, "hidden": 9, "low_rank": (3, 2, 1, 5)},
    "heads of 5": {"layers": 2, "width": 60, "head_size": 5, "hidden": 100, "low_rank": (7, 12, 20, 9)},
    "heads of 6": {"layers": 2, "width": 30, "head_size": 6, "hidden": 41, "vocab": 37, "low_rank": (5,) * 4},
    "heads of 8": {"layers": 2, "width": 32, "head_size": 8, "low_rank": (8, 8, 8, 8)},
    "heads of 12": {"layers": 2, "width": 60, "head_size": 12, "vocab": 150, "low_rank": (20, 7, 12, 4)},
    "heads of 20": {"layers": 2, "width": 60, "head_size": 20, "vocab": 4099, "low_rank": (12, 20, 7, 1)},
    "heads of 32": {"layers": 3, "width": 96, "head_size": 32, "hidden": 40, "vocab": 101},
    "heads of 64": {"layers": 2, "width": 128, "head_size": 64, "hidden": 130},
    "heads of 128": {"layers": 2, "width": 256, "head_size": 128, "hidden": 96},
    "heads of 256": {"layers": 2, "width": 256, "head_size": 256, "hidden": 300},
    "no value residual": {"layers": 2, "width": 48, "head_size": 16, "block0_value_residual": False},
    "one layer": {"layers": 1, "width": 48, "head_size": 16},
    "one layer, no value residual": {"layers": 1, "width": 15, "head_size": 5, "vocab": 3, "hidden": 7,
                                     "block0_value_residual": False},
}  # fmt: skip


@pytest.fixture(scope="module")
def golden() -> Iterator[Any]:
    with np.load(ASSETS / "golden.npz") as arrays:
        yield arrays


@pytest.fixture(scope="module")
def noise(tiny_tensors: dict[str, Array], golden: Any) -> float:
    """What float32 costs the shipped model's logits: 1e-5, of logits up to 30."""
    return float32_noise(tiny_tensors, golden["long_prompt"])


def test_a_prompt_in_one_pass_gives_the_golden_logits(tiny: Model, golden: Any, noise: float) -> None:
    for name in ("prompt0", "prompt1", "prompt2", "prompt3", "long_prompt"):
        (logits,) = tiny.run([golden[name].tolist()], tiny.state())
        wanted = (
            golden["long_logits"][-1] if name == "long_prompt" else golden[name.replace("prompt", "logits")]
        )
        assert logits is not None
        print(f"{name}: {within(name, logits - wanted, noise):.2f} times the float32 noise")


def test_a_prompt_token_by_token_gives_the_golden_logits(tiny: Model, golden: Any, noise: float) -> None:
    state = tiny.state()
    (rows,) = feed(tiny, state, [[[token] for token in golden["long_prompt"].tolist()]])
    print(
        f"T=1: {within('logits', np.stack(rows) - golden['long_logits'], noise):.2f} times the float32 noise"
    )


def test_prompts_side_by_side_give_the_golden_logits(tiny: Model, golden: Any, noise: float) -> None:
    prompts = [golden[f"prompt{number}"].tolist() for number in range(4)]
    for chunk in (4096, 9):
        tiny.token_chunk_size = chunk
        logits = feed(tiny, tiny.state(4), [[prompt] for prompt in prompts])
        error = np.stack([rows[0] for rows in logits]) - [golden[f"logits{number}"] for number in range(4)]
        print(f"mixed, chunk {chunk}: {within('logits', error, noise):.2f} times the float32 noise")
    tiny.token_chunk_size = 4096


def test_the_likeliest_tokens_are_the_golden_text(tiny: Model, golden: Any) -> None:
    state, tokens, text = tiny.state(), golden["greedy_prompt"].tolist(), []
    for _ in golden["greedy"]:
        (logits,) = tiny.run([tokens], state)
        assert logits is not None
        text.append(int(np.argmax(logits)))
        tokens = [text[-1]]
    assert text == golden["greedy"].tolist()


BEGINNING = 120
"""Tokens of the story that are run a few at a time: 600 runs of a token take numpy half a minute."""


@pytest.fixture(scope="module")
def story(golden: Any) -> list[int]:
    """Six hundred tokens of text."""
    text = np.concatenate([golden[name] for name in ("long_prompt", "greedy_prompt", "greedy", "prompt3")])
    tokens: list[int] = np.resize(text, 600).tolist()
    return tokens


@pytest.fixture(scope="module")
def story_expected(tiny_tensors: dict[str, Array], story: list[int]) -> dict[int, Expected]:
    """By length: of the story, and of its beginning."""
    whole = expect(tiny_tensors, story)
    return {len(story): whole, BEGINNING: expect(tiny_tensors, story[:BEGINNING]).no_stricter_than(whole)}


@pytest.mark.parametrize("chunk", [pytest.param(1, marks=pytest.mark.slow),
                                   pytest.param(7, marks=pytest.mark.slow), 32, 300])  # fmt: skip
@pytest.mark.parametrize("slots", [1, 4], ids=["alone", "beside others"])
def test_a_story_may_be_cut_anywhere(
    tiny: Model, story: list[int], story_expected: dict[int, Expected], chunk: int, slots: int
) -> None:
    check_cut(tiny, story, story_expected, chunk, slots)


@pytest.mark.gpu
@pytest.mark.parametrize("slots", [1, 4], ids=["alone", "beside others"])
def test_where_workgroups_share_a_head_too(
    gpu: Context,
    tiny_tensors: dict[str, Array],
    story: list[int],
    story_expected: dict[int, Expected],
    slots: int,
) -> None:
    need_lanes(gpu.target, 16)
    context = Context.create()
    context.target = hardware(context.target, lanes=gpu.target.lanes)
    model = Model.load(tiny_tensors, context)
    assert is_shared(program_of(model), 64 * slots, slots)
    check_cut(model, story, story_expected, 300, slots)
    context.destroy()


def check_cut(
    tiny: Model, story: list[int], story_expected: dict[int, Expected], chunk: int, slots: int
) -> None:
    """A story in several runs, of so many tokens at most, gives what it gives in one."""
    length = len(story) if chunk > 7 else BEGINNING
    expected = story_expected[length]
    ends = sorted(np.random.default_rng(chunk).choice(length - 1, 5, replace=False) + 1)
    state = tiny.state(slots)
    others = [[[5, 6, 7]], [story[:50]], [story[100:133], [9]]]
    tiny.token_chunk_size = chunk
    logits = feed(tiny, state, [cut_at(story[:length], ends), *others][:slots])[0]
    tiny.token_chunk_size = 4096
    times = [expected.check_logits(row, end - 1) for row, end in zip(logits, [*ends, length], strict=True)]
    times.append(expected.check_state(state.read(0)))
    print(f"chunk {chunk}, {slots} slots: {max(times):.2f} times the float32 noise")


@pytest.mark.parametrize(
    "options",
    # llvmpipe takes half a minute and more to compile the recurrence of a wide head.
    [
        pytest.param(options, id=name, marks=[pytest.mark.slow] if options.get("head_size", 64) > 64 else [])
        for name, options in SIZES.items()
    ],
)
def test_a_model_of_any_size_gives_what_the_oracle_gives(device: Device, options: dict[str, Any]) -> None:
    tensors = synthetic_v7(**options)
    model = Model.load(tensors, device)
    prompt = np.random.default_rng(3).integers(0, model.info.num_vocab, 40).tolist()
    answer = expect(tensors, prompt)
    state = model.state(2)
    logits, _ = feed(model, state, [cut_at(prompt, [33, 34, 36]), [prompt[:3]]])
    ends = (33, 34, 36, 40)
    times = [answer.check_logits(row, end - 1) for row, end in zip(logits, ends, strict=True)]
    times.append(answer.check_state(state.read(0)))
    print(f"{options}: {max(times):.2f} times the float32 noise")
    np.testing.assert_allclose(model.softmax(logits[-1]).sum(), 1, rtol=1e-5)


def test_the_file_tells_the_numbers() -> None:
    info = Model.load(synthetic_v7(**SIZES["heads of 20"]), "cpu").info
    assert (info.version, info.num_layer, info.num_emb, info.num_hidden) == ("V7", 2, 60, 240)
    assert (info.num_vocab, info.num_head, info.head_size) == (4099, 3, 20)
    assert info.custom == {"w": 12, "a": 20, "v": 7, "g": 1}


@pytest.fixture(scope="module")
def numpy_model() -> Model:
    return Model.load(synthetic_v7(**SIZES["heads of 32"]), "cpu")


PROMPT = [5, 17, 3, 100, 42]


def test_every_site_of_web_rwkv_is_there_in_its_order(numpy_model: Model) -> None:
    assert [kind.__name__ for kind in V7] == list(NEW_SLOTS)
    names = list(NEW_SLOTS)
    layers = [f"{name}({layer})" for layer in range(3) for name in names[2:-3]]
    assert [repr(site.hook) for site in numpy_model.graph.sites()] == [*names[:2], *layers, *names[-3:]]


def test_every_slot_can_be_read_at_every_site(numpy_model: Model) -> None:
    captured: dict[tuple[str, int | None, str], Buffer] = {}

    def capture(frame: Frame, layer: int | None) -> None:
        site = type(frame._hook).__name__
        values = frame.values()
        new = NEW_SLOTS[site].split()
        if site == "PostAttValueResidual" and layer:
            new += ["aux_v", "att_vv"]
        assert set(new) <= set(values), site
        assert "cursors" in values
        for name, tensor in values.items():
            assert tensor.shape == frame.shape_of(name)
            if tensor.dtype is DType.F32:
                buffer = Buffer(
                    f"{site} {name}", tuple(size for size in tensor.shape if isinstance(size, int))
                )
                captured[site, layer, name] = buffer
                ops.blit(tensor[-1], buffer.tensor)

    hooks = Hooks()
    for kind in V7:
        hooks.add(kind, capture)
    plain = numpy_model.run([list(PROMPT)], numpy_model.state())[0]
    hooked = numpy_model.run_with_hooks([list(PROMPT)], numpy_model.state(), hooks)[0]
    assert plain is not None
    np.testing.assert_array_equal(hooked, plain)
    np.testing.assert_array_equal(captured["PostHead", None, "head_o"].read(), plain)

    oracle = Oracle(synthetic_v7(**SIZES["heads of 32"]))
    stream = oracle.stream(oracle.embedding[PROMPT], oracle.state())
    places = [("PostEmbedLayerNorm", None, "x"), *(("PostFfn", layer, "x") for layer in range(3))]
    for place, value in zip([*places, ("PostHeadLayerNorm", None, "head_x")], stream, strict=True):
        np.testing.assert_allclose(captured[place].read(), value[-1], atol=1e-4)


@pytest.mark.parametrize("slots", ["the same tensor", "a copy"])
def test_replacing_every_slot_by_itself_changes_nothing(numpy_model: Model, slots: str) -> None:
    def replace_all(frame: Frame) -> None:
        for name, tensor in frame.values().items():
            if tensor.dtype is DType.F32:
                setattr(frame, name, ops.identity(tensor) if slots == "a copy" else tensor)

    hooks = Hooks(dict.fromkeys(V7, replace_all))
    states = numpy_model.state(), numpy_model.state()
    plain = numpy_model.run([list(PROMPT)], states[0])[0]
    hooked = numpy_model.run_with_hooks([list(PROMPT)], states[1], hooks)[0]
    assert plain is not None
    np.testing.assert_array_equal(hooked, plain)
    np.testing.assert_array_equal(states[1].read(0), states[0].read(0))


@pytest.mark.gpu
def test_copies_of_every_slot_change_nothing_on_a_device(gpu: Any) -> None:
    def replace_all(frame: Frame) -> None:
        for name, tensor in frame.values().items():
            if tensor.dtype is DType.F32:
                setattr(frame, name, ops.identity(tensor))

    tensors = synthetic_v7(**SIZES["heads of 32"])
    model, answer = Model.load(tensors, gpu), expect(tensors, PROMPT)
    state = model.state()
    hooks = Hooks(dict.fromkeys(V7, replace_all))
    answer.check_logits(model.run_with_hooks([list(PROMPT)], state, hooks)[0])
    answer.check_state(state.read(0))


@pytest.mark.parametrize("site", NEW_SLOTS)
def test_what_follows_a_site_reads_what_a_hook_put_there(numpy_model: Model, site: str) -> None:
    name = READ_LATER.get(site) or NEW_SLOTS[site].split()[-1]

    def bend(frame: Frame) -> None:
        setattr(frame, name, ops.tanh(getattr(frame, name)))

    places = [where.hook for where in numpy_model.graph.sites() if type(where.hook).__name__ == site]
    place = places[len(places) // 2]
    plain = numpy_model.run([list(PROMPT)], numpy_model.state())[0]
    bent = numpy_model.run_with_hooks([list(PROMPT)], numpy_model.state(), Hooks({place: bend}))[0]
    assert plain is not None
    assert bent is not None
    assert np.abs(bent - plain).max() > 1e-3
