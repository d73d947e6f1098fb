"""examples/compare.py: every program in one table, also those that are not installed."""

import importlib.util
from pathlib import Path

import pytest

import rwkvgraph as rg

EXAMPLE = Path(__file__).parents[2] / "examples" / "compare.py"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch, where it is installed
def test_compare(gpu: rg.Context, capsys: pytest.CaptureFixture[str]) -> None:
    spec = importlib.util.spec_from_file_location("examples.compare", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    rows = module.main("v4:4x128:512", prompt=8, steps=2, repeats=1)
    assert [name for name, *_ in rows] == ["rwkvgraph", "generate", "rwkv", "web_rwkv_py"]
    ours, drawing, *others = rows
    assert "numpy" in ours[1] or gpu.info.name in ours[1]
    assert all(float(cell.replace(",", "")) > 0 for cell in [*ours[2:], *drawing[4:]])
    assert ours[3::2] == ["1.0", "1.0"]
    for _, how, *cells in others:  # there where they are installed: then measured, else said
        assert all(cells) or "not installed" in how
    header, _, *lines = capsys.readouterr().out.splitlines()
    assert header.split("|")[1].strip() == "v4:4x128:512"
    assert [line.split("|")[1].strip() for line in lines] == [name for name, *_ in rows]
