"""The tools that edgeopt is compared with: one adapter each, run in a process of its own."""
