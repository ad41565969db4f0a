"""How a dataset is made: configuration, subsets, shards, the workflow and the command line.

This floor sits on top and may import all others; nothing imports it.
"""
