"""Fixtures that every test may ask for: a device, random numbers, golden files; and strict floating point.

Tests that use `gpu` are marked `gpu` by that alone.
"""

import difflib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from wgpu.classes import GPUDevice

    from rwkvgraph.compiler import Target
    from rwkvgraph.gpu import Context
    from rwkvgraph.gpu.adapter import AdapterInfo

os.environ.setdefault("RWKVGRAPH_CHECK", "1")  # every stage of every compilation is held to its rules

# How long an example takes depends on the machine and what else it does: no test is about that.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --update-golden and --as-gpu."""
    parser.addoption(
        "--update-golden", action="store_true", help="rewrite tests/golden from what tests produce"
    )
    parser.addoption(
        "--as-gpu", action="store_true", help="take the device for a GPU whose layers are laps of relays"
    )


def pytest_configure(config: pytest.Config) -> None:
    """What is made for GPUs has to be right on software, too, where one workgroup does all of a relay."""
    if config.getoption("--as-gpu"):
        from rwkvgraph.gpu import probe  # not at the top: most tests need no wgpu
        from tests.rwkvgraph.hardware import with_relays

        def taken(device: "GPUDevice", info: "AdapterInfo") -> "Target":
            target = probe.measure_target(device, info)
            return with_relays(target, probe.COHERENT in device.features, looks=True)

        pytest.MonkeyPatch().setattr("rwkvgraph.gpu.context.measure_target", taken)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs a device, so that `-m "not gpu"` leaves it out."""
    for item in items:
        if "gpu" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.gpu)


@pytest.fixture(scope="session")
def gpu() -> "Iterator[Context]":
    """The best device there is, for the whole session: never destroy it.

    Without one: skip with the reason, or fail where RWKVGRAPH_REQUIRE_GPU=1.
    """
    from rwkvgraph.errors import DeviceError  # not at the top: most tests need neither wgpu nor a device
    from rwkvgraph.gpu import Context

    try:
        context = Context.create()
    except DeviceError as error:
        if os.environ.get("RWKVGRAPH_REQUIRE_GPU") == "1":
            pytest.fail(f"RWKVGRAPH_REQUIRE_GPU=1, but: {error}")
        pytest.skip(str(error))
    yield context
    context.destroy()


@pytest.fixture
def rng() -> np.random.Generator:
    """Random numbers, the same in every run and for every test."""
    return np.random.default_rng(20240612)


@pytest.fixture(autouse=True)
def strict_floats() -> Iterator[None]:
    """Make numpy raise where a result would be inf or nan; underflow to zero is fine."""
    with np.errstate(all="raise", under="ignore"):
        yield


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """golden(name, text): fail unless text is what tests/golden/<name> holds; --update-golden writes it."""

    def check(name: str, text: str) -> None:
        path = GOLDEN / name
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="\n")
            return
        hint = "`pytest --update-golden` writes it; then read the diff"
        if not path.exists():
            pytest.fail(f"There is no {path}; {hint}.")
        expected = path.read_text(encoding="utf-8")
        if text != expected:
            lines = expected.splitlines(), text.splitlines()
            diff = difflib.unified_diff(*lines, f"golden/{name}", "now", lineterm="")
            pytest.fail("\n".join([f"{path} differs; if rightly, {hint}.", *diff]), pytrace=False)

    return check
