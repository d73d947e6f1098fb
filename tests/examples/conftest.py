"""What tests of examples share: the examples as modules, and where they run."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TypeAlias

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
Example: TypeAlias = Callable[[str], ModuleType]


@pytest.fixture(autouse=True)
def on_numpy_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Examples name no device. Here that is numpy: what their hooks add would be compiled anew for each.

    Tests of what devices do with them load models onto one by name.
    """
    from rwkvgraph import engine, model  # not at the top: most tests need neither

    opened = model.open_engine
    monkeypatch.setattr(
        model, "open_engine", lambda device: engine.HostEngine() if device is None else opened(device)
    )


@pytest.fixture(scope="session")
def example() -> Example:
    """An example by name, as a module; it is no package's, so nothing imports it by name."""

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(f"examples.{name}", EXAMPLES / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load
