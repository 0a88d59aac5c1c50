"""An examination of one member: what works, what does not, and what searches may rely on.

A handful of rows and one small instance are asked for: of an exam that may be shown, and that is traced. What is found
is told without anything of a patient's: no names, no ids, no UIDs but those of transfer syntaxes.
"""

from imagora.checkup.asking import Checkup, Finding, Result
from imagora.checkup.connecting import connect
from imagora.checkup.examination import examine, examine_all
from imagora.checkup.looking import Looking, MayRead

__all__ = [
    "Checkup",
    "Finding",
    "Looking",
    "MayRead",
    "Result",
    "connect",
    "examine",
    "examine_all",
]
