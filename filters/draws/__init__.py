"""Filters that draw samples with repetition: how often each is to be seen."""
