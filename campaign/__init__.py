"""Power-cut campaigns: proof that a boot loader survives, or the story in which it does not."""
