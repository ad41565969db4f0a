"""Filters on how features lie to one another: to other pairs of the pool, and to a target set."""
