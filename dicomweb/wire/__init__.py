"""The wire formats of DICOMweb, without I/O: multipart bodies, media types, query strings."""
