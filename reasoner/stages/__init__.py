"""Methods of a pipeline, and the checks before its first stage."""
