"""What Sudoku and Zebra share: data, decoding, training, tables."""
