"""A report as Markdown tables, aligned so that they also read as they are."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from rwkvgraph.bench.passes import PassKind, PassTimes
from rwkvgraph.bench.report import Report
from rwkvgraph.bench.speed import OnDevice, Speed

NOTHING = "–"
LABEL_WIDTH = 44


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> str:
    """A table whose first `left` columns are words, the others numbers."""
    widths = [max(3, *map(len, column)) for column in zip(header, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if at < left else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * width if at < left else "-" * (width - 1) + ":" for at, width in enumerate(widths)]
    return "\n".join([line(header), line(rule), *map(line, rows)])


def speed_table(report: Report) -> str:
    """A line a trial, as llama-bench and web-rwkv have them, with what the device does without the host."""
    header = [
        "model",
        "test",
        "slots",
        "t/s",
        "min – max",
        "GPU t/s",
        "GB/s",
        "of limit",
        "passes",
        "encode µs",
    ]
    return markdown(header, [_speed_row(report, speed) for speed in report.speeds], left=2)


def _speed_row(report: Report, speed: Speed) -> list[str]:
    slowest, fastest = speed.rate(speed.samples.most), speed.rate(speed.samples.least)
    part = report.of_limit(speed.gigabytes_per_second)
    return [
        report.model,
        speed.trial.name,
        str(speed.trial.slots),
        number(speed.tokens_per_second),
        f"{number(slowest)} – {number(fastest)}",
        *_device_cells(speed.device, speed.gigabytes_per_second, part),
    ]


def _device_cells(device: OnDevice | None, rate: float | None, part: float | None) -> list[str]:
    if device is None:
        return [NOTHING] * 5
    return [
        number(device.tokens_per_second),
        NOTHING if rate is None else number(rate),
        NOTHING if part is None else f"{part:.1%}",
        str(device.passes)
        if device.dispatches == device.passes
        else f"{device.passes} in {device.dispatches}",
        f"{device.encoding_per_pass * 1e6:.2f}",
    ]


def pass_table(report: Report, speed: Speed) -> str:
    """Where the time of a trial's first run goes, what takes longest first; "" if passes were not timed."""
    device = speed.device
    if device is None or device.times is None:
        return ""
    header = ["pass", "layers", "count", "µs each", "share", "MB each", "GB/s", "of limit", "workgroups"]
    times = device.times
    rows = [_kind_row(report, kind, times) for kind in times.kinds()]
    return f"{markdown(header, rows, left=2)}\n\n{_sum(speed, device, times)}"


def _kind_row(report: Report, kind: PassKind, times: PassTimes) -> list[str]:
    part = report.of_limit(kind.gigabytes_per_second)
    return [
        shortened(kind.label),
        spans(kind.layers) or NOTHING,
        str(len(kind.passes)),
        f"{kind.median:.1f}",
        f"{kind.total / times.total:.1%}" if times.total else NOTHING,
        f"{kind.nbytes / 1e6:.3f}",
        number(kind.gigabytes_per_second),
        NOTHING if part is None else f"{part:.0%}",
        "×".join(map(str, kind.workgroups)),
    ]


def _sum(speed: Speed, device: OnDevice, times: PassTimes) -> str:
    """What the passes sum to beside what the whole takes, so that gaps show."""
    tokens = f"{device.tokens} token{'s' if device.tokens > 1 else ''}"
    name = f"{speed.trial.name}, slots {speed.trial.slots}"
    each = speed.samples.median / speed.runs
    joint = "" if device.dispatches == device.passes else f" in {device.dispatches} dispatches"
    return (
        f"{name}: the {device.passes} passes of a run of {tokens} sum to "
        f"{times.total:,.0f} µs; together{joint} they take "
        f"{device.seconds.median * 1e6:,.0f} µs on the device, "
        f"{each * 1e6:,.0f} µs through Model.run ({times.method})."
    )


def shortened(label: str) -> str:
    """A pass's operations; of many the first and the last."""
    if len(label) <= LABEL_WIDTH:
        return label
    names = label.split("+")
    last = names[-1]
    first = names[0]
    for name in names[1:-1]:
        if len(f"{first}+{name}+…+{last}") > LABEL_WIDTH:
            break
        first = f"{first}+{name}"
    return f"{first}+…+{last}"


def spans(layers: Sequence[int]) -> str:
    """`0-3,7` for 0, 1, 2, 3 and 7, in rising order, each once."""
    unique = sorted(set(layers))
    if not unique:
        return ""
    breaks = [at for at, (one, next_one) in enumerate(pairwise(unique), 1) if next_one != one + 1]
    edges = [0, *breaks, len(unique)]
    runs = [unique[start:end] for start, end in pairwise(edges)]
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def number(value: float) -> str:
    """Four digits or all before the point: 0.1235, 123.5, 12,346."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
