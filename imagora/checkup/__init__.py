"""An examination of one member: what works, what does not, and what searches may rely on.

A handful of rows and one small instance are asked for. What is found is told without anything of a patient's: no
names, no ids, no UIDs but those of transfer syntaxes.
"""

from imagora.checkup.asking import Checkup, Finding, Result
from imagora.checkup.connecting import connect
from imagora.checkup.examination import examine, examine_all

__all__ = ["Checkup", "Finding", "Result", "connect", "examine", "examine_all"]
