"""Data files read as rows: any file format, any layout, columns and formats by name. Imports no torch.

    rows = read("data/", split="train")              # a sequence of mappings, none of them kept in memory
    for where, entry in rows.entries(): ...          # entry.row, or entry.fault if the row is damaged
    splits("data/")                                  # ["test", "train"]; None: one file, or the hub
    recognised = formats.recognise(rows, use="problems")          # Recognised or None
    row = recognised.format.read(raw_row)            # {"prompt", "reference", ...}, in our own columns

`tasks.inputs.formats` has the table of formats; each module listed in `formats.PROVIDERS` adds to it.
"""

from tasks.inputs.entries import Entry, Rows
from tasks.inputs.reader import has_split, is_local, open_file, read, records, splits

__all__ = ["Entry", "Rows", "has_split", "is_local", "open_file", "read", "records", "splits"]
