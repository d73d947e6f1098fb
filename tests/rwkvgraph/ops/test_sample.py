"""Drawing on a device: what numpy draws, what the cuts leave, how often each token comes, what is refused."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from rwkvgraph.compiler import Target
from rwkvgraph.draw import WORD, choose, threefry
from rwkvgraph.errors import ShapeError
from rwkvgraph.gpu import Context
from rwkvgraph.graph import Graph
from rwkvgraph.op import Array, tape
from rwkvgraph.ops.sample import DRAWN, LOWEST, NOTHING, Sample, Settings
from rwkvgraph.sampler import Sampler
from rwkvgraph.testing import holding, run_on_device, run_on_numpy

EDGE = 2e-6
"""Of probability: where sums in float32 may put the borders between tokens, and the end of the nucleus."""
HISTORY = 8
CHI_SQUARE_DEVIATIONS = 6
"""Of a chi-square statistic from its mean: one in a hundred million for the seeds that these tests fix."""


def rules(sampler: Sampler, text: int = 0, drawn: int = 0) -> Settings:
    """A sampler's settings, for the draw of a text after so many."""
    names = ("rate", "top_k", "top_p", "reach", "presence", "frequency", "decay")
    known: Any = {name: getattr(sampler, name) for name in names}
    return Settings(**known, key=sampler.stream.key, text=text, drawn=drawn)


def drawing(
    logits: Array, every: Sequence[Settings], bias: Array | None = None, seen: Array | None = None
) -> Graph:
    """A graph that draws a token for each row."""
    count, width = logits.shape
    with tape() as items:
        Sample(
            holding(np.zeros(width) if bias is None else bias, "bias"),
            holding(logits, "logits"),
            holding(np.zeros((count, width)) if seen is None else seen, "seen"),
            holding(np.stack([item.words() for item in every]), "rules"),
            holding(np.zeros(count, np.uint32), "ids"),
            holding(np.zeros((count, HISTORY), np.uint32), "history"),
        )
    return Graph(tuple(items))


def drawn(graph: Graph, context: Context | None, target: Target | None = None) -> dict[str, Array]:
    """What every buffer holds afterwards, by name: on a device, or on numpy."""
    found = run_on_numpy(graph) if context is None else run_on_device(graph, context, target=target)
    return {buffer.name: values for buffer, values in found.items()}


def possible(logits: Array, rule: Settings) -> set[int]:
    """The tokens that may be drawn from logits that decide, borders being as float32 leaves them."""
    below = np.where(logits <= LOWEST, np.inf, logits.max() - logits.astype(np.float64))
    word = threefry(rule.key, (rule.drawn, rule.text))[0]
    found = set()
    for off in (-EDGE, 0.0, EDGE):
        top_p = rule.top_p if rule.top_p >= 1 else min(max(rule.top_p + off, 0.0), 1 - 1e-9)
        for place in (-EDGE, 0.0, EDGE):
            moved = min(max(word + int(place * WORD), 0), WORD - 1)
            found.add(choose(below, rule.rate, rule.top_k, top_p, rule.reach * (1 + off), moved))
    return found


def assert_drawn(
    graph: Graph, every: Sequence[Settings], context: Context, target: Target | None = None
) -> None:
    """Fail unless a device draws what numpy draws, and leaves the same behind."""
    got, want = drawn(graph, context, target), drawn(graph, None)
    np.testing.assert_allclose(got["logits"], want["logits"], rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(got["rules"], want["rules"])
    for row, rule in enumerate(every):
        assert int(got["ids"][row]) in possible(want["logits"][row], rule), f"row {row} of {rule}"
        assert got["history"][row, rule.drawn % HISTORY] == got["ids"][row]
        if got["ids"][row] == want["ids"][row]:
            np.testing.assert_allclose(got["seen"][row], want["seen"][row], rtol=1e-6)


SAMPLERS = [
    {"temperature": 0.0},
    {},
    {"temperature": 0.5},
    {"top_p": 0.6, "temperature": 0.8},
    {"top_p": 0.0},
    {"top_k": 5},
    {"top_k": 2000, "temperature": 3.0},
    {"min_p": 0.05},
    {"min_p": 1.0},
    {"presence": 0.7, "frequency": 0.2, "decay": 0.9},
    {"top_p": 0.9, "top_k": 40, "min_p": 0.01, "temperature": 1.3, "presence": 0.3, "frequency": 0.1},
]


@pytest.mark.parametrize("width", [1, 2, 31, 130, 4096, 65_529, 65_536])
@pytest.mark.parametrize("spread", [0.01, 4.0])
def test_a_device_draws_what_numpy_draws(
    gpu: Context, rng: np.random.Generator, width: int, spread: float
) -> None:
    every = [rules(Sampler(**setting, seed=at), at, 3 * at) for at, setting in enumerate(SAMPLERS)]  # type: ignore[arg-type]  # of one type each
    logits = rng.normal(0, spread, (len(every), width)).astype(np.float32)
    seen = rng.integers(0, 3, logits.shape) * (rng.random(logits.shape) < 0.1)
    bias = np.where(rng.random(width) < 0.1, -np.inf, rng.normal(size=width))
    bias[width // 2] = 1.0
    assert_drawn(drawing(logits, every, bias, seen.astype(np.float32)), every, gpu)


@pytest.mark.parametrize("width", [4, 300, 5000])
def test_equal_logits_rank_by_id(gpu: Context, rng: np.random.Generator, width: int) -> None:
    samplers = [
        {"temperature": 0.0},
        {"top_k": 3},
        {"top_k": width // 2},
        {"top_p": 0.5},
        {"top_p": 0.3, "top_k": 200},
    ]
    every = [rules(Sampler(**setting, seed=at)) for at, setting in enumerate(samplers) for _ in range(2)]  # type: ignore[arg-type]  # of one type each
    flat = np.zeros((2, width), np.float32)
    flat[1] = rng.integers(0, 3, width)
    assert_drawn(drawing(np.tile(flat, (len(samplers), 1)), every), every, gpu)


def test_the_cuts_are_exact_where_numbers_are(gpu: Context) -> None:
    """Of 1024 equal tokens, top-p 0.5 keeps 512 and one more, as those before it have no more than that."""
    sampler = Sampler(top_p=0.5)
    every = [replace(rules(sampler), key=(at, 0)) for at in range(4000)]
    ids = drawn(drawing(np.zeros((4000, 1024), np.float32), every), gpu)["ids"]
    assert ids.max() <= 512
    assert ids.max() > 500


settings_of = st.fixed_dictionaries(
    {
        "temperature": st.sampled_from([0.0, 0.3, 1.0, 2.0, 1e-3, 50.0]),
        "top_p": st.sampled_from([0.0, 0.25, 0.5, 0.9, 0.999, 1.0]),
        "top_k": st.integers(0, 12),
        "min_p": st.sampled_from([0.0, 0.01, 0.3, 1.0]),
        "presence": st.sampled_from([0.0, 0.5, -1.0]),
        "frequency": st.sampled_from([0.0, 0.25]),
        "decay": st.sampled_from([0.0, 0.5, 1.0]),
        "seed": st.integers(0, (1 << 64) - 1),
    }
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@seed(5)  # the same in every run: a compilation takes a while
@given(st.lists(settings_of, min_size=3, max_size=3), st.integers(1, 12), st.integers(0, 1 << 30))
def test_any_settings_draw_what_numpy_draws(
    gpu: Context, given_settings: list[dict[str, Any]], width: int, number: int
) -> None:
    rng = np.random.default_rng(number)
    every = [rules(Sampler(**setting), number % 5, number) for setting in given_settings]
    logits = rng.integers(-8, 8, (3, width)).astype(np.float32) / 4  # many ties
    bias = np.where(rng.random(width) < 0.2, -np.inf, 0.0)
    bias[rng.integers(width)] = 0.0
    seen = rng.integers(0, 2, (3, width)).astype(np.float32)
    assert_drawn(drawing(logits, every, bias, seen), every, gpu)


@pytest.mark.parametrize(
    "setting", [{}, {"temperature": 0.5}, {"top_p": 0.8}, {"top_k": 7, "temperature": 2.0}, {"min_p": 0.1}]
)
def test_tokens_come_as_often_as_they_should(
    gpu: Context, rng: np.random.Generator, setting: dict[str, Any]
) -> None:
    """A chi-square test: the statistic of k tokens has mean k - 1 and variance 2 (k - 1)."""
    draws, sampler = 4000, Sampler(**setting)
    logits = rng.normal(0, 1.5, 40).astype(np.float32)
    every = [replace(rules(sampler), key=(at, 7)) for at in range(draws)]
    ids = drawn(drawing(np.tile(logits, (draws, 1)), every), gpu)["ids"]
    p = np.exp(logits.astype(np.float64))
    p /= p.sum()
    order = np.argsort(-p)
    is_kept = (np.cumsum(p[order]) - p[order] <= sampler.top_p) & (p[order] >= sampler.min_p * p.max())
    is_kept[sampler.top_k or len(p) :] = False
    wanted = np.zeros(len(p))
    wanted[order[is_kept]] = p[order[is_kept]] ** sampler.rate
    wanted *= draws / wanted.sum()
    counts = np.bincount(ids, minlength=len(p))
    assert not counts[wanted == 0].any()
    often, free = wanted > 5, int((wanted > 5).sum()) - 1
    statistic = float(((counts - wanted)[often] ** 2 / wanted[often]).sum())
    assert abs(statistic - free) < CHI_SQUARE_DEVIATIONS * (2 * free) ** 0.5


@pytest.mark.parametrize("threads", [256, 1024])
def test_the_kernels_of_gpus_draw_the_same(gpu: Context, rng: np.random.Generator, threads: int) -> None:
    limits = gpu.target.limits
    if threads > limits.max_workgroup_invocations or limits.max_workgroup_storage < 2 * 16384:
        pytest.skip("this device has no workgroups of so many threads")
    limits = replace(limits, max_workgroup_invocations=threads, max_workgroup_size_x=threads)
    target = Target(limits, gpu.target.dialect, False, "gpu")
    every = [rules(Sampler(**setting, seed=at)) for at, setting in enumerate(SAMPLERS)]  # type: ignore[arg-type]  # of one type each
    logits = rng.normal(0, 3, (len(every), 5001)).astype(np.float32)
    assert_drawn(drawing(logits, every), every, gpu, target)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("setting", [{"temperature": 0.0}, {"top_p": 0.5}])
def test_logits_that_say_nothing_draw_nothing(gpu: Context, setting: dict[str, Any], bad: float) -> None:
    rule = rules(Sampler(**setting))
    logits = np.arange(30, dtype=np.float32).reshape(3, 10)
    logits[1, 9] = bad
    graph = drawing(logits, [rule] * 3)
    for where in (gpu, None):
        with np.errstate(invalid="ignore"):
            found = drawn(graph, where)
        assert (found["history"][:, 0] == NOTHING).tolist() == [False, True, False]
        assert found["ids"][1] == 0
        assert (found["rules"][:, DRAWN] == 1).all()


def test_where_every_token_is_barred_nothing_is_drawn(gpu: Context) -> None:
    graph = drawing(np.ones((1, 9), np.float32), [rules(Sampler())], np.full(9, -np.inf))
    for where in (gpu, None):
        assert drawn(graph, where)["history"][0, 0] == NOTHING


def test_a_token_of_minus_infinity_is_never_drawn(gpu: Context) -> None:
    bias = np.full(600, -np.inf)
    bias[[3, 500, 599]] = 0.0, -1.0, 1.0
    every = [
        rules(Sampler(2.0, top_p, top_k, seed))
        for seed in range(50)
        for top_p, top_k in ((1, 0), (0.99, 300))
    ]
    logits = np.zeros((len(every), 600), np.float32)
    logits[:, ::7] = -np.inf
    logits[:, [3, 500, 599]] = 0.0
    assert set(drawn(drawing(logits, every, bias), gpu)["ids"].tolist()) == {3, 500, 599}


def test_operands_that_do_not_fit_are_refused() -> None:
    rows, words = holding(np.zeros((2, 8))), holding(np.zeros((2, 8), np.uint32))
    with pytest.raises(ShapeError, match=r"rules \(O, 12\)"):
        Sample(holding(np.zeros(8)), rows, rows, words, words[:, 0], words)
    wide, ids = holding(np.zeros((2, 12), np.uint32)), holding(np.zeros(2, np.uint32))
    with pytest.raises(ShapeError, match="whole rows"):
        Sample(holding(np.zeros(7)), rows[:, 1:], rows[:, 1:], wide, ids, words)
