"""What a program is compiled for: limits and dialect, as plain data.

Nothing here asks a device; `rwkvgraph.gpu` fills a `Target` in from one.
"""

from dataclasses import dataclass, field
from typing import Literal, Self

from rwkvgraph_codegen import Shape, Units
from rwkvgraph_codegen.dialect import TINT, Dialect

MIB = 1 << 20


@dataclass(frozen=True)
class Limits:
    """What one kernel and one buffer may use. Sizes and alignments are in bytes.

    The compiler must keep to these itself: wgpu-native 29 checks workgroup sizes and binding sizes, but
    compiles a kernel whose workgroup variables exceed `max_workgroup_storage` without a word.
    """

    max_storage_buffers: int
    max_storage_binding: int
    max_buffer: int
    max_workgroups_per_dimension: int
    max_workgroup_invocations: int
    max_workgroup_size_x: int
    max_workgroup_storage: int
    uniform_alignment: int
    storage_alignment: int

    @property
    def most_bytes(self) -> int:
        """Bytes of the largest buffer that one binding reaches."""
        return min(self.max_storage_binding, self.max_buffer)

    @property
    def most_threads(self) -> int:
        """Threads of the largest workgroup along one dimension."""
        return min(self.max_workgroup_invocations, self.max_workgroup_size_x)

    @classmethod
    def webgpu_default(cls) -> Self:
        """The limits that every WebGPU device has: WebGPU specification, table in section 3.6.2."""
        return cls(
            max_storage_buffers=8,
            max_storage_binding=128 * MIB,
            max_buffer=256 * MIB,
            max_workgroups_per_dimension=65535,
            max_workgroup_invocations=256,
            max_workgroup_size_x=256,
            max_workgroup_storage=16384,
            uniform_alignment=256,
            storage_alignment=256,
        )

    def __str__(self) -> str:
        return (
            f"{self.max_storage_buffers} buffers a kernel, {self.max_storage_binding // MIB} MiB a binding, "
            f"{self.max_buffer // MIB} MiB a buffer, {self.max_workgroup_invocations} invocations and "
            f"{self.max_workgroup_storage // 1024} KiB a workgroup"
        )


@dataclass(frozen=True)
class Target:
    """One kind of device.

    subgroups: whether kernels may call subgroup functions; their size is only known inside a kernel.
    kind: "cpu" for software adapters (llvmpipe, SwiftShader), "gpu" for all others. A key for tuning tables.
    lanes: subgroup size, of a software adapter measured; 0 where it is not known or may vary.
    resident: workgroups of 256 threads that run at the same time for certain, and see what the others write,
    so that they can wait for each other; a power of two, or 0 where nobody has tried.
    pairs: whether a small product of one token may work out by itself the rows that it multiplies.
    looks: whether products of one token bring the tables of the kernels after them into the cache: for GPUs
    where the weights have driven them out since the token before. Only where a kernel may bind a buffer more.
    coherent: whether bindings may be `@coherent`: with those a relay may write again what it has read, and so
    go on through layers that are alike.
    matrices: whether subgroups of 32 threads multiply matrices of 16 by 16, f16 with sums of f32: "native",
    or "none"; "emulated": a kernel's text does it for them, slowly, for tests.
    matmul: kernels of the matrix product measured for this very device, in place of those of its kind.
    """

    limits: Limits
    dialect: Dialect
    subgroups: bool
    kind: Literal["cpu", "gpu"]
    lanes: int = 0
    resident: int = 0
    pairs: bool = True
    looks: bool = field(default=False, repr=False)
    coherent: bool = field(default=False, repr=False)
    matrices: Units = field(default="none", repr=False)
    matmul: tuple[Shape, ...] = field(default=(), repr=False)

    @classmethod
    def browser(cls, subgroups: bool = False) -> Self:
        """Any WebGPU browser. Firefox offers no subgroups, Chromium does; hence off unless asked for."""
        return cls(Limits.webgpu_default(), TINT, subgroups, "gpu")

    def __str__(self) -> str:
        subgroups = "subgroups" if self.subgroups else "no subgroups"
        relays = f", relays of {self.resident} workgroups" if self.resident else ""
        relays += ", matrices" if self.matrices != "none" else ""
        tuned = "; kernels tuned for it" if self.matmul else ""
        return f"{self.kind}, {self.dialect.name}, {subgroups}{relays}; {self.limits}{tuned}"
