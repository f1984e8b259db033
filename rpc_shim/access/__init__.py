"""Who may call which method: rules, digest authentication, and the guard that applies both."""
