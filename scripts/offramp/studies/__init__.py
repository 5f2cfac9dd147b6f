"""What is measured by name, not in every run."""
