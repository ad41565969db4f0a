"""What to keep: the registry, the contract and one file per family of filters."""
