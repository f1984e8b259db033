"""The RPC service of a device, its updates, and the host's side of both."""
