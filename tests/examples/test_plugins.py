"""The examples that change a running model: each is held to what it says that it does."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import rwkvgraph as rg
from rwkvgraph import assets
from rwkvgraph.compiler.target import Target
from rwkvgraph.engine import HostEngine
from rwkvgraph.gpu.runner import Runner
from rwkvgraph.op import Array
from rwkvgraph.testing import GPU_TOLERANCE, check_op, holding
from tests.examples.conftest import Example
from tests.rwkvgraph.hardware import relay_context
from tests.rwkvgraph.models.oracle_v7 import Oracle
from tests.rwkvgraph.models.synthetic import synthetic_v7
from tests.rwkvgraph.models.yardstick import TIMES_FLOAT32, expect, largest

Tensors = Mapping[str, Array]
TOKENS = [3, 141, 59, 26, 53, 58, 97, 93]
FLOAT32_OF_LOGARITHMS = 1e-4
"""Of half-lives: they are exponentials of logarithms of up to 12, each rounded to 6e-8 of itself."""
MIXES = [(1.0, 0.0), (0.0, 1.0), (0.25, -2.0)]


@pytest.fixture(scope="module")
def tiny(gpu: rg.Context) -> rg.Model:
    """The shipped model, beside those that the examples load."""
    return rg.Model.load(assets.default_model(), gpu)


@pytest.fixture(scope="module")
def tokenizer() -> rg.Tokenizer:
    return rg.Tokenizer.load(assets.default_vocab())


def greedy(model: rg.Model, tokenizer: rg.Tokenizer, prompt: str, count: int, after: str = "") -> str:
    """What the model goes on with after `prompt`, which may come after a text that was read before."""
    state = model.state()
    if after:
        model.run([[0, *tokenizer.encode(after)]], state)
    story = rg.generate(model, tokenizer, prompt, count, rg.Sampler(temperature=0), state)
    return "".join(piece.text for piece in story)


def run(model: rg.Model, tokens: Sequence[int], hooks: rg.Hooks | None = None, state: Any = None) -> Array:
    """The logits after the last token. One by one: llvmpipe takes long to compile the kernels for many."""
    state = state or model.state()
    for token in tokens:
        (row,) = model.run_with_hooks([[token]], state, hooks)
    assert row is not None
    return row


@pytest.fixture(scope="module")
def lora(example: Example) -> ModuleType:
    return example("dynamic_lora")


@pytest.fixture(scope="module")
def weights() -> Tensors:
    """Two layers, of sizes that are no whole blocks."""
    return synthetic_v7(2, 48, head_size=16, hidden=100, vocab=150, low_rank=(8, 8, 8, 12), seed=1)


@pytest.fixture(scope="module")
def adapters(weights: Tensors, lora: ModuleType) -> list[Tensors]:
    """Two, of different ranks, for every matrix that one may be for."""
    return [adapter_for(weights, lora.MATRICES, rank, seed) for rank, seed in ((4, 1), (11, 2))]


def adapter_for(weights: Tensors, kinds: Sequence[str], rank: int, seed: int) -> dict[str, Array]:
    """A file's tensors: P.lora.0 (in, rank) and P.lora.1 (out, rank) for each P.weight of these kinds."""
    random = np.random.default_rng(seed)
    sizes = {name.removesuffix(".weight"): tensor.shape for name, tensor in weights.items()}
    wanted = [(name, *sizes[name]) for name in sizes if name.split(".", 2)[-1] in kinds]
    parts = {f"{name}.lora.0": columns for name, _, columns in wanted}
    parts |= {f"{name}.lora.1": rows for name, rows, _ in wanted}
    return {name: random.normal(0, 0.2, (size, rank)).astype(np.float16) for name, size in parts.items()}


def merged(weights: Tensors, adapters: Sequence[Tensors], mix: Sequence[float]) -> dict[str, Array]:
    """The weights in float64, with scale B A added for every adapter."""
    result = {name: values.astype(np.float64) for name, values in weights.items()}
    for adapter, scale in zip(adapters, mix, strict=True):
        for name in {name.rpartition(".lora.")[0] for name in adapter}:
            a, b = (adapter[f"{name}.lora.{part}"].astype(np.float64) for part in (0, 1))
            result[f"{name}.weight"] += scale * (b @ a.T)
    return result


@pytest.fixture(scope="module", params=["cpu", "gpu"])
def model(request: pytest.FixtureRequest, weights: Tensors) -> rg.Model:
    """The random model on numpy, and on a device."""
    return rg.Model.load(weights, "cpu" if request.param == "cpu" else request.getfixturevalue("gpu"))


@pytest.mark.parametrize("mix", MIXES)
def test_dynamic_lora_equals_weights_merged_in_float64(
    model: rg.Model, weights: Tensors, adapters: list[Tensors], lora: ModuleType, mix: tuple[float, ...]
) -> None:
    hooks, set_mix = lora.attach(*adapters)
    set_mix(*mix)
    expected = expect(merged(weights, adapters, mix), TOKENS)
    expected.check_logits(run(model, TOKENS, hooks))
    assert largest(expected.logits - expect(weights, TOKENS).logits) > 0.1  # the adapters do something


def test_dynamic_lora_equals_a_model_of_merged_weights_but_for_their_rounding(
    gpu: rg.Context, weights: Tensors, adapters: list[Tensors], lora: ModuleType
) -> None:
    exact = merged(weights, adapters, MIXES[0])
    halves = {name: values.astype(np.float16) for name, values in exact.items()}  # as a model keeps them
    wanted = expect(exact, TOKENS)
    rounding = largest(expect(halves, TOKENS).logits[-1] - wanted.logits[-1])

    hooks, set_mix = lora.attach(*adapters)
    set_mix(*MIXES[0])
    model, other = rg.Model.load(weights, gpu), rg.Model.load(halves, gpu)
    apart = largest(run(model, TOKENS, hooks) - run(other, TOKENS))
    assert apart <= rounding + 2 * TIMES_FLOAT32 * wanted.logits_noise  # of the two models' float32


@pytest.mark.gpu
def test_dynamic_lora_in_relays_equals_weights_merged_in_float64(
    weights: Tensors, adapters: list[Tensors], lora: ModuleType
) -> None:
    """Ranks are no whole blocks, and several matrices of a layer take their columns from one slot."""
    hooks, set_mix = lora.attach(*adapters)
    set_mix(*MIXES[0])
    context = relay_context(coherent=True)
    model = rg.Model.load(weights, context)
    expect(merged(weights, adapters, MIXES[0]), TOKENS).check_logits(run(model, TOKENS, hooks))
    program = model.program(hooks)
    assert isinstance(program, Runner)
    assert any(relay.meets for relay in program.program.relays)
    context.destroy()


def test_dynamic_lora_of_scale_0_is_the_model_itself(
    model: rg.Model, weights: Tensors, adapters: list[Tensors], lora: ModuleType
) -> None:
    hooks, set_mix = lora.attach(*adapters)
    plain = run(model, TOKENS)
    set_mix(3.0, 3.0)
    assert largest(run(model, TOKENS, hooks) - plain) > 0.1
    set_mix(0.0, 0.0)
    # What is added is 0, so on numpy it is the same bit for bit; a driver may contract a pass that has
    # another operation in it to other multiply-adds.
    is_numpy = isinstance(model.engine, HostEngine)
    atol = 0 if is_numpy else TIMES_FLOAT32 * expect(weights, TOKENS).logits_noise
    np.testing.assert_allclose(run(model, TOKENS, hooks), plain, rtol=0, atol=atol)


def test_dynamic_lora_switches_between_tokens_without_compiling_again(
    gpu: rg.Context, weights: Tensors, adapters: list[Tensors], lora: ModuleType
) -> None:
    model = rg.Model.load(weights, gpu)
    hooks, set_mix = lora.attach(*adapters)
    state = model.state()
    run(model, TOKENS[:1], hooks, state)
    program, pipelines = model.program(hooks), gpu.kernels

    oracle_state = Oracle(weights).state()
    Oracle(weights).forward(TOKENS[:1], oracle_state)
    noise = expect(merged(weights, adapters, MIXES[2]), TOKENS).logits_noise
    for token, mix in zip(TOKENS[1:], [*MIXES, (0.0, 0.0), *MIXES], strict=True):
        set_mix(*mix)
        wanted = Oracle(merged(weights, adapters, mix)).forward([token], oracle_state)[-1]
        assert largest(run(model, [token], hooks, state) - wanted) <= TIMES_FLOAT32 * noise
    assert model.program(hooks) is program
    assert gpu.kernels == pipelines


@pytest.mark.parametrize(
    ("kinds", "more"),
    [
        (("att.receptance", "att.key", "att.value"), 0),
        (("att.output",), 1),
        (("ffn.key",), 1),
        (("ffn.value",), 1),
    ],
)
def test_dynamic_lora_adds_few_passes(
    tiny: rg.Model, weights: Tensors, lora: ModuleType, kinds: tuple[str, ...], more: int
) -> None:
    target = Target.browser()
    target = replace(target, limits=replace(target.limits, max_storage_buffers=16))
    model = rg.Model.load(weights, "cpu")
    hooks, _ = lora.attach(adapter_for(weights, kinds, 8, 1))
    passes = [len(rg.compile(model.graph, also, target).passes) for also in (None, hooks)]
    assert passes[1] - passes[0] == more * model.info.num_layer


def test_dynamic_lora(tmp_path: Path, lora: ModuleType, tiny: rg.Model, tokenizer: rg.Tokenizer) -> None:
    parts = lora.main(prompt="", tokens=8)  # without: kernels for many tokens take llvmpipe long
    assert list(parts) == ["[0. 0.]", "[1. 0.]", "[0. 1.]", "[0.5 0.5]"]
    plain = greedy(tiny, tokenizer, "", 32)
    assert plain.startswith(parts["[0. 0.]"])
    assert plain != "".join(parts.values())

    files = [tmp_path / "first.st", tmp_path / "second.st"]
    for seed, path in enumerate(files, start=1):  # the same adapters, from files
        save_file(lora.make_up(tiny.info, seed), path)
    assert lora.main(*((path, 1.0) for path in files), prompt="", tokens=8) == parts


@pytest.fixture(scope="module")
def control(example: Example) -> ModuleType:
    return example("control")


def test_control_mixes_the_rows_of_each_pair_of_slots(
    gpu: rg.Context, tiny: rg.Model, control: ModuleType
) -> None:
    strength = rg.Buffer("strength", (1,))
    hooks = control.guidance(strength)
    tokens = [[17], [305], [2000], [41]]
    plain = tiny.run([*map(list, tokens)], tiny.state(4))
    neutral, wanted, other, far = (np.asarray(row) for row in plain)
    pipelines = None
    for number in (0.0, 1.0, -0.5, 3.0):
        strength.write([number])
        rows = tiny.run_with_hooks([*map(list, tokens)], tiny.state(4), hooks)
        first, second = neutral + number * (wanted - neutral), other + number * (far - other)
        for row, mixed in zip(rows, (first, first, second, second), strict=True):
            np.testing.assert_allclose(np.asarray(row), mixed, rtol=0, atol=GPU_TOLERANCE * largest(mixed))
        pipelines = pipelines or gpu.kernels
        assert gpu.kernels == pipelines  # a strength is a number in a buffer


def test_control_has_an_operation_that_does_on_a_device_what_it_does_on_numpy(
    gpu: rg.Context, control: ModuleType, rng: np.random.Generator
) -> None:
    rows = holding(rng.normal(size=(6, 20)))
    check_op([control.Guide(holding(np.array([2.5])), rows, rows)], gpu)


def test_control_of_strength_0_is_the_neutral_story_and_of_1_the_wanted_one(
    tiny: rg.Model, tokenizer: rg.Tokenizer, control: ModuleType
) -> None:
    stories = control.main(max_tokens=12)
    follow = {number: story.removeprefix(control.NEUTRAL) for number, story in stories.items()}
    assert greedy(tiny, tokenizer, control.NEUTRAL, 12) == follow[0.0]
    assert greedy(tiny, tokenizer, control.WANTED, 12) == follow[1.0]
    assert "whale" in follow[3.0]  # the wanted beginning is of the sea
    assert len(set(follow.values())) == 4


@pytest.fixture(scope="module")
def custom_op(example: Example) -> ModuleType:
    return example("custom_op")


def test_custom_op_does_on_a_device_what_it_does_on_numpy(gpu: rg.Context, custom_op: ModuleType) -> None:
    check_op(custom_op.Stretch, gpu)


@pytest.mark.parametrize("times", [1 / 4, 1.0, 2.0, 100.0])
def test_custom_op_makes_half_lives_so_many_times_as_long(custom_op: ModuleType, times: float) -> None:
    w = np.linspace(-12, -2, 50, dtype=np.float32)  # where a quarter is still longer than the shortest
    op = custom_op.Stretch(holding(w), holding(np.array([times])))
    stretched = op.numpy(w, np.full(1, times, np.float32))
    lives, shortest = custom_op.half_lives(stretched), custom_op.half_lives(np.float32(100.0))
    np.testing.assert_allclose(lives, times * custom_op.half_lives(w), rtol=FLOAT32_OF_LOGARITHMS)
    assert (lives > shortest).all()


@pytest.mark.slow  # the recurrence takes llvmpipe long to compile, and the operation is within it
def test_custom_op_changes_what_the_model_remembers(
    custom_op: ModuleType, tiny: rg.Model, tokenizer: rg.Tokenizer, capsys: pytest.CaptureFixture[str]
) -> None:
    results = custom_op.main()
    lives = {times: layers for times, (layers, _) in results.items()}
    chances = [chance for _, chance in results.values()]
    # Layer 0 alone: what the others are given, and so what they keep, depends on what it remembers.
    assert lives[2.0][0] == pytest.approx(2 * lives[1.0][0], rel=FLOAT32_OF_LOGARITHMS)
    assert lives[0.25][0] == pytest.approx(lives[1.0][0] / 4, rel=FLOAT32_OF_LOGARITHMS)
    assert chances == sorted(chances, reverse=True)
    assert chances[0] > 10 * chances[-1]
    head = capsys.readouterr().out.splitlines()[0]
    assert re.fullmatch(r"passes a token: (\d+), with the operation in every layer \1", head)

    (plain,) = tiny.run([[0, *tokenizer.encode(custom_op.STORY)]], tiny.state())
    (name,) = tokenizer.encode(" Lily")
    assert results[1.0][1] == pytest.approx(tiny.softmax(plain)[name], rel=1e-3)  # 1e-3: logits off by 1e-3


@pytest.fixture(scope="module")
def surgery(example: Example) -> ModuleType:
    return example("state_surgery")


def test_state_surgery_blends_what_two_texts_left(
    surgery: ModuleType, tiny: rg.Model, tokenizer: rg.Tokenizer, tmp_path: Path
) -> None:
    stories = surgery.main(folder=tmp_path, max_tokens=12)
    first, second = (greedy(tiny, tokenizer, " One day,", 12, after=text) for text in surgery.TEXTS)
    assert stories["0% of the second"] == first
    assert stories["100% of the second"] == second
    assert stories["25% of the second"] not in (first, second)
    assert "ship" in stories["25% of the second"]
    assert "cat" in stories["75% of the second"]
    layers = [story for name, story in stories.items() if "layer" in name]
    assert len(layers) == tiny.info.num_layer - 1
    assert len({first, second, *layers}) > 2

    state = tiny.state()
    tiny.run([[0, *tokenizer.encode(surgery.TEXTS[1])]], state)
    saved = tiny.state()
    saved.load(tmp_path / "second.st", 0)
    np.testing.assert_allclose(saved.read(0), state.read(0), rtol=0, atol=1e-4)  # made on another device


def test_state_surgery_takes_whole_layers(surgery: ModuleType, rng: np.random.Generator) -> None:
    one, two = rng.normal(size=(2, 6, 4, 3))
    mixed = surgery.mixtures(one, two)
    np.testing.assert_array_equal(mixed["50% of the second"], (one + two) / 2)
    np.testing.assert_array_equal(mixed["the second from layer 2 on"], [*one[:2], *two[2:]])
