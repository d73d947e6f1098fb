"""The same weights through rwkvgraph, the `rwkv` package and web-rwkv-py in one run: tokens a second of each.

python examples/compare.py [model.st | v6:12x768]       # a file, or noise: version, layers x width
"""

import importlib
import os
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from safetensors.numpy import load_file

import rwkvgraph as rg
from rwkvgraph import assets
from rwkvgraph.bench.steady import Rounds, measure
from rwkvgraph.bench.subject import synthetic
from rwkvgraph.bench.tables import markdown, number
from rwkvgraph.load.convention import SWAPPED
from rwkvgraph.load.conversion import convert

Run = Callable[[list[int]], object]  # takes tokens through a model, up to the logits after the last


def rwkvgraph(path: Path, most: int) -> tuple[str, Run]:
    model = rg.Model.load(path, token_chunk_size=most)
    state = model.state()
    return f"f16, {str(model).rpartition('on ')[2].partition(';')[0]}", lambda ids: model.run([ids], state)


def web_rwkv_py(path: Path, most: int) -> tuple[str, Run]:
    model: Any = importlib.import_module("web_rwkv_py").Model(str(path))
    return "f16, the adapter that it picks", lambda ids: model.run(ids, token_chunk_size=most)


def rwkv(path: Path, most: int) -> tuple[str, Run]:
    torch: Any = importlib.import_module("torch")
    given, tensors = load_file(path), {}
    for name, array in given.items():  # back to the names and shapes of the training code
        if "blocks.0.att.time_mix_x" in given:
            name = name.replace("time_mix", "time_maa").replace("time_first", "time_faaaa")
        tensors[name] = torch.from_numpy(array.swapaxes(-1, -2).copy() if name.endswith(SWAPPED) else array)
    torch.save(tensors, path.with_suffix(".pth"))
    os.environ["RWKV_V7_ON"] = str(int("blocks.0.att.r_k" in given))  # read when it is imported
    strategy = "cuda fp16" if torch.cuda.is_available() else "cpu fp32"
    model: Any = importlib.import_module("rwkv.model").RWKV(str(path.with_suffix("")), strategy)
    state = model.forward([0], None)[1]
    return f"{strategy}, torch {torch.__version__}", lambda ids: model.forward(ids, state)


def seconds(run: Run, ids: list[int], times: int, repeats: int) -> float:
    return measure(lambda: [run(list(ids)) for _ in range(times)], Rounds(repeats)).median


def main(model: str = "", prompt: int = 128, steps: int = 32, repeats: int = 5) -> list[list[str]]:
    """Print a line a program; gives the lines' cells. prompt: tokens of pp; steps: of tg."""
    source: Any = model or assets.default_model()
    if ":" in model:
        reader = synthetic(model)
        source = {name: reader.rows(name, 0, reader.shape(name)[0]) for name in reader.names()}
    rows, ids = [], [1 + at % 100 for at in range(prompt)]
    with TemporaryDirectory() as folder:
        convert(source, Path(folder) / "model.st", names="converted" if ":" in model else None)
        for load in (rwkvgraph, rwkv, web_rwkv_py):
            try:
                with redirect_stdout(sys.stderr):
                    how, run = load(Path(folder) / "model.st", prompt)
                pp, tg = prompt / seconds(run, ids, 1, repeats), steps / seconds(run, [1], steps, repeats)
                rows.append([load.__name__, how, number(pp), number(tg)])
            except (ImportError, ValueError) as error:
                rows.append([load.__name__, f"not installed, or not for this model: {error}", "", ""])
    print(markdown(["program", "how", f"pp{prompt} t/s", f"tg{steps} t/s"], rows, left=2))
    return rows


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "")
