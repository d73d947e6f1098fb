"""Every example runs on the default model: its `main` with fewer tokens than a reader would take.

Those with operations of their own, or that are plugins, are in test_plugins.
"""

import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest

from tests.examples.conftest import EXAMPLES, Example


def test_every_example_is_tested() -> None:
    sources = [path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py")]
    tests = re.findall(r"^def test_(\w+)", "\n".join(sources), re.MULTILINE)
    for path in EXAMPLES.glob("*.py"):
        assert any(test.startswith(path.stem) for test in tests), path.name


def test_every_example_is_at_most_80_lines() -> None:
    lengths = {
        path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in EXAMPLES.glob("*.py")
    }
    assert {name: length for name, length in lengths.items() if length > 80} == {}


def test_generate(example: Example, capsys: pytest.CaptureFixture[str]) -> None:
    example("generate").main("Once upon a time", max_tokens=8)
    captured = capsys.readouterr()
    assert captured.out.startswith("Once upon a time, there was")
    assert "8 tokens, " in captured.err


def test_watch(example: Example, capsys: pytest.CaptureFixture[str]) -> None:
    example("watch").main("The cat")
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split()[0] == "token"
    assert [line.split()[0] for line in lines] == ["''", "'The'", "'"]
    norms = [[float(word) for word in line.split()[-6:]] for line in lines]
    assert all(0 < norm < 1000 for row in norms for norm in row)


def test_steer_takes_the_story_to_where_one_text_is_and_the_other_is_not(example: Example) -> None:
    stories = example("steer").main("One day, a girl", max_tokens=30)
    assert stories[0.0].startswith("One day, a girl named Lily went to the park with her mom.")
    sea = {strength: "boat" in story and "sail" in story for strength, story in stories.items()}
    assert sea == {-1.0: False, 0.0: False, 0.5: False, 1.0: True}
    assert stories[-1.0] != stories[0.0] != stories[0.5]


def test_logit_lens(example: Example, capsys: pytest.CaptureFixture[str]) -> None:
    said = example("logit_lens").main("Once upon a time, there was a little")
    assert [len(words) for words in said] == [3] * 6
    assert said[-1][0] == " girl"  # what the model says, as the example checks
    assert capsys.readouterr().out.startswith("layer 0   ")


def test_patch(example: Example, capsys: pytest.CaptureFixture[str]) -> None:
    effects = example("patch").main()
    assert effects.shape == (7, 10)
    np.testing.assert_allclose(effects[-1, -1], 1, atol=1e-3)  # the last stream is the answer itself
    np.testing.assert_allclose(effects[:, :7], 0, atol=1e-3)  # these tokens are the same in both
    np.testing.assert_allclose(effects[0, 7], 1, atol=1e-3)  # and here is all that they differ in
    assert capsys.readouterr().out.startswith("token  ")


def test_inspect_layers(example: Example, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [tmp_path / f"values{ending}" for ending in (".npz", ".json", ".png")]
    values = example("inspect_layers").main("The cat", *files)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) >= 19
    assert [line.split()[0] for line in lines[1:19]] == list(values)
    stream = values["3.x@PostFfn"]
    assert stream.shape == (3, 256)
    (line,) = (line for line in lines if line.startswith("3.x@PostFfn"))
    assert float(line.split()[2]) == pytest.approx(float(np.sqrt((stream**2).mean())), abs=1e-3)
    with np.load(files[0]) as saved:
        np.testing.assert_array_equal(saved["3.x_at_PostFfn"], stream)
    np.testing.assert_array_equal(np.float32(json.loads(files[1].read_text())["3.x@PostFfn"]), stream)
    if importlib.util.find_spec("matplotlib"):
        assert files[2].read_bytes().startswith(b"\x89PNG")
    else:
        assert lines[-1] == f"{files[2]} was not drawn: matplotlib is not installed"
