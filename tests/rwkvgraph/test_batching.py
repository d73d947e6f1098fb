"""Runs of many slots, of many tokens, of vectors in place of tokens, and with logits after every token."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rwkvgraph.gpu import Context
from rwkvgraph.gpu.runner import Runner
from rwkvgraph.hooks import Hooks
from rwkvgraph.model import Model
from rwkvgraph.models.sites import PostEmbedLoaded
from rwkvgraph.op import Array, Buffer
from rwkvgraph.ops import blit
from rwkvgraph.state import State
from rwkvgraph.view import B, E, N, O, T
from tests.rwkvgraph.conftest import Device
from tests.rwkvgraph.models.yardstick import Expected, expect

VOCAB, WIDTH = 150, 48


def some_ids(seed: int, count: int, below: int = VOCAB) -> list[int]:
    tokens: list[int] = np.random.default_rng(seed).integers(0, below, count).tolist()
    return tokens


@pytest.fixture(scope="module")
def story() -> list[int]:
    return some_ids(1, 200)


@pytest.fixture(scope="module")
def expected(small_tensors: dict[str, Array], story: list[int]) -> Expected:
    return expect(small_tensors, story)


@pytest.fixture(scope="module")
def chunked(small_tensors: dict[str, Array], device: Device) -> Model:
    return Model.load(small_tensors, device, 70)


def test_full_gives_the_logits_after_every_token(small: Model, story: list[int], expected: Expected) -> None:
    (logits,) = small.run([list(story)], small.state(), "full")
    assert logits is not None
    assert logits.shape == (200, VOCAB)
    for at, row in enumerate(logits):
        expected.check_logits(row, at)
    (last,) = small.run([list(story)], small.state())
    np.testing.assert_allclose(logits[-1], last, atol=1e-4)  # type: ignore[arg-type]


def test_full_ends_where_the_chunk_does(chunked: Model, story: list[int], expected: Expected) -> None:
    state, tokens = chunked.state(3), [list(story), [5], []]
    parts: list[Array] = []
    for options in (["full", "last", "full"], "full", ["full"] * 3):
        logits, one, nothing = chunked.run(tokens, state, options)  # type: ignore[arg-type]
        assert logits is not None
        assert nothing is None
        assert (one is None) == bool(parts)
        assert one is None or one.shape == (VOCAB,)
        parts.append(logits)
    assert [len(part) for part in parts] == [69, 70, 61]
    assert tokens == [[], [], []]
    for at, row in enumerate(np.concatenate(parts)):
        expected.check_logits(row, at)
    expected.check_state(state.read(0))


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 90), st.sampled_from(["last", "full"])), min_size=1, max_size=6))
def test_slots_choose_for_themselves(
    chunked: Model, story: list[int], expected: Expected, slots: list[tuple[int, Any]]
) -> None:
    state, tokens = chunked.state(len(slots)), [story[:count] for count, _ in slots]
    rows: list[int] = [0] * len(slots)
    while any(tokens):
        before = [len(slot) for slot in tokens]
        for slot, logits in enumerate(chunked.run(tokens, state, [option for _, option in slots])):
            took = before[slot] - len(tokens[slot])
            if slots[slot][1] == "last":
                assert (logits is not None) == (took > 0 and not tokens[slot])
                if logits is not None:
                    expected.check_logits(logits, slots[slot][0] - 1)
                continue
            assert (0 if logits is None else len(logits)) == took
            for row in () if logits is None else logits:
                expected.check_logits(row, rows[slot])
                rows[slot] += 1
    assert rows == [count if option == "full" else 0 for count, option in slots]


def test_full_with_hooks_is_full(small: Model, story: list[int]) -> None:
    seen = Buffer("seen", WIDTH)
    hooks = Hooks({PostEmbedLoaded(): lambda frame: blit(frame.input[-1], seen)})
    (plain,) = small.run([story[:9]], small.state(), "full")
    (hooked,) = small.run_with_hooks([story[:9]], small.state(), hooks, option="full")
    np.testing.assert_array_equal(plain, hooked)
    assert seen.read().any()


def test_a_wrong_option_is_refused_before_anything_runs(small: Model) -> None:
    state, tokens = small.state(2), [[1], [2]]
    for option in ("all", ["full"], ["full", "none"], None, 3):
        with pytest.raises(ValueError, match="option"):
            small.run(tokens, state, option)  # type: ignore[arg-type]  # that is the point
    assert tokens == [[1], [2]]
    assert state.is_empty(0)


@pytest.mark.gpu
def test_full_is_run_in_passes_whose_logits_fit(
    gpu: Context, small_tensors: dict[str, Array], story: list[int], expected: Expected
) -> None:
    model = Model.load(small_tensors, gpu, 4096)
    program = model.program()
    program.most_outputs = 7
    (logits, other) = model.run([list(story), story[:30]], model.state(2), "full")
    assert logits is not None
    assert other is not None
    for at, row in enumerate(logits):
        expected.check_logits(row, at)
    np.testing.assert_allclose(other, logits[:30], atol=1e-4)


def test_a_vector_is_the_same_as_the_row_of_the_table(
    small: Model, small_tensors: dict[str, Array], story: list[int]
) -> None:
    table = small_tensors["emb.weight"].astype(np.float32)
    prompts = [story[:40], story[40:41], story[50:60]]
    plain, mixed = small.state(3), small.state(3)
    wanted = small.run([list(prompt) for prompt in prompts], plain, "full")
    for every in (1, 2, 5):
        tokens: list[list[Any]] = [
            [table[token] if at % every == 0 else token for at, token in enumerate(prompt)]
            for prompt in prompts
        ]
        found = small.run(tokens, mixed, "full")
        for one, other in zip(wanted, found, strict=True):
            np.testing.assert_array_equal(one, other)
        for slot in range(3):
            np.testing.assert_array_equal(plain.read(slot), mixed.read(slot))
            mixed.clear(slot)


def test_vectors_may_be_anything_and_are_cut_as_tokens_are(
    chunked: Model, small_tensors: dict[str, Array], rng: np.random.Generator
) -> None:
    # A model whose table holds the vectors says what they should give.
    vectors = rng.standard_normal((90, WIDTH)).astype(np.float16)
    longer = {**small_tensors, "emb.weight": small_tensors["emb.weight"].copy()}
    longer["emb.weight"][:90] = vectors
    prompt = [value % 90 if value % 3 else value % 60 + 90 for value in some_ids(7, 100)]
    tokens: list[list[Any]] = [[vectors[token] if token < 90 else token for token in prompt]]
    state = chunked.state()
    assert chunked.run(tokens, state) == [None]
    assert len(tokens[0]) == 30
    (logits,) = chunked.run(tokens, state)
    answer = expect(longer, prompt)
    answer.check_logits(logits)
    answer.check_state(state.read(0))


def test_vectors_compile_nothing_and_hooks_see_them(
    small: Model, rng: np.random.Generator, device: Device
) -> None:
    seen = Buffer("seen", WIDTH)
    hooks = Hooks({PostEmbedLoaded(): lambda frame: blit(frame.input[-1], seen)})
    state = small.state()
    small.run_with_hooks([[1, 2, 3]], state, hooks)
    kernels = len(device.kernels) if isinstance(device, Context) else 0
    vector = rng.standard_normal(WIDTH).astype(np.float32)
    tokens: list[list[Any]] = [[1, vector + 1, vector]]
    small.run_with_hooks(tokens, state, hooks)
    np.testing.assert_array_equal(seen.read(), vector)
    small.run_with_hooks([[1, 2, 3]], state, hooks)
    assert not np.array_equal(seen.read(), vector)
    assert isinstance(device, str) or len(device.kernels) == kernels


def test_a_vector_that_does_not_fit_is_refused_before_anything_runs(small: Model) -> None:
    state = small.state()
    for bad in (np.zeros(WIDTH + 1), np.full(WIDTH, np.nan), np.zeros(WIDTH, int)):
        tokens: list[list[Any]] = [[1, bad]]
        with pytest.raises(ValueError, match=r"token 1 of slot 0 is an array of .*floats of shape \(48,\)"):
            small.run(tokens, state)
        assert len(tokens[0]) == 2
    assert state.is_empty(0)


@pytest.mark.gpu
def test_a_layer_takes_no_pass_more_for_vectors(gpu: Context, small_tensors: dict[str, Array]) -> None:
    program = Model.load(small_tensors, gpu).program()
    assert isinstance(program, Runner)
    assert "replace_rows+layer_norm" in program.program.passes[0].label


@pytest.mark.gpu
def test_runs_of_any_length_compile_nothing(gpu: Context, small_tensors: dict[str, Array]) -> None:
    model = Model.load(small_tensors, gpu, 600)
    program, state = model.program(), model.state(3)
    assert isinstance(program, Runner)
    for item in program.program.passes:  # each has a few kernels, by number of rows
        for variant in item.variants:
            for kernel in variant.kernels:
                program.kernel(item, kernel)
    for relay in program.program.every_relay:  # and where a token is alone, one
        program.kernel(relay, relay.variant)
    kernels = len(gpu.kernels)
    sweep = [*range(1, 70), *range(70, 600, 41), 600]
    for count in sweep:
        model.run([some_ids(count, count - count // 3), [], [1] * (count // 3)], state)
    model.run([[1] * 40, [2], []], state, "full")
    assert len(gpu.kernels) == kernels
    assert model.program() is program


@pytest.mark.gpu
def test_how_many_slots_or_vectors_changes_no_dispatch(gpu: Context, small_tensors: dict[str, Array]) -> None:
    model = Model.load(small_tensors, gpu)
    program, block = model.program(), model.state(4).blocks[0]
    assert isinstance(program, Runner)
    sizes = {T: 4, O: 1, N: 1, B: 4, E: 4}
    prepared = program.steps(sizes, block, block.memory)
    assert program.steps({**sizes, E: 2, B: 3}, block, block.memory) is prepared
    assert program.steps({**sizes, T: 3}, block, block.memory) is not prepared


def check_many(model: Model, tensors: dict[str, Array], state: State, below: int) -> None:
    """Every slot gets its own tokens; some are compared with what they give alone."""
    count = state.num_batch
    prompts = [some_ids(slot, 1 + slot % 3, below) for slot in range(count)]
    logits = model.run([list(prompt) for prompt in prompts], state)
    noise = expect(tensors, some_ids(0, 30, below))
    for slot in (0, 1, 255, 256, count // 2, count - 1):
        answer = expect(tensors, prompts[slot]).no_stricter_than(noise)
        answer.check_logits(logits[slot])
        answer.check_state(state.read(slot))


def test_four_thousand_slots_share_a_run(
    small_tensors: dict[str, Array], device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Model.load(small_tensors, device, 16384)
    whole = model.state(4096)
    assert len(whole.blocks) == 1
    check_many(model, small_tensors, whole, VOCAB)
    monkeypatch.setattr(model.engine, "most_bytes", 3072 * 1000)
    blocks = model.state(4096)
    assert [block.num_batch for block in blocks.blocks] == [1000, 1000, 1000, 1000, 96]
    check_many(model, small_tensors, blocks, VOCAB)
    np.testing.assert_allclose(blocks.read(2999), whole.read(2999), atol=1e-4)


@pytest.mark.gpu
@pytest.mark.slow
def test_four_thousand_slots_of_a_real_model_do_not_fit_a_binding(
    gpu: Context, tiny_tensors: dict[str, Array]
) -> None:
    model = Model.load(tiny_tensors, gpu, 16384)
    state = model.state(4096)  # 1.6 GB; a slot has 64 KiB a layer
    assert state.block_slots == min(4096, model.engine.most_bytes // (64 << 10))
    check_many(model, tiny_tensors, state, 4096)
    kept = state.read(4095)
    state.copy(4095, 7)
    np.testing.assert_array_equal(state.read(7), kept)


def test_a_run_takes_sixteen_thousand_tokens(small_tensors: dict[str, Array], device: Device) -> None:
    model = Model.load(small_tensors, device, 16384)
    short, long = some_ids(3, 384), some_ids(4, 16000)
    answer = expect(small_tensors, short)
    state = model.state(2)
    tokens = [list(long), list(short)]
    one, other = model.run(tokens, state)
    assert tokens == [[], []]
    assert one is not None
    assert np.isfinite(one).all()
    answer.check_logits(other)
    answer.check_state(state.read(1))
