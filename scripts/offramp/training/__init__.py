"""Weights from nothing. With torch."""
