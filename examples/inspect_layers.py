"""How values grow from layer to layer: mean, RMS and largest of a slot after each, of a prompt's every token.

python examples/inspect_layers.py [values.npz]
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np

import rwkvgraph as rg
from rwkvgraph import assets

NAMES = ("*.x@PostFfn", "*.att_o@PostAttOut", "*.ffn_v@PostFfnLinear")


def main(prompt: str = "The cat sat on the mat.", save: str | None = None) -> dict[str, np.ndarray]:
    """Print a line a value; gives them by name, (tokens, channels). save: a .npz file for them."""
    model = rg.Model.load(assets.default_model())
    tokenizer = rg.Tokenizer.load(assets.default_vocab())
    _, cache = model.run_with_cache([[0, *tokenizer.encode(prompt)]], model.state(), NAMES, "full")
    values = {name: rows for name, (rows,) in cache.items() if rows is not None}
    print(f"{'value':<24}{'mean':>9}{'rms':>9}{'largest':>9}  of token")
    for name, rows in values.items():
        token, _ = np.unravel_index(np.argmax(np.abs(rows)), rows.shape)
        rms = float(np.sqrt(np.mean(rows**2)))
        print(f"{name:<24}{rows.mean():9.3f}{rms:9.3f}{np.abs(rows).max():9.3f}  {token}")
    if save:
        arrays: dict[str, Any] = {name.replace("@", "_at_"): rows for name, rows in values.items()}
        np.savez(save, **arrays)
    draw(values, Path(save or "inspect_layers").with_suffix(".png"))
    return values


def draw(values: dict[str, np.ndarray], path: Path) -> None:
    """The RMS of the stream by layer and token, as a picture, where matplotlib is installed."""
    try:
        import matplotlib.pyplot as plt  # type: ignore[import-not-found]  # an extra of the reader's
    except ImportError:
        return
    heat = np.stack([np.sqrt((rows**2).mean(1)) for name, rows in values.items() if ".x@" in name])
    figure, axes = plt.subplots()
    figure.colorbar(axes.imshow(heat, aspect="auto"), label="RMS of the stream")
    axes.set(xlabel="token", ylabel="layer")
    figure.savefig(path)
    print(f"picture: {path}")


if __name__ == "__main__":
    main(save=sys.argv[1] if len(sys.argv) > 1 else None)
