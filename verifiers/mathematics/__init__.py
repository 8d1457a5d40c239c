"""Mathematical answers: text to tree, tree to tree comparison. Nothing here evaluates text."""
