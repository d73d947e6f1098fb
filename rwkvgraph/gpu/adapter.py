"""Which graphics adapters there are, the best first.

Looks at adapters and chooses; `context.py` opens one.
"""

from dataclasses import dataclass

import wgpu
from wgpu.classes import GPUAdapter

from rwkvgraph.errors import DeviceError
from rwkvgraph.gpu.library import check_library, quiet_layer
from rwkvgraph.gpu.native import subgroup_sizes

KINDS = {"DiscreteGPU": "discrete", "IntegratedGPU": "integrated", "Unknown": "virtual"}
KIND_RANK = ("discrete", "integrated", "virtual", "software")
BACKEND_RANK = ("Vulkan", "Metal", "D3D12")
SOFTWARE = ("llvmpipe", "lavapipe", "swiftshader", "basic render")
"""Names of renderers that run on the CPU: Mesa's two, Google's and Microsoft's."""

INSTALL = (
    "On Linux install a Vulkan driver: the vendor's own for NVIDIA, `apt install mesa-vulkan-drivers` "
    "for AMD, Intel, and for a software adapter on any machine; `vulkaninfo --summary` shows what is found. "
    "On Windows update the graphics driver. On macOS Metal is always there, except in some virtual machines. "
    'Without a driver, device="cpu" runs on numpy.'
)


@dataclass(frozen=True)
class AdapterInfo:
    """One adapter as `rwkvgraph devices` lists it; `str()` is that line.

    index: what `Context.create` takes to pick it. kind: discrete, integrated, virtual or software.
    driver: the driver's description, may be "". subgroup_sizes: smallest and largest, None if not told.
    """

    index: int
    name: str
    backend: str
    kind: str
    driver: str
    subgroup_sizes: tuple[int, int] | None = None

    def __str__(self) -> str:
        sizes = self.subgroup_sizes and "subgroups of {}" + (
            " to {}" if len(set(self.subgroup_sizes)) > 1 else ""
        )
        parts = [self.kind, self.backend, self.driver, sizes and sizes.format(*self.subgroup_sizes or ())]
        return f"{self.index}: {self.name} ({', '.join(part for part in parts if part)})"


def kind_of(name: str, adapter_type: str) -> str:
    """discrete, integrated, virtual or software. wgpu-native 29 reports virtual GPUs as "CPU" too."""
    if adapter_type in KINDS:
        return KINDS[adapter_type]
    return "software" if any(renderer in name.lower() for renderer in SOFTWARE) else "virtual"


def describe(adapter: GPUAdapter) -> AdapterInfo:
    """What there is to say of one adapter, with index 0."""
    info = adapter.info
    name = info["device"] or info["description"] or info["vendor"] or "unnamed adapter"
    kind = kind_of(name, info["adapter_type"])
    return AdapterInfo(0, name, info["backend_type"], kind, info["description"], subgroup_sizes(adapter))


def preference(info: AdapterInfo) -> tuple[bool, bool, int, int]:
    """Sort key: hardware before software, then modern backends before GL, then by kind and backend."""
    modern = info.backend in BACKEND_RANK
    backend = BACKEND_RANK.index(info.backend) if modern else len(BACKEND_RANK)
    return info.kind == "software", not modern, KIND_RANK.index(info.kind), backend


def find_adapters() -> list[tuple[AdapterInfo, GPUAdapter]]:
    """Every adapter with its handle, best first; GL views of a GPU that has a better backend are left out."""
    check_library()
    with quiet_layer():
        handles = wgpu.gpu.enumerate_adapters_sync()
    found = [(describe(handle), handle) for handle in handles]
    # GL reports no device id and words names its own way, so the vendor id is what there is to compare.
    vendors = {handle.info["vendor_id"] for info, handle in found if info.backend in BACKEND_RANK}
    kept = [
        (info, handle)
        for info, handle in found
        if info.backend in BACKEND_RANK or handle.info["vendor_id"] not in vendors
    ]
    kept.sort(key=lambda pair: preference(pair[0]))
    return [(numbered(info, index), handle) for index, (info, handle) in enumerate(kept)]


def numbered(info: AdapterInfo, index: int) -> AdapterInfo:
    """The same adapter at its place in the list."""
    return AdapterInfo(index, info.name, info.backend, info.kind, info.driver, info.subgroup_sizes)


def list_adapters() -> list[AdapterInfo]:
    """All adapters, best first: discrete, integrated, virtual, software; GL last but for software."""
    return [info for info, _ in find_adapters()]


def matches(info: AdapterInfo, wanted: str | int | None) -> bool:
    """Whether an adapter answers to an index or a part of its name, in any case."""
    match wanted:
        case None:
            return True
        case int():
            return info.index == wanted
        case str():
            return wanted.lower() in info.name.lower()


def choose_adapter(wanted: str | int | None) -> tuple[AdapterInfo, GPUAdapter]:
    """The best adapter that answers to `wanted`; DeviceError, with the list, if there is none."""
    found = find_adapters()
    for info, handle in found:
        if matches(info, wanted):
            return info, handle
    if not found:
        raise DeviceError(f"No graphics adapter was found. {INSTALL}")
    listed = "\n".join(f"  {info}" for info, _ in found)
    raise DeviceError(
        f"No adapter answers to {wanted!r}. There is:\n{listed}\n"
        f"Give a part of a name or an index from this list. If one is missing: {INSTALL}"
    )
