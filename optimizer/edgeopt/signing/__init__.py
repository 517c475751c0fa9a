"""Signing on the laptop: the offline keys of a fleet's root and targets never leave it.

- :mod:`edgeopt.signing.keys` reads a key and remembers beside it what it has signed.
- :mod:`edgeopt.signing.drafts` makes what is to be signed and says in words what it means, and reads nothing.
"""
