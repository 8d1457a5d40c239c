"""Mathematical answers: parsing text to trees, and comparing trees. Text is never evaluated."""
