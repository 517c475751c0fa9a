"""One module a revision, named by a number; each leads from the one before it."""
