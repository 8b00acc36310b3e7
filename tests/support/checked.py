"""What jaxtyping's import hook decorates functions with: beartype, to which an int is a float."""

from beartype import BeartypeConf, beartype

types = beartype(conf=BeartypeConf(is_pep484_tower=True))
