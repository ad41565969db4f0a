"""IPFS without a node: CIDs, UnixFS trees, CAR streams, a trustless gateway, IPNS names.

Files are cut into blocks named by their SHA-256, blocks are tied into trees, and the name of the
root names everything below it. What a file's tree is, the digests of its leaves say: nothing
else needs to be stored to name a file, to serve it block by block, or to stream it as a CAR.
"""
