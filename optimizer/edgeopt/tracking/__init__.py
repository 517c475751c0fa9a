"""Runs and models in MLflow: what is recorded, how it is sent, and models that come from the registry."""
