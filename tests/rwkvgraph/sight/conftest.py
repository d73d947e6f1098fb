"""A small model without weights, with hooks and without, at every stage."""

from pathlib import Path

import pytest

from rwkvgraph.compiler import Target
from rwkvgraph.sight.hooks_file import read_hooks
from rwkvgraph.sight.shapes import ShapeReader, shapes_of
from rwkvgraph.sight.stages import Stages, look, subject_of

HOOKS = '''\
"""Hooks of the tests."""
from rwkvgraph import Buffer, Hooks, blit, v7

hooks = Hooks()
seen = Buffer("seen", 128)
push = Buffer("push", 128)


@hooks.on(v7.PostFfn(1))
def steer(frame: v7.Frame) -> None:
    frame.x = frame.x + push.tensor


@hooks.on(v7.PostAttLinear(2))
def capture(frame: v7.Frame) -> None:
    blit(frame.att_k[-1], seen)
'''
ADDED_AT = ("my_hooks.py:11", "my_hooks.py:16")


@pytest.fixture(scope="session")
def hooks_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's file with two hooks."""
    path = tmp_path_factory.mktemp("hooks") / "my_hooks.py"
    path.write_text(HOOKS)
    return path


def compiled(version: str, layers: int, hooks: Path | None = None) -> Stages:
    """A model of two heads, for browsers."""
    target = Target.browser()
    reader = ShapeReader(shapes_of(version, layers, 128, 300), "made up")
    return look(subject_of(reader, target), read_hooks(hooks) if hooks else None, target)


@pytest.fixture(scope="session")
def stages() -> Stages:
    """Five layers, of which the middle ones are alike."""
    return compiled("v7", 5)


@pytest.fixture(scope="session")
def hooked(hooks_file: Path) -> Stages:
    """The same with the hooks spliced in."""
    return compiled("v7", 5, hooks_file)
