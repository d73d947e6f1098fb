"""Recurrences whose heads are shared by workgroups: long runs of few heads, on GPUs.

A token's lanes have to be in one subgroup. Those of software have 8 threads, as many as heads of 32 take;
`make test` runs this once more where they have 16, for heads of 64: LP_NATIVE_VECTOR_WIDTH=512.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rwkvgraph import ops
from rwkvgraph.compiler import compile, tuning
from rwkvgraph.gpu import Context
from rwkvgraph.graph import Graph
from rwkvgraph.model import Model
from rwkvgraph.op import Array, Buffer, Home, tape
from rwkvgraph.ops.recurrence import Recurrence
from rwkvgraph.ops.wkv7 import Wkv7
from rwkvgraph.testing import check_graph, holding
from rwkvgraph_codegen import HeadPart
from tests.rwkvgraph.hardware import hardware, is_shared, need_lanes, program_of, relay_context, sizes_of
from tests.rwkvgraph.models.synthetic import synthetic
from tests.rwkvgraph.models.yardstick import cut_at, expect, feed
from tests.rwkvgraph.recurrences import constant_heads, recurrence

pytestmark = pytest.mark.gpu

Numbers = np.random.Generator
ROOM = 48 << 10
"""Bytes of workgroup memory that 16 threads a pair of columns take, in heads of 64; software has as much."""
SHARED = [(16, 4), (32, 4), (32, 8), (64, 4), (64, 8), (64, 16)]
"""Sizes of heads, and threads that share a pair of columns."""


@pytest.fixture(scope="module")
def context(gpu: Context) -> Iterator[Context]:
    """A device taken for a GPU whose subgroups are known."""
    made = Context.create()
    limits = replace(
        gpu.target.limits, max_workgroup_storage=max(ROOM, gpu.target.limits.max_workgroup_storage)
    )
    made.target = hardware(gpu.target, lanes=gpu.target.lanes, limits=limits)
    yield made
    made.destroy()


def sharing(shares: int) -> tuning.Tuning:
    return replace(tuning.GPU, parts=((shares, 1 << 20),))


def heads_of(rng: Numbers, version: str, cuts: tuple[int, ...], size: int) -> Recurrence:
    """The recurrence of a version, of two heads."""
    if version == "v7":
        return recurrence(rng, size, 2, cuts)
    return constant_heads(rng, size, version == "v5", cuts)


@pytest.mark.parametrize("cuts", [(16,), (17,), (33, 1, 70)], ids=str)
@pytest.mark.parametrize(
    ("version", "size", "shares"),
    # The rule of V5 is V6's: once more for small heads alone, as llvmpipe compiles those of 64 for seconds.
    [(name, *head) for name in ("v5", "v6", "v7") for head in SHARED if head[0] < 64 or name != "v5"],
)
def test_a_head_that_workgroups_share(
    context: Context,
    rng: Numbers,
    monkeypatch: pytest.MonkeyPatch,
    version: str,
    size: int,
    shares: int,
    cuts: tuple[int, ...],
) -> None:
    need_lanes(context.target, size // 4)
    monkeypatch.setattr(tuning, "GPU", sharing(shares))
    with tape() as items:
        y = heads_of(rng, version, cuts, size).result
        weight, bias = holding(rng.normal(size=size)), holding(rng.normal(size=size))
        ops.blit(ops.layer_norm(y, weight, bias), holding(np.zeros((sum(cuts), 2, size))))
    graph = Graph(tuple(items))
    program = compile(graph, None, context.target)
    assert is_shared(program, sum(cuts), len(cuts))
    (item,) = program.passes
    assert item.variant({}).source.threads == 3 * size // 8 * shares
    check_graph(graph, context, target=context.target)


def test_what_reads_other_rows_may_be_shared(context: Context, rng: Numbers) -> None:
    need_lanes(context.target, 8)
    with tape() as items:
        y = heads_of(rng, "v7", (40,), 32).result.reshape(40, 64)
        picked = ops.gather(
            holding(rng.normal(size=(5, 64))), holding(rng.integers(0, 5, 40).astype(np.uint32))
        )
        ops.blit(ops.add(y, picked), holding(np.zeros((40, 64))))
    check_one_pass(Graph(tuple(items)), context, True)


def test_what_reads_memory_that_it_writes_has_whole_heads(context: Context, rng: Numbers) -> None:
    home = Home("states", 2)
    with tape() as items:
        made = heads_of(rng, "v7", (40,), 32)
        kept = holding(rng.normal(size=(40, 2, 32)))
        for tensor in (made.state, kept):
            assert isinstance(tensor.source, Buffer)
            tensor.source.home = home
        ops.blit(ops.add(made.result, kept), holding(np.zeros((40, 2, 32))))
    check_one_pass(Graph(tuple(items)), context, False)


def check_one_pass(graph: Graph, context: Context, shared: bool) -> None:
    program = compile(graph, None, context.target)
    assert len(program.passes) == 1
    assert is_shared(program, 40, 1) == shared
    check_graph(graph, context, target=context.target)


@pytest.mark.parametrize("cuts", [(17,), (33, 1, 70)], ids=str)
def test_results_may_leave_the_pass(context: Context, rng: Numbers, cuts: tuple[int, ...]) -> None:
    need_lanes(context.target, 8)
    count = sum(cuts)
    with tape() as items:
        y = heads_of(rng, "v7", cuts, 32).result
        weight, bias = holding(rng.normal(size=(2, 32))), holding(rng.normal(size=(2, 32)))
        ops.blit(ops.layer_norm(y, weight[0], bias[0]), holding(np.zeros((count, 2, 32))))
        normed = ops.layer_norm(y.reshape(count, 64), weight.reshape(64), bias.reshape(64))  # of both heads
        ops.blit(normed, holding(np.zeros((count, 64))))
    graph = Graph(tuple(items))
    program = compile(graph, None, context.target)
    assert len(program.passes) == 2
    assert is_shared(program, count, len(cuts))
    check_graph(graph, context, target=context.target)


@pytest.mark.parametrize(
    "changes", [{"lanes": 0}, {"lanes": 4}, {"subgroups": False}, {"kind": "cpu"}], ids=str
)
def test_where_subgroups_do_not_hold_a_head_it_is_whole(context: Context, changes: dict[str, Any]) -> None:
    model = Model.load(synthetic("v7", 1, 64, head_size=32), "cpu")
    program = compile(model.graph, None, replace(context.target, **changes))
    assert not is_shared(program, 100, 1)
    assert not program.plan.between


def test_a_rule_without_idle_numbers_has_whole_heads(
    context: Context, rng: Numbers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Wkv7, "rule", replace(Wkv7.rule, idle=None))
    with tape() as items:
        ops.blit(heads_of(rng, "v7", (40,), 32).result, holding(np.zeros((40, 2, 32))))
    check_one_pass(Graph(tuple(items)), context, False)


@pytest.mark.parametrize(("size", "shares"), [*SHARED, (128, 4), (128, 8), (256, 4)])
@pytest.mark.parametrize("version", ["v6", "v7"])
def test_its_workgroup_memory_is_known(
    context: Context, rng: Numbers, monkeypatch: pytest.MonkeyPatch, version: str, size: int, shares: int
) -> None:
    monkeypatch.setattr(tuning, "GPU", sharing(shares))
    with tape() as items:
        ops.blit(heads_of(rng, version, (16,), size).result, holding(np.zeros((16, 2, size))))
    room = {"max_workgroup_storage": 1 << 20, "max_workgroup_invocations": 1024, "max_workgroup_size_x": 1024}
    target = replace(context.target, lanes=64, limits=replace(context.target.limits, **room))
    (item,) = compile(Graph(tuple(items)), None, target).passes
    bytes_of = {"f32": 4, "vec2<f32>": 8, "vec4<f32>": 16}
    arrays = re.findall(r"var<workgroup> \w+: array<(\S+), (?:2 \* )?(\d+)>;", item.variant({}).source.text)
    doubled = re.findall(r"var<workgroup> \w+: array<(\S+), 2 \* (\d+)>;", item.variant({}).source.text)
    declared = sum(bytes_of[kind] * int(count) for kind, count in (*arrays, *doubled))
    known = HeadPart(size, shares).memory
    assert declared == known if version == "v7" else declared < known  # RWKV-6 does not look


@pytest.mark.parametrize("coherent", [False, True], ids=["a layer", "laps"])
def test_beside_relays(gpu: Context, coherent: bool) -> None:
    need_lanes(gpu.target, 16)
    tensors = synthetic("v7", 5, 128)
    context = relay_context(coherent, lanes=gpu.target.lanes)
    model = Model.load(tensors, context, token_chunk_size=64)
    program = program_of(model)
    assert program.relays
    assert is_shared(program, 40, 1)
    prompt = np.random.default_rng(5).integers(0, 256, 100).tolist()
    answer, ends = expect(tensors, prompt), [80, 81, 82, 99]
    state = model.state(2)
    logits = feed(model, state, [cut_at(prompt, ends), []])[0]
    for row, end in zip(logits, [*ends, 100], strict=True):
        answer.check_logits(row, end - 1)
    answer.check_state(state.read(0))
    context.destroy()


def test_which_runs_are_shared(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    need_lanes(context.target, 8)
    monkeypatch.setattr(tuning, "GPU", replace(tuning.GPU, parts=((8, 32), (4, 64)), part_tokens=16))
    model = Model.load(synthetic("v7", 2, 128, head_size=32), "cpu")
    program = compile(model.graph, None, context.target)
    assert [is_shared(program, tokens, 1) for tokens in (1, 15, 16, 1000)] == [False, False, True, True]
    assert [is_shared(program, 16 * slots, slots) for slots in (1, 2, 4, 5)] == [True, True, True, False]
    assert not is_shared(program, 63, 4)
    item = next(item for item in program.passes if item.group.kind == "wkv")
    threads = [item.variant(sizes_of(16 * slots, slots)).source.threads for slots in (1, 2, 3, 4)]
    assert threads == [96, 96, 48, 48]
    kernels = [repr(kernel) for kernel in item.variants if kernel.after is not None]
    assert [kernel.split(", for ")[1] for kernel in kernels] == [
        f"16 rows a slot and more, up to {most} workgroups)" for most in (32, 64)
    ]


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("version", ["v5.2", "v6", "v7"])
def test_a_model_of_any_version(context: Context, version: str, size: int) -> None:
    need_lanes(context.target, size // 4)
    tensors = synthetic(version, 2, 64, head_size=size, vocab=251)
    model = Model.load(tensors, context)
    prompt, other = (np.random.default_rng(seed).integers(0, 251, 131).tolist() for seed in (5, 6))
    answer, beside = expect(tensors, prompt), expect(tensors, other[:60])
    ends = [40, 57, 110]
    assert is_shared(program_of(model), 17, 1)
    state = model.state(3)
    logits = feed(model, state, [cut_at(prompt, ends), [other[:60]], []])
    for row, end in zip(logits[0], [*ends, 131], strict=True):
        answer.check_logits(row, end - 1)
    answer.check_state(state.read(0))
    beside.check_logits(logits[1][0])
    beside.check_state(state.read(1))


def test_values_in_its_pass_can_be_captured(context: Context) -> None:
    need_lanes(context.target, 8)
    tensors = synthetic("v7", 2, 64, head_size=32)
    prompts = [list(range(1, 61)), [], list(range(9, 49))]
    names = ["*.att_x@PostAttTimeMix", "*.att_k@PostAttControl"]
    found: list[list[Array]] = []
    for device in ("cpu", context):
        model = Model.load(tensors, device)
        state = model.state(3)
        logits, cache = model.run_with_cache(prompts, state, names, "full")
        values = [rows for value in cache.values() for rows in value if rows is not None]
        found.append([*values, *(row for row in logits if row is not None), state.read(0), state.read(2)])
    assert len(found[0]) > 8
    for wanted, given in zip(*found, strict=True):
        np.testing.assert_allclose(given, wanted, rtol=1e-3, atol=1e-4)
