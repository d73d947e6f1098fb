"""Steps ahead of the host: tokens and states are those of steps one by one, whenever one looks."""

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from types import FrameType
from typing import Any

import numpy as np
import pytest
from numpy.typing import ArrayLike

import rwkvgraph as rg
from rwkvgraph import v7
from rwkvgraph.op import Array
from rwkvgraph.runtime import MOST_STEPS, Ahead, Course, StepByStep, Steps, steps
from tests.rwkvgraph.models.synthetic import VERSIONS, Half, synthetic

VOCAB = 150
PROMPT = (3, 1, 4, 1, 5)
FREE = np.zeros(VOCAB, np.float32)
DRAWN = rg.Sampler(0.9, 0.8, seed=11)
PENALISED = rg.Sampler(1.2, 0.95, 40, seed=3, min_p=0.01, presence=0.5, frequency=0.3, decay=0.9)


@dataclass(frozen=True, eq=False)
class Hosted(rg.Sampler):
    """A user's own sampler, though it draws as ours: devices cannot know that."""

    def sample(self, logits: ArrayLike) -> int:
        return super().sample(logits)


def hosted(sampler: rg.Sampler) -> Hosted:
    """The same sampler, which draws on the host."""
    names = ("temperature", "top_p", "top_k", "seed", "min_p", "presence", "frequency", "decay")
    settings: Any = {name: getattr(sampler, name) for name in names}
    return Hosted(**settings)


@cache
def tensors(version: str = "v7") -> dict[str, Half]:
    sizes = {"v6": (8, 8), "v7": (8, 8, 8, 12)}
    return synthetic(
        version,
        layers=2,
        width=48,
        head_size=16,
        hidden=100,
        vocab=VOCAB,
        low_rank=sizes.get(version),
        seed=1,
    )


@pytest.fixture(scope="module")
def model(gpu: rg.Context) -> rg.Model:
    return rg.Model.load(tensors(), gpu)


def begun(course: Course) -> Steps:
    """The steps of a course whose slots have read the prompt, each a token less of it."""
    prompts: list[list[int]] = [[] for _ in range(course.state.num_batch)]
    for row, slot in enumerate(course.slots):
        prompts[slot] = list(PROMPT[: len(PROMPT) - row])
    taken = steps(course)
    logits = course.model.run_with_hooks(prompts, course.state, course.hooks)
    taken.start(np.array([logits[slot] for slot in course.slots]))
    return taken


def course_of(model: rg.Model, *samplers: rg.Sampler, limit: int = 40, **more: Any) -> Course:
    """Slots 0, 2, 4 … of a new state, one a sampler."""
    slots = tuple(range(0, 2 * len(samplers), 2))
    fresh = tuple(replace(sampler) for sampler in samplers)
    state = model.state(max(slots) + 1)
    return Course(model, state, slots, fresh, **{"bias": FREE, "limit": limit, **more})


def one_by_one(course: Course) -> Course:
    """The same on another state, drawn on the host."""
    samplers = tuple(hosted(sampler) for sampler in course.samplers)
    return replace(course, samplers=samplers, state=course.model.state(course.state.num_batch))


@dataclass
class Reference:
    """A state that reads the prompt, and then tokens each by itself."""

    model: rg.Model
    hooks: rg.Hooks | None = None

    def __post_init__(self) -> None:
        self.state = self.model.state()
        self.seen: list[int] = []
        self.model.run_with_hooks([list(PROMPT)], self.state, self.hooks)

    def after(self, ids: Sequence[int]) -> Array:
        """The slot after these tokens, which begin with those of the last time."""
        assert self.seen == list(ids[: len(self.seen)])
        for token in ids[len(self.seen) :]:
            self.model.run_with_hooks([[token]], self.state, self.hooks)
        self.seen = list(ids)
        return self.state.read(0)


def after(model: rg.Model, ids: Sequence[int], hooks: rg.Hooks | None = None) -> Array:
    """A slot that has read the prompt and then these tokens, each by itself."""
    return Reference(model, hooks).after(ids)


@contextmanager
def interrupted(seconds: float) -> Iterator[None]:
    """Ctrl-C after some time."""

    def press(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, press)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("sampler", [rg.Sampler(0.0), DRAWN, PENALISED])
@pytest.mark.parametrize("version", VERSIONS)
def test_the_tokens_are_those_of_steps_one_by_one(gpu: rg.Context, version: str, sampler: rg.Sampler) -> None:
    model = rg.Model.load(tensors(version), gpu)
    course = course_of(model, sampler, limit=50)
    ahead, slowly = begun(course), begun(one_by_one(course))
    assert (type(ahead), type(slowly)) == (Ahead, StepByStep)
    tokens = [token for (token,) in ahead]
    assert len(tokens) == 50
    assert tokens == [token for (token,) in slowly]
    np.testing.assert_array_equal(course.state.read(0), after(model, tokens))


@pytest.mark.parametrize("every", [1, 3, 7])
def test_looking_at_the_state_finds_it_as_after_the_last_token_and_changes_nothing(
    model: rg.Model, every: int
) -> None:
    course = course_of(model, PENALISED)
    unwatched = [token for (token,) in begun(replace(course, state=model.state()))]
    course = replace(course, samplers=(replace(PENALISED),))
    tokens, reference = [], Reference(model)
    for (token,) in begun(course):
        tokens.append(token)
        if len(tokens) % every == 0:
            np.testing.assert_array_equal(course.state.read(0), reference.after(tokens))
    assert tokens == unwatched


@pytest.mark.parametrize("taken", [0, 1, 2, 3, 6, 7, 30])
def test_steps_that_nobody_wanted_were_not(model: rg.Model, taken: int) -> None:
    course = course_of(model, DRAWN, limit=500)
    ahead = begun(course)
    tokens = [next(ahead)[0] for _ in range(taken)]
    ahead.close()
    np.testing.assert_array_equal(course.state.read(0), after(model, tokens))


def test_a_state_can_be_left_to_others_at_any_time(model: rg.Model) -> None:
    course = course_of(model, DRAWN, limit=500)
    ahead = begun(course)
    tokens = [next(ahead)[0] for _ in range(9)]
    other = model.state(2)
    course.state.copy(0, 1, other)
    np.testing.assert_array_equal(other.read(1), after(model, tokens))
    next(ahead)
    course.state.clear(0)
    assert not course.state.read(0).any()
    next(ahead)
    course.state.clear_all()
    assert not course.state.read(0).any()
    next(ahead)
    course.state.write(0, other.read(1))
    model.run([[7]], course.state)
    np.testing.assert_array_equal(course.state.read(0), after(model, [*tokens, 7]))


@pytest.mark.parametrize("at", [0, 1, 2, 5, 20])
def test_an_end_is_drawn_and_not_run(model: rg.Model, at: int) -> None:
    plain = [token for (token,) in begun(course_of(model, PENALISED))]
    end = next(token for token in plain[at:] if token not in plain[:at])
    wanted = plain[: plain.index(end) + 1]
    for make in (lambda course: course, one_by_one):
        course = make(course_of(model, PENALISED, ends=frozenset([end])))
        assert [token for (token,) in begun(course)] == wanted
        np.testing.assert_array_equal(course.state.read(0), after(model, wanted[:-1]))


def test_slots_side_by_side_are_as_each_alone(model: rg.Model) -> None:
    samplers = (DRAWN, rg.Sampler(0.0), PENALISED)
    course = course_of(model, *samplers)
    together = list(begun(course))
    slowly = one_by_one(course)
    assert together == list(begun(slowly))
    for slot in range(course.state.num_batch):
        np.testing.assert_array_equal(course.state.read(slot), slowly.state.read(slot))
    for row, sampler in enumerate(samplers):
        alone = Course(model, model.state(), (0,), (replace(sampler),), FREE, 40)
        taken = steps(alone)
        (logits,) = model.run([list(PROMPT[: len(PROMPT) - row])], alone.state)
        assert logits is not None
        taken.start(logits[None])
        assert [token for (token,) in taken] == [tokens[row] for tokens in together]


def test_where_one_slot_ends_no_token_of_that_step_is_run(model: rg.Model) -> None:
    plain = list(begun(course_of(model, DRAWN, PENALISED)))
    end = next(second for _, second in plain[6:] if second not in np.array(plain[:6]))
    course = course_of(model, DRAWN, PENALISED, ends=frozenset([end]))
    tokens = list(begun(course))
    assert tokens == plain[: len(tokens)]
    slowly = one_by_one(course)
    assert list(begun(slowly)) == tokens
    for slot in (0, 2):
        np.testing.assert_array_equal(course.state.read(slot), slowly.state.read(slot))


def test_two_courses_share_a_state_and_a_model(model: rg.Model) -> None:
    alone = [token for (token,) in begun(course_of(model, DRAWN))]
    state = model.state(2)
    courses = [Course(model, state, (slot,), (replace(DRAWN),), FREE, 40) for slot in range(2)]
    both = []
    for slot, course in enumerate(courses):
        both.append(steps(course))
        logits = model.run([list(PROMPT) if slot == row else [] for row in range(2)], state)[slot]
        assert logits is not None
        both[-1].start(logits[None])
    pairs = list(zip(*both, strict=True))
    assert [[first, second] for (first,), (second,) in pairs] == [[token, token] for token in alone]
    for slot in range(2):
        np.testing.assert_array_equal(state.read(slot), after(model, alone))


def test_hooks_are_in_every_step(model: rg.Model) -> None:
    hooks = rg.Hooks({v7.PostFfn(0): lambda frame: setattr(frame, "x", rg.affine(frame.x, -1.0, 0.5))})
    course = course_of(model, DRAWN, hooks=hooks)
    ahead = begun(course)
    assert isinstance(ahead, Ahead)
    tokens = [token for (token,) in ahead]
    assert tokens == [token for (token,) in begun(one_by_one(course))]
    assert tokens != [token for (token,) in begun(course_of(model, DRAWN))]
    np.testing.assert_array_equal(course.state.read(0), after(model, tokens, hooks))


def test_with_a_users_buffers_nothing_runs_ahead(model: rg.Model) -> None:
    """So that they hold what the last token left there, and what is written counts from the next token on."""
    push, seen = rg.Buffer("push", (48,)), rg.Buffer("seen", (48,))

    def steer(frame: v7.Frame) -> None:
        frame.x = frame.x + push.tensor

    def watch(frame: v7.Frame) -> None:
        rg.blit(frame.x[-1], seen.tensor)

    for function in (steer, watch):
        hooks = rg.Hooks({v7.PostFfn(1): function})
        assert isinstance(begun(course_of(model, DRAWN, hooks=hooks)), StepByStep)


def test_slots_of_several_blocks_are_stepped_one_by_one(model: rg.Model) -> None:
    course = course_of(model, DRAWN, DRAWN)
    course.state.block_slots = 1
    assert isinstance(steps(course), StepByStep)


@pytest.mark.parametrize("sampler", [rg.Sampler(0.0), DRAWN])
def test_logits_that_are_no_numbers_are_an_error_after_the_last_good_token(
    gpu: rg.Context, sampler: rg.Sampler
) -> None:
    """One token's embedding is so large that the model overflows; nothing but it may be drawn."""
    broken = {name: value.copy() for name, value in tensors().items()}
    broken["head.weight"][70, :] = 60_000
    broken["head.weight"][70, ::2] = -60_000
    broken["emb.weight"][9, :] = 60_000
    broken["emb.weight"][9, ::2] = 0
    broken["blocks.0.ln0.weight"][:] *= 1
    model = rg.Model.load(broken, gpu)
    only = np.full(VOCAB, -np.inf, np.float32)
    only[9] = 0
    course = course_of(model, sampler, bias=only)
    taken = begun(course)
    state = np.full(course.state.shape, 3e38, np.float32)
    assert next(taken) == [9]
    course.state.write(0, state)
    with pytest.raises(ValueError, match="NaN, wanted a number: the model or its state overflowed"):
        list(taken)


def test_logits_of_a_prompt_that_overflowed_are_an_error(model: rg.Model) -> None:
    taken = steps(course_of(model, DRAWN))
    logits = np.zeros((1, VOCAB), np.float32)
    logits[0, 17] = np.nan
    taken.start(logits)
    with pytest.raises(ValueError, match="logit 17 of 150 is NaN"):
        next(taken)


@pytest.mark.skipif(
    os.environ.get("RWKVGRAPH_NATIVE") == "0", reason="wgpu-py's own waits cannot be interrupted"
)
# It may land in the release of one of wgpu-py's objects, where Python can only print it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interruption_loses_no_token(model: rg.Model, rng: np.random.Generator) -> None:
    wanted = [token for (token,) in begun(course_of(model, PENALISED, limit=60))]
    course = course_of(model, PENALISED, limit=60)
    ahead, reference = begun(course), Reference(model)
    tokens: list[int] = []
    interruptions = 0
    while len(tokens) < 60:
        try:
            with interrupted(float(rng.uniform(1e-4, 2e-2))):
                tokens += next(ahead)
        except KeyboardInterrupt:
            interruptions += 1
            if interruptions % 3 == 0:
                np.testing.assert_array_equal(course.state.read(0), reference.after(tokens))
    assert tokens == wanted
    np.testing.assert_array_equal(course.state.read(0), reference.after(tokens))


def test_a_checked_runner_steps_too(gpu: rg.Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RWKVGRAPH_CHECK", "2")
    model = rg.Model.load(tensors(), gpu)
    course = course_of(model, DRAWN, limit=4)
    ahead = begun(course)
    assert isinstance(ahead, Ahead)
    tokens = [token for (token,) in ahead]
    monkeypatch.setenv("RWKVGRAPH_CHECK", "1")
    plain = rg.Model.load(tensors(), gpu)
    assert tokens == [token for (token,) in begun(course_of(plain, DRAWN, limit=4))]


def test_steps_use_memory_again(model: rg.Model, gpu: rg.Context) -> None:
    course = course_of(model, DRAWN, limit=20)
    assert len(list(begun(course))) == 20
    before = gpu.allocated
    for _ in range(5):
        course.state.clear(0)
        assert len(list(begun(course))) == 20
    assert gpu.allocated == before


def test_no_more_steps_go_out_than_are_wanted(model: rg.Model) -> None:
    for limit in (1, 2, 3, 4, MOST_STEPS + 9):
        course = course_of(model, DRAWN, limit=limit)
        ahead = begun(course)
        assert len(list(ahead)) == limit
        assert list(ahead) == []
