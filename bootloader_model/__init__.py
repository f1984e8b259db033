"""The boot loader as a model: boot state, journal, decision, and the loader that carries it out."""
