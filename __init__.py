"""Curate image-text datasets and prove what the curation is worth.

Candidate image-text **pools** live in DuckDB (:mod:`datacomp.pools`), pass through
**filters** (:mod:`datacomp.filters`) into WebDataset **shards** (:mod:`datacomp.curate`);
a fixed CLIP training recipe and zero-shot **evaluation** (:mod:`datacomp.evaluate`) score
the result, and **distribution** (:mod:`datacomp.distribution`) describes it, file by file.

This module imports nothing, so that ``datacomp --help`` answers at once.
"""

__version__ = "0.1.0"
