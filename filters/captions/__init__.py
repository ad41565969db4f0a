"""Filters on how often captions say what others say."""
