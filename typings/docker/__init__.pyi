"""The part of the Docker library that the sandbox uses; it ships no types."""
