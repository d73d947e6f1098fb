"""Devices and models that the tests of whole models share: opening and compiling take longer than running."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import pytest
from safetensors.numpy import load_file

from rwkvgraph.model import Model
from tests.rwkvgraph.models.oracle_v7 import Array
from tests.rwkvgraph.models.synthetic import synthetic_v7

if TYPE_CHECKING:
    from rwkvgraph.gpu import Context

Device: TypeAlias = "Context | str"
Load: TypeAlias = Callable[..., Model]

ASSETS = Path(__file__).parents[2] / "assets" / "models"


@pytest.fixture(scope="session", params=["cpu", pytest.param("gpu", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> Device:
    """Both devices of a model in turn: numpy, and the session's GPU."""
    if request.param == "cpu":
        return "cpu"
    context: Context = request.getfixturevalue("gpu")
    return context


@pytest.fixture(scope="session")
def tiny_tensors() -> dict[str, Array]:
    """The shipped model."""
    return dict(load_file(ASSETS / "rwkv7-tiny.st"))


@pytest.fixture(scope="session")
def tiny(device: Device) -> Model:
    """The shipped model on the device."""
    return Model.load(ASSETS / "rwkv7-tiny.st", device, 4096)


@pytest.fixture(scope="session")
def small_tensors() -> dict[str, Array]:
    """A quick model: two layers, three heads of 16."""
    return synthetic_v7(
        layers=2, width=48, head_size=16, hidden=100, vocab=150, low_rank=(8, 8, 8, 12), seed=1
    )


@pytest.fixture(scope="session")
def small(device: Device, small_tensors: dict[str, Array]) -> Model:
    """The quick model on the device."""
    return Model.load(small_tensors, device, 4096)
