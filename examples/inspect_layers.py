"""How values grow from layer to layer: mean, RMS and largest of a slot after each, of a prompt's every token.

python examples/inspect_layers.py [values.npz] [values.json] [stream.png]      the picture needs matplotlib
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

import rwkvgraph as rg
from rwkvgraph import assets

NAMES = ("*.x@PostFfn", "*.att_o@PostAttOut", "*.ffn_v@PostFfnLinear")
Values = dict[str, np.ndarray]


def main(prompt: str = "The cat sat on the mat.", *files: str | Path) -> Values:
    """Print a line a value; gives them by name, (tokens, channels), and saves them as files' names end."""
    model = rg.Model.load(assets.default_model())
    tokenizer = rg.Tokenizer.load(assets.default_vocab())
    _, cache = model.run_with_cache([[0, *tokenizer.encode(prompt)]], model.state(), NAMES, "full")
    values = {name: rows for name, (rows,) in cache.items() if rows is not None}
    print(f"{'value':<24}{'mean':>9}{'rms':>9}{'largest':>9}  of token")
    for name, rows in values.items():
        token, _ = np.unravel_index(np.argmax(np.abs(rows)), rows.shape)
        rms = float(np.sqrt(np.mean(rows**2)))
        print(f"{name:<24}{rows.mean():9.3f}{rms:9.3f}{np.abs(rows).max():9.3f}  {token}")
    for path in map(Path, files):
        SAVE[path.suffix](values, path)
    return values


def save_npz(values: Values, path: Path) -> None:
    """As numpy's arrays, by name; "@" is not for names of files, of which an archive is made."""
    arrays: dict[str, Any] = {name.replace("@", "_at_"): rows for name, rows in values.items()}
    np.savez(path, **arrays)


def save_json(values: Values, path: Path) -> None:
    """As lists of rows, by name."""
    path.write_text(json.dumps({name: rows.tolist() for name, rows in values.items()}), encoding="utf-8")


def save_png(values: Values, path: Path) -> None:
    """As a picture: the RMS of the stream by layer and token."""
    try:
        from matplotlib.figure import Figure  # type: ignore[import-not-found]  # an extra of the reader's
    except ImportError:
        print(f"{path} was not drawn: matplotlib is not installed")
        return
    heat = np.stack([np.sqrt((rows**2).mean(1)) for name, rows in values.items() if ".x@" in name])
    figure = Figure()
    axes = figure.subplots()
    figure.colorbar(axes.imshow(heat, aspect="auto"), label="RMS of the stream")
    axes.set(xlabel="token", ylabel="layer", title="the stream after each layer")
    figure.savefig(path)


SAVE = {".npz": save_npz, ".json": save_json, ".png": save_png}

if __name__ == "__main__":
    main("The cat sat on the mat.", *sys.argv[1:])
