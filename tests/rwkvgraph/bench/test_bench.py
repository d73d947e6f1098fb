"""`rwkvgraph bench`, in this process: a tiny made-up model on the device and on numpy."""

import json
from typing import Any

import numpy as np
import pytest

import rwkvgraph as rg
from rwkvgraph.bench.bandwidth import measure_bandwidth
from rwkvgraph.bench.speed import Trial, measure_speed, state_bytes
from rwkvgraph.bench.steady import Rounds
from rwkvgraph.bench.subject import check_host, counts, synthetic, weight_bytes
from rwkvgraph.cli import main
from rwkvgraph.errors import DeviceError
from rwkvgraph.gpu.engine import GpuEngine
from rwkvgraph.model import Model

TINY = "v7:2x128:300"
QUICK = ["-q", "-r", "2", "--warm-up", "0", "--synthetic", TINY]
ROUNDS = Rounds(2, 0)

DISPATCH = 500.0
"""µs. Passes alone and together differ by what lies between them, and by what else the machine does."""


def bench(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    """What `rwkvgraph bench --json` writes."""
    assert main(["bench", *QUICK, "--json", *arguments]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys: pytest.CaptureFixture[str], code: int, *arguments: str) -> str:
    """The line that a refused command writes."""
    assert main(["bench", *arguments]) == code
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    return str(err)


@pytest.fixture(scope="module")
def model(gpu: rg.Context) -> Model:
    with np.errstate(all="ignore"):
        return Model(synthetic(TINY), GpuEngine(gpu), 32)


def test_prompts_and_steps_are_measured_for_each_number_of_slots(
    gpu: rg.Context, capsys: pytest.CaptureFixture[str]
) -> None:
    found = bench(capsys, "-p", "40", "-n", "4", "-b", "1,3", "--token-chunk-size", "16")
    tests = [(item["test"], item["slots"], item["runs"]) for item in found["tests"]]
    assert tests == [("pp40", 1, 3), ("tg4", 1, 4), ("pp40", 3, 8), ("tg4", 3, 4)]
    for item in found["tests"]:
        assert len(item["seconds"]) == 2
        assert item["tokens_per_second"] == pytest.approx(
            item["slots"] * item["tokens"] / item["median_seconds"]
        )
        assert item["device"]["tokens"] == (16 if item["kind"] == "pp" else item["slots"])
        assert item["device"]["by_pass"] is None
    assert gpu.info.name in found["adapter"]


def test_steps_are_measured_after_so_many_tokens(gpu: rg.Context, capsys: pytest.CaptureFixture[str]) -> None:
    found = bench(capsys, "-p", "8", "-n", "2", "-d", "0,40", "-b", "2", "--token-chunk-size", "16")
    tests = [(item["test"], item["tokens"], item["depth"], item["runs"]) for item in found["tests"]]
    assert tests == [("pp8", 8, 0, 1), ("tg2", 2, 0, 2), ("tg2 @ d40", 2, 40, 2)]


def test_a_depth_is_taken_before_the_steps(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    run = Model.run

    def counted(self: Model, tokens: list[list[int]], *others: Any) -> Any:
        before = sum(map(len, tokens))
        result = run(self, tokens, *others)
        taken.append(before - sum(map(len, tokens)))
        return result

    monkeypatch.setattr(Model, "run", counted)
    measure_speed(model, Trial("tg", 1, 1, depth=70), ROUNDS)
    assert taken == [1, 32, 32, 6, 1, 1, 1]  # compiling, chunks, two rounds, what the device does alone


def test_minutes_of_generation_are_looked_at_ten_times(
    gpu: rg.Context, capsys: pytest.CaptureFixture[str]
) -> None:
    found = bench(capsys, "--minutes", "0.02")
    assert found["tests"] == []
    tenths = found["endurance"]["tenths"]
    assert [round(tenth["seconds"], 1) for tenth in tenths] == pytest.approx(np.arange(1, 11) * 0.12, abs=0.1)
    assert tenths[-1]["tokens"] > tenths[0]["tokens"] > 0
    assert found["endurance"]["device_growth_bytes"] == 0


def test_the_memory_of_minutes_is_known_on_numpy_too(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["-q", "--synthetic", TINY, "--adapter", "cpu", "--minutes", "0.01"]
    assert main(["bench", *arguments]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 13
    assert lines[-1].endswith("there is no device")


def test_the_part_of_the_limit_can_be_computed_from_what_json_says(
    gpu: rg.Context, capsys: pytest.CaptureFixture[str]
) -> None:
    found = bench(capsys, "-p", "0", "-n", "4")
    (item,) = found["tests"]
    copied, device = found["bandwidth"], item["device"]
    fastest = min(min(way["seconds"]) for way in copied["ways"].values())
    limit = 2 * copied["buffer_bytes"] / fastest
    moved = 4 * (device["weight_bytes"] + device["state_bytes"])
    assert item["of_limit"] == pytest.approx(moved / item["median_seconds"] / limit)


def test_loading_and_compiling_are_measured(gpu: rg.Context, capsys: pytest.CaptureFixture[str]) -> None:
    found = bench(capsys, "-p", "20", "-n", "2")
    assert found["weight_bytes"] == weight_bytes(synthetic(TINY))
    assert found["load_gb_per_second"] == pytest.approx(found["weight_bytes"] / found["load_seconds"] / 1e9)
    assert found["lowering_seconds"] > 0
    firsts = [item["first_run"] for item in found["tests"]]
    assert found["shaders"] == sum(first["shaders"] for first in firsts)
    assert found["compile_seconds"] == pytest.approx(sum(first["compile_seconds"] for first in firsts))
    assert all(first["shaders"] and 0 < first["compile_seconds"] < first["seconds"] for first in firsts)


def test_numpy_is_measured_too(capsys: pytest.CaptureFixture[str]) -> None:
    found = bench(capsys, "-p", "3", "-n", "1", "--adapter", "cpu")
    assert found["adapter"] == "cpu, numpy"
    assert found["bandwidth"] is None
    assert [item["test"] for item in found["tests"]] == ["pp3", "tg1"]
    assert all(item["tokens_per_second"] > 0 and item["device"] is None for item in found["tests"])


def test_tables_go_to_stdout_and_what_was_measured_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--synthetic", TINY, "-r", "1", "--warm-up", "0", "-p", "0", "-n", "1", "--adapter", "cpu"]
    assert main(["bench", *arguments]) == 0
    out, err = capsys.readouterr()
    header, rule, row = out.splitlines()
    assert len(header) == len(rule) == len(row)
    assert "| v7:2x128 | tg1 " in row
    assert [line.split()[0] for line in err.splitlines()] == ["model", "loaded", "adapter", "rounds"]


def test_passes_sum_to_about_a_run(model: Model) -> None:
    speed = measure_speed(model, Trial("tg", 2, 1), ROUNDS, with_passes=True)
    assert speed.device is not None
    assert speed.device.times is not None
    assert len(speed.device.times.passes) == speed.device.passes
    together = speed.device.seconds.median * 1e6
    assert speed.device.times.total == pytest.approx(together, rel=1, abs=DISPATCH * speed.device.passes)


def test_a_step_reads_every_matrix_but_the_embedding(model: Model) -> None:
    speed = measure_speed(model, Trial("tg", 1, 1), ROUNDS)
    assert speed.device is not None
    embedding = 2 * 300 * 128
    assert speed.device.weight_bytes == pytest.approx(weight_bytes(synthetic(TINY)) - embedding, rel=0.01)


def test_state_is_read_and_written_for_each_slot(model: Model) -> None:
    one, four = (measure_speed(model, Trial("tg", 1, slots), ROUNDS).device for slots in (1, 4))
    assert one is not None
    assert four is not None
    assert one.state_bytes == pytest.approx(2 * state_bytes(model, 1), rel=0.01)
    assert four.state_bytes == 4 * one.state_bytes


def test_buffers_that_were_copied_go(gpu: rg.Context) -> None:
    before = gpu.allocated
    assert measure_bandwidth(gpu, ROUNDS).gigabytes_per_second > 0.1
    assert gpu.allocated == before


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("v7:2x128", (65536, 128)),
        ("v4:2x96:300", (300, 96)),
        ("v5.2:1x64:100:32", (100, 64)),
    ],
)
def test_sizes_are_read_from_a_word(text: str, shape: tuple[int, int]) -> None:
    reader = synthetic(text)
    assert reader.shape("emb.weight") == shape
    assert str(reader.path) == text


@pytest.mark.parametrize("text", ["", "24x2048", "v8:24x2048", "v7:24", "v7:24x2048:", "v7:2x-64", "7:2x64"])
def test_other_words_are_refused_with_one_that_is_right(text: str) -> None:
    with pytest.raises(ValueError, match="such as v7:24x2048"):
        synthetic(text)


def test_numbers_are_read_with_commas_between_and_each_once() -> None:
    assert counts("1,8,32,8", "-b", 1) == (1, 8, 32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-b", "1,0"], "-b has 0; it is at least 1"),
        (["-b", "two"], "-b is 'two'; it is a number"),
        (["-p", "-5"], "-p has -5; it is at least 0"),
        (["-n", "1,"], "-n is '1,'"),
        (["-d", "-1"], "-d has -1; it is at least 0"),
        (["--minutes", "0"], "--minutes is 0.0; it is more than 0"),
        (["-r", "0"], "--repeats is 0"),
        (["--warm-up", "-1"], "--warm-up is -1.0; it is at least 0"),
        (["--token-chunk-size", "0"], "--token-chunk-size is 0"),
        (["-p", "0", "-n", "0"], "nothing to measure"),
        (["-m", "a.st", "--synthetic", TINY], "give one of them"),
        (["--synthetic", "v7:2x100"], "heads of 64"),
        (["--synthetic", "v7:0x64"], "layers"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert message in refused(capsys, 2, *arguments)


def test_numpy_has_no_passes_to_time(capsys: pytest.CaptureFixture[str]) -> None:
    assert "no passes to time on numpy" in refused(capsys, 1, *QUICK, "--adapter", "cpu", "--passes")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--synthetic", "v7:900x16384"], "the model v7:900x16384 takes "),
        (["--synthetic", TINY, "-b", "100000000"], "the model with 100000000 slots of state takes "),
    ],
)
def test_more_than_this_machine_has_is_refused_before_it_is_asked_for(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    line = refused(capsys, 1, "-q", "--adapter", "cpu", *arguments)
    assert message in line
    assert "this machine has " in line


def test_too_many_slots_are_refused_with_the_bytes_of_their_state(model: Model) -> None:
    slots = model.program().most_tokens + 1
    with pytest.raises(DeviceError, match=rf"a state of {slots} slots takes \d+\.\d GB"):
        measure_speed(model, Trial("tg", 1, slots), ROUNDS)


def test_what_fits_this_machine_is_let_through() -> None:
    check_host("a byte", 1)
