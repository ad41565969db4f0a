"""How a dataset reaches people: what it consists of, file by file, with digests."""
