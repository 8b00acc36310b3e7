"""One interface, two trainers: embedded (optax and Orbax) and T5X."""
