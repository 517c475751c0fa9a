"""Answering: runners in processes of their own, what feeds them requests, and when one is at fault."""
