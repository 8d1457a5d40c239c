"""What a stage holds open: opening it, closing it."""
