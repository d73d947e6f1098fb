"""A small model without weights, with hooks and without, at every stage."""

from dataclasses import replace
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
BROWSER = Target.browser()
ADDED_AT = ("my_hooks.py:11", "my_hooks.py:16")


@pytest.fixture(scope="session")
def hooks_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's file with two hooks."""
    path = tmp_path_factory.mktemp("hooks") / "my_hooks.py"
    path.write_text(HOOKS)
    return path


def compiled(version: str, layers: int, hooks: Path | None = None, target: Target = BROWSER) -> Stages:
    """A model of two heads, for browsers unless another target is given."""
    reader = ShapeReader(shapes_of(version, layers, 128, 300), "made up")
    return look(subject_of(reader, target), read_hooks(hooks) if hooks else None, target)


@pytest.fixture(scope="session")
def known() -> Stages:
    """A model for a GPU whose subgroups are known: workgroups may share heads."""
    target = Target.browser(subgroups=True)
    limits = replace(
        target.limits,
        max_storage_buffers=16,
        max_workgroup_storage=49152,
        max_workgroup_invocations=1024,
        max_workgroup_size_x=1024,
    )
    return compiled("v7", 2, target=replace(target, lanes=32, limits=limits))


@pytest.fixture(scope="session")
def stages() -> Stages:
    """Five layers, of which the middle ones are alike."""
    return compiled("v7", 5)


@pytest.fixture(scope="session")
def hooked(hooks_file: Path) -> Stages:
    """The same with the hooks spliced in."""
    return compiled("v7", 5, hooks_file)
