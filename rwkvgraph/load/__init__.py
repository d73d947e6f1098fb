"""Reading model files."""

from rwkvgraph.load.reader import Reader as Reader
from rwkvgraph.load.reader import open_model as open_model
