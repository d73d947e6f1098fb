"""Which sets of hooks share a program, and how many programs are kept."""

import pytest

import rwkvgraph as rg
from rwkvgraph import v7
from rwkvgraph.model import Model
from rwkvgraph.programs import KEPT_PROGRAMS, KEPT_SETS
from tests.rwkvgraph.models.synthetic import Half

WIDTH = 48
SEEN = rg.Buffer("seen", (WIDTH,))


@pytest.fixture
def model(small_tensors: dict[str, Half]) -> Model:
    return Model.load(small_tensors, "cpu")


def watching(buffer: rg.Buffer, scale: float = 1.0, layer: int = 1) -> rg.Hooks:
    """Hooks whose function is a new one each time."""
    return rg.Hooks({v7.PostFfn(layer): lambda frame: rg.blit(frame.x[-1] * scale, buffer)})


def test_new_functions_that_build_the_same_graph_share_a_program(model: Model) -> None:
    first, second = model.program(watching(SEEN)), model.program(watching(SEEN))
    assert first is second
    assert first is not model.program()


@pytest.mark.parametrize(
    "other",
    [
        watching(rg.Buffer("seen", (WIDTH,))),
        watching(SEEN, 2.0),
        watching(SEEN, layer=0),
        watching(SEEN) + watching(SEEN),
        rg.Hooks({v7.PostFfn(1): lambda frame: rg.blit(rg.tanh(frame.x[-1]), SEEN)}),
        rg.Hooks({v7.PostFfn(1): lambda frame: rg.blit(frame.x[-1, :24] * 1.0, SEEN[:24])}),
    ],
    ids=["buffer", "number", "layer", "twice", "op", "view"],
)
def test_graphs_that_differ_in_anything_have_programs_of_their_own(model: Model, other: rg.Hooks) -> None:
    assert model.program(watching(SEEN)) is not model.program(other)


def test_hooks_that_build_nothing_are_the_models_own_program(model: Model) -> None:
    assert model.program(rg.Hooks({v7.PostFfn(1): lambda frame: None})) is model.program()


def test_the_oldest_programs_go_and_that_without_hooks_stays(model: Model) -> None:
    plain, first = model.program(), model.program(watching(SEEN, 0.0))
    for number in range(KEPT_PROGRAMS):
        model.program(watching(SEEN, 1.0 + number))
    assert len(model._programs) == 1 + KEPT_PROGRAMS
    assert model.program() is plain
    assert model.program(watching(SEEN, 0.0)) is not first


def test_sets_of_hooks_that_come_and_go_do_not_pile_up(model: Model) -> None:
    plain = model.program()
    for _ in range(KEPT_SETS + 5):
        model.program(watching(SEEN))
    assert len(model._programs._by_set) <= KEPT_SETS
    assert model.program() is plain
