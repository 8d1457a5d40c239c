"""Problems, prompts, demonstrations and preferences: reading, rendering, encoding and ordering."""
