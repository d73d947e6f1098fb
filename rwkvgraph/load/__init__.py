"""Reading model files, and writing them anew."""

from rwkvgraph.load.conversion import convert as convert
from rwkvgraph.load.reader import Reader as Reader
from rwkvgraph.load.reader import open_model as open_model
from rwkvgraph.load.reader import open_tensors as open_tensors
