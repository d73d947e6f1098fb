"""Sight: every stage of a compilation as text, graphs and a page. `rwkvgraph graph` shows them."""
