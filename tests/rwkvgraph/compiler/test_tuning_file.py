"""Files of kernels for one adapter: what is read, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from rwkvgraph.compiler import NAGA, Limits, Target
from rwkvgraph.compiler.tuning import CPU, GPU, tuning_for
from rwkvgraph.compiler.tuning_file import FORMAT, VARIABLE, TuningFile, kernels_from_environment, read_tuning
from rwkvgraph.errors import LoadError

ADAPTER = "Some GPU"
TARGET = Target(Limits.webgpu_default(), NAGA, True, "gpu")
LAST: dict[str, object] = {"family": "split", "threads": 64, "rows": 4, "tokens": 4}
TEAM: dict[str, object] = {
    "family": "team",
    "threads": 128,
    "rows": 8,
    "tokens": 8,
    "wide": 8,
    "teams": 4,
    "depth": 32,
}


def written(folder: Path, *kernels: object, **more: object) -> Path:
    path = folder / "tuning.json"
    path.write_text(json.dumps({"format": FORMAT, "adapter": ADAPTER, "matmul": kernels} | more))
    return path


@pytest.mark.parametrize("table", [CPU, GPU], ids=["CPU", "GPU"])
def test_what_is_written_reads_the_same(tmp_path: Path, table: object) -> None:
    wanted = TuningFile('an "odd" name', (CPU if table is CPU else GPU).matmul)
    path = tmp_path / "tuning.json"
    path.write_text(str(wanted))
    assert read_tuning(path) == wanted


def test_a_file_stands_in_for_the_measured_table_of_its_adapter_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(written(tmp_path, TEAM | {"min_groups": 9}, LAST)))
    found = kernels_from_environment(ADAPTER, TARGET)
    assert [shape.min_groups for shape in found] == [9, 0]
    tuned = Target(TARGET.limits, NAGA, True, "gpu", matmul=found)
    assert tuning_for(tuned).matmul == found
    assert str(tuned).endswith("kernels tuned for it")
    assert kernels_from_environment("Another GPU", TARGET) == ()
    assert tuning_for(TARGET) == GPU


def test_without_the_variable_nothing_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "")
    assert kernels_from_environment(ADAPTER, TARGET) == ()


REFUSED: dict[str, tuple[list[dict[str, object]], dict[str, object], str]] = {
    "no kernels": ([], {}, '"matmul", a list of kernels'),
    "another format": ([LAST], {"format": "rwkvgraph tuning 2"}, "this version reads 'rwkvgraph tuning 1'"),
    "no adapter": ([LAST], {"adapter": 4}, '"adapter", a name'),
    "a field that is none": ([LAST | {"height": 2}], {}, "kernel 1 is .*height.*; it has family, threads"),
    "a field that lacks": ([{"family": "split"}], {}, "always family, rows, threads, tokens"),
    "a number as text": ([LAST | {"rows": "4"}], {}, "rows of kernel 1 is '4'; it is a number"),
    "a yes for a number": ([LAST | {"rows": True}], {}, "rows of kernel 1 is True"),
    "no such family": ([LAST | {"family": "tile"}], {}, "families are split, lanes, team and matrix"),
    "odd rows": ([LAST | {"rows": 6}], {}, "rows are a multiple of 4"),
    "no threads": ([LAST | {"threads": 0}], {}, "sizes are positive"),
    "uneven threads": ([LAST | {"threads": 48}], {}, "threads are a power of two"),
    "three rows of a team": ([TEAM | {"threads": 96}, LAST], {}, "an even number of times that"),
    "teams without columns": ([TEAM | {"depth": 8}, LAST], {}, "each team takes 4"),
    "three buffers": ([TEAM | {"buffers": 3}, LAST], {}, "buffers are 1 or 2"),
    "no tokens": ([LAST | {"max_tokens": 0}, LAST], {}, "max_tokens is at least 1"),
    "no last one": ([LAST | {"max_tokens": 4}], {}, "its last kernel serves all runs"),
    "a last one for few": ([LAST | {"max_groups": 4}], {}, "its last kernel serves all runs"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_is_none_says_what_is_wrong(tmp_path: Path, name: str) -> None:
    kernels, more, message = REFUSED[name]
    with pytest.raises(LoadError, match=message) as error:
        read_tuning(written(tmp_path, *kernels, **more))
    assert "rwkvgraph tune -o FILE" in str(error.value)


@pytest.mark.parametrize("content", ["{", None], ids=["broken", "missing"])
def test_what_is_no_json_is_refused(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "tuning.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(LoadError, match="cannot be read as JSON"):
        read_tuning(path)


@pytest.mark.parametrize(
    ("kernel", "wanted"),
    [(TEAM | {"depth": 128}, "57600 bytes"), ({**LAST, "family": "lanes", "threads": 8}, "subgroups of 8")],
    ids=["memory", "lanes"],
)
def test_a_kernel_that_the_device_cannot_run_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel: dict[str, object], wanted: str
) -> None:
    monkeypatch.setenv(VARIABLE, str(written(tmp_path, kernel, LAST)))
    with pytest.raises(LoadError, match=f"kernel 1 takes .*{wanted}.*Some GPU has gpu, naga"):
        kernels_from_environment(ADAPTER, TARGET)


def test_kernels_by_matrices_are_left_out_where_there_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file may be of the same adapter through a library that has them."""
    by_matrices = {"family": "matrix", "threads": 64, "rows": 16, "tokens": 16, "wide": 2, "depth": 32}
    monkeypatch.setenv(VARIABLE, str(written(tmp_path, by_matrices | {"max_tokens": 64}, LAST)))
    assert [shape.family for shape in kernels_from_environment(ADAPTER, TARGET)] == ["split"]
    roomy = replace(TARGET, matrices="native")
    assert [shape.family for shape in kernels_from_environment(ADAPTER, roomy)] == ["matrix", "split"]
