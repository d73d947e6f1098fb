"""Writes WGSL compute shaders from plain descriptions. Knows nothing of graphs, models or devices."""

from rwkvgraph_codegen.binding import Binding as Binding
from rwkvgraph_codegen.binding import Element as Element
from rwkvgraph_codegen.binding import Mode as Mode
from rwkvgraph_codegen.dialect import NAGA as NAGA
from rwkvgraph_codegen.dialect import TINT as TINT
from rwkvgraph_codegen.dialect import Dialect as Dialect
from rwkvgraph_codegen.kernel import Phase as Phase
from rwkvgraph_codegen.kernel import Sum as Sum
from rwkvgraph_codegen.kernel import map_kernel as map_kernel
from rwkvgraph_codegen.kernel import prelude as prelude
from rwkvgraph_codegen.kernel import reduction as reduction
from rwkvgraph_codegen.kernel import row_kernel as row_kernel
from rwkvgraph_codegen.source import Parts as Parts
from rwkvgraph_codegen.source import Source as Source
from rwkvgraph_codegen.source import assemble as assemble
from rwkvgraph_codegen.source import fill as fill
from rwkvgraph_codegen.statement import Call as Call
from rwkvgraph_codegen.statement import Function as Function
from rwkvgraph_codegen.statement import Load as Load
from rwkvgraph_codegen.statement import Statement as Statement
from rwkvgraph_codegen.statement import Store as Store
from rwkvgraph_codegen.statement import block as block
from rwkvgraph_codegen.statement import number as number
