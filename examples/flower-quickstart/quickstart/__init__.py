"""Logistic regression on tumours of several hospitals."""
