"""Grouping: which operations share a pass, which do not and why; and that the order means the same."""

from collections.abc import Callable
from dataclasses import replace

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings

from rwkvgraph import ops, v4, v6
from rwkvgraph.compiler import Fused, Limits, fuse, simplify
from rwkvgraph.compiler.fuse import BESIDE, RULES
from rwkvgraph.graph import Graph
from rwkvgraph.hooks import Hooks
from rwkvgraph.interpret import Host, interpret
from rwkvgraph.model import Model
from rwkvgraph.op import Array, Buffer, DType, Role, Tensor, tape
from rwkvgraph.splice import splice
from rwkvgraph.testing import buffers_of, matrix
from rwkvgraph.view import B, E, N, O, T, View, resolve
from tests.rwkvgraph.models.synthetic import synthetic, synthetic_v7
from tests.rwkvgraph.random_graphs import Sample, samples

LIMITS = Limits.webgpu_default()
ROOMY = replace(LIMITS, max_storage_buffers=64)
BATCH = Buffer("batch", (T, 8), DType.U32, Role.STATE)
CURSORS = BATCH[:, 0:4]
STARTS = Tensor(BATCH, View((N,), (8,), 6), DType.U32)


def activations(name: str, width: int = 8) -> Tensor:
    return Buffer(name, (T, width), DType.F32, Role.STATE).tensor


def state(name: str, *shape: int) -> Tensor:
    return Buffer(name, (B, *shape), DType.F32, Role.STATE).tensor


def recur(x: Tensor) -> Tensor:
    r, w, k, v, kk, a = (part.reshape(T, 2, 4) for part in [x, *map(activations, "wkvna")])
    return ops.wkv7(STARTS, CURSORS, r, w, k, v, kk, a, state("memory", 4, 8)).reshape(T, 8)


def norm(x: Tensor) -> Tensor:
    return ops.l2_norm(x.reshape(T, 2, 4)).reshape(T, 8)


KINDS: dict[str, Callable[[Tensor], Tensor]] = {
    "map": ops.tanh,
    "row": norm,
    "matmul": lambda x: ops.matmul(matrix(np.ones((8, 8))), x),
    "wkv": recur,
}


def graph_of(build: Callable[[], object]) -> Graph:
    with tape() as items:
        build()
    return Graph(tuple(items))


def labels(build: Callable[[], object], limits: Limits = LIMITS) -> list[str]:
    """The passes of what is built."""
    return [group.label for group in fuse(graph_of(build), limits).groups]


def reasons(build: Callable[[], object], limits: Limits = LIMITS) -> str:
    """Why neighbours of what is built stayed apart."""
    return "\n".join(item.reason for item in fuse(graph_of(build), limits).refusals)


def keep(x: Tensor, name: str = "out") -> None:
    ops.blit(x, Buffer(name, x.shape, DType.F32, Role.STATE).tensor)


@pytest.mark.parametrize("consumer", KINDS)
@pytest.mark.parametrize("producer", KINDS)
def test_neighbours_share_a_pass_where_the_table_has_them(producer: str, consumer: str) -> None:
    made: list[Tensor] = []

    def build() -> None:
        made.append(KINDS[producer](activations("x")))
        made.append(KINDS[consumer](made[0]))
        keep(made[1])

    fused = fuse(graph_of(build), replace(LIMITS, max_storage_buffers=16))
    first, second = (group for tensor in made for group in fused.groups if tensor.source in group.ops)
    if (producer, consumer) in RULES:
        assert first is second
        assert first.kind == RULES[producer, consumer][0]
    else:
        assert first is not second
        assert f"no rule puts a {consumer} after a {producer}" in "\n".join(
            item.reason for item in fused.refusals
        )


def test_a_whole_chain_of_rules_becomes_one_pass() -> None:
    assert labels(lambda: keep(ops.tanh(norm(ops.sigmoid(activations("x")))))) == [
        "sigmoid+l2_norm+tanh+blit"
    ]


@pytest.mark.parametrize(("host", "guest"), BESIDE)
def test_passes_that_do_not_need_each_other_share_one_where_the_table_has_them(host: str, guest: str) -> None:
    def build() -> None:
        if guest == "matmul":
            keep(KINDS["matmul"](activations("y")), "other")
        else:
            ops.keep_last(activations("y"), state("last", 8), CURSORS)
        keep(KINDS[host](activations("x")))

    (group,) = fuse(graph_of(build), replace(LIMITS, max_storage_buffers=16)).groups
    assert group.kind == BESIDE[host, guest][0]


def test_matmuls_of_one_another_stay_apart() -> None:
    def build() -> None:
        first = KINDS["matmul"](activations("x"))
        keep(KINDS["matmul"](first))
        keep(first, "first")

    assert len(labels(build)) == 2


def test_a_row_read_from_another_place_stays_apart() -> None:
    def build() -> None:
        y = ops.tanh(activations("x"))
        ops.blit(y[-1], Buffer("captured", (8,)).tensor)
        keep(y)

    assert labels(build) == ["tanh+blit", "blit"]
    assert "it reads other elements than were made in its place" in reasons(build)


def test_a_shuffled_result_stays_apart() -> None:
    def build() -> None:
        y = ops.tanh(activations("x"))
        keep(ops.exp(y.reshape(T, 2, 4).transpose(0, 2, 1)))

    assert "it reads other elements" in reasons(build)


def test_rows_gathered_from_a_result_stay_apart() -> None:
    rows = Tensor(BATCH, View((O,), (8,), 5), DType.U32)
    text = reasons(lambda: keep(ops.gather(ops.tanh(activations("x")), rows)))
    assert "it reads" in text


def test_one_token_back_is_computed_again_but_two_are_not() -> None:
    def shifted(x: Tensor, name: str) -> Tensor:
        return ops.previous_token(x, state(name, 8), CURSORS)

    assert labels(lambda: keep(shifted(ops.tanh(activations("x")), "s"))) == ["tanh+previous_token+blit"]
    text = reasons(lambda: keep(shifted(shifted(ops.tanh(activations("x")), "s"), "t")))
    assert "it reads the row before, which is too much to compute again" in text
    assert len(labels(lambda: keep(shifted(ops.tanh(shifted(activations("x"), "s")), "t")))) == 2


def test_a_state_is_never_read_and_written_in_one_pass() -> None:
    memory = state("shared", 8)

    def build() -> None:
        x = ops.tanh(activations("x"))
        keep(ops.previous_token(x, memory, CURSORS))
        ops.keep_last(x, memory, CURSORS)

    assert labels(build) == ["tanh+previous_token+blit", "keep_last"]
    assert "write after read: other workgroups may be at either" in reasons(build)


def test_a_reader_of_what_was_just_written_waits_for_the_next_pass() -> None:
    def build() -> None:
        x = ops.tanh(activations("x"))
        buffer = Buffer("kept", (T, 8), DType.F32, Role.STATE).tensor
        ops.blit(x, buffer)
        keep(ops.add(x, buffer))

    assert labels(build) == ["tanh+blit", "add+blit"]
    assert "read after write" in reasons(build)


def test_a_pass_between_two_operations_keeps_them_apart() -> None:
    def build() -> None:
        x = ops.tanh(activations("x"))
        seen = Buffer("seen", (8,))
        ops.blit(x[-1], seen.tensor)
        keep(ops.add(x, seen.tensor))

    assert "a third pass would have to run both before and after" in reasons(build)
    assert len(labels(build)) == 3


@pytest.mark.parametrize(("limit", "passes"), [(8, 1), (5, 1), (4, 2), (3, 3)])
def test_no_pass_binds_more_buffers_than_the_limit(limit: int, passes: int) -> None:
    def build() -> None:
        total = ops.tanh(activations("a"))
        for name in "bcd":
            total = ops.add(total, activations(name))
        keep(total)

    limits = replace(LIMITS, max_storage_buffers=limit)
    assert len(labels(build, limits)) == passes
    assert (f"buffers, and the device binds {limit}" in reasons(build, limits)) == (passes > 1)


def test_refusals_are_printed_with_the_operations_they_are_about() -> None:
    def build() -> None:
        keep(KINDS["matmul"](ops.tanh(activations("x"))))

    assert "%0 | %1 apart: no rule puts a matmul after a map into one pass" in str(
        fuse(graph_of(build), LIMITS)
    )


def check_order(graph: Graph, fused: Fused) -> None:
    """Every op once; every dependency kept, hazards by different passes; the groups form no circle."""
    assert sorted(map(id, fused.ops())) == sorted(map(id, graph.ops))
    home = {id(op): index for index, group in enumerate(fused.groups) for op in group.ops}
    place = {id(op): index for index, op in enumerate(fused.ops())}
    quotient: nx.DiGraph[int] = nx.DiGraph()
    quotient.add_nodes_from(range(len(fused.groups)))
    for earlier, later, why in graph.dependencies:
        a, b = graph.ops[earlier], graph.ops[later]
        assert place[id(a)] < place[id(b)]
        assert why == "data" or home[id(a)] < home[id(b)], f"{why} inside a pass: {a!r}, {b!r}"
        if home[id(a)] != home[id(b)]:
            quotient.add_edge(home[id(a)], home[id(b)])
    assert nx.is_directed_acyclic_graph(quotient)


def contents_after(sample: Sample, ops_in_order: tuple[object, ...]) -> list[bytes]:
    host = Host()
    memories = [
        host.place(
            buffer,
            sample.sizes,
            sample.contents.get(buffer, None) if buffer in sample.contents else buffer.read(),
        )
        for buffer in buffers_of(sample.graph)
    ]
    interpret(ops_in_order, host, sample.sizes)  # type: ignore[arg-type]  # ops, all of them
    return [memory.read().tobytes() for memory in memories]


@settings(max_examples=150, deadline=None)
@given(samples(most=24))
def test_fusing_a_random_graph_keeps_its_meaning_to_the_bit(sample: Sample) -> None:
    for limits in (LIMITS, replace(LIMITS, max_storage_buffers=4)):
        fused = fuse(sample.graph, limits)
        check_order(sample.graph, fused)
        assert contents_after(sample, fused.ops()) == contents_after(sample, sample.graph.ops)


@pytest.fixture(scope="module")
def tiny() -> Model:
    tensors = synthetic_v7(3, 32, head_size=8, hidden=48, vocab=40, low_rank=(4, 8, 4, 12))
    return Model.load(tensors, device="cpu")


def logits_and_states(model: Model, cuts: list[int], order: tuple[object, ...]) -> list[Array]:
    """What a run of random tokens leaves in every buffer but the weights, from the same start."""
    rng = np.random.default_rng(5)
    sizes = {T: sum(cuts), O: len(cuts), B: len(cuts) + 1, N: len(cuts), E: 2}
    words = np.zeros((sizes[T], 8), np.uint32)
    for index, count in enumerate(cuts):
        at = sum(cuts[:index])
        words[at : at + count, :3] = len(cuts) - index, at, count
        words[index, 5:7] = at + count - 1, at
    words[:, 4] = rng.integers(0, model.info.num_vocab, sizes[T])
    words[:, 7] = rng.integers(0, 3, sizes[T])  # some are vectors
    host = model.engine.host  # type: ignore[attr-defined]  # numpy's engine
    memories = []
    for buffer in buffers_of(model.graph):
        if buffer.role is not Role.WEIGHT:
            shape = [resolve(size, sizes) for size in buffer.shape]
            start = words if buffer.name == "batch" else rng.normal(size=shape).astype(np.float32)
            memories.append(host.place(buffer, sizes, start))
    interpret(order, host, sizes)  # type: ignore[arg-type]  # ops, all of them
    return [memory.read() for memory in memories]


@pytest.mark.parametrize("cuts", [[1], [5], [1, 3, 1], [100, 1, 29]])
def test_fusing_a_model_keeps_its_meaning_to_the_bit(tiny: Model, cuts: list[int]) -> None:
    graph = simplify(splice(tiny.graph)).graph
    fused = fuse(graph, LIMITS)
    check_order(graph, fused)
    before, after = (logits_and_states(tiny, cuts, order) for order in (tiny.graph.ops, fused.ops()))
    for a, b in zip(before, after, strict=True):
        assert a.tobytes() == b.tobytes()


def test_a_layer_takes_at_most_twelve_passes_within_webgpu_defaults(tiny: Model) -> None:
    fused = fuse(simplify(splice(tiny.graph)).graph, LIMITS)
    assert max(len(fused.passes_of(layer)) for layer in range(3)) <= 12  # web-rwkv takes 44


@pytest.mark.parametrize(
    ("version", "before"),
    [("v7", ["matmul+tanh+matmul×2+sigmoid+matmul", "matmul×7"]), ("v6", ["matmul+tanh", "matmul×5+silu"])],
)
def test_what_only_a_recurrence_waits_for_is_multiplied_last_before_it(
    version: str, before: list[str]
) -> None:
    model = Model.load(synthetic(layers=2, width=128, version=version), device="cpu")
    groups = fuse(simplify(splice(model.graph, None)).graph, ROOMY).passes_of(1)
    labels = [group.label for group in groups]
    at = next(index for index, group in enumerate(groups) if group.kind == "wkv")
    assert labels[at - 2 : at] == before


def test_products_of_hooks_wait_only_where_nothing_waits_for_them() -> None:
    """A low-rank change of k: its first product stays early, its second goes beside k itself."""
    w, down, up = matrix(np.ones((8, 8))), matrix(np.ones((8, 8))), matrix(np.ones((8, 8)))
    with tape() as items:
        x = activations("x")
        k = ops.add(ops.matmul(w, x), ops.matmul(up, ops.matmul(down, x)))
        recur(k)
    kinds = [[op.name for op in group.ops] for group in fuse(Graph(tuple(items)), ROOMY).groups]
    assert kinds[0] == ["matmul"]
    assert sum(name == "matmul" for name in kinds[1]) == 2


@pytest.mark.parametrize("version", ["v4", "v6"])
@pytest.mark.parametrize("limits", [LIMITS, ROOMY], ids=["8 buffers", "64 buffers"])
def test_products_that_no_recurrence_reads_do_not_make_others_wait(version: str, limits: Limits) -> None:
    model = Model.load(synthetic(layers=2, width=64, version=version), device="cpu")
    down, up = matrix(np.ones((8, 64))), matrix(np.ones((64, 8)))
    hooks = Hooks()

    @hooks.on(v4.PreAtt if version == "v4" else v6.PreAtt)
    def change(frame: v4.Frame, layer: int) -> None:
        frame.x = frame.x + ops.matmul(up, ops.matmul(down, frame.x))

    groups = fuse(simplify(splice(model.graph, hooks)).graph, limits).groups
    assert len(groups) <= {"v4": 17, "v6": 23}[version]
