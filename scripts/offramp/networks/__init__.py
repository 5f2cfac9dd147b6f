"""Blocks and heads, and the weights that ship. With torch."""
