"""The subcommands of `rwkvgraph`, a module each, and the options that they share. `cli.py` lists them."""
