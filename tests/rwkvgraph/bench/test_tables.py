"""Reports of given samples: what is computed of them, as tables and as JSON."""

import json
from dataclasses import replace

import pytest

from rwkvgraph.bench.bandwidth import Bandwidth
from rwkvgraph.bench.endurance import HEADER, RULE, Tenth, growth, verdict
from rwkvgraph.bench.passes import PassTime, PassTimes
from rwkvgraph.bench.report import Report, facts
from rwkvgraph.bench.speed import First, OnDevice, Speed, Trial
from rwkvgraph.bench.steady import Samples
from rwkvgraph.bench.tables import number, pass_table, shortened, spans, speed_table
from rwkvgraph.models.common import ModelInfo

INFO = ModelInfo("V7", 2, 128, 512, 300, 2)


def even(seconds: float) -> Samples:
    return Samples((seconds,), (seconds, seconds))


def timed(layer: int | None, microseconds: float, label: str = "matmul+add", nbytes: int = 1000) -> PassTime:
    return PassTime(label, "the shader", layer, microseconds, nbytes, (1, 16, 1))


TIMES = PassTimes(
    (timed(0, 10.0), timed(1, 12.0), timed(1, 50.0, nbytes=4000), timed(None, 28.0, "gather")), "by hand"
)
ON_DEVICE = OnDevice(
    tokens=2,
    passes=4,
    dispatches=4,
    weight_bytes=3_000_000,
    state_bytes=1_000_000,
    seconds=even(0.5e-3),
    encoding=even(20e-6),
    times=TIMES,
)
SPEED = Speed(Trial("tg", 100, 2), 100, Samples((9.0,), (0.1, 0.2, 0.4)), First(0.7, 5, 0.6), ON_DEVICE)
COPIES = {"slow": even(1.0), "fast": Samples((1.0,), (0.5, 0.25))}
REPORT = Report(
    source="v7:2x128",
    info=INFO,
    adapter="an adapter",
    target="a target",
    bandwidth=Bandwidth(1_000_000_000, COPIES),
    chunk=128,
    load_seconds=1.5,
    weight_bytes=3_000_000_000,
    lowering_seconds=0.25,
    device_bytes=4096,
    speeds=(SPEED,),
    tenths=(Tenth(6.0, 600, 100.0, 5_000_000, 4096), Tenth(12.0, 1300, 116.7, 5_250_000, 4096)),
)


def cells(table: str) -> list[list[str]]:
    """The rows of a Markdown table without its header."""
    lines = [line for line in table.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_limit_is_the_best_copy_read_and_written() -> None:
    assert REPORT.bandwidth is not None
    assert REPORT.bandwidth.method == "fast"
    assert REPORT.bandwidth.gigabytes_per_second == 2 * 1e9 / 0.25 / 1e9


def test_the_part_of_the_limit_is_bytes_by_seconds_by_limit() -> None:
    by_hand = (3e6 + 1e6) * 100 / 0.2 / 8e9
    assert REPORT.of_limit(SPEED.gigabytes_per_second) == pytest.approx(by_hand)
    assert "25.0%" in cells(speed_table(REPORT))[0]


def test_loading_is_of_the_weights_and_compiling_of_all_first_runs() -> None:
    twice = replace(REPORT, speeds=(SPEED, SPEED))
    assert (twice.load_rate, twice.shaders, twice.compile_seconds) == (2.0, 10, 1.2)
    assert facts(twice)["load_gb_per_second"] == 2.0


def test_speeds_are_of_all_slots_in_the_median_round() -> None:
    row = cells(speed_table(REPORT))[0]
    assert row[:6] == ["v7:2x128", "tg100", "2", "1,000", "500.0 – 2,000", "4,000"]
    assert row[-2:] == ["4", "5.00"]


def test_numpy_has_no_figures_of_a_device() -> None:
    host = replace(REPORT, bandwidth=None, speeds=(replace(SPEED, device=None),))
    assert cells(speed_table(host))[0][5:] == ["–"] * 5
    assert pass_table(host, host.speeds[0]) == ""


def test_equal_passes_of_all_layers_are_one_row_and_other_sizes_another() -> None:
    rows = cells(pass_table(REPORT, SPEED))
    assert [row[:5] for row in rows] == [
        ["matmul+add", "1", "1", "50.0", "50.0%"],
        ["gather", "–", "1", "28.0", "28.0%"],
        ["matmul+add", "0-1", "2", "11.0", "22.0%"],
    ]


def test_a_kind_of_pass_moves_its_bytes_while_it_runs() -> None:
    kind = TIMES.kinds()[-1]
    assert kind.gigabytes_per_second == pytest.approx(2 * 1000 / 22e-6 / 1e9)


def test_the_sum_of_passes_stands_beside_what_a_run_takes() -> None:
    last = pass_table(REPORT, SPEED).splitlines()[-1]
    assert "sum to 100 µs" in last
    assert "take 500 µs on the device" in last
    assert "2,000 µs through Model.run" in last


def keys(value: object) -> object:
    """The names in JSON, by themselves."""
    if isinstance(value, dict):
        return {name: keys(inner) for name, inner in value.items()}
    return [keys(value[0])] if isinstance(value, list) and value and isinstance(value[0], dict) else None


SAMPLES = dict.fromkeys(["median_seconds", "min_seconds", "max_seconds", "seconds", "warm_up_seconds"])
KIND = dict.fromkeys(
    ["label", "layers", "count", "median_us", "share", "bytes_each", "gb_per_second", "workgroups", "us"]
)
DEVICE = {
    **dict.fromkeys(
        [
            "tokens",
            "tokens_per_second",
            "passes",
            "dispatches",
            "weight_bytes",
            "state_bytes",
            "encoding_us_per_pass",
        ]
    ),
    "run": SAMPLES,
    "encoding": SAMPLES,
    "by_pass": {"method": None, "total_us": None, "kinds": [KIND]},
}
TEST_FACTS = {
    **dict.fromkeys(["test", "kind", "tokens", "slots", "depth", "runs", "tokens_per_second"]),
    **dict.fromkeys(["gb_per_second", "of_limit"]),
    **SAMPLES,
    "first_run": dict.fromkeys(["seconds", "shaders", "compile_seconds"]),
    "device": DEVICE,
}
SCHEMA = {
    **dict.fromkeys(["format", "version", "adapter", "target", "token_chunk_size", "load_seconds"]),
    **dict.fromkeys(["load_gb_per_second", "weight_bytes", "lowering_seconds", "device_bytes"]),
    **dict.fromkeys(["shaders", "compile_seconds"]),
    "model": dict.fromkeys(["name", "source", "version", "layers", "width", "hidden", "vocab", "head_size"]),
    "bandwidth": {
        **dict.fromkeys(["gb_per_second", "method", "buffer_bytes"]),
        "ways": {"slow": SAMPLES, "fast": SAMPLES},
    },
    "tests": [TEST_FACTS],
    "endurance": {
        **dict.fromkeys(["host_growth_bytes", "device_growth_bytes"]),
        "tenths": [dict.fromkeys(["seconds", "tokens", "tokens_per_second", "host_bytes", "device_bytes"])],
    },
}


def test_the_names_in_json_are_those_of_its_format() -> None:
    found = json.loads(json.dumps(facts(REPORT), allow_nan=False))
    assert found["format"] == "rwkvgraph bench 1", "another format: then its names may differ too"
    assert keys(found) == SCHEMA


def test_growth_is_from_the_first_tenth_to_the_last() -> None:
    assert growth(REPORT.tenths) == (250_000, 0)
    assert verdict(REPORT.tenths).endswith("host memory: +0.25 MB, device memory: +0 bytes")
    assert growth([replace(tenth, device_bytes=None) for tenth in REPORT.tenths]) == (250_000, None)


def test_a_line_of_a_tenth_is_as_wide_as_its_header() -> None:
    assert {len(line) for line in (HEADER, RULE, *map(str, REPORT.tenths))} == {len(HEADER)}
    assert cells(f"{HEADER}\n{RULE}\n{REPORT.tenths[1]}") == [["0.20", "1,300", "116.7", "5.2", "4,096"]]


def test_json_has_every_sample() -> None:
    (test,) = json.loads(json.dumps(facts(REPORT)))["tests"]
    assert test["seconds"] == [0.1, 0.2, 0.4]
    assert test["warm_up_seconds"] == [9.0]
    assert [kind["us"] for kind in test["device"]["by_pass"]["kinds"]] == [[50.0], [28.0], [10.0, 12.0]]


@pytest.mark.parametrize(
    ("layers", "text"), [([], ""), ([3], "3"), ([0, 1, 2], "0-2"), ([5, 0, 1, 3, 3], "0-1,3,5")]
)
def test_layers_are_said_as_spans(layers: list[int], text: str) -> None:
    assert spans(layers) == text


def test_long_labels_keep_their_first_and_last_operations() -> None:
    assert shortened("matmul+add") == "matmul+add"
    long = shortened(
        "+".join(["keep_last", "layer_norm", "previous_token", "sigmoid", "l2_norm", "multiply×6"])
    )
    assert long == "keep_last+layer_norm+…+multiply×6"


@pytest.mark.parametrize(
    ("value", "text"), [(0.125, "0.12"), (9.994, "9.99"), (123.44, "123.4"), (12345.6, "12,346")]
)
def test_numbers_have_four_digits_or_all_before_the_point(value: float, text: str) -> None:
    assert number(value) == text


def test_relays_show_as_fewer_dispatches_than_passes() -> None:
    joint = replace(SPEED, device=replace(ON_DEVICE, dispatches=2))
    report = replace(REPORT, speeds=(joint,))
    assert "| 4 in 2 |" in speed_table(report)
    assert "together in 2 dispatches they take" in pass_table(report, joint)
