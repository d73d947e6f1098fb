"""Running programs again and again: nothing grows, nothing stale is read, what is not there is not run."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import rwkvgraph as rg
from rwkvgraph import assets, v7

STEPS = 300
MOST_GROWTH = 1024  # bytes a step: one leaked command pool would be 93,000


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(
    not Path("/proc/self/statm").exists(), reason="no /proc to read the process's memory from"
)
def test_decoding_does_not_grow_the_process(gpu: rg.Context) -> None:
    model = rg.Model.load(assets.default_model(), gpu)
    state = model.state()
    for _ in range(50):
        model.run([[5]], state)
    before = resident()
    for _ in range(STEPS):
        model.run([[5]], state)
    assert (resident() - before) / STEPS < MOST_GROWTH


def test_a_run_without_output_leaves_what_hooks_of_the_head_captured(device: rg.Context | str) -> None:
    model = rg.Model.load(assets.default_model(), device, token_chunk_size=8)
    last, stream, hooks = rg.Buffer("last", (4096,)), rg.Buffer("stream", (256,)), rg.Hooks()
    hooks.on(v7.PostHead)(lambda frame: rg.blit(frame.head_o[-1] * 2, last))
    hooks.on(v7.PostFfn(5))(lambda frame: rg.blit(frame.x[-1], stream))
    state, tokens = model.state(2), [[1, 2, 3], [7] * 40]
    logits = model.run_with_hooks(tokens, state, hooks)[0]
    assert logits is not None
    seen = stream.read()
    assert model.run_with_hooks(tokens, state, hooks) == [None, None]
    np.testing.assert_array_equal(last.read(), logits * 2)
    assert not np.array_equal(stream.read(), seen)


def test_a_hook_may_compute_on_the_whole_state(device: rg.Context | str) -> None:
    model = rg.Model.load(assets.default_model(), device)
    hooks = rg.Hooks()

    @hooks.on(v7.PostAttTimeMix(2))
    def shrink(frame: v7.Frame) -> rg.TensorOp:
        return rg.blit(rg.l2_norm(frame.state.att_x.tensor * 1.0), frame.state.att_x)

    for slots in (1, 3, 2):
        state = model.state(slots)
        model.run_with_hooks([[1, 2, 3] for _ in range(slots)], state, hooks)
        np.testing.assert_allclose(np.linalg.norm(state.read(0)[2, 0]), 1.0, rtol=1e-5)


def test_programs_of_one_device_share_a_users_buffer(device: rg.Context | str) -> None:
    model = rg.Model.load(assets.default_model(), device)
    seen, one, two = rg.Buffer("seen", (256,)), rg.Hooks(), rg.Hooks()
    for hooks, layer in ((one, 0), (two, 4)):
        hooks.on(v7.PostFfn(layer))(lambda frame: rg.blit(frame.x[-1], seen))
    reads = []
    for hooks in (one, two, one):
        model.run_with_hooks([[1, 2, 3]], model.state(), hooks)
        reads.append(seen.read())
    np.testing.assert_array_equal(reads[0], reads[2])
    assert not np.array_equal(reads[0], reads[1])


def test_a_buffer_outlives_the_device_it_was_used_on(gpu: rg.Context) -> None:
    context = rg.Context.create(gpu.info.index)
    model = rg.Model.load(assets.default_model(), context)
    seen, hooks = rg.Buffer("seen", (256,)), rg.Hooks()
    hooks.on(v7.PostFfn(0))(lambda frame: rg.blit(frame.x[-1], seen))
    model.run_with_hooks([[1]], model.state(), hooks)
    context.destroy()
    seen.write(np.ones(256))
    np.testing.assert_array_equal(seen.read(), np.ones(256))


def test_softmax_takes_more_rows_than_a_binding_holds(gpu: rg.Context) -> None:
    model = rg.Model.load(assets.default_model(), gpu)
    rows = gpu.target.limits.max_storage_binding // (4 * 4096) + 1
    if rows > 1 << 14:
        pytest.skip(f"{gpu.info.name} binds {rows} rows at once: too many for a test")
    logits = np.zeros((rows, 4096), np.float32)
    np.testing.assert_allclose(model.softmax(logits)[-1], 1 / 4096, rtol=1e-5)


def test_two_slots_may_not_share_a_list(device: rg.Context | str) -> None:
    model = rg.Model.load(assets.default_model(), device)
    with pytest.raises(ValueError, match="share one list"):
        model.run([[1, 2]] * 2, model.state(2))


def test_threads_with_states_of_their_own_do_not_disturb_each_other(device: rg.Context | str) -> None:
    model = rg.Model.load(assets.default_model(), device)

    def tell(first: int) -> list[int]:
        state, ids = model.state(), [first]
        for _ in range(12):
            logits = model.run([[ids[-1]]], state)[0]
            assert logits is not None
            ids.append(int(logits.argmax()))
        return ids

    alone = [tell(first) for first in (5, 99)]
    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(tell, (5, 99))) == alone


def test_a_tensor_kept_from_elsewhere_is_named(device: rg.Context | str) -> None:
    model = rg.Model.load(assets.default_model(), device)
    kept: list[rg.Tensor] = []
    hooks = rg.Hooks()
    hooks.on(v7.PostFfn(3))(lambda frame: kept.append(frame.x))

    @hooks.on(v7.PostFfn(1))
    def borrow(frame: v7.Frame) -> None:
        if kept:
            frame.x = frame.x + kept[0]

    model.run_with_hooks([[1]], model.state(), hooks)
    hooks.on(v7.PostFfn(5))(lambda frame: None)
    with pytest.raises(rg.HookError, match=r"PostFfn\(1\).*add.*does not exist there"):
        model.run_with_hooks([[1]], model.state(), hooks)


def test_hooks_may_be_a_dict(device: rg.Context | str) -> None:
    model = rg.Model.load(assets.default_model(), device)
    seen = rg.Buffer("seen", 256)
    model.run_with_hooks([[1]], model.state(), {v7.PostFfn(0): lambda frame: rg.blit(frame.x[-1], seen)})
    assert seen.read().any()
