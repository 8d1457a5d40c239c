"""The one door to a terminal: text of others passes it spelt out, our own colours and cursor pass it as they are."""
