"""The Open Inference Protocol (V2) on the agent's own HTTP server."""
