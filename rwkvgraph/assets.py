"""Where the files of `assets/` are: the model and the vocabularies that come with this package.

In a checkout they lie beside the package, in a wheel inside of it; `assets/README.md` says what they are.
"""

from pathlib import Path

from rwkvgraph.errors import LoadError

FOLDERS = (Path(__file__).parent / "_assets", Path(__file__).parents[1] / "assets")
"""Where files are looked for: in an installed wheel, in a checkout."""

TINY_VOCAB_SIZE = 4096
WORLD_VOCAB_SIZES = range(65_530, 65_537)
"""Logits of the models of the World vocabulary, whose ids end at 65,529: most are padded to 65,536."""


def path(name: str) -> Path:
    """A file of `assets/`, by its path there: "models/MODEL.md". Raises LoadError if it is missing."""
    for folder in FOLDERS:
        if (folder / name).is_file():
            return folder / name
    places = " nor ".join(str(folder) for folder in FOLDERS)
    raise LoadError(
        f"there is no asset {name!r}: neither {places} has it. Install rwkvgraph again, or work from a whole "
        "checkout; the wheel leaves out what only tests and training use"
    )


def default_model() -> Path:
    """The small RWKV-7 model that comes with this package, see `assets/models/MODEL.md`."""
    return path("models/rwkv7-tiny.st")


def default_vocab() -> Path:
    """The vocabulary of the default model, 4096 ids."""
    return path("vocab/rwkv7-tiny.json")


def world_vocab() -> Path:
    """The World vocabulary of 2023-04-24, ids 1 to 65529, with which the published models were trained."""
    return path("vocab/rwkv_vocab_v20230424.json")


def vocab_for(num_vocab: int) -> Path:
    """The vocabulary that goes with a model of so many logits: the default model's or the World's.

    Raises LoadError for any other number: such a model has a vocabulary of its own.
    """
    if num_vocab == TINY_VOCAB_SIZE:
        return default_vocab()
    if num_vocab in WORLD_VOCAB_SIZES:
        return world_vocab()
    raise LoadError(
        f"no vocabulary here is for a model of {num_vocab} logits, only for {TINY_VOCAB_SIZE} and for "
        f"{WORLD_VOCAB_SIZES[0]} to {WORLD_VOCAB_SIZES[-1]}; give the path of the model's own vocabulary "
        "(--tokenizer on the command line)"
    )
