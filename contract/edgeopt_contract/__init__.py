"""What travels between edgeopt's programs: manifest, messages, topics, blocks and profile arithmetic.

The optimizer, the fleet server and the agent never import each other; all three import this package, and it
imports nothing but the standard library, msgspec and numpy.
"""
