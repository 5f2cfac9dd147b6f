"""What knows nothing of exits."""
