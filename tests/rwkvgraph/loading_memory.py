"""Loads a model in a process of its own and prints, as JSON in MB, what memory that took. Linux only.

    python tests/rwkvgraph/loading_memory.py model.st reader
    python tests/rwkvgraph/loading_memory.py model.st gpu

reader: peak of reading and packing every weight for an engine that throws them away. gpu: peak of loading
onto a device, over what the process has when it is done: a software adapter's memory is the process's own.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from rwkvgraph.compiler.target import Target
from rwkvgraph.engine import Engine, HostEngine
from rwkvgraph.gpu import Context
from rwkvgraph.gpu.engine import GpuEngine
from rwkvgraph.load import open_model
from rwkvgraph.model import Model
from rwkvgraph.op import Array, Buffer


class Discard(HostEngine):
    """Takes weights and keeps none."""

    def __init__(self) -> None:
        super().__init__()
        self.target = Target.browser()
        self.nbytes = 0

    def load(self, buffer: Buffer, pieces: Iterator[tuple[int, Array]]) -> None:
        """Read every piece, as a device would be given it."""
        self.nbytes += sum(values.nbytes for _, values in pieces)


def memory(key: str) -> float:
    """A figure of this process in MB: VmRSS now, VmHWM at its highest, pages of mapped files included."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(f"{key}:"))


def main() -> None:
    """Load and print."""
    path, kind = sys.argv[1:]
    engine: Engine = GpuEngine(Context.create()) if kind == "gpu" else Discard()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts here: not that of opening the driver
    before = memory("VmRSS")
    model = Model(open_model(path), engine)
    after, peak = memory("VmRSS"), memory("VmHWM")
    figures = {"peak": peak - (after if kind == "gpu" else before), "kept": after - before}
    print(json.dumps({**figures, "weights": engine.nbytes / 1e6 if isinstance(engine, Discard) else None}))
    del model


if __name__ == "__main__":
    main()
