"""Power-cut campaigns: proof that a boot loader survives, or the shortest story that it does not."""
