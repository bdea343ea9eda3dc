"""The generated parts of the documents, made from the sources so that they cannot grow old."""
