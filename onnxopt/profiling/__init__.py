"""Measure models where they run: needs numpy and onnxruntime only."""
