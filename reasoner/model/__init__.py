"""Loading, saving and running of transformer models."""
