"""How good answers are: ROUGE-L, exact match, rewards, judging."""
