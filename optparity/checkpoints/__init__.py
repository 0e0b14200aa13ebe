"""Checkpoints of a model and its optimizer: a module for each format, and `convert` between them."""
