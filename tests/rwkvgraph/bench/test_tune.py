"""`rwkvgraph tune`, in this process: a made-up model of a layer, and orders of times that are made up."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import rwkvgraph as rg
from rwkvgraph.bench import tuner
from rwkvgraph.bench.products import Case, Product
from rwkvgraph.bench.steady import Rounds, Samples
from rwkvgraph.bench.subject import synthetic
from rwkvgraph.bench.tuner import Trial, candidates, cases_of, chosen_by, table_of
from rwkvgraph.cli import main
from rwkvgraph.compiler import NAGA, Limits, Target
from rwkvgraph.compiler.tuning_file import VARIABLE, read_tuning
from rwkvgraph_codegen import Shape, flaw

SMALL, LARGE = Case((((64,), 64),)), Case((((4096,), 64),))
ONE, FOUR = Shape("split", 64, 4, 1), Shape("split", 64, 4, 4)
TILE = Shape("team", 128, 8, 8, wide=8, teams=4, depth=32)
BROWSER = Target(Limits.webgpu_default(), NAGA, True, "gpu")
COMMAND = ["tune", "-q", "--synthetic", "v7:1x64:40", "-t", "1,3", "-r", "1", "--warm-up", "0"]


def trial(case: Case, tokens: int, kernels: Sequence[Shape], *seconds: float) -> Trial:
    times = {s: Samples((), (time,)) for s, time in zip(kernels, seconds, strict=True)}
    return Trial(case, 1, tokens, kernels[0], times, {})


def test_the_workgroups_that_a_kernel_makes_tell_cases_apart() -> None:
    trials = [trial(SMALL, 16, [FOUR, TILE], 1, 5), trial(LARGE, 16, [FOUR, TILE], 9, 3)]
    table = table_of(trials)
    assert [(shape.family, shape.max_tokens) for shape in table] == [("team", None), ("split", None)]
    assert table[0].min_groups == TILE.groups([4096], 16)
    assert [chosen_by(table, item) for item in trials] == [FOUR, TILE]


def test_a_kernel_for_so_many_workgroups_is_never_the_last() -> None:
    shared = replace(TILE, splits=4, max_groups=64)
    trials = [trial(SMALL, 16, [FOUR, shared], 5, 1), trial(LARGE, 16, [FOUR], 9)]
    table = table_of(trials)
    assert [(shape.splits, shape.max_groups) for shape in table] == [(4, 64), (1, 0)]
    assert [chosen_by(table, item) for item in trials] == [shared, FOUR]
    assert [shape.splits for shape in table_of(trials[:1])] == [4, 1]


def test_tiles_are_split_for_some_tokens() -> None:
    roomy = replace(BROWSER, limits=replace(BROWSER.limits, max_workgroup_storage=49152))
    assert {shape.splits for shape in candidates(roomy, 1)} == {1}
    assert {shape.splits for shape in candidates(roomy, 32)} == {1, 2, 4, 8, 16}


def test_one_kernel_more_has_to_save_a_few_per_cent() -> None:
    trials = [trial(SMALL, 16, [FOUR, TILE], 1.0, 1.01), trial(LARGE, 16, [FOUR, TILE], 9, 3)]
    assert table_of(trials) == (TILE,)


def test_tokens_with_the_same_kernels_share_them() -> None:
    times = {1: (1, 2), 2: (3, 2), 4: (9, 2)}
    trials = [trial(SMALL, tokens, [ONE, FOUR], *seconds) for tokens, seconds in times.items()]
    assert [(shape.tokens, shape.max_tokens) for shape in table_of(trials)] == [(1, 1), (4, None)]


def test_a_kernel_that_was_wrong_once_is_in_no_table() -> None:
    bad = Trial(LARGE, 1, 4, ONE, {ONE: Samples((), (1.0,))}, {FOUR: 0.5})
    assert table_of([trial(SMALL, 1, [ONE, FOUR], 2, 1), bad]) == (ONE,)


def test_a_candidate_with_wrong_numbers_cannot_win(gpu: rg.Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuner, "NUMBERS", -1.0)
    cases = {SMALL: 1}
    (found,) = tuner.tune(gpu, cases, [2], Rounds(1, 0.0))
    assert list(found.times) == [found.kernel]
    assert found.wrong
    assert all(np.isfinite(error) and error < 1e-5 for error in found.wrong.values())


@pytest.mark.parametrize("kind", tuner.CANDIDATES)
def test_every_candidate_is_a_kernel(kind: str) -> None:
    assert [flaw(shape) for shape in tuner.CANDIDATES[kind] if flaw(shape)] == []


@pytest.mark.parametrize("tokens", tuner.TOKENS["gpu"])
def test_browsers_have_candidates_for_every_number_of_tokens(tokens: int) -> None:
    assert len(candidates(BROWSER, tokens)) > 1


def test_a_models_passes_are_counted_by_their_matrices() -> None:
    found = {str(case): count for case, count in cases_of(synthetic("v7:3x128:300"), BROWSER).items()}
    assert found["512x128"] == found["128x512"] == 3
    assert found["300x128"] == 1


def test_the_file_that_is_written_is_used(
    gpu: rg.Context, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "tuning.json"
    assert main([*COMMAND, "--json", "-o", str(path)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {item["tokens"] for item in found["trials"]} == {1, 3}
    assert all(item["chosen"] in item["seconds"] and not item["wrong"] for item in found["trials"])
    assert found["tuning"] == json.loads(path.read_text())
    monkeypatch.setenv(VARIABLE, str(path))
    assert rg.Context.create(gpu.info.index).target.matmul == read_tuning(path).matmul


def test_kernels_by_matrices_and_of_split_tiles_are_really_measured(gpu: rg.Context) -> None:
    """Not what a pass would fall back to, where its matrices or what it binds are not as those want them."""
    by_matrices = Shape("matrix", 64, 16, 16, wide=2, depth=32)
    split = replace(by_matrices, splits=2, max_groups=64)
    before, gpu.target = gpu.target, replace(gpu.target, kind="gpu", matrices="emulated", resident=0)
    try:
        case = Case((((40,), 72), ((24, 8), 72), ((16,), 30)))
        run = Product(gpu, case).run(20)
        assert run.can(by_matrices)
        assert run.can(split)
        assert not run.can(replace(split, max_groups=2))
        wanted = run.values(Shape("split", 64, 4, 4))
        for shape in (by_matrices, split):
            assert np.abs(run.values(shape) - wanted).max() < 1e-4 * np.abs(wanted).max()
            assert run.measure(shape, Rounds(1, 0.0)).median > 0
    finally:
        gpu.target = before


def test_numpy_has_nothing_to_tune(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*COMMAND, "--adapter", "cpu"]) == 1
    assert "numpy has no kernels to choose" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["-r", "0"], "--repeats is 0"), (["-t", "x"], "-t is 'x'"), (["-m", "x.st"], "give one of them")],
)
def test_wrong_arguments_are_told(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main([*COMMAND, *arguments]) == 2
    assert message in capsys.readouterr().err
