"""The same answers on devices that bind, hold and dispatch less, and without subgroups."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest

from rwkvgraph.compiler.variant import TABLES
from rwkvgraph.errors import DeviceError
from rwkvgraph.gpu import Context
from rwkvgraph.gpu.runner import Runner
from rwkvgraph.model import Model
from rwkvgraph.ops.matmul import Matmul
from tests.rwkvgraph.hardware import hardware
from tests.rwkvgraph.models.oracle_v7 import Array
from tests.rwkvgraph.models.synthetic import synthetic_v7
from tests.rwkvgraph.models.yardstick import Expected, cut_at, expect, feed

pytestmark = pytest.mark.gpu
Open = Callable[..., Context]
KIB = 1 << 10


@pytest.fixture
def limited(gpu: Context) -> Iterator[Open]:
    """limited(**limits): another context on the device, which believes in these limits, at most its own."""
    opened: list[Context] = []

    def open_context(**limits: int) -> Context:
        context = Context.create()
        opened.append(context)
        own = context.target.limits
        least = {name: min(value, getattr(own, name)) for name, value in limits.items()}
        context.target = replace(context.target, limits=replace(own, **least))
        return context

    yield open_context
    for context in opened:
        context.destroy()


@pytest.fixture(scope="module")
def tensors() -> dict[str, Array]:
    """Tables of 384 KB, matrices of 38 KB and less, vectors of 8 KB in all."""
    return synthetic_v7(layers=2, width=48, head_size=16, hidden=400, vocab=4001, low_rank=(8, 12, 8, 20))


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    """Ids from every part of the vocabulary, the first and the last among them."""
    long = np.random.default_rng(5).integers(0, 4001, 98).tolist()
    return [[0, *long, 4000], [4000], [2000, 1]]


@pytest.fixture(scope="module")
def expected(tensors: dict[str, Array], prompts: list[list[int]]) -> list[Expected]:
    return [expect(tensors, prompt) for prompt in prompts]


def check(model: Model, prompts: list[list[int]], expected: list[Expected]) -> None:
    """The prompts side by side, the first in two runs, must give what is expected."""
    state = model.state(3)
    logits = feed(model, state, [cut_at(prompts[0], [97]), [prompts[1]], [prompts[2]]])
    expected[0].check_logits(logits[0][0], 96)
    for slot, answer in enumerate(expected):
        if slot != 1:  # a single token: its few values may have rounded luckily
            answer.check_state(state.read(slot))
        replace(answer, logits_noise=expected[0].logits_noise).check_logits(logits[slot][-1])


@pytest.mark.parametrize("bindings", [8])
def test_tables_in_parts_give_the_same_answers(
    limited: Open,
    tensors: dict[str, Array],
    prompts: list[list[int]],
    expected: list[Expected],
    bindings: int,
) -> None:
    # 426 rows fill a buffer, so that embedding and head have more parts than some devices have bindings.
    model = Model.load(tensors, limited(max_storage_binding=40 * KIB, max_storage_buffers=bindings))
    assert head_parts(model) == 10
    check(model, prompts, expected)


def test_kernels_look_ahead_only_where_there_is_a_binding_for_it(
    limited: Open, tensors: dict[str, Array], prompts: list[list[int]], expected: list[Expected]
) -> None:
    context = limited(max_storage_binding=40 * KIB, max_storage_buffers=8)
    context.target = hardware(context.target, looks=True)
    model = Model.load(tensors, context)
    check(model, prompts, expected)
    runner = model.program()
    assert isinstance(runner, Runner)
    looks = [item.variants[0].source.looks_ahead for item in runner.program.passes]
    assert any(looks)
    assert any(TABLES not in item.buffers and item.reads for item in runner.program.passes)


@pytest.mark.parametrize("bindings", [32, 8])
def test_matrices_in_parts_give_the_same_answers(
    limited: Open,
    tensors: dict[str, Array],
    prompts: list[list[int]],
    expected: list[Expected],
    bindings: int,
) -> None:
    # The feed-forward's matrices of 38 KB too.
    model = Model.load(tensors, limited(max_storage_binding=16 * KIB, max_storage_buffers=bindings))
    assert head_parts(model) == 24
    check(model, prompts, expected)


def head_parts(model: Model) -> int:
    """In how many parts the largest matrix is: the head."""
    return max(len(op.w.parts) for op in model.graph.ops if isinstance(op, Matmul))


@pytest.mark.parametrize("bindings", [8])
def test_few_bindings_give_the_same_answers(
    limited: Open,
    tensors: dict[str, Array],
    prompts: list[list[int]],
    expected: list[Expected],
    bindings: int,
) -> None:
    model = Model.load(tensors, limited(max_storage_buffers=bindings))
    program = model.program()
    assert isinstance(program, Runner)
    assert max(len(item.buffers) for item in program.program.passes) <= bindings
    check(model, prompts, expected)


def test_short_dispatches_give_the_same_answers(
    limited: Open, tensors: dict[str, Array], prompts: list[list[int]], expected: list[Expected]
) -> None:
    # No dimension of a dispatch is over 100: a pass of 100 tokens is many workgroups wide.
    check(Model.load(tensors, limited(max_workgroups_per_dimension=100)), prompts, expected)


def test_without_subgroups_the_answers_are_the_same(
    limited: Open,
    tensors: dict[str, Array],
    prompts: list[list[int]],
    expected: list[Expected],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RWKVGRAPH_SUBGROUPS", "0")
    context = limited()
    assert not context.target.subgroups
    check(Model.load(tensors, context), prompts, expected)
    assert context.kernels
    assert all("subgroup" not in kernel.text for kernel in context.kernels)


@pytest.mark.parametrize("subgroups", [True, False], ids=["subgroups", "no subgroups"])
@pytest.mark.parametrize("limits", [{}, {"max_storage_binding": 40 * KIB, "max_storage_buffers": 8}], ids=str)
def test_what_is_made_for_hardware_gives_the_same_answers(
    limited: Open,
    tensors: dict[str, Array],
    prompts: list[list[int]],
    expected: list[Expected],
    limits: dict[str, int],
    subgroups: bool,
) -> None:
    context = limited(**limits)
    context.target = replace(context.target, kind="gpu", lanes=0, subgroups=subgroups)
    check(Model.load(tensors, context), prompts, expected)


def test_a_pass_over_the_limits_is_run_in_several(limited: Open, tensors: dict[str, Array]) -> None:
    # 300 tokens and 40 outputs where a binding holds neither.
    model = Model.load(tensors, limited(max_storage_binding=128 * KIB, max_buffer=128 * KIB), 4096)
    program = model.program()
    assert program.most_tokens < 300
    assert program.most_outputs < 40
    prompts = [[7 * slot, 3, slot, 5, 6, 1, 2, slot] for slot in range(40)]
    state = model.state(40)
    logits = model.run([list(prompt) for prompt in prompts], state)
    yardstick = expect(tensors, prompts[0] * 4)
    for slot in range(0, 40, 3):
        answer = expect(tensors, prompts[slot])
        replace(answer, logits_noise=yardstick.logits_noise).check_logits(logits[slot])


def test_a_state_larger_than_a_binding_is_held_in_blocks(limited: Open, tensors: dict[str, Array]) -> None:
    model = Model.load(tensors, limited(max_storage_binding=64 * KIB, max_buffer=64 * KIB), 4096)
    state = model.state(50)  # 3 KiB of wkv state a slot
    assert [block.num_batch for block in state.blocks] == [21, 21, 8]
    prompts = [[7 * slot, 3, slot, 5, 6, 1, 2, slot] for slot in range(50)]
    logits = model.run([list(prompt) if slot % 3 else [] for slot, prompt in enumerate(prompts)], state)
    yardstick = expect(tensors, prompts[0] * 4)
    for slot in range(50):
        if slot % 3 == 0:
            assert logits[slot] is None
            assert not state.read(slot).any()
        elif slot % 7 == 0 or slot in (20, 22, 41, 43, 49):  # both sides of each edge
            answer = replace(expect(tensors, prompts[slot]), logits_noise=yardstick.logits_noise)
            answer.check_logits(logits[slot])
    rows = [state.read(slot) for slot in range(50)]
    state.copy(20, [0, 21, 49])
    for slot in (0, 21, 49):
        rows[slot] = rows[20]
    for slot in range(50):
        np.testing.assert_array_equal(state.read(slot), rows[slot])


def test_a_slot_larger_than_a_binding_is_refused(limited: Open, tensors: dict[str, Array]) -> None:
    context = limited()
    model = Model.load(tensors, context)
    context.target = replace(
        context.target, limits=replace(context.target.limits, max_storage_binding=2 * KIB)
    )
    with pytest.raises(DeviceError, match=r"state.0.wkv needs a binding"):
        model.state()
