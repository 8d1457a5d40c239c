"""Terminal output. Untrusted text is escaped; only this program's own colours and cursor control pass."""
