"""`rwkvgraph graph`: formats, files, hooks, times, and errors of one line."""

import json
from pathlib import Path

import pytest

import rwkvgraph as rg
from rwkvgraph.cli import main
from rwkvgraph.sight.stages import STAGES
from tests.rwkvgraph.sight.conftest import ADDED_AT

SMALL = ["--version", "v7", "--layers", "2", "--width", "128", "--vocab", "300", "--target", "browser"]


def graph(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `rwkvgraph graph` in this process."""
    code = main(["graph", *arguments])
    return code, *capsys.readouterr()


@pytest.mark.parametrize("stage", STAGES)
def test_text_of_every_stage_goes_to_stdout(capsys: pytest.CaptureFixture[str], stage: str) -> None:
    code, out, err = graph(capsys, *SMALL, "--stage", stage)
    assert (code, err) == (0, "")
    assert {"build": "-- PostFfn(0)", "plan": "slot0", "program": "Program("}.get(stage, "matmul") in out


@pytest.mark.parametrize(
    ("kind", "start"),
    [("dot", "digraph"), ("mermaid", "flowchart"), ("graphml", "<?xml"), ("json", "{"), ("text", "gather")],
)
def test_a_format_goes_to_stdout(capsys: pytest.CaptureFixture[str], kind: str, start: str) -> None:
    code, out, err = graph(capsys, *SMALL, "--format", kind)
    assert (code, err) == (0, "")
    assert out.startswith(start)
    assert out.endswith("\n")


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("g.html", "<!doctype"),
        ("g.dot", "digraph"),
        ("g.mmd", "flowchart"),
        ("g.graphml", "<?xml"),
        ("g", "gather"),
    ],
)
def test_the_ending_of_the_file_says_the_format(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str, start: str
) -> None:
    path = tmp_path / name
    code, out, err = graph(capsys, *SMALL, "-o", str(path))
    assert (code, out) == (0, "")
    assert str(path) in err
    assert path.read_text("utf-8").startswith(start)
    assert list(tmp_path.iterdir()) == [path]  # nothing of a temporary name is left


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert graph(capsys, *SMALL, "-q", "-o", str(tmp_path / "g.dot")) == (0, "", "")


def test_a_real_model_is_read_without_loading_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rwkvgraph.model.Model.__init__", None)
    code, out, _ = graph(capsys, "--target", "browser", "--format", "json")
    assert code == 0
    assert json.loads(out)["graph"]["title"].startswith("RWKV-7, 6 layers of 256")


def test_hooks_are_spliced_in(capsys: pytest.CaptureFixture[str], hooks_file: Path) -> None:
    arguments = [*SMALL, "--layers", "3", "--hooks", str(hooks_file), "--stage", "splice"]
    code, out, _ = graph(capsys, *arguments)
    assert code == 0
    assert all(place in out for place in ADDED_AT)


def test_every_layer_is_there_if_asked(capsys: pytest.CaptureFixture[str]) -> None:
    more = ["--layers", "4", "--stage", "simplify", "--format", "dot"]
    assert "as layer 1" in graph(capsys, *SMALL, *more)[1]
    assert "as layer 1" not in graph(capsys, *SMALL, *more, "--full")[1]


def test_the_device_is_the_default_target(capsys: pytest.CaptureFixture[str], gpu: rg.Context) -> None:
    small = SMALL[: SMALL.index("--target")]
    code, out, _ = graph(capsys, *small, "--format", "json")
    assert code == 0
    browsers = json.loads(graph(capsys, *SMALL, "--format", "json")[1])
    assert json.loads(out)["shaders"].keys() != browsers["shaders"].keys()
    assert graph(capsys, *small, "--target", "device", "--format", "json")[1] == out


@pytest.mark.parametrize("tokens", [1, 5])
def test_passes_are_timed_on_the_device(
    capsys: pytest.CaptureFixture[str], gpu: rg.Context, hooks_file: Path, tokens: int
) -> None:
    small = [*SMALL[: SMALL.index("--target")], "--layers", "3", "--hooks", str(hooks_file), "--time"]
    code, out, _ = graph(capsys, *small, "-T", str(tokens), "--format", "json")
    assert code == 0
    data = json.loads(out)
    assert data["timing"]["tokens"] == tokens
    assert data["timing"]["adapter"] == str(gpu.info)
    assert all(node["microseconds"] > 0 for node in data["nodes"])
    assert all(node["gigabytes_per_second"] >= 0 for node in data["nodes"])
    assert sum(node["microseconds"] for node in data["nodes"]) < 10_000_000


def test_times_are_listed_in_text(capsys: pytest.CaptureFixture[str], gpu: rg.Context) -> None:
    code, out, _ = graph(capsys, *SMALL[: SMALL.index("--target")], "--time")
    assert code == 0
    assert " µs for T = 1 on " in out.splitlines()[-1]
    assert out.count("GB/s") >= 15


def test_a_device_without_timestamps_is_timed_by_the_clock(
    capsys: pytest.CaptureFixture[str], gpu: rg.Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rg.Context, "has_timestamps", False)
    code, out, _ = graph(capsys, *SMALL[: SMALL.index("--target")], "--time")
    assert code == 0
    assert "wall clock of " in out.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([*SMALL, "--format", "html"], 2, "-o graph.html"),
        (["--layers", "2"], 2, "--layers goes with --version"),
        (["--head-size", "2"], 2, "--head-size goes with --version"),
        ([*SMALL, "-m", "x.st"], 2, "give one of them"),
        ([*SMALL, "--width", "100"], 2, "heads of 64"),
        ([*SMALL, "--layers", "0"], 2, "--layers is 0"),
        ([*SMALL, "-T", "0"], 2, "--tokens is 0"),
        ([*SMALL, "--time"], 2, "leave --target browser out"),
        ([*SMALL, "-o", "no/such/folder/g.html"], 2, "there is no folder"),
        ([*SMALL, "-o", "/"], 2, "is a folder"),
        ([*SMALL, "--hooks", "no_such_file.py"], 1, "no such Python file"),
        (["-m", "no/such/model.st"], 1, "no/such/model.st"),
        (["--adapter", "no such adapter"], 1, "adapter"),
        (["--adapter", "cpu", "--time"], 1, "adapter"),
    ],
)
def test_an_error_is_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str
) -> None:
    given, out, err = graph(capsys, *arguments)
    assert (given, out) == (code, "")
    assert err.startswith("rwkvgraph: error: ")
    assert message in err
    assert err.count("\n") == 1


def test_a_hook_that_fails_names_its_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "wrong.py"
    path.write_text(
        "import rwkvgraph as rg\nfrom rwkvgraph import v7\nhooks = rg.Hooks()\n"
        "@hooks.on(v7.PostFfn(0))\ndef f(frame):\n    frame.no_slot = 1\n"
    )
    code, _, err = graph(capsys, *SMALL, "--hooks", str(path))
    assert code == 1
    assert err.startswith("rwkvgraph: error: wrong.py:6: a frame has no slot 'no_slot'")
    assert err.count("\n") == 1


def test_a_hook_at_no_site_names_the_nearest(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "nowhere.py"
    path.write_text("from rwkvgraph import v7\nhooks = {v7.PostFfn(99): print}\n")
    code, _, err = graph(capsys, *SMALL, "--hooks", str(path))
    assert code == 1
    assert "no hook site PostFfn(99)" in err
