"""Every slot at every site of every version: captured, replaced and put back, alone and batched.

On numpy and on a device. What places and pushes are, and which there are, says pushes.py.
"""

from functools import cache
from itertools import chain

import numpy as np
import pytest

from rwkvgraph import v4
from rwkvgraph.errors import RwkvGraphError
from rwkvgraph.gpu.engine import GpuEngine
from rwkvgraph.hooks import Hooks
from rwkvgraph.model import Model
from rwkvgraph.splice import splice
from tests.rwkvgraph.conftest import Device
from tests.rwkvgraph.models.pushes import (
    ALONE,
    BATCHED,
    PROMPT,
    Answer,
    Answers,
    Place,
    Pushed,
    answers_apart,
    apart,
    same,
    there,
    values_apart,
)
from tests.rwkvgraph.models.small import tensors_of
from tests.rwkvgraph.models.synthetic import VERSIONS

MOST_APART = 2.0
"""Between devices, and between a prompt alone and in a batch, in units of GPU_TOLERANCE. That is for one
operation, and about a hundred follow each other here; llvmpipe is off by at most 0.5."""

FEW = 0.2
"""Of each push where all are there: they add up."""

LEAST_EFFECT = 50.0
"""Of a push on what is read later, in the same unit: no rounding can be taken for it. The smallest that numpy
finds is 125, of V7's input to the decay."""


@pytest.fixture(scope="module", params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@cache
def numpy_of(version: str) -> Pushed:
    return Pushed(version, "cpu")


@cache
def answers_of_numpy(version: str, how: str) -> Answers:
    """For the prompt alone."""
    model = numpy_of(version)
    return model.go_through(ALONE, model.read_places() if how == "places alone" else model.read_sites())


@pytest.fixture(scope="module")
def on_numpy(version: str) -> Pushed:
    return numpy_of(version)


@pytest.fixture(scope="module")
def subject(device: Device, version: str, on_numpy: Pushed) -> Pushed:
    return on_numpy if device == "cpu" else Pushed(version, device)


@pytest.fixture(scope="module", params=["places alone", "sites in a batch"])
def how(request: pytest.FixtureRequest) -> str:
    """What is replaced at a time: a slot, and the prompt runs alone; all of a site, and it runs in a batch.

    That these go together saves many of the runs, of which there are more than a thousand.
    """
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def wanted(version: str, how: str) -> Answers:
    return answers_of_numpy(version, how)


@pytest.fixture(scope="module")
def answers(how: str, subject: Pushed, on_numpy: Pushed, wanted: Answers) -> Answers:
    if how == "places alone":
        return wanted if subject is on_numpy else subject.go_through(ALONE, subject.read_places())
    return subject.go_through(BATCHED, subject.read_sites())


def test_a_slot_that_is_replaced_is_that_value_and_what_was_before_stays(
    subject: Pushed, answers: Answers
) -> None:
    before = answers.before
    for group, given in answers.pushed.items():
        places = [subject.places[name] for name in group]
        for place in places:
            assert apart(given.values[place.value], subject.pushed_value(place, before)) <= MOST_APART, place
        for name in earlier_values(subject, places):
            np.testing.assert_array_equal(given.values[name], before.values[name], f"{name}: {group}")


def earlier_values(subject: Pushed, places: list[Place]) -> list[str]:
    """The values that are captured before these places of a site get their pushes, and the site's others."""
    replaced = {place.value for place in places}
    return [
        name for name, end in subject.ends.items() if end.order <= places[0].order and name not in replaced
    ]


def test_every_slot_that_is_read_later_changes_the_answer(answers: Answers) -> None:
    for group, given in answers.pushed.items():
        assert answers_apart(given, answers.before) >= LEAST_EFFECT, group


def test_every_slot_that_is_replaced_gives_what_numpy_gives_alone(answers: Answers, wanted: Answers) -> None:
    for group, other in [((), wanted.before), *wanted.pushed.items()]:
        given = answers.pushed[group] if group else answers.before
        assert answers_apart(given, other) <= MOST_APART, group
        assert values_apart(given, other) <= MOST_APART, group


def test_without_its_pushes_a_model_is_as_before_and_nothing_was_compiled_on_the_way(
    answers: Answers,
) -> None:
    assert same(answers.after, answers.before)
    assert answers.compiled == 0


@pytest.mark.parametrize("prompts", [ALONE, BATCHED], ids=["alone", "batched"])
def test_hooks_that_add_nothing_change_nothing(
    version: str, subject: Pushed, prompts: list[list[int]]
) -> None:
    model, slot = Model.load(tensors_of(version), "cpu"), prompts.index(PROMPT)
    state = model.state(len(prompts))
    logits = model.run([list(prompt) for prompt in prompts], state, "full")[slot]
    plain, given = Answer(there(logits), state.read(slot), {}), subject.ask(prompts)
    assert answers_apart(given, plain) <= MOST_APART
    assert isinstance(subject.model.engine, GpuEngine) or same(given, plain)


def test_a_slot_that_nothing_reads_later_may_be_replaced_and_changes_no_answer(subject: Pushed) -> None:
    before = subject.ask(ALONE)
    unread = [place for place in subject.places.values() if not place.is_read]
    with subject.pushed(place.name for place in unread):
        pushed = subject.ask(ALONE)
    assert same(pushed, before)
    for place in unread:
        if place.name in subject.ends:
            assert apart(pushed.values[place.name], subject.pushed_value(place, before)) <= MOST_APART


def test_all_slots_replaced_at_once_hold_from_token_to_token(subject: Pushed, on_numpy: Pushed) -> None:
    with on_numpy.pushed(chain(*on_numpy.read_places()), FEW):
        together = on_numpy.ask(ALONE)
    with subject.pushed(chain(*subject.read_places()), FEW):
        one_by_one = subject.ask(ALONE, at_once=False)
    assert answers_apart(one_by_one, together) <= MOST_APART


def test_every_slot_of_every_site_is_captured_as_the_value_that_stands_there(on_numpy: Pushed) -> None:
    model, state = on_numpy.model, on_numpy.model.state()
    (logits,), cache = model.run_with_cache(ALONE, state, "*", "full")
    before = on_numpy.ask(ALONE)
    assert same(Answer(there(logits), state.read(0), {}), before)
    for place in on_numpy.places.values():
        np.testing.assert_array_equal(there(cache[place.name][0]), before.values[place.value], place.name)


def test_the_cursors_can_be_replaced_nowhere(on_numpy: Pushed) -> None:
    def replace_cursors(frame: v4.Frame) -> None:
        frame.cursors = frame.cursors[:]

    for site in on_numpy.model.graph.sites():
        with pytest.raises(RwkvGraphError):
            splice(on_numpy.model.graph, Hooks({site.hook: replace_cursors}))
