"""`python -m rwkvgraph` is the command `rwkvgraph`."""

import sys

from rwkvgraph.cli import main

if __name__ == "__main__":
    sys.exit(main())
