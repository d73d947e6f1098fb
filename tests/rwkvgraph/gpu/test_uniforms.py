"""Where the tables of kernels lie: those of a single token one behind the other, as they run."""

from collections.abc import Iterator
from itertools import pairwise

import pytest

from rwkvgraph.compiler.variant import LOOK_WORD, LOOKED
from rwkvgraph.gpu import Context
from rwkvgraph.gpu.runner import Runner
from rwkvgraph.model import Model
from tests.rwkvgraph.hardware import hardware
from tests.rwkvgraph.models.synthetic import synthetic

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    context = Context.create()
    if not context.target.subgroups:
        pytest.skip("no subgroups here")
    context.target = hardware(context.target, looks=True)
    model = Model.load(synthetic(layers=3, width=64, version="v7"), context)
    model.run([[1]], model.state())
    made = model.program()
    assert isinstance(made, Runner)
    yield made
    context.destroy()


def tables_of_one_token(runner: Runner) -> list[tuple[int, int, bool]]:
    """(first row, row behind the last, whether it looks ahead) of each kernel of a single token, in order."""
    program, table = runner.program, runner._table
    starts = {relay.first: number for number, relay in enumerate(program.relays)}
    joined = {at for relay in program.relays for at in relay.span}
    found = []
    for at, item in enumerate(program.passes):
        if at in starts:
            variant, offset = program.relays[starts[at]].variant, table.offset(program.relays[starts[at]])
        elif at not in joined:
            variant, offset = item.variants[0], table.offset(at, 0)
        else:
            continue
        rows = table.bytes_of(variant) // 16
        found.append((offset // 16, offset // 16 + rows, variant.source.looks_ahead))
    return found


def test_what_runs_next_has_its_table_next(runner: Runner) -> None:
    tables = tables_of_one_token(runner)
    assert tables[0][0] == 0
    for (_, end, _), (start, _, _) in pairwise(tables):
        assert end <= start < end + 256 // 16  # offsets are multiples of 256 bytes


def test_kernels_that_look_ahead_are_told_where_the_next_table_is(runner: Runner) -> None:
    words = runner._table._words
    looking = [(start, end) for start, end, looks in tables_of_one_token(runner) if looks]
    assert len(looking) >= 3 * 3  # of a layer those that multiply whole results of others
    for start, end in looking:
        assert words[start * 4 + LOOK_WORD] == end
        assert (end + LOOKED) * 16 <= words.nbytes  # it looks at nothing behind the buffer


def test_one_workgroup_more_looks_ahead(runner: Runner) -> None:
    for item in runner.program.passes:
        for variant in item.variants:
            if variant.source.looks_ahead:
                units = variant.table[0][1].constant
                assert variant.grid.items.constant == units + 1
                assert "look_ahead(part, thread);" in variant.source.text
