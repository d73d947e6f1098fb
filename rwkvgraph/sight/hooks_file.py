"""Reading hooks from a user's Python file, and telling where in it something went wrong."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rwkvgraph.errors import HookError
from rwkvgraph.hooks import Hooks

NAME = "hooks"


def read_hooks(path: Path) -> Hooks:
    """What a file calls `hooks`: an rg.Hooks, or a dict of functions by site.

    The file runs as a script's import of it would: its folder comes first on sys.path. Raises HookError, with
    file and line, for whatever it raises.
    """
    path = path.resolve()
    name = path.stem if path.stem not in sys.modules else f"hooks of {path}"
    spec = importlib.util.spec_from_file_location(name, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise HookError(f"{path}: there is no such Python file (--hooks)")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))
    sys.modules[name] = module  # dataclasses, and so operations, look their module up
    with telling_where(path):
        spec.loader.exec_module(module)
    found = getattr(module, NAME, None)
    if isinstance(found, dict):
        return Hooks(found)
    if not isinstance(found, Hooks):
        kind = f"is a {type(found).__name__}" if hasattr(module, NAME) else "is not set"
        raise HookError(f"{path}: `{NAME}` {kind}; it is to be an rg.Hooks(), as in `{NAME} = rg.Hooks()`")
    return found


@contextmanager
def telling_where(path: Path | None) -> Iterator[None]:
    """Turn what a user's file raises inside into a HookError that names its file and line."""
    try:
        yield
    except Exception as error:
        line = None if path is None else _line_in(error, str(path))
        if path is None or line is None:
            raise
        kind = "" if isinstance(error, HookError) else f"{type(error).__name__}: "
        text = error.msg if isinstance(error, SyntaxError) else error
        raise HookError(f"{path.name}:{line}: {kind}{text}") from error


def _line_in(error: Exception, path: str) -> int | None:
    """The last line of a file that an error passed through; None where it did not."""
    if isinstance(error, SyntaxError) and error.filename == path:
        return error.lineno
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    return lines[-1] if lines else None
