"""What a bench came to, and the same as plain values for JSON, with every sample that was taken."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import rwkvgraph
from rwkvgraph.bench.bandwidth import Bandwidth
from rwkvgraph.bench.endurance import Tenth, growth
from rwkvgraph.bench.passes import PassKind, PassTimes
from rwkvgraph.bench.speed import First, OnDevice, Speed
from rwkvgraph.bench.steady import Samples
from rwkvgraph.models.common import ModelInfo

FORMAT = "rwkvgraph bench 1"

Facts = dict[str, object]


@dataclass(frozen=True)
class Report:
    """What was measured, of which model, and where.

    source: the model's file, or its sizes. bandwidth: None on numpy. chunk: most tokens of a run.
    weight_bytes: as the device holds them. lowering_seconds: of making passes and their texts of the graph.
    """

    source: str
    info: ModelInfo
    adapter: str
    target: str
    bandwidth: Bandwidth | None
    chunk: int
    load_seconds: float
    weight_bytes: int
    lowering_seconds: float
    device_bytes: int
    speeds: tuple[Speed, ...]
    tenths: tuple[Tenth, ...] = ()

    @property
    def model(self) -> str:
        """The model in a word, as --synthetic takes it: v7:24x2048."""
        return f"{self.info.version.lower()}:{self.info.num_layer}x{self.info.num_emb}"

    @property
    def load_rate(self) -> float:
        """GB/s at which the weights came to the device."""
        return self.weight_bytes / self.load_seconds / 1e9

    @property
    def shaders(self) -> int:
        """Compiled in the first runs of all trials."""
        return sum(speed.first.shaders for speed in self.speeds)

    @property
    def compile_seconds(self) -> float:
        """Of compiling those."""
        return sum(speed.first.compile_seconds for speed in self.speeds)

    def of_limit(self, gigabytes_per_second: float | None) -> float | None:
        """Which part of the bandwidth that plain copying reaches."""
        if gigabytes_per_second is None or self.bandwidth is None:
            return None
        return gigabytes_per_second / self.bandwidth.gigabytes_per_second


def facts(report: Report) -> Facts:
    """All of it. Keys stay as they are for as long as FORMAT does."""
    return {
        "format": FORMAT,
        "version": rwkvgraph.__version__,
        "model": model_facts(report),
        "adapter": report.adapter,
        "target": report.target,
        "bandwidth": bandwidth_facts(report.bandwidth) if report.bandwidth else None,
        "token_chunk_size": report.chunk,
        "load_seconds": report.load_seconds,
        "load_gb_per_second": report.load_rate,
        "weight_bytes": report.weight_bytes,
        "lowering_seconds": report.lowering_seconds,
        "shaders": report.shaders,
        "compile_seconds": report.compile_seconds,
        "device_bytes": report.device_bytes,
        "tests": [speed_facts(report, speed) for speed in report.speeds],
        "endurance": endurance_facts(report.tenths) if report.tenths else None,
    }


def endurance_facts(tenths: tuple[Tenth, ...]) -> Facts:
    """Minutes of generation, by tenths."""
    host, device = growth(tenths)
    return {
        "host_growth_bytes": host,
        "device_growth_bytes": device,
        "tenths": [asdict(tenth) for tenth in tenths],
    }


def model_facts(report: Report) -> Facts:
    """Which model it was."""
    info = report.info
    return {
        "name": report.model,
        "source": report.source,
        "version": info.version,
        "layers": info.num_layer,
        "width": info.num_emb,
        "hidden": info.num_hidden,
        "vocab": info.num_vocab,
        "head_size": info.head_size,
    }


def bandwidth_facts(bandwidth: Bandwidth) -> Facts:
    """What copying reached, each way."""
    return {
        "gb_per_second": bandwidth.gigabytes_per_second,
        "method": bandwidth.method,
        "buffer_bytes": bandwidth.nbytes,
        "ways": {way: samples_facts(samples) for way, samples in bandwidth.samples.items()},
    }


def samples_facts(samples: Samples) -> Facts:
    """Seconds."""
    return {
        "median_seconds": samples.median,
        "min_seconds": samples.least,
        "max_seconds": samples.most,
        "seconds": list(samples.rounds),
        "warm_up_seconds": list(samples.warm_up),
    }


def speed_facts(report: Report, speed: Speed) -> Facts:
    """A trial's figures."""
    return {
        "test": speed.trial.name,
        "kind": speed.trial.kind,
        "tokens": speed.trial.tokens,
        "slots": speed.trial.slots,
        "depth": speed.trial.depth,
        "runs": speed.runs,
        "tokens_per_second": speed.tokens_per_second,
        "gb_per_second": speed.gigabytes_per_second,
        "of_limit": report.of_limit(speed.gigabytes_per_second),
        **samples_facts(speed.samples),
        "first_run": first_facts(speed.first),
        "device": device_facts(speed.device) if speed.device else None,
    }


def first_facts(first: First) -> Facts:
    """The run in which a trial's shaders are compiled."""
    return {
        "seconds": first.seconds,
        "shaders": first.shaders,
        "compile_seconds": first.compile_seconds,
    }


def device_facts(device: OnDevice) -> Facts:
    """A run by itself."""
    return {
        "tokens": device.tokens,
        "tokens_per_second": device.tokens_per_second,
        "passes": device.passes,
        "dispatches": device.dispatches,
        "weight_bytes": device.weight_bytes,
        "state_bytes": device.state_bytes,
        "encoding_us_per_pass": device.encoding_per_pass * 1e6,
        "run": samples_facts(device.seconds),
        "encoding": samples_facts(device.encoding),
        "by_pass": times_facts(device.times) if device.times else None,
    }


def times_facts(times: PassTimes) -> Facts:
    """The passes of a run, by kind."""
    return {
        "method": times.method,
        "total_us": times.total,
        "kinds": [kind_facts(kind, times) for kind in times.kinds()],
    }


def kind_facts(kind: PassKind, times: PassTimes) -> Facts:
    """One kind of passes."""
    return {
        "label": kind.label,
        "layers": list(kind.layers),
        "count": len(kind.passes),
        "median_us": kind.median,
        "share": kind.total / times.total if times.total else 0.0,
        "bytes_each": kind.nbytes,
        "gb_per_second": kind.gigabytes_per_second,
        "workgroups": list(kind.workgroups),
        "us": [item.microseconds for item in kind.passes],
    }
