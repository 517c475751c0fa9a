"""MQTT 3.1.1 as the fleet's own connection needs it: every message of every device passes here (ADR 29)."""
