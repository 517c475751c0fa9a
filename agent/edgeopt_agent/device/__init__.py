"""The machine that the agent runs on: what it is, how it feels, and what the person with the keyboard is shown."""
