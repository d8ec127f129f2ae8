"""The ``consilium`` command. Every command speaks HTTP to the service: over the network, or to one started in this process."""
