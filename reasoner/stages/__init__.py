"""The methods of a pipeline, and the checks before the first of them."""
