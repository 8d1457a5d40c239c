"""The config: sections, stages, loading, tables of names. Imports no torch."""
