"""The one MQTT connection of a device."""
