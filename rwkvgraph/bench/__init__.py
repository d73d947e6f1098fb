"""Bench: how fast a model runs here, and which passes that time goes to. `rwkvgraph bench` shows it."""
