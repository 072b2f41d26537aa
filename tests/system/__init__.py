"""Real processes, sockets, disks and signals."""
