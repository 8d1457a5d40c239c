"""The session of a stage: opens model, engine, grading pool and records, and closes them."""
