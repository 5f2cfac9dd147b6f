"""What people look at: every figure, from the tables."""
