"""From a task to text to token ids."""
