"""Every example runs on the default model: its `main` with fewer tokens than a reader would take."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest

import rwkvgraph as rg

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(autouse=True)
def only_where_an_adapter_is(gpu: rg.Context) -> None:
    """Examples take the best adapter; without one they would say so on stderr and run on numpy."""


def main_of(name: str) -> Callable[..., None]:
    spec = importlib.util.spec_from_file_location(f"examples.{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    main: Callable[..., None] = module.main
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
