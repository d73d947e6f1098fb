"""Which library is behind the name wgpu, in processes of their own."""

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest

SAY = "import rwkvgraph, wgpu; print(wgpu.__name__, wgpu.GPUDevice.__module__)"
OPEN = """
import rwkvgraph as rg
try:
    rg.Context.create()
except ValueError as error:
    print(error)
"""
NEEDS_DAWN = pytest.mark.skipif(find_spec("wgpudawn") is None, reason="wgpudawn is not installed")


def said(script: str, wanted: str) -> str:
    """What a script prints where RWKVGRAPH_WGPU is this."""
    environment = {**os.environ, "RWKVGRAPH_WGPU": wanted, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("wanted", ["", "native"])
def test_wgpu_is_itself_unless_asked_otherwise(wanted: str) -> None:
    assert said(SAY, wanted).split() == ["wgpu", "wgpu._classes"]


@NEEDS_DAWN
def test_dawn_is_behind_the_name_where_that_is_asked_for() -> None:
    assert said(SAY, "dawn").split() == ["wgpu", "wgpudawn._classes"]


def test_another_name_is_an_error_when_a_device_is_wanted() -> None:
    assert "RWKVGRAPH_WGPU is 'metal'; it is native (or unset), or dawn" in said(OPEN, "metal")


def test_a_missing_library_says_what_to_install() -> None:
    hidden = "import sys, importlib.util as u\nfind = u.find_spec\n"
    hidden += "u.find_spec = lambda name, *more: None if name == 'wgpudawn' else find(name, *more)\n"
    assert 'pip install "rwkvgraph[dawn]"' in said(hidden + OPEN, "dawn")


@NEEDS_DAWN
def test_who_imports_wgpu_before_is_told_so() -> None:
    assert "import rwkvgraph first" in said("import wgpu\n" + OPEN, "dawn")
