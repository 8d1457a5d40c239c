"""A model measured on held-out problems, and the estimates."""
