"""Running on a device: adapters, the context, transfers.

The only part of the library that imports wgpu. What runs is decided in `rwkvgraph.compiler`.
"""

from rwkvgraph.gpu.library import choose_library

choose_library()

from rwkvgraph.gpu.adapter import AdapterInfo as AdapterInfo
from rwkvgraph.gpu.adapter import list_adapters as list_adapters
from rwkvgraph.gpu.compiling import Kernel as Kernel
from rwkvgraph.gpu.compiling import Signature as Signature
from rwkvgraph.gpu.context import Context as Context
from rwkvgraph.gpu.context import dump_folder as dump_folder
from rwkvgraph.gpu.faults import faults as faults
from rwkvgraph.gpu.transfer import Readback as Readback
from rwkvgraph.gpu.transfer import download as download
from rwkvgraph.gpu.transfer import upload as upload
from rwkvgraph.gpu.transfer import upload_parts as upload_parts
