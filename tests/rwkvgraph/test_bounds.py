"""No kernel reaches beyond an array, whatever the widths: on Dawn nothing checks that on the device."""

from dataclasses import replace

import numpy as np
import pytest

from rwkvgraph import Buffer, ops
from rwkvgraph.compiler import Target
from rwkvgraph.gpu import Context
from rwkvgraph.graph import Graph
from rwkvgraph.model import Model
from rwkvgraph.op import tape
from rwkvgraph.ops.move import Gather
from rwkvgraph.testing import holding, run_on_device
from tests.rwkvgraph.bounds import arrays_of, watched, watching
from tests.rwkvgraph.models.synthetic import Half, synthetic
from tests.rwkvgraph.test_matrices import with_matrices

SLOW = pytest.mark.slow
RUNS = ((1, 0, 0), (1, 1, 1), (40, 30, 9))


def unwatched(target: Target, **changes: object) -> Target:
    """A target that leaves a buffer for the notes, without relays."""
    limits = replace(target.limits, max_storage_buffers=target.limits.max_storage_buffers - 1)
    return replace(target, limits=limits, resident=0, **changes)  # type: ignore[arg-type]


def odd(version: str, size: int) -> dict[str, Half]:
    """A model of two layers whose rows end inside blocks of weights."""
    ranks = {"v6": (5, 3), "v7": (3, 2, 5, 7)}.get(version)
    return synthetic(version, 2, 3 * size, head_size=size, hidden=29, vocab=31, low_rank=ranks)


@pytest.mark.parametrize("kind", ["gpu", pytest.param("cpu", marks=SLOW)])
@pytest.mark.parametrize(
    ("version", "size"),
    [
        ("v7", 5),
        ("v6", 12),
        *(pytest.param(*each, marks=SLOW) for each in (("v4", 12), ("v5.2", 12), ("v6", 9))),
    ],
)
def test_models_of_odd_widths_stay_within(
    version: str, size: int, kind: str, gpu: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "gpu":
        monkeypatch.setattr(gpu, "target", unwatched(gpu.target, kind="gpu", looks=True))
    else:
        monkeypatch.setattr(gpu, "target", unwatched(gpu.target))
    with watching(gpu, monkeypatch) as watch:
        run_all(odd(version, size), gpu)
        assert len(watch.names) > 10
        assert watch.found() == {}


def test_a_model_by_matrices_stays_within(gpu: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "target", unwatched(with_matrices(gpu.target)))
    with watching(gpu, monkeypatch) as watch:
        run_all(odd("v7", 16), gpu)
        assert any("var<workgroup> matrix" in text for text in watch.shaders)
        assert watch.found() == {}


def run_all(tensors: dict[str, Half], context: Context) -> None:
    model = Model.load(tensors, context)
    state = model.state(3)
    for lengths in RUNS:
        model.run([[at % 31 for at in range(length)] for length in lengths], state)


def test_ids_beyond_a_table_stay_within(gpu: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "target", unwatched(gpu.target))
    out = Buffer("out", (3, 8))
    with tape() as items:
        table = holding(np.arange(40).reshape(5, 8))
        ops.blit(ops.gather(table, holding(np.array([4, 5, 2**32 - 1], np.uint32))), out.tensor)
    with watching(gpu, monkeypatch) as watch:
        found = run_on_device(Graph(tuple(items)), gpu)
        assert watch.found() == {}
    np.testing.assert_array_equal(found[out], np.broadcast_to(np.arange(32, 40), (3, 8)))


def test_an_index_beyond_is_noted(gpu: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gather of a model, whose ids are checked before, and so not on the device."""
    monkeypatch.setattr(gpu, "target", unwatched(gpu.target))
    out = Buffer("out", (2, 8))
    with tape() as items:
        ids = holding(np.array([1, 9], np.uint32))
        ops.blit(Gather(ids, holding(np.zeros((5, 8)))).result, out.tensor)
    with watching(gpu, monkeypatch) as watch:
        run_on_device(Graph(tuple(items)), gpu)
        assert len(watch.found()) == 1


def test_indices_are_watched_within_indices() -> None:
    declared = "var<workgroup> t: array<array<f32, 4>, 2 * 3>;\nvar<storage, read> b1: array<u32>;"
    sizes, body = arrays_of(declared), "x = t[b1[i]][j + 1u];"
    assert sizes == {"b1": ["arrayLength(&b1)"], "t": ["2u * 3u", "4u"]}
    wanted = "x = t[within(1u, b1[within(0u, i, arrayLength(&b1))], 2u * 3u)][within(1u, j + 1u, 4u)];"
    assert watched(body, sizes, list(sizes)) == wanted
