"""Generating for minutes on end: whether it keeps its speed, and whether memory grows."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np

from rwkvgraph.bench.speed import TOKEN
from rwkvgraph.gpu.engine import GpuEngine
from rwkvgraph.model import Model
from rwkvgraph.runtime import Course, Steps, steps
from rwkvgraph.sampler import Sampler

PARTS = 10
STATM = Path("/proc/self/statm")
"""Linux: sizes of this process in pages, the second of them what is resident."""
HEADER = "| minutes |      tokens |     t/s |  host MB |   device bytes |"
RULE = "| ------: | ----------: | ------: | -------: | -------------: |"


@dataclass(frozen=True)
class Tenth:
    """How things stand after a tenth of the time.

    seconds, tokens: since the beginning. tokens_per_second: in this tenth. host_bytes: resident memory of
    this process, None where it is not known. device_bytes: in buffers and textures, None on numpy.
    """

    seconds: float
    tokens: int
    tokens_per_second: float
    host_bytes: int | None
    device_bytes: int | None

    def __str__(self) -> str:
        host = "–" if self.host_bytes is None else f"{self.host_bytes / 1e6:.1f}"
        device = "–" if self.device_bytes is None else f"{self.device_bytes:,}"
        rate, minutes = self.tokens_per_second, self.seconds / 60
        return f"| {minutes:>7.2f} | {self.tokens:>11,} | {rate:>7,.1f} | {host:>8} | {device:>14} |"


def endure(model: Model, seconds: float) -> Iterator[Tenth]:
    """Generate in one slot at temperature 1, as `generate` does but for the text, with ten looks on the way.

    Raises ValueError where logits are no numbers.
    """
    drawn = _begin(model)
    tokens, start = 0, perf_counter()
    try:
        for part in range(1, PARTS + 1):
            before, since = tokens, perf_counter()
            while perf_counter() < start + seconds * part / PARTS:
                next(drawn)
                tokens += 1
            now = perf_counter()
            rate = (tokens - before) / max(now - since, 1e-9)
            yield Tenth(now - start, tokens, rate, host_bytes(), _device_bytes(model))
    finally:
        drawn.close()


def _begin(model: Model) -> Steps:
    """Steps without an end, of which the first was taken: it compiles."""
    state, bias = model.state(), np.zeros(model.info.num_vocab, np.float32)
    (logits,) = model.run([[TOKEN]], state)
    assert logits is not None, "the list was one token"
    drawn = steps(Course(model, state, (0,), (Sampler(temperature=1.0, seed=0),), bias, sys.maxsize))
    drawn.start(logits[None])
    next(drawn)
    return drawn


def growth(tenths: Sequence[Tenth]) -> tuple[int | None, int | None]:
    """Bytes by which host and device memory grew from the end of the first tenth to that of the last."""
    first, last = tenths[0], tenths[-1]
    return _more(first.host_bytes, last.host_bytes), _more(first.device_bytes, last.device_bytes)


def _more(first: int | None, last: int | None) -> int | None:
    return None if first is None or last is None else last - first


def verdict(tenths: Sequence[Tenth]) -> str:
    """The growth, in words."""
    host, device = growth(tenths)
    grew = [
        "host memory: not known here" if host is None else f"host memory: {host / 1e6:+.2f} MB",
        "there is no device" if device is None else f"device memory: {device:+,} bytes",
    ]
    return f"from the first tenth to the last {', '.join(grew)}"


def host_bytes() -> int | None:
    """Resident memory of this process; on systems without /proc the most that it ever was."""
    if STATM.exists():
        return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    try:
        import resource  # not there on Windows
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _device_bytes(model: Model) -> int | None:
    return model.engine.context.allocated if isinstance(model.engine, GpuEngine) else None
