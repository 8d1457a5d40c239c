"""The config: its sections, its stages, how it is loaded and what is named in it; no torch."""
