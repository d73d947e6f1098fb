"""The operations, by the names models and hooks use."""

from rwkvgraph.ops.elementwise import add as add
from rwkvgraph.ops.elementwise import affine as affine
from rwkvgraph.ops.elementwise import decay as decay
from rwkvgraph.ops.elementwise import divide as divide
from rwkvgraph.ops.elementwise import exp as exp
from rwkvgraph.ops.elementwise import identity as identity
from rwkvgraph.ops.elementwise import lerp as lerp
from rwkvgraph.ops.elementwise import multiply as multiply
from rwkvgraph.ops.elementwise import scale_key as scale_key
from rwkvgraph.ops.elementwise import sigmoid as sigmoid
from rwkvgraph.ops.elementwise import silu as silu
from rwkvgraph.ops.elementwise import squared_relu as squared_relu
from rwkvgraph.ops.elementwise import subtract as subtract
from rwkvgraph.ops.elementwise import tanh as tanh
from rwkvgraph.ops.matmul import matmul as matmul
from rwkvgraph.ops.move import blit as blit
from rwkvgraph.ops.move import embed as embed
from rwkvgraph.ops.move import gather as gather
from rwkvgraph.ops.norm import bonus as bonus
from rwkvgraph.ops.norm import group_norm as group_norm
from rwkvgraph.ops.norm import l2_norm as l2_norm
from rwkvgraph.ops.norm import layer_norm as layer_norm
from rwkvgraph.ops.norm import softmax as softmax
from rwkvgraph.ops.shift import keep_last as keep_last
from rwkvgraph.ops.shift import previous_token as previous_token
from rwkvgraph.ops.wkv7 import wkv7 as wkv7
