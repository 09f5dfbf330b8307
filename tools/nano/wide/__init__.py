"""The wider world of nano: cut-outs of some two hundred nouns, shapes, words and numbers on real backgrounds."""
