"""Every example runs on the default model: its `main` with fewer tokens than a reader would take."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rwkvgraph as rg

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(autouse=True)
def only_where_an_adapter_is(gpu: rg.Context) -> None:
    """Examples take the best adapter; without one they would say so on stderr and run on numpy."""


def main_of(name: str) -> Callable[..., Any]:
    spec = importlib.util.spec_from_file_location(f"examples.{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    main: Callable[..., Any] = module.main
    return main


def test_every_example_is_tested() -> None:
    tests = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    assert {path.stem for path in EXAMPLES.glob("*.py")} <= tests


def test_generate(capsys: pytest.CaptureFixture[str]) -> None:
    main_of("generate")("Once upon a time", max_tokens=8)
    captured = capsys.readouterr()
    assert captured.out.startswith("Once upon a time, there was")
    assert "8 tokens, " in captured.err


def test_watch(capsys: pytest.CaptureFixture[str]) -> None:
    main_of("watch")("The cat")
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split()[0] == "token"
    assert [line.split()[0] for line in lines] == ["''", "'The'", "'"]
    norms = [[float(word) for word in line.split()[-6:]] for line in lines]
    assert all(0 < norm < 1000 for row in norms for norm in row)


def test_steer(capsys: pytest.CaptureFixture[str]) -> None:
    main_of("steer")("One day, a girl", max_tokens=8)
    away, neutral, towards = capsys.readouterr().out.strip().split("\n\n")
    assert neutral == "+0: One day, a girl named Lily went to the park with her"
    assert len({away[3:], neutral[3:], towards[3:]}) == 3


def test_logit_lens(capsys: pytest.CaptureFixture[str]) -> None:
    said = main_of("logit_lens")("Once upon a time, there was a little")
    assert [len(words) for words in said] == [3] * 6
    assert said[-1][0] == " girl"  # what the model says, as the example checks
    assert capsys.readouterr().out.startswith("layer 0   ")


def test_patch(capsys: pytest.CaptureFixture[str]) -> None:
    effects = main_of("patch")()
    assert effects.shape == (7, 10)
    np.testing.assert_allclose(effects[-1, -1], 1, atol=1e-3)  # the last stream is the answer itself
    np.testing.assert_allclose(effects[:, :7], 0, atol=1e-3)  # these tokens are the same in both
    np.testing.assert_allclose(effects[0, 7], 1, atol=1e-3)  # and here is all that they differ in
    assert capsys.readouterr().out.startswith("token  ")


def test_inspect_layers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = main_of("inspect_layers")("The cat", str(tmp_path / "values.npz"))
    assert len(capsys.readouterr().out.splitlines()) >= 19
    assert values["3.x@PostFfn"].shape == (3, 256)
    with np.load(tmp_path / "values.npz") as saved:
        np.testing.assert_array_equal(saved["3.x_at_PostFfn"], values["3.x@PostFfn"])
