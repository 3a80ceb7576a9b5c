"""Certificates: what holds of a lifecycle, shown by trying everything, not by reading its table.

| module | what it does |
|---|---|
| `reading` | what the table says of a step, row by row: the second opinion |
| `trying` | what the machine makes of it, and where the two differ |
| `switches`, `walk` | every status × trigger × guard valuation × position of a deadline |
| `probes`, `real` | real states, with the guards as their author wrote them |
| `ways` | the ways to the end, walked by the machine with the guards switched off |
| `database` | a store file, attacked with plain SQL |
| `certificate` | all of it together |
| `text` | the certificate to be read |
| `files` | the certificate that is kept in a file, and whether it is stale |
"""

from .certificate import Certificate, certify
from .files import drift, path_of
from .findings import Claim, Finding
from .text import render

__all__ = ["Certificate", "Claim", "Finding", "certify", "drift", "path_of", "render"]
