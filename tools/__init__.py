"""Programs for those who work on edgeopt; not installed."""
