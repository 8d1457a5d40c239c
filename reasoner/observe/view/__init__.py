"""`reasoner view`: one local page over all runs below a folder, live while they train."""
