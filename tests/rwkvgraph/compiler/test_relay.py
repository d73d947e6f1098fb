"""Which passes become a relay, and what holds for each: no device is asked."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from rwkvgraph import ops, v7
from rwkvgraph.bench.subject import synthetic as synthetic_model
from rwkvgraph.compiler import NAGA, Program, Target, compile, tuning
from rwkvgraph.compiler.plan import Slot
from rwkvgraph.compiler.program import Relay
from rwkvgraph.compiler.relay import ONE, steps_of
from rwkvgraph.compiler.variant import MEETING
from rwkvgraph.graph import Graph
from rwkvgraph.hooks import Hooks
from rwkvgraph.model import Model
from rwkvgraph.op import Buffer, Role, tape
from rwkvgraph.sight.stages import subject_of
from rwkvgraph.testing import matrix
from rwkvgraph.view import T
from rwkvgraph_codegen import relay_bytes
from rwkvgraph_codegen.matmul_share import ASKED
from tests.rwkvgraph.models.synthetic import VERSIONS, synthetic

MIB = 1 << 20
BROWSER = Target.browser(subgroups=True)
ROOM = {"max_storage_buffers": 500, "max_workgroup_storage": 49152, "max_storage_binding": 2048 * MIB}
NVIDIA = replace(BROWSER, dialect=NAGA, lanes=32, resident=128, limits=replace(BROWSER.limits, **ROOM))


@cache
def graph(version: str) -> Graph:
    return Model.load(synthetic(version=version, layers=3, width=128), device="cpu").graph


@cache
def program(version: str, target: Target = NVIDIA) -> Program:
    return compile(graph(version), None, target)


def legs(relay: Relay) -> list[tuple[set[object], set[object]]]:
    """What each kernel of a relay (reads or writes, writes); those side by side are one."""
    found: list[tuple[set[object], set[object]]] = []
    for step in steps_of(relay.passes):
        bound = list(zip(step.buffers, step.variant.source.bindings, strict=True))
        found.append(({buffer for buffer, _ in bound}, {buffer for buffer, own in bound if own.writable}))
    return found


@pytest.mark.parametrize("version", VERSIONS)
def test_a_layer_is_one_relay_and_a_text_serves_the_layers_between(version: str) -> None:
    compiled = program(version)
    layers = [relay.passes[0].layer for relay in compiled.relays]
    assert layers[:3] == [0, 1, 2]
    for relay in compiled.relays[:3]:
        assert relay.passes == compiled.passes_of(relay.passes[0].layer)
        assert relay.buffers[-1] is MEETING
    longer = Model.load(synthetic(version=version, layers=5, width=128), device="cpu").graph
    relays = compile(longer, None, NVIDIA).relays
    assert len({relay.variant.source.text for relay in relays[1:4]}) == 1
    assert relays[1].variant.table != relays[2].variant.table or version == "v4"


@pytest.mark.parametrize("version", VERSIONS)
def test_nothing_is_read_that_a_cache_may_have_from_before_it_was_written(version: str) -> None:
    for relay in program(version).relays:
        seen: set[object] = set()
        over: set[object] = set()
        for touched, written in legs(relay):
            assert not touched & over
            for buffer in written & seen:
                assert not isinstance(buffer, Slot), "a slot of a layer is written once, before it is read"
                over.add(buffer)
            seen |= touched


@pytest.mark.parametrize("version", VERSIONS)
def test_what_a_relay_writes_is_coherent_where_it_is_written_again(version: str) -> None:
    def declared(target: Target) -> list[tuple[bool, bool]]:
        bindings = [
            item for relay in program(version, target).relays for item in relay.variant.source.bindings
        ]
        return [
            (item.writable, item.declaration().startswith("@coherent"))
            for item in bindings
            if not item.is_atomic
        ]

    found = declared(replace(NVIDIA, coherent=True))
    assert {(True, True), (False, False)} == set(found)
    assert not any(coherent for _, coherent in declared(NVIDIA))


def test_a_graph_that_is_only_looked_at_has_the_laps_of_the_model() -> None:
    target = replace(NVIDIA, coherent=True)
    graph = subject_of(synthetic_model("v7:6x128"), target).graph
    assert [relay.laps for relay in compile(graph, None, target).relays if relay.meets] == [1, 4, 1]


@pytest.mark.parametrize("version", VERSIONS)
def test_workgroup_memory_of_all_legs_fits(version: str) -> None:
    for relay in program(version).relays:
        sources = [step.variant.source for step in steps_of(relay.passes)]
        table = len(relay.variant.table) * 16
        assert relay_bytes(sources) + table <= NVIDIA.limits.max_workgroup_storage
        assert f"table: array<vec4<u32>, {len(relay.variant.table)}>" in relay.variant.source.text
    small = replace(NVIDIA, limits=replace(NVIDIA.limits, max_workgroup_storage=20000))
    whole = [len(relay.passes) for relay in program(version).relays]
    assert sum(len(relay.passes) for relay in program(version, small).relays) <= sum(whole)


def test_without_workgroups_that_run_at_once_none_of_them_meet() -> None:
    assert not any(relay.meets for relay in program("v7", replace(NVIDIA, resident=0)).relays)
    assert not any(relay.meets for relay in program("v7", BROWSER).relays)


def test_eight_bindings_leave_no_room_for_a_layer() -> None:
    few = replace(NVIDIA, limits=replace(NVIDIA.limits, max_storage_buffers=8))
    for relay in program("v7", few).relays:
        assert len(relay.buffers) + relay.meets <= 8  # the table of a relay is one, too


def test_a_relay_runs_for_one_token_of_one_slot() -> None:
    relay = program("v7").relays[1]
    assert relay.runs(ONE)
    assert not relay.runs({**ONE, T: 2})


def test_what_a_hook_writes_and_reads_again_parts_a_relay() -> None:
    seen = Buffer("seen", (128,))
    hooks = Hooks()

    @hooks.on(v7.PostAttTimeMix(1))
    def keep(frame: v7.Frame) -> None:
        ops.blit(frame.att_x[-1], seen.tensor)

    @hooks.on(v7.PostFfn(1))
    def add(frame: v7.Frame) -> None:
        frame.x = frame.x + seen.tensor

    compiled = compile(graph("v7"), hooks, NVIDIA)
    meeting = [relay for relay in compiled.relays if relay.meets]
    assert all(sum(seen in touched for touched, _ in legs(relay)) <= 1 for relay in meeting)
    assert [relay.passes[0].layer for relay in meeting] == [0, 1, 2]
    whole = [len(compiled.passes_of(layer)) for layer in (0, 1, 2)]
    parted = [len(relay.passes) for relay in meeting]
    assert (parted[0], parted[2]) == (whole[0], whole[2])
    assert 4 <= parted[1] < whole[1]


@pytest.mark.parametrize("version", VERSIONS)
def test_neither_of_a_pair_reads_what_the_other_writes(version: str) -> None:
    pairs = program(version, replace(NVIDIA, resident=0)).relays
    assert pairs
    for relay in pairs:
        assert not relay.meets
        row, product = relay.passes
        assert row.leg is not None
        assert product.inlined is not None
        sides = (row.buffers, row.leg), (product.inlined.buffers, product.inlined.variant)
        reads, writes = [], []
        for buffers, variant in sides:
            bound = list(zip(buffers, variant.source.bindings, strict=True))
            writes.append({buffer for buffer, own in bound if own.writable})
            reads.append(set(buffers))
        assert not writes[0] & reads[1]
        assert not writes[1] & reads[0]


def test_in_a_relay_rows_are_worked_out_beside_themselves_by_what_multiplies_them() -> None:
    relay = program("v7").relays[1]
    steps = steps_of(relay.passes)
    beside = [index for index, step in enumerate(steps) if step.is_beside]
    assert [steps[index].item.label for index in beside] == [
        "matmul+tanh+matmul×2+sigmoid+matmul",
        "matmul+squared_relu",
    ]
    table = [[amount.constant for amount in row] for row in relay.variant.table]
    for index, step in enumerate(steps):
        grid, kind, _, asked = table[1 + 4 * index : 5 + 4 * index]
        assert kind[2] == (index in beside)
        assert kind[3] == (index + 1 in beside)  # the last workgroup has the row alone, others the product
        soon = index + 1 if index + 1 in beside else index
        assert asked[0] == soon
        assert asked[1] == (steps[soon].variant.grid.items.constant if steps[soon].item.reads else 0)
        if index in beside:
            assert grid[3] < NVIDIA.resident
            row, product = steps[index - 1].side, step.side
            for (buffers, source), (others, _) in ((row, product), (product, row)):
                bound = zip(buffers, source.bindings, strict=True)
                assert not {buffer for buffer, own in bound if own.writable} & set(others)


def test_a_product_that_writes_what_the_row_reads_waits_for_it() -> None:
    random = np.random.default_rng(0)
    source = Buffer("source", (T, 64), role=Role.STATE)
    with tape() as items:
        row = ops.softmax(source.tensor)
        ops.blit(ops.matmul(matrix(random.normal(size=(64, 64))), row), source.tensor)
    passes = compile(Graph(tuple(items)), None, NVIDIA).passes
    assert passes[1].inlined_leg is not None
    assert [step.is_beside for step in steps_of(passes)] == [False, False]


def test_a_share_asks_for_its_own_weights() -> None:
    text = program("v7").relays[1].variant.source.text
    asking = text[text.index("fn ask(") :]
    asking = asking[: asking.index("\n}\n")]
    assert asking.count("asked ^= weight(part, start + ") == ASKED


def test_products_of_many_workgroups_do_not_do_rows_again() -> None:
    few = replace(tuning.GPU, inline_groups=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tuning, "GPU", few)
        assert not compile(graph("v7"), None, replace(NVIDIA, resident=0)).relays


def test_a_legs_workgroups_are_not_bound_by_what_a_device_dispatches() -> None:
    few = replace(NVIDIA, limits=replace(NVIDIA.limits, max_workgroups_per_dimension=20))
    ours, others = program("v7", few).relays[1].variant, program("v7").relays[1].variant
    assert ours.table == others.table


def test_passes_of_a_whole_table_are_no_relay() -> None:
    table = Buffer("table", (70_000, 64))
    with tape() as items:
        x = table.tensor
        for _ in range(3):
            x = ops.matmul(matrix(np.eye(64)), ops.softmax(x))
        ops.blit(x, Buffer("out", (70_000, 64)).tensor)
    assert not compile(Graph(tuple(items)), None, NVIDIA).relays


def test_workgroups_of_a_relay_are_shared_out_by_rows_and_columns() -> None:
    compiled = program("v7")
    item = next(p for p in compiled.passes_of(1) if p.label.startswith("matmul×7"))
    assert item.leg is not None
    table, units = item.leg.table, item.leg.grid.items.constant
    firsts = [table[1 + 3 * part][0].constant for part in range(7)]
    shares = [after - first for first, after in zip(firsts, [*firsts[1:], units], strict=True)]
    assert units <= NVIDIA.resident
    assert min(shares[:3]) > max(shares[3:])
    for part, count in enumerate(shares):
        quads, each = table[1 + 3 * part][1].constant // 4, table[1 + 3 * part + 2][2].constant
        assert (count - 1) * each < quads <= count * each
