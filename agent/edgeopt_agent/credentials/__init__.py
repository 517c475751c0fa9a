"""Who this device is: keys made here, certificates from the fleet, and their renewal."""
