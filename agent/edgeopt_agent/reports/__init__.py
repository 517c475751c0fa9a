"""What the device has to tell: counts, windows, and the spool that keeps them until the fleet has them."""
