"""`rwkvgraph inspect`: tables, JSON, files, and errors of one line."""

import io
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import rwkvgraph as rg
from rwkvgraph import assets
from rwkvgraph.model import Model
from rwkvgraph.op import Array
from rwkvgraph.sight.reading import MAIN, values_of
from tests.rwkvgraph.sight.inspecting import (
    CPU,
    CUT,
    PROMPT,
    TOKENS,
    VERSIONS,
    WIDE,
    inspect,
    rows_of,
    small,
    told,
)

DIGITS = 2e-3
"""Relative: tables have four digits, and what is summed is float32."""


@pytest.fixture(scope="module", params=VERSIONS)
def tensors(request: pytest.FixtureRequest) -> dict[str, Array]:
    """A random model of a version."""
    return small(request.param)


@pytest.mark.parametrize("adapter", ["cpu", pytest.param("0", marks=pytest.mark.gpu)])
def test_the_table_is_what_numpy_says_of_the_cache(
    capsys: pytest.CaptureFixture[str], adapter: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    path = assets.default_model()
    if adapter != "cpu":
        request.getfixturevalue("gpu")
        path = tmp_path / "model.st"  # every layer's kernels are captured from, and compiled for it
        save_file(small("v7"), path)
    code, out, err = inspect(capsys, "--adapter", adapter, "-m", str(path))
    assert code == 0
    assert [line.split()[0] for line in err.splitlines()] == ["model", "adapter", "values"]
    table = rows_of(out)
    model = Model.load(path, "cpu")
    ids = [0, *rg.Tokenizer.load(assets.default_vocab()).encode(PROMPT)]
    _, cache = model.run_with_cache([ids], model.state(), MAIN, "full")
    assert list(table) == list(cache)
    for name, (value,) in cache.items():
        assert value is not None
        mean, rms, largest, token, channel, nans, infinities = (float(x) for x in table[name][:7])
        assert mean == pytest.approx(value.mean(dtype=np.float64), rel=DIGITS, abs=1e-4)
        assert rms == pytest.approx(math.sqrt((value.astype(np.float64) ** 2).mean()), rel=DIGITS)
        assert largest == pytest.approx(float(value[int(token), int(channel)]), rel=DIGITS)
        assert abs(largest) == pytest.approx(float(np.abs(value).max()), rel=DIGITS)
        assert (nans, infinities) == (0, 0)


def test_the_default_table_is_one_screen_for_every_version(
    capsys: pytest.CaptureFixture[str], tensors: dict[str, Array], tmp_path: Path
) -> None:
    save_file(tensors, tmp_path / "model.st")
    code, out, _ = inspect(capsys, *CPU, "-m", str(tmp_path / "model.st"))
    assert code == 0
    assert len(out.splitlines()) == 1 + 4 * 5 + 3
    assert out.splitlines()[0].split() == [
        "value",
        "mean",
        "rms",
        "largest",
        "token",
        "channel",
        "nan",
        "inf",
    ]


def test_every_slot_is_there_once_wherever_it_is_new(tensors: dict[str, Array]) -> None:
    model = Model.load(tensors, "cpu")
    names = {value.name for value in values_of(model.graph)}
    every = {value.slot for value in values_of(model.graph, ["*"])}
    assert {value.slot for value in values_of(model.graph)} == every
    assert "2.att_k@PostAttLinear" in names
    assert "2.att_k@PreAttTimeMix" not in names  # the same tensor as at the site before
    assert {"2.x@PostAtt", "2.x@PostFfn"} <= names
    assert not {"2.x@PreAtt", "2.x@PreFfn"} & names


def test_values_are_in_the_order_in_which_they_are_computed(tensors: dict[str, Array]) -> None:
    model = Model.load(tensors, "cpu")
    sites = [type(site.hook).__name__ for site in model.graph.sites()]
    found = [(value.layer, sites.index(value.site)) for value in values_of(model.graph)]
    inside = [item for item in found if item[0] is not None]
    assert inside == sorted(inside)
    assert [item[0] for item in found[:2]] == [item[0] for item in found[-2:]] == [None, None]


def test_within_a_site_what_feeds_the_others_comes_first() -> None:
    names = [value.name for value in values_of(Model.load(small("v7"), "cpu").graph)]
    at = [names.index(f"1.{slot}@PostAttValueResidual") for slot in ("aux_v", "att_vv", "att_v")]
    assert at == sorted(at)


def test_patterns_and_layers_choose_values(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = inspect(capsys, *CPU, "--values", "*.x@PostFfn", "*.att_k@PostAttLinear", "--layers", "0-1,4")
    assert list(rows_of(out)) == [
        f"{layer}.{value}" for layer in (0, 1, 4) for value in ("att_k@PostAttLinear", "x@PostFfn")
    ]


def test_all_shows_more_than_the_main_values(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = inspect(capsys, *CPU, "--all", "--layers", "2")
    names = list(rows_of(out))
    assert len(names) > 30
    assert {"2.att_w@PostAttAdapt", "2.att_kk@PostAttControl", "2.ffn_k@PostFfnActivate"} <= set(names)


def test_the_last_token_alone_is_that_of_all(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    every, last = tmp_path / "all.npz", tmp_path / "last.npz"
    inspect(capsys, *CPU, "--save", str(every))
    data = told(capsys, *CPU, "--tokens", "last", "--save", str(last))
    assert data["values"][0]["largest"]["token"] == TOKENS - 1
    with np.load(every) as a, np.load(last) as b:
        assert b["positions"].tolist() == [TOKENS - 1]
        assert b["ids"].tolist() == a["ids"].tolist()
        np.testing.assert_allclose(b["5.x@PostFfn"], a["5.x@PostFfn"][-1:], rtol=CUT, atol=CUT)


def test_a_long_prompt_in_pieces_is_as_in_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = told(capsys, *CPU)["values"]
    monkeypatch.setattr("rwkvgraph.sight.reading.PIECE_BYTES", 4 * 4 * (4096 * 2 + 6 * 2048))  # four tokens
    parts = told(capsys, *CPU)["values"]
    for one, other in zip(whole, parts, strict=True):
        assert one["rms"] == pytest.approx(other["rms"], rel=CUT)
        assert one["largest"]["token"] == other["largest"]["token"]
        assert one["numbers"] == other["numbers"]


def test_json_keys_are_the_same_whatever_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    data = told(capsys, *CPU)
    assert list(data) == [
        *("format", "model", "version", "layers", "channels", "ids", "texts", "first_not_finite", "values")
    ]
    assert data["first_not_finite"] is None
    assert list(data["values"][1]) == [
        *("name", "layer", "slot", "site", "numbers", "mean", "rms", "largest", "nan", "inf"),
        "first_not_finite",
    ]
    assert (data["values"][1]["name"], data["values"][1]["layer"]) == ("0.att_x@PostAttTimeMix", 0)


@pytest.fixture
def infinite(tmp_path: Path) -> Path:
    """A model whose second norm of layer 2 makes numbers beyond float32."""
    tensors: dict[str, Array] = {name: x.astype(np.float32) for name, x in small("v7").items()}
    tensors["blocks.2.ln2.weight"] = np.full(WIDE, 2e38, np.float32)
    save_file(tensors, tmp_path / "infinite.st")
    return tmp_path / "infinite.st"


@pytest.mark.parametrize("adapter", ["cpu", pytest.param("0", marks=pytest.mark.gpu)])
def test_the_first_value_that_is_not_finite_is_named(
    capsys: pytest.CaptureFixture[str], infinite: Path, adapter: str, request: pytest.FixtureRequest
) -> None:
    if adapter != "cpu":
        request.getfixturevalue("gpu")
    few = ["--values", "2.x@PostAtt", "2.ffn_x@PostFfnLayerNorm", "2.ffn_kx@PostFfnTokenShift"]
    arguments = ["-m", str(infinite), "--adapter", adapter, *few]
    code, out, _ = inspect(capsys, *arguments)
    assert code == 0
    first = out.splitlines()[0]
    assert first.startswith("first not finite: 2.ffn_x@PostFfnLayerNorm, token 0 (end of text), channel ")
    marked = [line.split()[0] for line in out.splitlines() if line.endswith("← not finite")]
    assert marked == ["2.ffn_x@PostFfnLayerNorm", "2.ffn_kx@PostFfnTokenShift"]
    place = told(capsys, *arguments)["first_not_finite"]
    assert (place["name"], place["token"], place["value"]) == ("2.ffn_x@PostFfnLayerNorm", 0, None)
    assert first.endswith(f"channel {place['channel']}")


@pytest.mark.parametrize("name", ["values.npz", "values.st", "values.safetensors"])
def test_saved_arrays_have_the_names_of_the_cache(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    code, _, err = inspect(capsys, *CPU, "--save", str(path), "--values", "*.x@PostFfn")
    assert code == 0
    assert str(path) in err
    assert list(tmp_path.iterdir()) == [path]
    saved = dict(np.load(path)) if path.suffix == ".npz" else load_file(path)
    ids = [0, *rg.Tokenizer.load(assets.default_vocab()).encode(PROMPT)]
    model = Model.load(assets.default_model(), "cpu")
    _, cache = model.run_with_cache([ids], model.state(), option="full")
    assert set(saved) == {*cache, "ids", "positions"}
    assert saved["ids"].tolist() == ids
    assert saved["positions"].tolist() == list(range(TOKENS))
    for key, (value,) in cache.items():
        np.testing.assert_array_equal(saved[key], value)


def test_saved_json_is_what_stdout_would_have(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    assert inspect(capsys, *CPU, "-q", "--save", str(path))[2] == ""
    assert json.loads(path.read_text("utf-8")) == told(capsys, *CPU)


def test_a_dash_reads_the_prompt_from_stdin(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{PROMPT}\n"))
    assert told(capsys, *CPU, "-p", "-")["ids"] == told(capsys, *CPU)["ids"]


def test_tokens_that_are_no_text_are_shown_all_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    texts = told(capsys, *CPU, "-p", "☃")["texts"]
    assert texts == ["end of text", r"'\\xe2'", r"'\\x98'", r"'\\x83'"]


ERRORS = [
    (["-p", ""], 2, "the prompt is empty"),
    (["-m", "no/such/model.st"], 1, "no/such/model.st"),
    (["--compare", "no/such/other.st"], 1, "no/such/other.st"),
    (["--compare", __file__], 1, "test_inspect.py"),
    (["--values", "*.q@PostFfn"], 1, "at PostFfn there is no q"),
    (["--values", "*.x@PostFfm"], 1, "names are layer.slot@Site"),
    (["--values", "head_o@PostHead", "--layers", "2"], 1, "none of these 1 values is in layers 2"),
    (["--values", "*", "--all"], 2, "give one of them"),
    (["--layers", "4-9"], 2, "the model has layers 0 to 5"),
    (["--layers", "2-"], 2, "such as 0-3,7"),
    (["--layers", "3-1"], 2, "such as 0-3,7"),
    (["--threshold", "0"], 2, "--threshold is 0"),
    (["--threshold", "nan"], 2, "--threshold is nan"),
    (["--compare-names", "raw"], 2, "goes with --compare"),
    (["--save", "values.txt"], 2, "--save writes .npz, .st, .safetensors, .json; given values.txt"),
    (["--save", "no/such/folder/values.npz"], 2, "there is no folder"),
    (["--save", "v.npz", "--compare", "x.st"], 2, "values are saved by a run without --compare"),
    (["--adapter", "no such adapter"], 1, "adapter"),
    (["--tokenizer", str(assets.path("vocab/rwkv_vocab_v20230424.json"))], 2, "ids up to 65529"),
]


@pytest.mark.parametrize(("arguments", "code", "message"), ERRORS)
def test_an_error_is_one_line_and_nothing_runs(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    monkeypatch.setattr(Model, "_pass", None)
    given, out, err = inspect(capsys, *([] if "--adapter" in arguments else CPU), *arguments)
    assert (given, out) == (code, "")
    assert err.startswith("rwkvgraph: error: ")
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("more", [["--save", "v.npz"], ["--compare", str(assets.default_model())]])
def test_more_values_than_memory_is_for_are_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, more: list[str]
) -> None:
    monkeypatch.setattr("rwkvgraph.sight.reading.MOST_KEPT", 1000)
    code, out, err = inspect(capsys, *CPU, *more)
    assert (code, out) == (2, "")
    assert "name fewer (--values, --layers), take --tokens last or a shorter prompt" in err
