"""Filters that group a pool by its features, and choose within the groups."""
