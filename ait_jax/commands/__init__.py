"""One file for every subcommand: flags in, one call, text out."""
