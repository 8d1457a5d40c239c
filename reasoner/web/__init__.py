"""Parts that our pages share: assembly, policy, local server, styles, keys, and the rendering of a model's text."""
