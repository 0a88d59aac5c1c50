"""Demonstration of Imagora: fictitious exams, Orthanc members that hold them, and what starts it all.

`orthanc` and `exams` are also what the tests and the benchmarks build their members and their data with.
"""
