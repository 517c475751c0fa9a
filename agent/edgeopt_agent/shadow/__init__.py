"""A challenger beside the bundle that serves: its order, its life cycle, its runner, and when it has to wait.

Nothing here is imported before a device is given a shadow, for it would take memory on every device.
"""

__all__: list[str] = []
