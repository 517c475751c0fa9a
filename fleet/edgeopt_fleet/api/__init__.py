"""The HTTP API: FastAPI routes over the stores, and what they say."""
