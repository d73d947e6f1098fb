"""What tests of examples share: the examples as modules, and that there is an adapter."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, TypeAlias

import pytest

if TYPE_CHECKING:
    from rwkvgraph.gpu import Context

EXAMPLES = Path(__file__).parents[2] / "examples"
Example: TypeAlias = Callable[[str], ModuleType]


@pytest.fixture(autouse=True)
def only_where_an_adapter_is(gpu: "Context") -> None:
    """Examples take the best adapter; without one they would say so on stderr and run on numpy."""


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
