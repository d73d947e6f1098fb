"""wgpu's errors as ours: each says what was being done and what to try.

wgpu-py 0.32 raises every error in the call that caused it; there are no error scopes to push. What cannot be
caught is an error inside queue.submit, and a naga panic: both abort the process.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from wgpu.classes import GPUError, GPUOutOfMemoryError

from rwkvgraph.errors import CompileError, DeviceError, RwkvGraphError

LESS_MEMORY = "Try fewer slots (num_batch), a smaller token_chunk_size, a smaller model, or another adapter."
NO_MEMORY = re.compile(r"out of memory|not enough memory|memory allocation", re.IGNORECASE)
IS_LOST = re.compile(r"device (is |was )?lost", re.IGNORECASE)
PLACE = re.compile(r"(?:wgsl|^):(\d+):(\d+)", re.MULTILINE)
"""Line and column as naga ("wgsl:3:48") and Tint (":3:48 error") write them."""


def device_fault(doing: str, error: Exception) -> RwkvGraphError:
    """Our error for one of wgpu's, by its text: wgpu-native 29 calls a failed allocation "Validation" too."""
    reason = str(error).strip()
    if IS_LOST.search(reason):
        return DeviceError(
            f"The device was lost: {doing} failed. The driver was reset or the context destroyed; what the "
            "device held is gone. Make a new Context and load the model again; if it recurs, give the device "
            f"less to do at once (token_chunk_size) or update the driver.\n{reason}"
        )
    if isinstance(error, GPUOutOfMemoryError) or NO_MEMORY.search(reason):
        return DeviceError(f"Out of memory: {doing} failed. {LESS_MEMORY}\n{reason}")
    return CompileError(
        f"The device refused what was built for it: {doing} failed. Please report this.\n{reason}"
    )


@contextmanager
def faults(doing: str) -> Iterator[None]:
    """Turn wgpu's errors in the block into DeviceError (lost, out of memory) or CompileError (all others).

    doing: a noun phrase that completes "… failed".
    """
    try:
        yield
    except GPUError as error:
        raise device_fault(doing, error) from error


def excerpt(text: str, line: int, column: int, around: int = 2) -> str:
    """The lines of a shader around one (counted from 1), numbered, that one marked."""
    lines = text.splitlines()
    first, last = max(line - around, 1), min(line + around, len(lines))
    shown = []
    for number in range(first, last + 1):
        shown.append(f"{'>' if number == line else ' '} {number:4} | {lines[number - 1]}")
        if number == line:
            shown.append(" " * (8 + column) + "^")
    return "\n".join(shown)


def shader_fault(text: str, label: str, error: Exception) -> RwkvGraphError:
    """CompileError with the line at fault, or the DeviceError that was the real reason."""
    reason = str(error).strip()
    fault = device_fault(f"compiling {label}", error)
    if isinstance(fault, DeviceError):
        return fault
    place = PLACE.search(reason)
    shown = "\n" + excerpt(text, int(place[1]), int(place[2])) if place else ""
    return CompileError(
        f"The shader {label} was refused.{shown}\n{reason}\n"
        "If an op of yours wrote it, mend its wgsl; RWKVGRAPH_DUMP=folder keeps every shader. "
        "Otherwise please report this."
    )
