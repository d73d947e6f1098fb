"""`rwkvgraph inspect --compare`: where two models drift apart, and what is refused."""

import gc
import json
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import rwkvgraph as rg
from rwkvgraph import assets
from rwkvgraph.load.conversion import convert
from rwkvgraph.model import Model
from tests.rwkvgraph.models.raw import raw
from tests.rwkvgraph.models.synthetic import synthetic
from tests.rwkvgraph.sight.inspecting import CPU, CUT, TOKENS, VERSIONS, WIDE, inspect, rows_of, small, told


@pytest.fixture(scope="module", params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, version: str) -> Path:
    """A model of a version in a folder: as it is, a copy, in bfloat16, raw, and with a fault in layer 3."""
    folder = tmp_path_factory.mktemp(version)
    tensors = small(version)
    save_file(tensors, folder / "model.st")
    save_file(tensors, folder / "copy.st")
    save_file({n: np.ascontiguousarray(x) for n, x in raw(version, tensors).items()}, folder / "raw.st")
    convert(folder / "model.st", folder / "bf16.st", "BF16")
    name = "blocks.3.ffn.value.weight"
    save_file(tensors | {name: np.ascontiguousarray(tensors[name][::-1])}, folder / "fault.st")
    return folder


def compare(capsys: pytest.CaptureFixture[str], files: Path, other: str, *more: str) -> tuple[int, str, str]:
    model = ["-m", str(files / "model.st"), "--compare", str(files / other)]
    return inspect(capsys, *(CPU if "--adapter" not in more else ()), *model, *more)


def test_a_fault_is_found_where_it_was_planted(capsys: pytest.CaptureFixture[str], files: Path) -> None:
    code, out, _ = compare(capsys, files, "fault.st")
    assert code == 0
    assert out.startswith("first drift: 3.ffn_v@PostFfnLinear, relative difference ")
    assert "before it at most 0\n" in out
    table = rows_of(out)
    assert table["2.x@PostFfn"][0] == table["3.ffn_k@PostFfnActivate"][0] == "0"
    assert float(table["3.x@PostFfn"][0]) > 0.05
    assert [line.split()[0] for line in out.splitlines() if line.endswith("← first drift")] == [
        "3.ffn_v@PostFfnLinear"
    ]


def test_a_fault_is_found_on_a_device(
    capsys: pytest.CaptureFixture[str], gpu: rg.Context, tmp_path: Path
) -> None:
    tensors = small("v7")
    name = "blocks.3.ffn.value.weight"
    save_file(tensors, tmp_path / "model.st")
    save_file(tensors | {name: np.ascontiguousarray(tensors[name][::-1])}, tmp_path / "fault.st")
    code, out, err = compare(capsys, tmp_path, "fault.st", "--adapter", "0")
    assert code == 0
    assert out.startswith("first drift: 3.ffn_v@PostFfnLinear, ")
    assert str(gpu.info) in err


@pytest.mark.parametrize("other", ["copy.st", "raw.st"])
def test_the_same_model_in_another_file_is_the_same_number_for_number(
    capsys: pytest.CaptureFixture[str], files: Path, other: str
) -> None:
    code, out, _ = compare(capsys, files, other)
    assert code == 0
    assert out.startswith("no difference: ")
    assert f"KL divergence 0 nats; the same top token at {TOKENS} of {TOKENS} positions" in out


def test_rounding_to_bfloat16_is_no_drift_but_is_told(
    capsys: pytest.CaptureFixture[str], files: Path
) -> None:
    code, out, _ = compare(capsys, files, "bf16.st")
    assert code == 0
    assert out.startswith("no drift: relative differences of ")
    assert "they begin at input@PostEmbedLoaded" in out
    code, out, _ = compare(capsys, files, "bf16.st", "--threshold", "1e-4")
    assert out.startswith("first drift: input@PostEmbedLoaded, ")


def test_a_comparison_in_pieces_is_as_in_one(
    capsys: pytest.CaptureFixture[str], files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [*CPU, "-m", str(files / "model.st"), "--compare", str(files / "fault.st")]
    whole = told(capsys, *arguments)
    monkeypatch.setattr("rwkvgraph.sight.reading.PIECE_BYTES", 1)
    parts = told(capsys, *arguments)
    assert parts["first_drift"] == whole["first_drift"] == "3.ffn_v@PostFfnLinear"
    assert parts["kl_divergence"] == pytest.approx(whole["kl_divergence"], rel=CUT)
    for one, other in zip(whole["values"], parts["values"], strict=True):
        assert one["relative"] == pytest.approx(other["relative"], rel=CUT, abs=1e-9), one["name"]


def test_a_fault_in_the_last_token_alone_is_found_there(
    capsys: pytest.CaptureFixture[str], files: Path
) -> None:
    code, out, _ = compare(capsys, files, "fault.st", "--tokens", "last")
    assert code == 0
    assert out.startswith("first drift: 3.ffn_v@PostFfnLinear, ")
    assert "the same top token at" in out
    assert "of 1 positions" in out
    assert rows_of(out)["3.ffn_v@PostFfnLinear"][3] == str(TOKENS - 1)


def test_values_that_are_named_are_all_compared(capsys: pytest.CaptureFixture[str], files: Path) -> None:
    _, out, _ = compare(capsys, files, "fault.st", "--values", "*.att_o@PostAttOut")
    assert list(rows_of(out.partition("\n\n")[2])) == [f"{layer}.att_o@PostAttOut" for layer in range(4)]
    assert out.startswith("no difference: 4 values")


def test_a_comparison_for_json_has_the_same_keys_always(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path, model = tmp_path / "drift.json", str(assets.default_model())
    data = told(capsys, *CPU, "--compare", model, "--save", str(path))
    assert json.loads(path.read_text("utf-8")) == data
    assert (
        list(data)[-9:]
        == [
            *("other", "threshold", "first_drift", "first_difference", "largest_jump", "next_token"),
            *("same_top_tokens", "positions", "kl_divergence", "values"),
        ][-9:]
    )
    assert data["first_drift"] is None
    assert list(data["values"][0]) == [
        *("name", "layer", "slot", "site", "relative", "cosine", "largest", "not_finite_in_one")
    ]


def test_the_first_model_is_gone_before_the_second_is_loaded(
    capsys: pytest.CaptureFixture[str], gpu: rg.Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: list[int] = []
    engines: weakref.WeakSet[Any] = weakref.WeakSet()
    make = Model.__init__

    def watched(self: Model, *arguments: Any, **more: Any) -> None:
        alive.append(len(engines))
        make(self, *arguments, **more)
        engines.add(self.engine)

    gc.collect()
    monkeypatch.setattr(Model, "__init__", watched)
    code, _, _ = inspect(capsys, "--compare", str(assets.default_model()), "--values", "*.x@PostFfn")
    assert (code, alive) == (0, [0, 0])


@pytest.mark.parametrize(("other", "message"), [("v6", "version V7 and V6"), ("wide", "channels 48 and 96")])
def test_models_that_are_no_two_forms_of_one_are_not_compared(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, other: str, message: str
) -> None:
    save_file(small("v7"), tmp_path / "model.st")
    sizes: dict[str, Any] = {"vocab": 4096, "head_size": 16, "low_rank": (8, 8, 8, 12)}
    tensors = small("v6") if other == "v6" else dict(synthetic("v7", 4, 96, **sizes))
    save_file(tensors, tmp_path / "other.st")
    code, out, err = compare(capsys, tmp_path, "other.st")
    assert (code, out) == (1, "")
    assert message in err


def test_models_with_other_slots_are_not_compared(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    save_file(small("v5.2"), tmp_path / "model.st")
    save_file(small("v5.0", hidden=7 * WIDE // 2), tmp_path / "other.st")
    code, out, err = compare(capsys, tmp_path, "other.st")
    assert (code, out) == (1, "")
    assert "it has no 0.att_g@PostAttLinear" in err
