"""Filters on what images show: near copies, and how CLIP sees a changed image or caption."""
