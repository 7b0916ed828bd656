"""Handwritten digits, read by a small network in JAX."""
