"""Files of the Hugging Face Hub: what a repository holds, and getting it whole.

``listing`` asks the Hub, through its own library; ``transfer`` brings files, piece by piece, each
verified before it has its name; ``folder`` remembers what is here; ``commonpool`` chooses what of
DataComp's pools to get.
"""
