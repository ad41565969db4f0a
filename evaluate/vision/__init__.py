"""Vision-only encoders: pre-train on class labels, fine-tune, measure by k-NN and linear probe.

What formula-driven datasets (VisualAtom, RCDB, FractalDB, ExFractalDB) are worth is told by the
encoder they pre-train; it has no text tower, so nothing here needs a caption.
"""
