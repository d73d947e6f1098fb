"""Which model commands measure: a file, or one that is only sizes."""

from __future__ import annotations

import argparse
from pathlib import Path

from rwkvgraph.bench.subject import synthetic
from rwkvgraph.commands.options import add_names, model_path
from rwkvgraph.load.reader import Reader, open_model


def add_subject(parser: argparse._ActionsContainer, file: str, sizes: str) -> None:
    """Add what says which model; file, sizes: what the help says of the two ways."""
    parser.add_argument("-m", "--model", type=Path, metavar="FILE", help=file)
    add_names(parser, "the model")
    parser.add_argument("--synthetic", metavar="VERSION:LAYERSxWIDTH[:VOCAB[:HEAD]]", help=sizes)


def check_subject(options: argparse.Namespace) -> None:
    """Raise ValueError for two models."""
    if options.model is not None and options.synthetic is not None:
        raise ValueError("-m reads a file and --synthetic makes a model up: give one of them")


def open_subject(options: argparse.Namespace) -> Reader:
    """The model's tensors. Raises LoadError, and ValueError for sizes that no model has."""
    if options.synthetic is not None:
        return synthetic(options.synthetic)
    return open_model(model_path(options), options.names)
