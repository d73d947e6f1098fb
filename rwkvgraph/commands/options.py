"""Options that commands share, and what they stand for: which model runs where, and how tokens are drawn."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from rwkvgraph import assets
from rwkvgraph.generate import TEMPERATURE, TOP_P
from rwkvgraph.gpu import Context
from rwkvgraph.load.convention import CHOICES
from rwkvgraph.model import Device, Model
from rwkvgraph.sampler import DECAY, Sampler
from rwkvgraph.tokenizer import Tokenizer

MOST_ADAPTERS = 100
"""--adapter takes a smaller number as an index, a larger one as a part of a name: "4090"."""

ESCAPES = {r"\n": "\n", r"\t": "\t", r"\\": "\\"}


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add what says which model runs where."""
    parser.add_argument(
        "-m",
        "--model",
        type=Path,
        metavar="FILE",
        help="a model, .st or .pth; default: the small one that comes along",
    )
    add_names(parser, "the model")
    parser.add_argument(
        "--tokenizer",
        type=Path,
        metavar="FILE",
        help="its vocabulary, .json or .txt; default: the one for the model's size",
    )
    parser.add_argument(
        "--adapter",
        metavar="NAME|INDEX|cpu",
        help="where to run: a part of an adapter's name, its index in `rwkvgraph devices`, or cpu for numpy; "
        "default: the best",
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="nothing on stderr but errors")


def add_names(parser: argparse._ActionsContainer, what: str) -> None:
    """Add what says in which convention a file is that does not tell; what: as the help calls the file."""
    parser.add_argument(
        "--names",
        choices=[choice for choice in CHOICES if choice],
        help=f"whose names and shapes {what} has, if unclear: raw for BlinkDL's, converted for web-rwkv's",
    )


def add_sampling(parser: argparse.ArgumentParser) -> None:
    """Add how tokens are drawn."""
    parser.add_argument(
        "--temp",
        "--temperature",
        type=float,
        default=TEMPERATURE,
        metavar="T",
        help="0 takes the most likely token; default: %(default)s",
    )
    parser.add_argument(
        "--top-p", type=float, default=TOP_P, metavar="P", help="1 is no limit; default: %(default)s"
    )
    parser.add_argument(
        "--top-k", type=int, default=0, metavar="K", help="0 is no limit; default: %(default)s"
    )
    parser.add_argument(
        "--min-p", type=float, default=0.0, metavar="P", help="of the best one's; 0 is no limit"
    )
    parser.add_argument(
        "--presence", type=float, default=0.0, metavar="X", help="off the logits of tokens that were drawn"
    )
    parser.add_argument(
        "--frequency", type=float, default=0.0, metavar="X", help="off them for each time they were drawn"
    )
    parser.add_argument(
        "--decay",
        type=float,
        default=DECAY,
        metavar="D",
        help="what is left of such a time a token later; default: %(default)s",
    )
    parser.add_argument(
        "--seed", type=int, metavar="N", help="the same seed draws the same text; default: any"
    )


def device(adapter: str | None) -> Device:
    """The device that --adapter names. Raises DeviceError for an index that there is not."""
    is_index = adapter is not None and adapter.isdecimal() and int(adapter) < MOST_ADAPTERS
    return Context.create(int(adapter)) if adapter is not None and is_index else adapter


def model_path(options: argparse.Namespace) -> Path:
    """The file of `add_model`'s model."""
    return options.model or assets.default_model()


def load(options: argparse.Namespace) -> tuple[Model, Tokenizer]:
    """The model and the tokenizer of `add_model`."""
    model = Model.load(model_path(options), device(options.adapter), names=options.names)
    return model, Tokenizer.load(options.tokenizer or assets.vocab_for(model.info.num_vocab))


def read_sampler(options: argparse.Namespace) -> Sampler:
    """The sampler of `add_sampling`."""
    return Sampler(
        options.temp,
        options.top_p,
        options.top_k,
        options.seed,
        options.min_p,
        options.presence,
        options.frequency,
        options.decay,
    )


def read_prompt(text: str) -> str:
    """The prompt that -p means: a text with escapes, or - for stdin, less one line end at its end."""
    return sys.stdin.read().removesuffix("\n") if text == "-" else unescaped(text)


def unescaped(text: str) -> str:
    r"""A text in which \n, \t and \\ stood for a new line, a tab and a backslash."""
    return re.sub(r"\\[nt\\]", lambda found: ESCAPES[found[0]], text)
