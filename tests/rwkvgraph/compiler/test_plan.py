"""Scratch memory: nothing is overwritten before its last reader, and no pass has a slot on both sides."""

import numpy as np
from hypothesis import given, settings

from rwkvgraph import ops
from rwkvgraph.compiler import Fused, Limits, Plan, fuse, plan, simplify
from rwkvgraph.graph import Graph
from rwkvgraph.model import Model
from rwkvgraph.op import Buffer, DType, Role, Tensor, TensorOp, tape
from rwkvgraph.splice import splice
from rwkvgraph.testing import holding, matrix
from rwkvgraph.view import O, T, row_width
from tests.rwkvgraph.models.synthetic import synthetic_v7
from tests.rwkvgraph.random_graphs import Sample, samples

LIMITS = Limits.webgpu_default()


def check_plan(fused: Fused, planned: Plan) -> None:
    """What crosses passes has a place; lives that overlap share no element; no slot is read and written."""
    home = {op: index for index, group in enumerate(fused.groups) for op in group.ops}
    last: dict[TensorOp, int] = {}
    for index, group in enumerate(fused.groups):
        read = {tensor.source for op in group.ops for tensor in op.operands().values()}
        crossing = {op for op in read if isinstance(op, TensorOp) and home[op] != index}
        last |= dict.fromkeys(crossing, index)
        made = {op for op in group.ops if op in planned.places}
        assert not {planned.places[op].slot for op in made} & {planned.places[op].slot for op in crossing}
    assert set(last) == set(planned.places)
    for op, place in planned.places.items():
        assert 0 <= place.column <= place.stride - row_width(op.shape)
        assert place.stride <= place.slot.width
        assert place.slot.rows == (
            op.shape[0] if len(op.shape) > 1 or not isinstance(op.shape[0], int) else 1
        )
        for other, there in planned.places.items():
            lives = home[op] <= last[other] and home[other] <= last[op]
            if other is not op and there.slot is place.slot and lives:
                assert home[op] == home[other], "another pass writes a slot that is still wanted"
                before = place.column + row_width(op.shape) <= there.column
                assert before or there.column + row_width(other.shape) <= place.column


@settings(max_examples=100, deadline=None)
@given(samples(most=24))
def test_no_random_graph_is_planned_onto_itself(sample: Sample) -> None:
    fused = fuse(sample.graph, LIMITS)
    check_plan(fused, plan(fused.groups))


def planned_model(layers: int) -> tuple[Fused, Plan]:
    tensors = synthetic_v7(layers, 16, head_size=8, hidden=24, vocab=11, low_rank=(4, 4, 4, 4))
    fused = fuse(simplify(splice(Model.load(tensors, device="cpu").graph)).graph, LIMITS)
    return fused, plan(fused.groups)


def test_a_model_is_not_planned_onto_itself() -> None:
    check_plan(*planned_model(3))


def test_scratch_does_not_grow_with_the_number_of_layers() -> None:
    few, many = planned_model(3)[1], planned_model(12)[1]
    sizes = {T: 64, O: 2}
    assert many.bytes(sizes) == few.bytes(sizes)
    assert len(many.slots) == len(few.slots) <= 8


def test_scratch_grows_with_the_tokens_of_a_run_alone() -> None:
    planned = planned_model(2)[1]
    one, many = planned.bytes({T: 1, O: 1}), planned.bytes({T: 4096, O: 1})
    per_output = sum(slot.bytes({O: 1}) for slot in planned.slots if slot.rows is O)
    assert many - per_output == 4096 * (one - per_output)


def pass_chain(count: int) -> Graph:
    """Matmuls one after another: each needs a slot for its input and one for its result."""
    with tape() as items:
        x = Buffer("x", (T, 8), DType.F32, Role.STATE).tensor
        for _ in range(count):
            x = ops.matmul(matrix(np.eye(8)), x)
        ops.blit(x[-1], Buffer("last", (8,)).tensor)
    return Graph(tuple(items))


def test_a_slot_is_used_again_once_its_last_reader_has_run() -> None:
    planned = plan(fuse(pass_chain(9), LIMITS).groups)
    assert [len(slot.residents) for slot in planned.slots] == [5, 4]
    assert str(planned).startswith("slot0: 4·T·8 B   5 results: ")


def test_a_slot_grows_to_what_its_widest_resident_needs() -> None:
    def step(x: Tensor, width: int) -> Tensor:
        return ops.matmul(matrix(np.ones((width, 8 if x.shape[1] == 8 else 24))), x)

    with tape() as items:
        x = step(step(step(step(Buffer("x", (T, 8), DType.F32, Role.STATE).tensor, 8), 8), 24), 8)
        ops.blit(x[-1], Buffer("last", (8,)).tensor)
    planned = plan(fuse(Graph(tuple(items)), LIMITS).groups)
    assert [slot.width for slot in planned.slots] == [24, 8]


def test_results_whose_rows_are_read_as_one_lie_alone() -> None:
    with tape() as items:
        a, b = (f(holding(np.ones((4, 8)))) for f in (ops.exp, ops.tanh))
        ops.blit(a + b, Buffer("sum", (4, 8)).tensor)
        ops.blit(ops.exp(ops.identity(a.reshape(32))), Buffer("flat", (32,)).tensor)
    planned = plan(fuse(Graph(tuple(items)), LIMITS).groups)
    walked = [place for op, place in planned.places.items() if op.name == "exp"]
    assert [place.stride for place in walked] == [8]
