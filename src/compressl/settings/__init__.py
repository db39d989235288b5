"""What a person can set, as frozen dataclasses with a reason per line; no torch, so that ``--help`` and every
configuration error answer at once."""
