"""From likelihoods to measures to the next tasks."""
