"""Which library is behind the name wgpu: wgpu-py on wgpu-native, or wgpudawn, the same interface on Dawn.

To be called before anything imports wgpu.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any

VARIABLE = "RWKVGRAPH_WGPU"

EXTRAS = "wgpudawn.backends.dawn.extras"

MATRICES = "chromium-experimental-subgroup-matrix"
"""The feature of adapters whose subgroups multiply matrices."""

HALVES = "shader-f16"
"""The feature of f16 in kernels, which those take."""

WANTED = {
    **dict.fromkeys("mnk", 16),
    "component_type": "f16",
    "result_component_type": "f32",
    "min_subgroup_size": 32,
    "max_subgroup_size": 32,
}

ENABLED = ("allow_unsafe_apis", "vulkan_enable_f16_on_nvidia", "disable_robustness")
"""Toggles of Dawn.

The first two, for subgroup matrices, which the WebGPU specification does not have yet. The third, as indices
are the compiler's own, all within what is bound: checks of each took matrix products of many tokens 1.6 times
as long (NVIDIA H200).
"""

DISABLED = ("timestamp_quantization",)
"""A toggle that keeps web pages from telling time."""


REFUSED: list[str] = []
"""Why `choose_library` could not do what was asked of it."""


def choose_library() -> None:
    """Let `import wgpu` give what RWKVGRAPH_WGPU says: "native" (or unset), or "dawn".

    Raises nothing, as it runs at the first import: `check_library` does.
    """
    wanted = os.environ.get(VARIABLE) or "native"
    if wanted not in ("native", "dawn"):
        REFUSED.append(f"{VARIABLE} is {wanted!r}; it is native (or unset), or dawn")
    elif wanted == "dawn" and find_spec("wgpudawn") is None:
        REFUSED.append(f'{VARIABLE} is dawn, which takes wgpudawn: `pip install "rwkvgraph[dawn]"`')
    elif wanted == "dawn":
        _install_dawn()


def _install_dawn() -> None:
    try:
        import_module("wgpudawn").install_as_wgpu()
        with quiet_layer():
            import_module(EXTRAS).set_instance_extras(enable_toggles=ENABLED, disable_toggles=DISABLED)
    except RuntimeError as error:  # it was used before
        REFUSED.append(f"{VARIABLE} is dawn, but wgpu was in use already: import rwkvgraph first ({error})")
    except (ImportError, OSError, AttributeError, ValueError) as error:  # another version, or no library
        REFUSED.append(f"{VARIABLE} is dawn, but this wgpudawn cannot be used: {error!r}")


def check_library() -> None:
    """Raise ValueError unless wgpu is what RWKVGRAPH_WGPU says.

    No DeviceError, after which numpy would do.
    """
    if REFUSED:
        raise ValueError(REFUSED[0])


@contextmanager
def quiet_layer() -> Iterator[None]:
    """Keep Mesa's device-select layer out while the adapters are first listed.

    It writes "XDG_RUNTIME_DIR is invalid" to stderr, twice an instance, where the variable is unset, as in
    containers (Mesa 22.3). Left in place where the user steers it: we list all it would hide.
    """
    steered = {"XDG_RUNTIME_DIR", "MESA_VK_DEVICE_SELECT", "DRI_PRIME", "NODEVICE_SELECT"} & set(os.environ)
    if steered or not sys.platform.startswith("linux"):
        yield
        return
    os.environ["NODEVICE_SELECT"] = "1"
    try:
        yield
    finally:
        del os.environ["NODEVICE_SELECT"]


def multiplies_matrices(adapter: Any) -> bool:
    """Whether subgroups of 32 threads multiply matrices of 16 by 16, f16 with sums of f32.

    RWKVGRAPH_MATRICES=0 says no.
    """
    if os.environ.get("RWKVGRAPH_MATRICES") == "0" or not {MATRICES, HALVES} <= set(adapter.features):
        return False
    forms = import_module(EXTRAS).get_adapter_properties(adapter).get("subgroup_matrix_configs", ())
    return any(WANTED.items() <= form.items() for form in forms)
