"""The search for the best variant: what to try next, trying it, remembering it, and choosing."""
