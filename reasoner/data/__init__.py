"""Problems, prompts, demonstrations and preferences: read, rendered, encoded, ordered."""
