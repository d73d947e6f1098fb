"""The same weights through rwkvgraph, the `rwkv` package and web-rwkv-py in one run: tokens a second of each.

python examples/compare.py [model.st | v6:12x768 …]     # files, or noise: version, layers x width

pp: a prompt; tg: tokens one by one, with the logits of each; ours: how many times as fast `Model.run` is.
`generate` draws each token as well: on the device, where the next step finds it.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from math import nan
from pathlib import Path
from tempfile import TemporaryDirectory

import rwkvgraph as rg
from rwkvgraph import assets
from rwkvgraph.bench import others
from rwkvgraph.bench.steady import Rounds, measure
from rwkvgraph.bench.tables import markdown, number


def rwkvgraph(path: Path, most: int) -> tuple[str, others.Run]:
    model = rg.Model.load(path, token_chunk_size=most)
    state = model.state()
    return f"f16, {str(model).rpartition('on ')[2].partition(';')[0]}", lambda ids: model.run([ids], state)


def generate(path: Path, most: int) -> tuple[str, others.Run]:
    model = rg.Model.load(path, token_chunk_size=most)
    words = rg.Tokenizer(dict.fromkeys(range(1, model.info.num_vocab), b"."))

    def draw(ids: list[int]) -> None:
        while ids:  # a text may end early
            ids = ids[len(list(rg.generate(model, words, ids[:1], len(ids), rg.Sampler(1.0, 1.0)))) :]

    return "rwkvgraph's, drawing as many tokens", draw


def speeds(load: others.Load, path: Path, prompt: int, steps: int, repeats: int) -> tuple[str, float, float]:
    """How a program runs, and its tokens a second: of a prompt, and one after another; NaN for none."""
    try:
        with redirect_stdout(sys.stderr):
            how, run = load(path, prompt)
    except (ImportError, ValueError) as error:
        return f"not installed, or not for this model: {error}", nan, nan

    def speed(ids: list[int], work: Callable[[list[int]], object]) -> float:
        return len(ids) / measure(lambda: work(list(ids)), Rounds(repeats)).median

    if load is generate:
        return how, nan, speed([1] * steps, run)
    one_by_one = speed([1] * steps, lambda ids: [run([token]) for token in ids])
    return how, speed([1 + at % 100 for at in range(prompt)], run), one_by_one


def compare(model: str, prompt: int, steps: int, repeats: int) -> Iterator[list[str]]:
    ours: tuple[float, ...] = ()
    with TemporaryDirectory() as folder:
        others.write(model, Path(folder) / "model.st")
        for load in (rwkvgraph, generate, others.rwkv, others.web_rwkv_py):
            how, *found = speeds(load, Path(folder) / "model.st", prompt, steps, repeats)
            ours = ours or tuple(found)
            pairs = zip(found, ours, strict=True)
            cells = [(number(its), f"{mine / its:.1f}") if its > 0 else ("", "") for its, mine in pairs]
            yield [load.__name__, how, *cells[0], *cells[1]]


def main(*models: str, prompt: int = 128, steps: int = 32, repeats: int = 5) -> list[list[str]]:
    """Print a table a model, a line a program; gives the lines' cells. prompt: tokens of pp; steps: of tg."""
    rows = []
    for model in models or [str(assets.default_model())]:
        rows += (found := list(compare(model, prompt, steps, repeats)))
        header = [Path(model).name, "how", f"pp{prompt} t/s", "ours", f"tg{steps} t/s", "ours"]
        print(markdown(header, found, left=2), flush=True)
    return rows


if __name__ == "__main__":
    main(*sys.argv[1:])
