"""The grading pool: worker processes that can be killed."""
