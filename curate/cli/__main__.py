"""``python -m datacomp.curate.cli``, for torchrun."""

from . import main

main()
