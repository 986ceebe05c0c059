"""Where models lie on disk: each source gives the files and the tensors that a directory of transformers would hold."""
