"""WebDataset shards: index them, build the shards of a subset, check them."""
